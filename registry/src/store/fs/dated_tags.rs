//! Tags with the times of their last push, for those who remove tags by their age.
//!
//! A tag is pushed again by every push that names it, whether it moves the tag or not: its file is written anew
//! or touched. So who has seen the file can tell, under the repository's lock, whether it was pushed since.

use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::data_directory::DataDirectory;
use super::directories::remove_empty;
use super::durable::UnsyncedDirectories;
use super::file::{each_entry, if_there};
use super::{reference, tag, told};
use crate::oci::{Digest, Name, Tag};
use crate::store::{Result, StoreError};

/// The tags that are removed under one hold of the lock, for which other requests wait.
const AT_ONCE: usize = 16;

/// A push of a tag: which file it wrote, and when. Another push is another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagVersion {
    inode: u64,
    /// In nanoseconds since 1970.
    pushed: i64,
}

/// A tag that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatedTag {
    /// The tag.
    pub tag: Tag,
    /// Its last push.
    pub version: TagVersion,
}

impl TagVersion {
    fn of(metadata: &Metadata) -> Self {
        let seconds = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            inode: metadata.ino(),
            pushed: seconds.saturating_add(metadata.mtime_nsec()),
        }
    }

    /// When the tag was last pushed.
    pub fn pushed(self) -> SystemTime {
        let since = Duration::from_nanos(self.pushed.unsigned_abs());
        if self.pushed < 0 {
            UNIX_EPOCH - since
        } else {
            UNIX_EPOCH + since
        }
    }
}

/// Calls `visit` with each tag of a repository, in no order.
pub(super) fn each(
    data: &DataDirectory,
    name: &Name,
    mut visit: impl FnMut(DatedTag) -> Result<()>,
) -> Result<()> {
    let visited = each_entry(&data.layout.tags(name), |file| {
        let file_name = file.file_name();
        let Some(tag) = file_name.to_str().and_then(|tag| Tag::parse(tag).ok()) else {
            return Ok(());
        };
        match if_there(&file.path(), file.metadata())? {
            Some(found) if found.is_file() => visit(DatedTag {
                tag,
                version: TagVersion::of(&found),
            }),
            _ => Ok(()),
        }
    });
    data.root.trust(visited)
}

/// Removes those of the tags that were not pushed since they were found, and for which `confirm` agrees under
/// the lock. Adds to `removed` what each of them pointed at, and `None` for a tag that stays. If it fails,
/// `removed` has the tags before the failure.
pub(super) fn remove(
    data: &DataDirectory,
    name: &Name,
    tags: &[DatedTag],
    confirm: &dyn Fn(&Tag, &Digest) -> bool,
    removed: &mut Vec<Option<Digest>>,
) -> Result<()> {
    data.root.check()?;
    let mut unsynced = UnsyncedDirectories::none();
    let done = remove_all(data, name, tags, confirm, removed, &mut unsynced);
    // What went before a failure is reported, and is not to come back.
    let synced = unsynced.with(()).sync(data);
    done.and(synced)
}

fn remove_all(
    data: &DataDirectory,
    name: &Name,
    tags: &[DatedTag],
    confirm: &dyn Fn(&Tag, &Digest) -> bool,
    removed: &mut Vec<Option<Digest>>,
    unsynced: &mut UnsyncedDirectories,
) -> Result<()> {
    for tags in tags.chunks(AT_ONCE) {
        let mut lock = data.locks.repository(name);
        for found in tags {
            let digest = as_found(data, name, found)?.filter(|digest| confirm(&found.tag, digest));
            if let Some(digest) = &digest {
                lock.changes += 1;
                // From now on it is kept for some time without a tag.
                told::must_renew(&data.layout.manifest_entry(name, digest))?;
                if let Some(changed) = tag::remove_one(data, name, &found.tag)? {
                    unsynced.add(changed);
                }
            }
            removed.push(digest);
        }
        remove_empty(data, &data.layout.tags(name), &data.layout.repository(name));
    }
    Ok(())
}

/// What a tag points at, if it was not pushed since it was found. The caller holds the lock.
fn as_found(data: &DataDirectory, name: &Name, found: &DatedTag) -> Result<Option<Digest>> {
    let path = data.layout.tag(name, &found.tag);
    let now = if_there(&path, symlink_metadata(&path))?;
    if now.as_ref().map(TagVersion::of) != Some(found.version) {
        return Ok(None);
    }
    match reference::tag(data, name, &found.tag) {
        // Nobody can tell what it pointed at: that is for a person to mend.
        Err(StoreError::Corrupt { .. }) => Ok(None),
        digest => digest,
    }
}
