//! What a dry run would take from a repository.

use std::collections::HashSet;

/// What a dry run found in one repository.
#[derive(Default)]
pub(super) struct WouldGo {
    pub(super) blobs: HashSet<u64>,
    pub(super) manifests: HashSet<u64>,
}
