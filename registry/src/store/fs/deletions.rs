//! Manifests that are being deleted, and the tags that other requests point at them meanwhile.
//!
//! A deletion reads all tags of the repository to find those of its manifest, and then removes them.
//! Both may take long, and other requests must not wait for it. So a deletion releases the
//! repository's lock in between, and operations that point a tag at its manifest report that here.
//! Without the report it would have to read all tags again.

use parking_lot::Mutex;

use crate::oci::{Digest, Name, Tag};

/// The deletions in progress in one store.
#[derive(Default)]
pub(super) struct Deletions(Mutex<Vec<Deletion>>);

struct Deletion {
    number: u64,
    name: Name,
    digest: Digest,
    tags: Vec<Tag>,
}

/// Collects the tags that concern one deletion, until it is dropped.
pub(super) struct DeletionWatch<'a> {
    deletions: &'a Deletions,
    number: u64,
}

impl Deletions {
    /// Begins to collect tags that are pointed at a manifest. To be called before its tags are searched
    /// for: a tag that appears between the two would be missed.
    pub(super) fn watch(&self, name: &Name, digest: &Digest) -> DeletionWatch<'_> {
        let mut all = self.0.lock();
        // Deletions are pushed in this order, so that the last one has the highest number.
        let number = all.last().map_or(0, |last| last.number + 1);
        all.push(Deletion {
            number,
            name: name.clone(),
            digest: digest.clone(),
            tags: Vec::new(),
        });
        DeletionWatch {
            deletions: self,
            number,
        }
    }

    /// Reports that a tag points at a manifest. The caller holds the repository's lock.
    pub(super) fn placed(&self, name: &Name, tag: &Tag, digest: &Digest) {
        // A linear search: there are only as many deletions as requests that delete right now.
        for deletion in self.0.lock().iter_mut() {
            if deletion.digest == *digest && deletion.name == *name {
                deletion.tags.push(tag.clone());
            }
        }
    }
}

impl DeletionWatch<'_> {
    /// Takes the tags that were pointed at the manifest since the last call. The caller holds the
    /// repository's lock.
    pub(super) fn placed(&self) -> Vec<Tag> {
        let mut all = self.deletions.0.lock();
        // Taken and not copied: the deletion goes on until this finds no tag.
        let mine = all.iter_mut().find(|one| one.number == self.number);
        mine.map(|one| std::mem::take(&mut one.tags))
            .unwrap_or_default()
    }
}

impl Drop for DeletionWatch<'_> {
    fn drop(&mut self) {
        let mut all = self.deletions.0.lock();
        all.retain(|one| one.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn each_deletion_collects_the_tags_of_its_manifest_once() {
        let deletions = Deletions::default();
        let name = |text| Name::parse(text).unwrap();
        let tag = |text| Tag::parse(text).unwrap();
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let first = deletions.watch(&name("a"), &digest("x"));
        let second = deletions.watch(&name("a"), &digest("x"));
        for (repository, of, content) in [("a", "1", "x"), ("a", "2", "y"), ("b", "3", "x")] {
            deletions.placed(&name(repository), &tag(of), &digest(content));
        }
        assert_eq!(first.placed(), [tag("1")]);
        assert_eq!(first.placed(), []);
        drop(first);
        assert_eq!(second.placed(), [tag("1")]);
        drop(second);
        assert!(deletions.0.lock().is_empty());
    }
}
