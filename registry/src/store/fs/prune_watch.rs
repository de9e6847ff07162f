//! The manifests that are written to a repository while a collection takes from it what is not needed.
//!
//! The collection has read what the manifests of the repository mention, without its lock. Each one that is
//! written since is said here, under the lock, before it can be read. So the collection knows which ones to
//! read before it removes a blob that they may mention.

use std::mem;

use parking_lot::Mutex;

use crate::oci::{Digest, Name};

/// How many are remembered. A repository to which more are written meanwhile is left as it is.
const MOST: usize = 10_000;

/// The repository that a collection is at, if any.
#[derive(Default)]
pub(super) struct PrunedRepository(Mutex<Option<WrittenManifests>>);

struct WrittenManifests {
    name: Name,
    digests: Vec<Digest>,
}

/// A collection is at a repository, until this is dropped.
pub(super) struct PruneWatch<'a>(&'a PrunedRepository);

impl PrunedRepository {
    /// Begins to remember. There is one collection at a time, which is at one repository at a time.
    pub(super) fn watch(&self, name: &Name) -> PruneWatch<'_> {
        *self.0.lock() = Some(WrittenManifests {
            name: name.clone(),
            digests: Vec::new(),
        });
        PruneWatch(self)
    }

    /// Says that a manifest is written, or that a tag is pointed at it. The caller holds the repository's
    /// lock.
    pub(super) fn say(&self, name: &Name, digest: &Digest) {
        if let Some(written) = &mut *self.0.lock()
            && written.name == *name
            && written.digests.len() <= MOST
        {
            written.digests.push(digest.clone());
        }
    }
}

impl PruneWatch<'_> {
    /// Takes those that were said since the last call; `None` if there are too many. The caller holds the
    /// repository's lock.
    pub(super) fn written(&self) -> Option<Vec<Digest>> {
        let mut written = self.0.0.lock();
        let digests = &mut written.as_mut()?.digests;
        (digests.len() <= MOST).then(|| mem::take(digests))
    }
}

impl Drop for PruneWatch<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_is_written_to_the_repository_is_said_once() {
        let pruned = PrunedRepository::default();
        let name = |text| Name::parse(text).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        pruned.say(&name("a"), &digest);
        let watch = pruned.watch(&name("a"));
        assert_eq!(watch.written().unwrap(), []);
        pruned.say(&name("b"), &digest);
        pruned.say(&name("a"), &digest);
        assert_eq!(watch.written().unwrap(), std::slice::from_ref(&digest));
        assert_eq!(watch.written().unwrap(), []);
        for _ in 0..=MOST {
            pruned.say(&name("a"), &digest);
        }
        assert_eq!(watch.written(), None);
        drop(watch);
        pruned.say(&name("a"), &digest);
        assert!(pruned.0.lock().is_none());
    }
}
