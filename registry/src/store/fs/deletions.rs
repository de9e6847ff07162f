//! Manifests that are being deleted, and the tags that are pointed at one meanwhile.
//!
//! To find the tags of a manifest is to read all tags of its repository, and to remove them may take
//! long, too; nobody is to wait for that. So a deletion lets others have their turns in between, and
//! is told here what they do that concerns it: then there is nothing to be read again.

use parking_lot::Mutex;

use crate::oci::{Digest, Name, Tag};

/// The deletions that are under way in one store.
#[derive(Default)]
pub(super) struct Deletions(Mutex<Vec<Deletion>>);

struct Deletion {
    number: u64,
    name: Name,
    digest: Digest,
    tags: Vec<Tag>,
}

/// One of them, until it is dropped.
pub(super) struct Watch<'a> {
    deletions: &'a Deletions,
    number: u64,
}

impl Deletions {
    /// Begins to listen for tags that are pointed at a manifest; to be called before its tags are
    /// looked for.
    pub(super) fn watch(&self, name: &Name, digest: &Digest) -> Watch<'_> {
        let mut all = self.0.lock();
        // They begin in this order, so that the last one has the highest number.
        let number = all.last().map_or(0, |last| last.number + 1);
        all.push(Deletion {
            number,
            name: name.clone(),
            digest: digest.clone(),
            tags: Vec::new(),
        });
        Watch {
            deletions: self,
            number,
        }
    }

    /// A tag now points at a manifest; for the holder of the repository's turn.
    pub(super) fn placed(&self, name: &Name, tag: &Tag, digest: &Digest) {
        for deletion in self.0.lock().iter_mut() {
            if deletion.digest == *digest && deletion.name == *name {
                deletion.tags.push(tag.clone());
            }
        }
    }
}

impl Watch<'_> {
    /// The tags that were pointed at the manifest since this was last asked; for the holder of the
    /// repository's turn.
    pub(super) fn placed(&self) -> Vec<Tag> {
        let mut all = self.deletions.0.lock();
        let mine = all.iter_mut().find(|one| one.number == self.number);
        mine.map(|one| std::mem::take(&mut one.tags))
            .unwrap_or_default()
    }
}

impl Drop for Watch<'_> {
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
    fn each_deletion_is_told_of_the_tags_that_concern_it_and_once() {
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
