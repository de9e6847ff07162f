//! The free space of the file system that holds the store.

use rustix::fs::StatVfs;

use super::root::Root;
use crate::store::{Result, StoreError};

/// The file system that holds the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub size: u64,
    /// The bytes that an unprivileged user may still write.
    pub available: u64,
    /// The free inodes.
    pub files_free: u64,
    /// All inodes; 0 where the file system has no fixed number of them.
    pub files: u64,
    /// The free inodes that an unprivileged user may still use.
    pub files_available: u64,
}

impl Space {
    /// Asks the system.
    pub(super) fn of(root: &Root) -> Result<Self> {
        // By the open lock file: the path may lead to another file system by now.
        let found = rustix::fs::fstatvfs(root.lock())
            .map_err(|error| StoreError::io(root.path(), error.into()))?;
        Ok(Self::from(found))
    }

    /// The inodes that uploads leave free: the same share of all inodes as the reserve is of all bytes.
    /// None where the file system makes inodes as it needs them, and reports a total of 0.
    pub fn reserved_files(&self, reserve: u64) -> u64 {
        // In 128 bits: the product of two sizes exceeds 64.
        let size = u128::from(self.size.max(1));
        let share = u128::from(reserve.min(self.size)) * u128::from(self.files) / size;
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl From<StatVfs> for Space {
    fn from(found: StatVfs) -> Self {
        Self {
            size: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
            files_free: found.f_ffree,
            files: found.f_files,
            files_available: found.f_favail,
        }
    }
}
