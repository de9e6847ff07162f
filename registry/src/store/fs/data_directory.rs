//! The open data directory: what every operation of the store works on.
//!
//! It holds state and no operation, and imports nothing that works on it: each operation is a file of
//! its own that takes a `&DataDirectory`.

use std::sync::Arc;

use super::buffers::Buffers;
use super::changes::Changes;
use super::deletions::Deletions;
use super::directory_changes::DirectoryChanges;
use super::layout::Layout;
use super::listing::cache::ListingCache;
use super::locks::StripedLocks;
use super::manifest_cache::ManifestCache;
use super::options::{Durability, StoreOptions, UploadQuota};
use super::prune_watch::PrunedRepositories;
use super::pulls::times::PullTimes;
use super::reliance::Reliance;
use super::root::Root;
use super::told_times::ToldTimes;
use super::upload::concurrency::AppendConcurrency;
use super::upload::sessions::UploadSessions;
use crate::store::Result;

/// A data directory that is locked and in use.
pub(super) struct DataDirectory {
    pub(super) layout: Layout,
    pub(super) root: Root,
    pub(super) durability: Durability,
    pub(super) quota: UploadQuota,
    pub(super) locks: StripedLocks,
    pub(super) directories: DirectoryChanges,
    pub(super) deletions: Deletions,
    pub(super) sessions: Arc<UploadSessions>,
    pub(super) changes: Arc<dyn Changes>,
    pub(super) manifests: ManifestCache,
    pub(super) listings: ListingCache,
    pub(super) buffers: Arc<Buffers>,
    pub(super) appends: AppendConcurrency,
    pub(super) reliance: Reliance,
    pub(super) pruned: PrunedRepositories,
    pub(super) told: ToldTimes,
    pub(super) pulls: Arc<PullTimes>,
}

impl DataDirectory {
    /// Restores the upload sessions that a previous run left in a directory that `root` has locked.
    pub(super) fn new(
        layout: Layout,
        root: Root,
        options: StoreOptions,
        changes: Arc<dyn Changes>,
        pulls: PullTimes,
    ) -> Result<Self> {
        let StoreOptions {
            durability,
            quota,
            grace,
        } = options;
        let sessions = Arc::new(UploadSessions::restore(&layout, quota.max_sessions)?);
        Ok(Self {
            layout,
            root,
            durability,
            quota,
            locks: StripedLocks::new(),
            directories: DirectoryChanges::new(durability),
            deletions: Deletions::default(),
            sessions,
            changes,
            manifests: ManifestCache::new(),
            listings: ListingCache::default(),
            buffers: Arc::default(),
            appends: AppendConcurrency::new(),
            reliance: Reliance::new(),
            pruned: PrunedRepositories::default(),
            told: ToldTimes::new(grace),
            pulls: Arc::new(pulls),
        })
    }
}
