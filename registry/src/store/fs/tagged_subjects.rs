//! Which manifests of a repository a tag of a referrer names.
//!
//! A tag has room for a part of a long digest, which no file is named after. So the parts are read once, and what
//! is written meanwhile is added: under the repository's lock nobody waits for a listing.

use std::cell::RefCell;
use std::collections::HashSet;

use super::data_directory::DataDirectory;
use super::file::exists;
use super::manifest;
use super::prune_watch::PruneWatch;
use crate::oci::{Algorithm, Digest, Name};
use crate::store::{Result, StoreError};

/// A tag has room for so many digits of a digest, by the referrers tag schema of the OCI Distribution
/// specification.
pub const SUBJECT_DIGITS: usize = 64;

/// The manifests of a repository, by what a tag can name of their digests.
pub struct TaggedSubjects<'a> {
    data: &'a DataDirectory,
    name: &'a Name,
    watch: PruneWatch<'a>,
    /// Those whose digests are longer; `None` until one is asked for.
    cut: RefCell<Option<HashSet<(Algorithm, String)>>>,
}

impl<'a> TaggedSubjects<'a> {
    pub(super) fn new(data: &'a DataDirectory, name: &'a Name) -> Self {
        Self {
            data,
            name,
            watch: data.pruned.watch(name),
            cut: RefCell::default(),
        }
    }

    /// Whether the repository holds a manifest whose digest has these first digits.
    pub fn holds(&self, algorithm: Algorithm, hex: &str) -> Result<bool> {
        if let Ok(digest) = Digest::parse(&format!("{algorithm}:{hex}")) {
            return exists(&self.data.layout.manifest_entry(self.name, &digest));
        }
        let mut cut = self.cut.borrow_mut();
        if cut.is_none() {
            // A manifest whose write has begun before it was watched is in the directory then.
            drop(self.data.locks.repository(self.name));
            let mut all = HashSet::new();
            manifest::each(self.data, self.name, |digest, _| {
                all.extend(key(&digest));
                Ok::<_, StoreError>(())
            })?;
            *cut = Some(all);
        }
        let key = (algorithm, hex.to_owned());
        Ok(cut.as_ref().is_some_and(|all| all.contains(&key)))
    }

    /// The same, with what was written since it was last asked. The caller holds the repository's lock.
    pub fn holds_now(&self, algorithm: Algorithm, hex: &str) -> Result<bool> {
        if let Some(all) = self.cut.borrow_mut().as_mut() {
            let Some(written) = self.watch.written() else {
                return Ok(true);
            };
            all.extend(written.iter().filter_map(key));
        }
        self.holds(algorithm, hex)
    }
}

/// What a tag can name of a digest for which it has no room.
fn key(digest: &Digest) -> Option<(Algorithm, String)> {
    let hex = digest.hex();
    let cut = hex.get(..SUBJECT_DIGITS)?;
    (cut.len() < hex.len()).then(|| (digest.algorithm(), cut.to_owned()))
}
