//! A cache in memory of the manifests that tags point at, and of small manifests.
//!
//! The data directory is locked, so that only operations of this store change it, and what was read
//! stays true until one of them changes it. An operation that changes a name removes it from the cache
//! first, under the repository's lock. A reader adds what it found under that lock too, and only if
//! nothing has changed since it began to read. So the cache never serves an old value.
//!
//! Deliberately not here: items that do not exist. Names that clients invent take no memory, and a
//! file that a person adds to the directory is seen at once. A file that a person removes while the
//! registry runs may be served until it is evicted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::oci::{Digest, MediaType, Name, Reference, Tag};

/// The size of the cache of manifests, in bytes.
const MANIFESTS: u64 = 16 << 20;
/// The largest manifest that is cached: a few enormous ones must not evict all others.
pub(super) const LARGEST: u64 = 256 << 10;
/// What an entry takes besides the manifest's bytes, roughly: key, digest, media type and table.
const OVERHEAD: u64 = 512;
/// The number of tags, at some 200 bytes each.
const TAGS: usize = 32 << 10;

/// A manifest that was read whole.
#[derive(Clone, Debug)]
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) bytes: Bytes,
    /// When it was read from disk, which is when the time of its file was looked at.
    pub(super) read: Instant,
}

/// The cache of one store.
pub(super) struct ManifestCache {
    tags: Cache<(Name, Tag), Digest>,
    manifests: Cache<(Name, Digest), StoredManifest, ManifestWeight>,
}

#[derive(Clone)]
struct ManifestWeight;

impl Weighter<(Name, Digest), StoredManifest> for ManifestWeight {
    fn weight(&self, _: &(Name, Digest), manifest: &StoredManifest) -> u64 {
        manifest.bytes.len() as u64 + OVERHEAD
    }
}

impl ManifestCache {
    pub(super) fn new() -> Self {
        Self {
            tags: Cache::new(TAGS),
            // The number of entries is an estimate. The weight alone bounds the cache.
            manifests: Cache::with_weighter(TAGS, MANIFESTS, ManifestWeight),
        }
    }

    /// The manifest that a reference leads to, if every step to it is cached. One that is asked for by its
    /// digest must have been read within `again`: a client that is told of it counts on it.
    pub(super) fn manifest(
        &self,
        name: &Name,
        reference: &Reference,
        again: Duration,
    ) -> Option<StoredManifest> {
        let (digest, again) = match reference {
            Reference::Digest(digest) => (digest.clone(), again),
            // A collection keeps what has a tag.
            Reference::Tag(tag) => (self.tag(name, tag)?, Duration::ZERO),
        };
        // With the name: a manifest of another repository must stay unknown in this one.
        let manifest = self.manifests.get(&(name.clone(), digest))?;
        (again.is_zero() || manifest.read.elapsed() < again).then_some(manifest)
    }

    /// The manifest that a tag points at, if that is cached.
    pub(super) fn tag(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        self.tags.get(&(name.clone(), tag.clone()))
    }

    /// Adds a manifest that was read. The caller holds the repository's lock.
    pub(super) fn insert(&self, name: &Name, reference: &Reference, manifest: &StoredManifest) {
        if manifest.bytes.len() as u64 > LARGEST {
            return;
        }
        if let Reference::Tag(tag) = reference {
            let key = (name.clone(), tag.clone());
            self.tags.insert(key, manifest.digest.clone());
        }
        // By digest, so that a manifest with many tags is cached once.
        let key = (name.clone(), manifest.digest.clone());
        self.manifests.insert(key, manifest.clone());
    }

    /// Removes a tag. The caller holds the repository's lock.
    pub(super) fn forget_tag(&self, name: &Name, tag: &Tag) {
        self.tags.remove(&(name.clone(), tag.clone()));
    }

    /// Removes a manifest of all repositories, whose content is gone. Every repository has changed since.
    pub(super) fn forget_content(&self, digest: &Digest) {
        self.manifests.retain(|(_, cached), _| cached != digest);
    }

    /// Removes a manifest. The caller holds the repository's lock.
    pub(super) fn forget_manifest(&self, name: &Name, digest: &Digest) {
        self.manifests.remove(&(name.clone(), digest.clone()));
    }
}
