//! Which repositories hold what is corrupt, and what they hold that is missing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use service::log::causes;

use super::super::count::RepositoryWalk;
use super::super::file::{exists, visit_entries};
use super::super::layout::{Pool, digest_of};
use super::super::reliance::fingerprint;
use super::pass::Pass;
use super::report::{Holders, MissingContent, ScrubError, ScrubReport};
use crate::oci::{Digest, Name};
use crate::store::Result;
use crate::store::maintenance::Run;

/// What is known of a blob or a manifest.
#[derive(Clone, Copy, Default)]
struct Item {
    /// Its place in the list of those that are corrupt.
    corrupt: Option<usize>,
    /// Its place in the list of those that are missing.
    absent: Option<usize>,
    /// Whether it is counted as missing.
    is_missing: bool,
}

/// Items by pool and fingerprint.
type Items = HashMap<(Pool, u64), Item>;

/// So many items are told apart. Beyond that, one counts for each repository that holds it, and is not logged.
const MOST: usize = 100_000;

/// What a walk counts. It is only added to a report at its end: one that is interrupted is done again.
#[derive(Default)]
struct WalkCounts {
    unchecked: u64,
    /// Those that are missing and not in the quarantine.
    lost: u64,
}

impl Pass<'_> {
    /// Looks up which repositories hold what is corrupt, and finds what they hold and is missing.
    pub(super) fn repositories(&mut self, run: &Run) -> std::result::Result<(), ScrubError> {
        // An interrupted run may have begun with it.
        let report = &mut self.cursor.report;
        report.missing = 0;
        report.absent.clear();
        let mut counts = WalkCounts::default();
        let mut items = Items::new();
        for (place, one) in report.found.iter_mut().enumerate() {
            one.holders = Holders::default();
            let pool = Pool::ALL
                .into_iter()
                .find(|pool| pool.directory() == one.pool);
            if let Some(pool) = pool {
                let item = items.entry((pool, fingerprint(&one.digest)));
                item.or_default().corrupt = Some(place);
            }
        }
        run.begin("repositories", None);
        for name in RepositoryWalk::new(Arc::clone(self.data)) {
            let done = match name {
                Ok(name) => self.repository(&name, &mut items, &mut counts),
                Err(error) => Err(error.into()),
            };
            if let Err(ScrubError::Store(error)) = done {
                self.data.root.check()?;
                counts.unchecked += 1;
                tracing::warn!(error = causes(&error), "repository not checked");
            } else {
                done?;
            }
            run.advance(1);
        }
        self.cursor.report.unchecked += counts.unchecked;
        self.cursor.report.corrupt_now += counts.lost;
        Ok(())
    }

    fn repository(
        &mut self,
        name: &Name,
        items: &mut Items,
        counts: &mut WalkCounts,
    ) -> std::result::Result<(), ScrubError> {
        for pool in Pool::ALL {
            let directory = match pool {
                Pool::Blobs => self.data.layout.blob_links(name),
                Pool::Manifests => self.data.layout.manifest_entries(name),
            };
            visit_entries::<ScrubError>(&directory, |file| {
                self.pacing.pause()?;
                if let Some(digest) = digest_of(&file.file_name()) {
                    let is_missing = self.is_missing(name, pool, &digest)?;
                    if self.is_lost(name, pool, &digest, is_missing, items)? {
                        counts.lost += 1;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether a repository holds something whose content is not there.
    fn is_missing(&self, name: &Name, pool: Pool, digest: &Digest) -> Result<bool> {
        let layout = &self.data.layout;
        let content = layout.content(pool, digest);
        if exists(&content)? {
            return Ok(false);
        }
        // It may have left the repository, and then the disk. Under the lock it cannot leave the repository.
        let _lock = self.data.locks.repository(name);
        let held = match pool {
            Pool::Blobs => layout.blob_link(name, digest),
            Pool::Manifests => layout.manifest_entry(name, digest),
        };
        Ok(exists(&held)? && !exists(&content)?)
    }

    /// Notes that a repository holds something. Returns whether it is found to be lost: missing, and not in the
    /// quarantine.
    fn is_lost(
        &mut self,
        name: &Name,
        pool: Pool,
        digest: &Digest,
        is_missing: bool,
        items: &mut Items,
    ) -> Result<bool> {
        let key = (pool, fingerprint(digest));
        let is_full = items.len() >= MOST;
        let item = match items.entry(key) {
            Entry::Occupied(item) => item.into_mut(),
            Entry::Vacant(_) if !is_missing => return Ok(false),
            Entry::Vacant(_) if is_full => {
                self.cursor.report.missing += 1;
                return Ok(true);
            }
            Entry::Vacant(item) => item.insert(Item::default()),
        };
        let ScrubReport {
            missing,
            found,
            absent,
            ..
        } = &mut self.cursor.report;
        if let Some(place) = item.corrupt {
            found[place].holders.add(name);
        }
        let mut is_lost = false;
        if is_missing && !item.is_missing {
            item.is_missing = true;
            *missing += 1;
            if item.corrupt.is_none() {
                let quarantined = exists(&self.data.layout.quarantined(pool, digest))?;
                is_lost = !quarantined;
                let (repository, pool) = (name.as_str(), pool.directory());
                tracing::error!(%digest, pool, repository, quarantined, "content missing");
                if absent.len() < ScrubReport::LISTED {
                    item.absent = Some(absent.len());
                    absent.push(MissingContent {
                        pool: pool.to_owned(),
                        digest: digest.clone(),
                        quarantined,
                        holders: Holders::default(),
                    });
                }
            }
        }
        if let Some(place) = item.absent {
            absent[place].holders.add(name);
        }
        Ok(is_lost)
    }
}
