//! What repositories hold, with the times at which it was used: for those who remove what is old.

use std::sync::Arc;
use std::time::SystemTime;

use super::collect::GcError;
use super::collect::untagged::{StayingManifests, UntaggedRemoval};
use super::data_directory::DataDirectory;
use super::dated_tags::{self, DatedTag};
use super::reference;
use super::tagged_subjects::TaggedSubjects;
use crate::oci::{Digest, Name, Tag};
use crate::store::Result;
use crate::store::maintenance::Run;

/// The tags and manifests of a store by their age. Everything here blocks.
pub struct AgedItems {
    data: Arc<DataDirectory>,
}

impl AgedItems {
    pub(super) fn new(data: Arc<DataDirectory>) -> Self {
        Self { data }
    }

    /// Calls `visit` with each tag of a repository, in no order. It ends with the first error of `visit`.
    pub fn each_tag(&self, name: &Name, visit: impl FnMut(DatedTag) -> Result<()>) -> Result<()> {
        dated_tags::each(&self.data, name, visit)
    }

    /// What a tag points at; `None` if it is not there.
    pub fn tag_digest(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>> {
        reference::tag(&self.data, name, tag)
    }

    /// The manifests of a repository, as subjects that tags name.
    pub fn subjects<'a>(&'a self, name: &'a Name) -> TaggedSubjects<'a> {
        TaggedSubjects::new(&self.data, name)
    }

    /// Removes those of the tags that were not pushed since they were found, and for which `confirm` agrees
    /// while nobody can push them. Adds to `removed` what each of them pointed at, and `None` for a tag that
    /// stays. The manifests stay, and count as used now. If it fails, `removed` has the tags before the failure.
    pub fn remove_tags(
        &self,
        name: &Name,
        tags: &[DatedTag],
        confirm: &dyn Fn(&Tag, &Digest) -> bool,
        removed: &mut Vec<Option<Digest>>,
    ) -> Result<()> {
        dated_tags::remove(&self.data, name, tags, confirm, removed)
    }

    /// Removes the manifests of a repository that have no tag, to which nothing leads that stays, and that
    /// nobody was told of since `cutoff`; in the same way as a garbage collection. Tells `gone` of each, and
    /// when a client was last told of it; with `is_dry` that is all. Returns `None` if very much is written
    /// meanwhile, so that it had to leave off.
    ///
    /// # Errors
    /// If something cannot be read that may lead to manifests: then none goes. If `run` is to stop.
    pub fn remove_untagged(
        &self,
        name: &Name,
        cutoff: SystemTime,
        is_dry: bool,
        run: &Run,
        gone: &mut dyn FnMut(&Digest, SystemTime),
    ) -> std::result::Result<Option<StayingManifests>, GcError> {
        let data = &self.data;
        // A time that is not written anew may be too old by so much, and one in a cache by as much again.
        let slack = data.told.again() * 2;
        let removal = UntaggedRemoval {
            data,
            name,
            cutoff: cutoff.checked_sub(slack).unwrap_or(SystemTime::UNIX_EPOCH),
            is_dry,
            run,
        };
        let watch = data.pruned.watch(name);
        // A manifest whose write has begun before is in the directory once its lock is released.
        drop(data.locks.repository(name));
        removal.run(&watch, gone)
    }
}
