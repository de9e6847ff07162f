//! What is asked for again and again, in memory: what tags point at, and manifests.
//!
//! The folder is the truth, and its lock keeps everybody else from changing it, so that what was
//! read holds until an operation of the store makes it wrong. Whoever changes a name forgets it
//! here first, in the repository's turn; a reader remembers what it found only in that turn too,
//! and only if nothing has changed since it began to read. So nobody is told of what is over.
//!
//! Deliberately not here: what is not there. Whatever clients make up takes no room, and a file
//! that a person puts into the folder is seen at once. One that is taken away by hand while the
//! registry runs may be served until it is pushed out.

use quick_cache::Weighter;
use quick_cache::sync::Cache as Bounded;

use super::manifest::StoredManifest;
use crate::oci::{Digest, Name, Reference, Tag};

/// The room for manifests, in bytes.
const MANIFESTS: u64 = 16 << 20;
/// The largest manifest that is kept: a few enormous ones must not push out all others.
pub(super) const LARGEST: u64 = 256 << 10;
/// What an entry takes beside the manifest's bytes, roughly: key, digest, media type and table.
const OVERHEAD: u64 = 512;
/// The number of tags, at some 200 bytes each.
const TAGS: usize = 32 << 10;

/// The memory of one store.
pub(super) struct ManifestCache {
    tags: Bounded<(Name, Tag), Digest>,
    manifests: Bounded<(Name, Digest), StoredManifest, Size>,
}

#[derive(Clone)]
struct Size;

impl Weighter<(Name, Digest), StoredManifest> for Size {
    fn weight(&self, _: &(Name, Digest), manifest: &StoredManifest) -> u64 {
        manifest.bytes.len() as u64 + OVERHEAD
    }
}

impl ManifestCache {
    pub(super) fn new() -> Self {
        Self {
            tags: Bounded::new(TAGS),
            manifests: Bounded::with_weighter(TAGS, MANIFESTS, Size),
        }
    }

    /// The manifest behind a reference, if all of the way to it is remembered.
    pub(super) fn manifest(&self, name: &Name, reference: &Reference) -> Option<StoredManifest> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => self.tag(name, tag)?,
        };
        self.manifests.get(&(name.clone(), digest))
    }

    /// What a tag points at, if that is remembered.
    pub(super) fn tag(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        self.tags.get(&(name.clone(), tag.clone()))
    }

    /// Remembers what was read; for the holder of the repository's turn.
    pub(super) fn remember(&self, name: &Name, reference: &Reference, manifest: &StoredManifest) {
        if manifest.bytes.len() as u64 > LARGEST {
            return;
        }
        if let Reference::Tag(tag) = reference {
            let key = (name.clone(), tag.clone());
            self.tags.insert(key, manifest.digest.clone());
        }
        let key = (name.clone(), manifest.digest.clone());
        self.manifests.insert(key, manifest.clone());
    }

    /// Forgets what a tag points at; for the holder of the repository's turn.
    pub(super) fn forget_tag(&self, name: &Name, tag: &Tag) {
        self.tags.remove(&(name.clone(), tag.clone()));
    }

    /// Forgets a manifest; for the holder of the repository's turn.
    pub(super) fn forget_manifest(&self, name: &Name, digest: &Digest) {
        self.manifests.remove(&(name.clone(), digest.clone()));
    }
}
