//! The manifests that are written to a repository while a job takes from it what is not needed.
//!
//! The job has read what the manifests of the repository mention, without its lock. Each one that is
//! written since is said here, under the lock, before it can be read. So the job knows which ones to read
//! before it removes a blob that they may mention, or that it has to decide anew which manifests go.

use std::mem;

use parking_lot::Mutex;

use crate::oci::{Digest, Name};

/// How many are remembered for a job. A repository to which more are written meanwhile is left as it is.
const MOST: usize = 10_000;

/// The repositories that jobs are at: at most one collection and one retention.
#[derive(Default)]
pub(super) struct PrunedRepositories(Mutex<Vec<WrittenManifests>>);

struct WrittenManifests {
    number: u64,
    name: Name,
    digests: Vec<Digest>,
}

/// A job is at a repository, until this is dropped.
pub(super) struct PruneWatch<'a> {
    pruned: &'a PrunedRepositories,
    number: u64,
}

impl PrunedRepositories {
    /// Begins to remember. A manifest whose write has begun before may be missed until the repository's lock
    /// has been released once.
    pub(super) fn watch(&self, name: &Name) -> PruneWatch<'_> {
        let mut all = self.0.lock();
        // Pushed in this order, so that the last one has the highest number.
        let number = all.last().map_or(0, |last| last.number + 1);
        all.push(WrittenManifests {
            number,
            name: name.clone(),
            digests: Vec::new(),
        });
        PruneWatch {
            pruned: self,
            number,
        }
    }

    /// Says that a manifest is written, or that a tag is pointed at it. The caller holds the repository's
    /// lock.
    pub(super) fn say(&self, name: &Name, digest: &Digest) {
        for written in self.0.lock().iter_mut() {
            if written.name == *name && written.digests.len() <= MOST {
                written.digests.push(digest.clone());
            }
        }
    }
}

impl PruneWatch<'_> {
    /// Takes those that were said since the last call; `None` if there are too many. The caller holds the
    /// repository's lock.
    pub(super) fn written(&self) -> Option<Vec<Digest>> {
        let mut all = self.pruned.0.lock();
        let mine = all.iter_mut().find(|one| one.number == self.number)?;
        (mine.digests.len() <= MOST).then(|| mem::take(&mut mine.digests))
    }
}

impl Drop for PruneWatch<'_> {
    fn drop(&mut self) {
        let mut all = self.pruned.0.lock();
        all.retain(|one| one.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_is_written_to_the_repository_is_said_once() {
        let pruned = PrunedRepositories::default();
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
        let second = pruned.watch(&name("a"));
        pruned.say(&name("a"), &digest);
        drop(watch);
        assert_eq!(second.written().unwrap(), [digest]);
        drop(second);
        assert!(pruned.0.lock().is_empty());
    }
}
