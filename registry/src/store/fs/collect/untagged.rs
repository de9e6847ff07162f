//! Takes from a repository the manifests that no tag leads to.
//!
//! A tag leads to its manifest, an index to its manifests, and a manifest to its referrers. A manifest that
//! a client was told of lately counts as one with a tag. So does one that is written, or gets a tag, while the
//! repository is read: it is read before anything else goes, and keeps what it leads to.

use std::collections::HashSet;
use std::fs;
use std::time::SystemTime;

use parking_lot::MutexGuard;

use super::graph::{Group, ManifestGraph, Node};
use super::repository::{AT_ONCE, MOST_WRITTEN};
use super::would_go::WouldGo;
use super::{Collection, GcError, mentions};
use crate::oci::{Digest, Name, Tag};
use crate::store::Result;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::durable::UnsyncedDirectories;
use crate::store::fs::file::{if_there, visit_entries};
use crate::store::fs::layout::Pool;
use crate::store::fs::locks::StripeChanges;
use crate::store::fs::manifest::{self, ManifestEntry};
use crate::store::fs::prune_watch::PruneWatch;
use crate::store::fs::reference;
use crate::store::fs::reliance::fingerprint;
use crate::store::fs::told;
use crate::store::maintenance::Run;

/// The removal of the untagged manifests of one repository. A collection does it, and so does the retention.
pub(in crate::store::fs) struct UntaggedRemoval<'u> {
    pub(in crate::store::fs) data: &'u DataDirectory,
    pub(in crate::store::fs) name: &'u Name,
    /// Those that were told before this may go.
    pub(in crate::store::fs) cutoff: SystemTime,
    pub(in crate::store::fs) is_dry: bool,
    pub(in crate::store::fs) run: &'u Run,
}

/// Why the manifests of a repository stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StayingManifests {
    /// How many a tag points at.
    pub tagged: u64,
    /// How many others were pushed or used, or lost a tag, lately.
    pub recent: u64,
    /// How many others something leads to that stays.
    pub needed: u64,
}

/// The manifests of a repository, as they were read.
struct ReadManifests {
    graph: ManifestGraph,
    staying: StayingManifests,
    /// How many no tag points at, and nobody was told of lately.
    candidates: u64,
}

/// What was removed under one hold of the lock, and when a client was last told of it.
type RemovedManifests = Vec<(Digest, SystemTime)>;

impl Collection<'_> {
    /// Takes the manifests that nothing leads to, and adds to `gone` those that a dry run would take. Returns
    /// false if too much is written meanwhile.
    pub(super) fn untagged(
        &mut self,
        name: &Name,
        cutoff: SystemTime,
        watch: &PruneWatch<'_>,
        gone: &mut WouldGo,
    ) -> std::result::Result<bool, GcError> {
        let removal = UntaggedRemoval {
            data: self.data,
            name,
            cutoff,
            is_dry: self.settings.dry_run,
            run: self.run,
        };
        let report = &mut *self.report;
        let removed = removal.run(watch, &mut |digest, _| {
            report.take(name, Pool::Manifests, digest);
            if removal.is_dry {
                gone.manifests.insert(fingerprint(digest));
            } else {
                let repository = name.as_str();
                tracing::info!(repository, %digest, "removed an untagged manifest");
            }
        });
        Ok(removed?.is_some())
    }
}

impl UntaggedRemoval<'_> {
    /// Takes the manifests that nothing leads to. Tells `gone` of each, with the time at which a client was last
    /// told of it; in a dry run that is all. Returns `None` if very much is written meanwhile, so that it had to
    /// leave off.
    ///
    /// `watch` watches the repository, whose lock was released since it does.
    pub(in crate::store::fs) fn run(
        &self,
        watch: &PruneWatch<'_>,
        gone: &mut dyn FnMut(&Digest, SystemTime),
    ) -> std::result::Result<Option<StayingManifests>, GcError> {
        let mut read = self.read()?;
        let rounds = read.graph.rounds(AT_ONCE);
        if self.is_dry {
            for digest in rounds.iter().flatten().flatten() {
                let path = self.data.layout.manifest_entry(self.name, digest);
                if let Some(told) = if_there(&path, fs::metadata(&path))? {
                    gone(digest, told.modified().unwrap_or(self.cutoff));
                }
                read.candidates -= 1;
            }
        } else {
            if !rounds.is_empty() {
                // An index or a tag that was not found may have been deleted by a run that was killed, and its
                // deletion not be on disk. No crash may bring it back without what it leads to.
                let layout = &self.data.layout;
                let mut deletions = UnsyncedDirectories::of(&layout.manifest_entries(self.name));
                deletions.add(UnsyncedDirectories::of(&layout.tags(self.name)));
                deletions.with(()).sync(self.data)?;
            }
            if !self.remove_rounds(&rounds, &mut read, watch, gone)? {
                return Ok(None);
            }
        }
        read.staying.needed = read.candidates;
        Ok(Some(read.staying))
    }

    /// Removes the manifests of each round, but for those that have to stay now. Returns false if too much is
    /// written meanwhile.
    fn remove_rounds(
        &self,
        rounds: &[Vec<Group>],
        read: &mut ReadManifests,
        watch: &PruneWatch<'_>,
        gone: &mut dyn FnMut(&Digest, SystemTime),
    ) -> std::result::Result<bool, GcError> {
        let mut met = HashSet::new();
        for round in rounds {
            let mut unsynced = UnsyncedDirectories::none();
            let mut groups = round.iter().peekable();
            let mut has_met_all = true;
            while groups.peek().is_some() && has_met_all {
                self.data.root.check()?;
                let Some(mut lock) = self.lock(&mut read.graph, &mut met, watch)? else {
                    has_met_all = false;
                    continue;
                };
                let mut removed = RemovedManifests::new();
                let (mut done, mut examined) = (Ok(()), 0);
                while done.is_ok()
                    && let Some(group) =
                        groups.next_if(|group| examined == 0 || examined + group.len() <= AT_ONCE)
                {
                    examined += group.len();
                    done = self.remove_group(group, read, &mut lock, &mut unsynced, &mut removed);
                }
                drop(lock);
                // What is gone is gone, even if something fails later.
                for (digest, told) in removed {
                    gone(&digest, told);
                }
                done?;
                self.run.pause()?;
            }
            // Before the next round: an index that a crash brings back has its manifests.
            unsynced.with(()).sync(self.data)?;
            if !has_met_all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the repository's lock, with all that was written to it in the graph. Returns `None` if that is
    /// too much.
    fn lock(
        &self,
        graph: &mut ManifestGraph,
        met: &mut HashSet<Digest>,
        watch: &PruneWatch<'_>,
    ) -> std::result::Result<Option<MutexGuard<'_, StripeChanges>>, GcError> {
        loop {
            let lock = self.data.locks.repository(self.name);
            let Some(written) = watch.written().filter(|_| met.len() < MOST_WRITTEN) else {
                return Ok(None);
            };
            if written.iter().all(|digest| met.contains(digest)) {
                return Ok(Some(lock));
            }
            drop(lock);
            for digest in written {
                if met.contains(&digest) {
                    continue;
                }
                let mut is_met = graph.keep(&digest);
                if !is_met {
                    let mention = |mentioned| {
                        graph.keep(&mentioned);
                    };
                    // One that is gone again may come back, and is read then.
                    is_met =
                        mentions::of_manifest(self.data, self.name, &digest, mention)?.is_some();
                    self.run.pause()?;
                }
                if is_met {
                    met.insert(digest);
                }
            }
        }
    }

    /// Removes the manifests of a group, unless one of them has to stay.
    fn remove_group(
        &self,
        group: &Group,
        read: &mut ReadManifests,
        lock: &mut StripeChanges,
        unsynced: &mut UnsyncedDirectories,
        removed: &mut RemovedManifests,
    ) -> Result<()> {
        let Self { data, name, .. } = *self;
        let mut going = Vec::with_capacity(group.len());
        for digest in group {
            if read.graph.keeps(digest) {
                return Ok(());
            }
            let path = data.layout.manifest_entry(name, digest);
            match if_there(&path, fs::metadata(&path))? {
                Some(found) if !told::is_before(&found, self.cutoff) => {
                    // A client was told of it since.
                    read.graph.keep(digest);
                    read.staying.recent += 1;
                    read.candidates -= 1;
                    return Ok(());
                }
                Some(found) => going.push((digest, path, found)),
                None => {
                    // The client that deleted it may not have synced that yet.
                    unsynced.add(UnsyncedDirectories::of(&data.layout.manifest_entries(name)));
                    read.candidates -= 1;
                }
            }
        }
        for (digest, path, found) in going {
            if let Some(entry) = ManifestEntry::read(&path)? {
                let changed = manifest::remove_entry(data, name, digest, Some(&entry), lock)?;
                unsynced.add(changed);
                removed.push((digest.clone(), found.modified().unwrap_or(self.cutoff)));
                unsynced.add(manifest::remove_referrer(data, name, digest, Some(&entry))?);
            }
            read.candidates -= 1;
        }
        Ok(())
    }

    fn read(&self) -> std::result::Result<ReadManifests, GcError> {
        let Self { data, name, .. } = *self;
        let tagged = self.tagged()?;
        let mut found = Vec::new();
        let mut staying = StayingManifests::default();
        let mut candidates = 0;
        manifest::each(data, name, |digest, path| {
            let metadata = if_there(path, fs::metadata(path))?;
            let is_old = metadata.is_some_and(|found| told::is_before(&found, self.cutoff));
            let is_tagged = tagged.contains(&digest);
            match (is_tagged, is_old) {
                (true, _) => staying.tagged += 1,
                (false, false) => staying.recent += 1,
                (false, true) => candidates += 1,
            }
            found.push((digest, is_old && !is_tagged));
            self.run.pause()?;
            Ok::<_, GcError>(())
        })?;
        let mut nodes = Vec::new();
        // Without candidates nothing goes, whatever leads to what.
        if candidates > 0 {
            let here: HashSet<_> = found.iter().map(|(digest, _)| digest.clone()).collect();
            for (digest, is_candidate) in found {
                let mut children = HashSet::new();
                let mention = |mentioned| {
                    if here.contains(&mentioned) && mentioned != digest {
                        children.insert(mentioned);
                    }
                };
                if let Some(entry) = mentions::of_manifest(data, name, &digest, mention)? {
                    nodes.push(Node {
                        subject: entry.subject,
                        digest,
                        children: children.into_iter().collect(),
                        is_candidate,
                    });
                } else {
                    candidates -= u64::from(is_candidate);
                }
                self.run.pause()?;
            }
        }
        Ok(ReadManifests {
            graph: ManifestGraph::new(nodes),
            staying,
            candidates,
        })
    }

    fn tagged(&self) -> std::result::Result<HashSet<Digest>, GcError> {
        let mut tagged = HashSet::new();
        visit_entries::<GcError>(&self.data.layout.tags(self.name), |file| {
            let file_name = file.file_name();
            if let Some(tag) = file_name.to_str().and_then(|tag| Tag::parse(tag).ok()) {
                // A damaged tag is an error: nobody knows what it kept.
                tagged.extend(reference::tag(self.data, self.name, &tag)?);
            }
            Ok(self.run.pause()?)
        })?;
        Ok(tagged)
    }
}
