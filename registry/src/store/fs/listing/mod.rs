//! Lists tags and repositories in order, a page at a time.
//!
//! A directory has no order and may hold millions of names. So a page is collected during a scan: only
//! the smallest names after the end of the last page are kept. The memory is that of a page, or of the
//! tags that [`cache`] keeps for the pages that follow.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::file::{each_entry, has_entries};
use crate::store::fs::layout::RESERVED;

pub(super) mod cache;
use crate::oci::{Name, Tag};
use crate::store::{Listing, Result, StoreError};

/// The names of one directory that are held at once while repositories are listed. A deep tree holds
/// one such batch for each level.
const BATCH: usize = 1024;

pub(super) fn tags(
    data: &DataDirectory,
    name: &Name,
    last: Option<&str>,
    limit: usize,
) -> Result<Listing<Tag>> {
    let before = data.locks.repository(name).changes;
    let mut page = SmallestNames::new(last, limit.max(cache::LENGTH));
    each_entry(&data.layout.tags(name), |file| {
        if let Some(text) = file.file_name().to_str() {
            page.offer(text, || Tag::parse(text).ok());
        }
        Ok(())
    })?;
    // A repository without tags has an empty list. Only an unknown name is an error.
    if page.items.is_empty() && !exists(data, name)? {
        return Err(StoreError::RepositoryUnknown);
    }
    let mut listing = page.finish();
    if listing.items.len() > limit {
        // Kept only if no tag has come or gone since the scan began.
        let lock = data.locks.repository(name);
        if lock.changes == before {
            data.listings.keep(name, last, &listing);
        }
        listing.items.truncate(limit);
        listing.more = true;
    }
    Ok(listing)
}

pub(super) fn repositories(
    data: &DataDirectory,
    last: Option<&str>,
    limit: usize,
) -> Result<Listing<Name>> {
    let mut scan = RepositoryScan {
        data,
        last: last.unwrap_or_default(),
        limit,
        found: Vec::new(),
    };
    scan.directory("")?;
    let more = scan.found.len() > limit;
    scan.found.truncate(limit);
    Ok(Listing {
        items: scan.found,
        more,
    })
}

/// Whether a repository of this name exists: it holds a blob or a manifest.
fn exists(data: &DataDirectory, name: &Name) -> Result<bool> {
    Ok(has_entries(&data.layout.manifest_entries(name))?
        || has_entries(&data.layout.blob_links(name))?)
}

/// Collects the `limit` smallest items after `last`, and one more, which tells whether items follow.
pub(super) struct SmallestNames<'a, T> {
    last: Option<&'a str>,
    limit: usize,
    items: BTreeSet<T>,
}

impl<'a, T: Ord + AsRef<str>> SmallestNames<'a, T> {
    pub(super) fn new(last: Option<&'a str>, limit: usize) -> Self {
        Self {
            last,
            limit,
            items: BTreeSet::new(),
        }
    }

    /// Takes an item, named `text`, if it is small enough. The item is made only then.
    pub(super) fn offer(&mut self, text: &str, item: impl FnOnce() -> Option<T>) {
        let full = self.items.len() > self.limit;
        let too_late = full
            && self
                .items
                .last()
                .is_some_and(|largest| text >= largest.as_ref());
        if too_late || self.last.is_some_and(|last| text <= last) {
            return;
        }
        if let Some(item) = item() {
            self.items.insert(item);
        }
        // Saturating: the largest limit must not wrap to none.
        if self.items.len() > self.limit.saturating_add(1) {
            self.items.pop_last();
        }
    }

    pub(super) fn finish(mut self) -> Listing<T> {
        let more = self.items.len() > self.limit;
        if more {
            self.items.pop_last();
        }
        Listing {
            items: self.items.into_iter().collect(),
            more,
        }
    }
}

/// A scan of the tree of repositories in the order of their full names.
///
/// That is not the order of the directories: `a-b` comes before `a/b`, since `-` is less than `/`. So a
/// directory stands for two items: the repository `a`, and everything below it, `a/`. The scan visits
/// the items of one directory in byte order.
struct RepositoryScan<'a> {
    data: &'a DataDirectory,
    last: &'a str,
    limit: usize,
    found: Vec<Name>,
}

impl RepositoryScan<'_> {
    /// Scans what is below `prefix`, which is empty or ends with a slash.
    fn directory(&mut self, prefix: &str) -> Result<()> {
        let path = self.path(prefix);
        let mut after = None::<String>;
        loop {
            // At least one: a batch of none would never end.
            let mut page =
                SmallestNames::<String>::new(after.as_deref(), self.limit.clamp(1, BATCH));
            each_entry(&path, |entry| {
                let name = entry.file_name();
                // The entry's own type: a symbolic link must not lead the scan out of the tree.
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if let Some(name) = name.to_str()
                    && is_directory
                    && !name.starts_with(RESERVED)
                {
                    let mut key = format!("{prefix}{name}");
                    for _ in 0..2 {
                        if self.may_follow(&key) {
                            page.offer(&key, || Some(key.clone()));
                        }
                        key.push('/');
                    }
                }
                Ok(())
            })?;
            let Listing { items, more } = page.finish();
            for key in &items {
                if key.ends_with('/') {
                    self.directory(key)?;
                } else if let Ok(name) = Name::parse(key)
                    && exists(self.data, &name)?
                {
                    self.found.push(name);
                }
                // One more than the limit: it tells that repositories follow.
                if self.found.len() > self.limit {
                    return Ok(());
                }
            }
            if !more {
                return Ok(());
            }
            // The next batch scans the directory again: that costs time, and bounds the memory.
            after = items.last().cloned().or(after);
        }
    }

    /// Whether an item, or something below it, comes after the last page.
    fn may_follow(&self, key: &str) -> bool {
        key > self.last || (key.ends_with('/') && self.last.starts_with(key))
    }

    fn path(&self, prefix: &str) -> PathBuf {
        self.data.layout.repositories().join(prefix)
    }
}
