//! Which directories have gained or lost a name that may not be on disk yet.
//!
//! A name is on disk when the directory that holds it has been synced since. An operation syncs the
//! directories that it changed itself, but it may also rely on names that another operation has just
//! made: a directory that exists already, or a blob that a manifest refers to. Whether the other
//! operation has synced them is known here, so that neither can acknowledge what a crash would undo.
//!
//! Only changes of this run are known. What a killed run had changed and not synced is not: an
//! operation that finds its own name in place already syncs it again, whatever is known here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};

use super::options::Durability;

/// The changed directories of one store.
///
/// In numbers and not in flags: a sync that began before a change ended must not mark it as synced.
pub(super) struct DirectoryChanges {
    /// With `durability: relaxed` nothing is synced, and nothing is noted: it would never be cleared.
    is_noted: bool,
    unsynced: Mutex<ChangedDirectories>,
    one_at_a_time: Mutex<()>,
}

#[derive(Default)]
struct ChangedDirectories {
    /// Counts the changes that have ended.
    changes: u64,
    directories: HashMap<PathBuf, ChangedDirectory>,
}

#[derive(Default)]
struct ChangedDirectory {
    /// The changes that have begun and not ended.
    in_progress: usize,
    /// The number of the last change that ended and no sync covers; 0 if there is none.
    last: u64,
}

/// A sync of a directory covers the changes that ended before it began, and no others.
#[derive(Clone, Copy)]
pub(super) struct SyncStart(u64);

impl DirectoryChanges {
    pub(super) fn new(durability: Durability) -> Self {
        Self {
            is_noted: durability == Durability::Full,
            unsynced: Mutex::default(),
            one_at_a_time: Mutex::default(),
        }
    }

    /// Waits for the right to make or remove directories. It is held for a few system calls, never
    /// while anything is synced.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time.lock()
    }

    /// Does a step that adds names to a directory or removes some.
    pub(super) fn change<T>(
        &self,
        directory: &Path,
        step: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.is_noted {
            return step();
        }
        // Noted before the step as well as after it: another thread may see the new name before this
        // one gets to note its end.
        {
            let mut unsynced = self.unsynced.lock();
            let entry = unsynced.directories.entry(directory.to_owned());
            entry.or_default().in_progress += 1;
        }
        let done = step();
        let mut unsynced = self.unsynced.lock();
        let ChangedDirectories {
            changes,
            directories,
        } = &mut *unsynced;
        if let Entry::Occupied(mut entry) = directories.entry(directory.to_owned()) {
            let unsynced = entry.get_mut();
            unsynced.in_progress -= 1;
            if done.is_ok() {
                *changes += 1;
                unsynced.last = *changes;
            } else if unsynced.in_progress == 0 && unsynced.last == 0 {
                // A step that failed has changed nothing.
                entry.remove();
            }
        }
        done
    }

    /// Forgets a directory that was removed. What becomes of its name is a change of its parent.
    pub(super) fn forget(&self, directory: &Path) {
        let mut unsynced = self.unsynced.lock();
        if let Some(entry) = unsynced.directories.get(directory)
            && entry.in_progress == 0
        {
            unsynced.directories.remove(directory);
        }
    }

    /// To be called right before a directory is synced.
    pub(super) fn sync_starts(&self) -> SyncStart {
        SyncStart(self.unsynced.lock().changes)
    }

    /// Notes that a sync has succeeded. A directory that changed meanwhile stays unsynced.
    pub(super) fn synced(&self, directory: &Path, start: SyncStart) {
        let mut unsynced = self.unsynced.lock();
        let Some(entry) = unsynced.directories.get_mut(directory) else {
            return;
        };
        if entry.last <= start.0 {
            entry.last = 0;
        }
        if entry.last == 0 && entry.in_progress == 0 {
            unsynced.directories.remove(directory);
        }
    }

    /// Whether a name in a directory, or a name on the way to it, may not be on disk.
    pub(super) fn is_unsynced(&self, directory: &Path) -> bool {
        let unsynced = self.unsynced.lock();
        // Usually there are none, and no path has to be hashed.
        !unsynced.directories.is_empty()
            && directory
                .ancestors()
                .any(|directory| unsynced.directories.contains_key(directory))
    }

    /// The directories above any of `directories` that may hold names that are not on disk: the
    /// innermost first, each once.
    pub(super) fn unsynced_above<'a>(
        &self,
        directories: impl Iterator<Item = &'a Path>,
    ) -> Vec<PathBuf> {
        let unsynced = self.unsynced.lock();
        if unsynced.directories.is_empty() {
            return Vec::new();
        }
        let above = directories.flat_map(|directory| directory.ancestors().skip(1));
        let mut found: Vec<_> = above
            .filter(|above| unsynced.directories.contains_key(*above))
            .map(Path::to_owned)
            .collect();
        found.sort_unstable_by(|a, b| {
            let depth = |path: &PathBuf| path.components().count();
            depth(b).cmp(&depth(a)).then_with(|| a.cmp(b))
        });
        found.dedup();
        found
    }

    /// All directories that may hold names that are not on disk.
    #[cfg(test)]
    pub(super) fn all_unsynced(&self) -> Vec<PathBuf> {
        self.unsynced.lock().directories.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> DirectoryChanges {
        DirectoryChanges::new(Durability::Full)
    }

    fn changed(changes: &DirectoryChanges, directory: &str) {
        let directory = Path::new(directory);
        let step = || {
            assert_eq!(changes.is_unsynced(directory), changes.is_noted);
            Ok(())
        };
        changes.change(directory, step).unwrap();
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let (changes, a) = (new(), Path::new("/a"));
        let failing = || Err::<(), _>(io::ErrorKind::NotFound.into());
        changes.change(a, failing).unwrap_err();
        assert!(!changes.is_unsynced(a));
        changed(&changes, "/a");
        changes.change(a, failing).unwrap_err();
        assert!(changes.is_unsynced(a));
    }

    #[test]
    fn a_directory_is_unsynced_from_its_change_to_the_sync_that_follows() {
        let (changes, a) = (new(), Path::new("/a"));
        assert!(!changes.is_unsynced(a));
        changed(&changes, "/a");
        let start = changes.sync_starts();
        assert!(changes.is_unsynced(a));
        changes.synced(a, start);
        assert!(!changes.is_unsynced(a));
    }

    #[test]
    fn a_sync_does_not_cover_a_change_that_ends_after_its_start() {
        let (changes, a) = (new(), Path::new("/a"));
        changed(&changes, "/a");
        let start = changes.sync_starts();
        let during = || {
            changes.synced(a, start);
            Ok(())
        };
        changes.change(a, during).unwrap();
        changes.synced(a, start);
        assert!(changes.is_unsynced(a));
    }

    #[test]
    fn the_directories_above_are_found_from_the_inside_out_and_once() {
        let changes = new();
        for changed in ["/a", "/a/b/c", "/a/b", "/x/y/z", "/w", "/a/b/c/d"] {
            self::changed(&changes, changed);
        }
        let below = ["/a/b/c/d", "/x/y/z/d", "/a/b/c/e"].map(Path::new);
        let found = changes.unsynced_above(below.into_iter());
        assert_eq!(found, ["/a/b/c", "/x/y/z", "/a/b", "/a"].map(PathBuf::from));
    }

    #[test]
    fn a_sync_covers_the_changes_before_it_though_others_are_in_progress() {
        let (changes, a) = (new(), Path::new("/a"));
        changed(&changes, "/a");
        let start = changes.sync_starts();
        let failing = || {
            changes.synced(a, start);
            Err::<(), _>(io::ErrorKind::DirectoryNotEmpty.into())
        };
        changes.change(a, failing).unwrap_err();
        assert!(!changes.is_unsynced(a));
    }

    #[test]
    fn nothing_is_noted_where_nothing_is_synced() {
        let (changes, a) = (DirectoryChanges::new(Durability::Relaxed), Path::new("/a"));
        changed(&changes, "/a");
        assert!(!changes.is_unsynced(a));
    }
}
