//! Removes what a crash, or the deletion of a damaged manifest, leaves of a repository: descriptors of
//! referrers whose manifest is not there, and empty directories. Readers ignore both.

use std::mem;
use std::path::Path;

use super::repository::AT_ONCE;
use super::{Collection, GcError};
use crate::oci::{Digest, Name};
use crate::store::Result;
use crate::store::fs::changes::RepositoryCounts;
use crate::store::fs::directories::remove_empty;
use crate::store::fs::disk;
use crate::store::fs::durable::{UnsyncedDirectories, remove_name};
use crate::store::fs::file::{allocated_at, exists, if_there, visit_entries};
use crate::store::fs::layout::digest_of;

impl Collection<'_> {
    pub(super) fn leftovers(&mut self, name: &Name) -> std::result::Result<(), GcError> {
        let layout = &self.data.layout;
        let mut unsynced = UnsyncedDirectories::none();
        visit_entries::<GcError>(&layout.all_referrers(name), |file| {
            if let Some(subject) = digest_of(&file.file_name())
                && file.file_type().is_ok_and(|kind| kind.is_dir())
            {
                self.referrers(name, &subject, &mut unsynced)?;
            }
            Ok(self.run.pause()?)
        })?;
        let stop = layout.repositories();
        for directory in [
            layout.all_referrers(name),
            layout.tags(name),
            layout.blob_links(name),
            layout.manifest_entries(name),
            layout.repository(name),
        ] {
            self.remove_if_empty(&directory, &stop, &mut unsynced)?;
        }
        Ok(unsynced.with(()).sync(self.data)?)
    }

    /// Most are not empty, or not there, and an attempt to remove one costs more than a look.
    fn remove_if_empty(
        &self,
        directory: &Path,
        stop: &Path,
        unsynced: &mut UnsyncedDirectories,
    ) -> Result<()> {
        let entries = if_there(directory, disk::read_directory(directory))?;
        if entries.is_some_and(|mut entries| entries.next().is_none()) {
            remove_empty(self.data, directory, stop);
            unsynced.add(UnsyncedDirectories::of(directory));
        }
        Ok(())
    }

    /// Removes the descriptors of a subject's referrers that are not there.
    fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        unsynced: &mut UnsyncedDirectories,
    ) -> std::result::Result<(), GcError> {
        let layout = &self.data.layout;
        let directory = layout.referrers(name, subject);
        let mut absent = Vec::new();
        visit_entries::<GcError>(&directory, |file| {
            if let Some(digest) = digest_of(&file.file_name())
                && file.file_type().is_ok_and(|kind| kind.is_file())
                && !exists(&layout.manifest_entry(name, &digest))?
            {
                absent.push(digest);
            }
            if absent.len() == AT_ONCE {
                self.descriptors(name, subject, mem::take(&mut absent), unsynced)?;
            }
            Ok(self.run.pause()?)
        })?;
        self.descriptors(name, subject, absent, unsynced)?;
        let stop = layout.repository(name);
        Ok(self.remove_if_empty(&directory, &stop, unsynced)?)
    }

    fn descriptors(
        &self,
        name: &Name,
        subject: &Digest,
        absent: Vec<Digest>,
        unsynced: &mut UnsyncedDirectories,
    ) -> Result<()> {
        if absent.is_empty() {
            return Ok(());
        }
        let layout = &self.data.layout;
        self.data.root.check()?;
        let mut lock = self.data.locks.repository(name);
        for digest in absent {
            // A push may have brought it since. It makes the descriptor and the entry under this lock.
            if exists(&layout.manifest_entry(name, &digest))? {
                continue;
            }
            let path = layout.referrer(name, subject, &digest);
            let change = RepositoryCounts {
                allocated: -allocated_at(&path),
                ..RepositoryCounts::default()
            };
            if let Some(removed) = remove_name(self.data, &path)? {
                unsynced.add(removed);
                lock.changes += 1;
                self.data.changes.repository(name, &change);
            }
        }
        Ok(())
    }
}
