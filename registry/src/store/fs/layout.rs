//! The tree on disk, and the only place that builds its paths.
//!
//! ```text
//! <root>/
//!   lock                              held (flock) while a registry uses the directory; says which
//!                                     layout it has; only its owner may read it
//!   blobs/sha256/<ab>/<hex>           a blob's bytes, once for all repositories; <ab>: first two digits
//!   blobs/sha512/<ab>/<hex>
//!   manifests/sha256/<ab>/<hex>       a manifest's bytes, once for all repositories
//!   manifests/sha512/<ab>/<hex>
//!   repositories/
//!     team/app/web/                   the name's components are directories, so names nest freely
//!       _blobs/sha256-<hex>           "1024": the blob is in the repository, and has 1024 bytes
//!       _manifests/sha256-<hex>       JSON: the manifest is in the repository, with this media type
//!       _tags/latest                  "sha256:<hex>": what the tag points at
//!       _referrers/sha256-<subject>/sha256-<hex>
//!                                     JSON: the descriptor to list this referrer of the subject by
//!   uploads/<id>/session              repository and digest algorithm, a line each
//!   uploads/<id>/data                 the bytes received so far
//!   tmp/<id>                          a small file being written; emptied at start
//!   maintenance/<job>                 how far a maintenance job is; may be removed at any time
//!   maintenance/<job>-ended           when it last ended: its time; likewise
//!   maintenance/pulls                 when tags and manifests were last pulled, likewise
//!   quarantine/<pool>-sha256-<hex>    content that is not what its digest says; never served
//! ```
//!
//! No component of a repository's name may start with `_`, so the reserved directories never collide
//! with a name, and a name that is another's prefix is only a directory above it. Everything that a
//! client names is a [`Name`], [`Tag`], [`Digest`] or [`UploadId`]. None of them can hold `..`, a leading
//! period or, except for a name, a slash: no path leaves the root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::oci::{Algorithm, Digest, Name, Tag};
use crate::store::UploadId;

/// The reserved directories of a repository start with this.
pub(super) const RESERVED: char = '_';

/// The tree under one root.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// One of the two kinds of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The bytes of blobs.
    Blobs,
    /// The bytes of manifests.
    Manifests,
}

impl Pool {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Blobs, Self::Manifests];

    /// The name of its directory. The match is exhaustive, and `ALL` must be, too: a new pool belongs in
    /// both.
    pub(super) const fn directory(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Manifests => "manifests",
        }
    }
}

/// One directory of content: that of all digests with the same first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// What it holds.
    pub pool: Pool,
    /// The algorithm of its digests.
    pub algorithm: Algorithm,
    /// The first byte of its digests.
    pub prefix: u8,
}

impl Shard {
    /// The shard that holds a digest's content.
    pub(super) fn of(pool: Pool, digest: &Digest) -> Self {
        let digit = |i: usize| match digest.hex().as_bytes().get(i) {
            Some(d @ b'0'..=b'9') => d - b'0',
            Some(d @ b'a'..=b'f') => d - b'a' + 10,
            // Not reached: a `Digest` has lower-case hexadecimal digits alone.
            _ => 0,
        };
        let prefix = digit(0) << 4 | digit(1);
        Self {
            pool,
            algorithm: digest.algorithm(),
            prefix,
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Pool::ALL.into_iter().flat_map(|pool| {
            Algorithm::ALL.into_iter().flat_map(move |algorithm| {
                (0..=u8::MAX).map(move |prefix| Self {
                    pool,
                    algorithm,
                    prefix,
                })
            })
        })
    }
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The directories directly under the root. They are made when the store is opened and never again.
    pub(super) fn directories(&self) -> [PathBuf; 7] {
        [
            self.root.join(Pool::Blobs.directory()),
            self.root.join(Pool::Manifests.directory()),
            self.repositories(),
            self.uploads(),
            self.temporaries(),
            self.maintenance(),
            self.quarantine(),
        ]
    }

    /// Whether a directory is below one of [these](Self::directories), and may be made on demand.
    pub(super) fn is_on_demand(&self, directory: &Path) -> bool {
        let below = directory.strip_prefix(&self.root);
        below.is_ok_and(|below| below.components().count() > 1)
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn temporaries(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where maintenance jobs keep how far they are.
    pub(super) fn maintenance(&self) -> PathBuf {
        self.root.join("maintenance")
    }

    /// When tags and manifests were last pulled.
    pub(super) fn pulls(&self) -> PathBuf {
        self.join(&["maintenance", "pulls"])
    }

    /// Where content is moved that is not what its digest says.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where content goes that is not what its digest says.
    pub(super) fn quarantined(&self, pool: Pool, digest: &Digest) -> PathBuf {
        let mut path = self.join(&["quarantine", pool.directory()]);
        let file = path.as_mut_os_string();
        file.push("-");
        file.push(digest.algorithm().as_str());
        file.push("-");
        file.push(digest.hex());
        path
    }

    pub(super) fn temporary(&self) -> PathBuf {
        // A random name: two requests may write the same content at once.
        self.join(&["tmp", UploadId::random().as_str()])
    }

    /// The directory that holds all shards of a kind of content.
    pub(super) fn pool(&self, pool: Pool) -> PathBuf {
        self.root.join(pool.directory())
    }

    pub(super) fn shard(&self, shard: Shard) -> PathBuf {
        let prefix = format!("{:02x}", shard.prefix);
        self.join(&[shard.pool.directory(), shard.algorithm.as_str(), &prefix])
    }

    pub(super) fn content(&self, pool: Pool, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        // Two digits make 256 directories: each stays small, and is counted in a short time.
        self.join(&[
            pool.directory(),
            digest.algorithm().as_str(),
            &hex[..2],
            hex,
        ])
    }

    pub(super) fn repository(&self, name: &Name) -> PathBuf {
        self.join(&["repositories", name.as_str()])
    }

    pub(super) fn blob_links(&self, name: &Name) -> PathBuf {
        self.join(&["repositories", name.as_str(), "_blobs"])
    }

    pub(super) fn blob_link(&self, name: &Name, digest: &Digest) -> PathBuf {
        self.of_digest(&["repositories", name.as_str(), "_blobs"], digest)
    }

    pub(super) fn manifest_entries(&self, name: &Name) -> PathBuf {
        self.join(&["repositories", name.as_str(), "_manifests"])
    }

    pub(super) fn manifest_entry(&self, name: &Name, digest: &Digest) -> PathBuf {
        self.of_digest(&["repositories", name.as_str(), "_manifests"], digest)
    }

    pub(super) fn tags(&self, name: &Name) -> PathBuf {
        self.join(&["repositories", name.as_str(), "_tags"])
    }

    pub(super) fn tag(&self, name: &Name, tag: &Tag) -> PathBuf {
        self.join(&["repositories", name.as_str(), "_tags", tag.as_str()])
    }

    pub(super) fn all_referrers(&self, name: &Name) -> PathBuf {
        self.join(&["repositories", name.as_str(), "_referrers"])
    }

    pub(super) fn referrers(&self, name: &Name, subject: &Digest) -> PathBuf {
        self.of_digest(&["repositories", name.as_str(), "_referrers"], subject)
    }

    pub(super) fn referrer(&self, name: &Name, subject: &Digest, digest: &Digest) -> PathBuf {
        let mut path = self.referrers(name, subject);
        push_digest(&mut path, digest);
        path
    }

    pub(super) fn upload(&self, id: &UploadId) -> PathBuf {
        self.join(&["uploads", id.as_str()])
    }

    pub(super) fn upload_session(&self, id: &UploadId) -> PathBuf {
        self.join(&["uploads", id.as_str(), "session"])
    }

    pub(super) fn upload_data(&self, id: &UploadId) -> PathBuf {
        self.join(&["uploads", id.as_str(), "data"])
    }

    fn of_digest(&self, parts: &[&str], digest: &Digest) -> PathBuf {
        let mut path = self.join(parts);
        push_digest(&mut path, digest);
        path
    }

    fn join(&self, parts: &[&str]) -> PathBuf {
        // One allocation: every request builds some paths, and a digest may be appended.
        let digest = "sha512-".len() + Algorithm::Sha512.hex_length() + 1;
        let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + length + digest);
        path.push(&self.root);
        for part in parts {
            path.push(part);
        }
        path
    }
}

/// The digest that a file is named after; `None` if it is named otherwise.
pub(super) fn digest_of(file: &OsStr) -> Option<Digest> {
    // Parsed in full: a file that a person put there must not count as an item.
    let (algorithm, hex) = file.to_str()?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn push_digest(path: &mut PathBuf, digest: &Digest) {
    path.push(digest.algorithm().as_str());
    // As text: `PathBuf::push` would begin a component of its own.
    let path = path.as_mut_os_string();
    path.push("-");
    path.push(digest.hex());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_the_drawing() {
        let layout = Layout::new("/r".into());
        let name = Name::parse("team/app/web").unwrap();
        let tag = Tag::parse("_latest").unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = digest.hex();
        let is = |path: PathBuf, expected: String| assert_eq!(path.to_str().unwrap(), expected);
        is(
            layout.content(Pool::Blobs, &digest),
            format!("/r/blobs/sha256/e3/{hex}"),
        );
        is(
            layout.quarantined(Pool::Manifests, &digest),
            format!("/r/quarantine/manifests-sha256-{hex}"),
        );
        is(
            layout.shard(Shard::of(Pool::Manifests, &digest)),
            "/r/manifests/sha256/e3".into(),
        );
        is(
            layout.blob_link(&name, &digest),
            format!("/r/repositories/team/app/web/_blobs/sha256-{hex}"),
        );
        is(
            layout.tag(&name, &tag),
            "/r/repositories/team/app/web/_tags/_latest".into(),
        );
        is(
            layout.referrer(&name, &digest, &digest),
            format!("/r/repositories/team/app/web/_referrers/sha256-{hex}/sha256-{hex}"),
        );
    }

    #[test]
    fn every_pool_has_a_directory_that_is_made_at_the_start() {
        let layout = Layout::new("/r".into());
        for pool in Pool::ALL {
            let directory = layout.root().join(pool.directory());
            assert!(layout.directories().contains(&directory));
        }
    }

    #[test]
    fn a_file_named_after_a_digest_gives_it_back_and_others_do_not() {
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"x");
            let link = Layout::new("/r".into()).blob_link(&Name::parse("a").unwrap(), &digest);
            assert_eq!(digest_of(link.file_name().unwrap()), Some(digest));
        }
        for stranger in ["", "sha256", "sha256-", "sha256-0", "md5-00", ".DS_Store"] {
            assert_eq!(digest_of(OsStr::new(stranger)), None, "{stranger}");
        }
    }
}
