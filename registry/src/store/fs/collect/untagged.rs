//! Takes from a repository the manifests that no tag leads to.
//!
//! A tag leads to its manifest, an index to its manifests, and a manifest to its referrers. A manifest that
//! a client was told of lately counts as one with a tag.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::mem;
use std::time::SystemTime;

use super::repository::AT_ONCE;
use super::would_go::WouldGo;
use super::{Collection, GcError, mentions};
use crate::oci::{Digest, Name, Tag};
use crate::store::Result;
use crate::store::fs::data_directory::DataDirectory;
use crate::store::fs::durable::UnsyncedDirectories;
use crate::store::fs::file::{each_entry, if_there};
use crate::store::fs::manifest::{self, ManifestEntry};
use crate::store::fs::prune_watch::PruneWatch;
use crate::store::fs::reference;
use crate::store::fs::reliance::fingerprint;
use crate::store::fs::told;
use crate::store::maintenance::Run;

/// How often a repository is read again because a manifest or a tag was written to it meanwhile.
const ATTEMPTS: usize = 3;

/// A manifest of a repository.
struct Node {
    digest: Digest,
    /// The manifests of the repository that it mentions, each once.
    children: Vec<Digest>,
    subject: Option<Digest>,
    /// Whether no tag points at it, and nobody was told of it lately.
    is_candidate: bool,
}

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

/// What goes of a repository.
#[derive(Default)]
struct Choice {
    /// Those to which nothing leads, in an order in which each one is gone before those that it leads to.
    rounds: Vec<Vec<Digest>>,
    staying: StayingManifests,
}

impl Collection<'_> {
    /// Takes the manifests that nothing leads to, and adds to `gone` those that a dry run would take.
    pub(super) fn untagged(
        &mut self,
        name: &Name,
        cutoff: SystemTime,
        watch: &PruneWatch<'_>,
        gone: &mut WouldGo,
    ) -> std::result::Result<(), GcError> {
        let removal = UntaggedRemoval {
            data: self.data,
            name,
            cutoff,
            is_dry: self.settings.dry_run,
            run: self.run,
        };
        let report = &mut *self.report;
        let removed = removal.run(watch, &mut |digest, _| {
            report.entries += 1;
            if removal.is_dry {
                gone.manifests.insert(fingerprint(digest));
            }
        });
        if removed?.is_none() {
            self.busy(name);
        }
        Ok(())
    }
}

impl UntaggedRemoval<'_> {
    /// Takes the manifests that nothing leads to. Tells `gone` of each, with the time at which a client was last
    /// told of it; in a dry run that is all. Returns `None` if manifests and tags are written all the time, so
    /// that it had to leave off.
    ///
    /// `watch` watches the repository, whose lock was released since it does.
    pub(in crate::store::fs) fn run(
        &self,
        watch: &PruneWatch<'_>,
        gone: &mut dyn FnMut(&Digest, SystemTime),
    ) -> std::result::Result<Option<StayingManifests>, GcError> {
        for _ in 0..ATTEMPTS {
            let Choice { rounds, staying } = self.choose()?;
            if self.is_dry {
                for digest in rounds.iter().flatten() {
                    let path = self.data.layout.manifest_entry(self.name, digest);
                    if let Some(told) = if_there(&path, fs::metadata(&path))? {
                        gone(digest, told.modified().unwrap_or(self.cutoff));
                    }
                }
                return Ok(Some(staying));
            }
            if self.remove_rounds(&rounds, watch, gone)? {
                return Ok(Some(staying));
            }
        }
        Ok(None)
    }

    /// Removes the manifests of each round. Returns false if something was written meanwhile, so that they
    /// have to be chosen again.
    fn remove_rounds(
        &self,
        rounds: &[Vec<Digest>],
        watch: &PruneWatch<'_>,
        gone: &mut dyn FnMut(&Digest, SystemTime),
    ) -> std::result::Result<bool, GcError> {
        let Self { data, name, .. } = *self;
        for round in rounds {
            let mut unsynced = UnsyncedDirectories::none();
            let mut is_unchanged = true;
            for batch in round.chunks(AT_ONCE) {
                data.root.check()?;
                let mut lock = data.locks.repository(name);
                is_unchanged = watch.written().is_some_and(|written| written.is_empty());
                let mut removed = Vec::new();
                for digest in batch.iter().take_while(|_| is_unchanged) {
                    let path = data.layout.manifest_entry(name, digest);
                    // A client may have been told of it since, or have deleted it.
                    let found = if_there(&path, fs::metadata(&path))?;
                    let found = found.filter(|found| told::is_before(found, self.cutoff));
                    let Some(found) = found else {
                        is_unchanged = false;
                        break;
                    };
                    if let Some(entry) = ManifestEntry::read(&path)? {
                        let changed =
                            manifest::remove_entry(data, name, digest, Some(&entry), &mut lock)?;
                        unsynced.add(changed);
                        removed.push((digest, found.modified().unwrap_or(self.cutoff)));
                    }
                }
                drop(lock);
                for (digest, told) in removed {
                    gone(digest, told);
                }
                if !is_unchanged {
                    break;
                }
                self.run.pause()?;
            }
            // Before the next round: an index that a crash brings back has its manifests.
            unsynced.with(()).sync(data)?;
            if !is_unchanged {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn choose(&self) -> std::result::Result<Choice, GcError> {
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
            Ok(())
        })?;
        if candidates == 0 {
            let rounds = Vec::new();
            return Ok(Choice { rounds, staying });
        }
        let here: HashSet<_> = found.iter().map(|(digest, _)| digest.clone()).collect();
        let mut nodes = Vec::new();
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
            }
            self.run.pause()?;
        }
        let rounds = in_rounds(&nodes);
        let going: usize = rounds.iter().map(Vec::len).sum();
        staying.needed = candidates - going as u64;
        Ok(Choice { rounds, staying })
    }

    fn tagged(&self) -> Result<HashSet<Digest>> {
        let mut tagged = HashSet::new();
        each_entry(&self.data.layout.tags(self.name), |file| {
            let file_name = file.file_name();
            if let Some(tag) = file_name.to_str().and_then(|tag| Tag::parse(tag).ok()) {
                // A damaged tag is an error: nobody knows what it kept.
                tagged.extend(reference::tag(self.data, self.name, &tag)?);
            }
            Ok(())
        })?;
        Ok(tagged)
    }
}

/// The manifests to which nothing leads, in an order in which each one is gone before those that it leads to.
/// Takes time in proportion to the manifests and what they lead to.
fn in_rounds(nodes: &[Node]) -> Vec<Vec<Digest>> {
    let leads_to = leads_to(nodes);
    let mut kept = vec![false; nodes.len()];
    let is_kept = |&at: &usize| nodes.get(at).is_some_and(|node| !node.is_candidate);
    let mut next: Vec<_> = (0..nodes.len()).filter(is_kept).collect();
    while let Some(at) = next.pop() {
        if !mem::replace(&mut kept[at], true) {
            next.extend(&leads_to[at]);
        }
    }
    let mut left: Vec<_> = (0..nodes.len()).filter(|&at| !kept[at]).collect();
    // How many of those that are left lead to it.
    let mut leading = vec![0_usize; nodes.len()];
    for &to in left.iter().flat_map(|&from| &leads_to[from]) {
        leading[to] += 1;
    }
    let mut rounds = Vec::new();
    let mut now: Vec<_> = left
        .iter()
        .copied()
        .filter(|&at| leading[at] == 0)
        .collect();
    while !now.is_empty() {
        let mut later = Vec::new();
        for &at in &now {
            kept[at] = true;
            for &to in &leads_to[at] {
                leading[to] -= 1;
                if leading[to] == 0 && !kept[to] {
                    later.push(to);
                }
            }
        }
        rounds.push(digests(nodes, &now));
        now = later;
    }
    // A referrer may mention its subject, too: then each leads to the other, and they go together.
    left.retain(|&at| !kept[at]);
    if !left.is_empty() {
        rounds.push(digests(nodes, &left));
    }
    rounds
}

/// By number, the numbers of those that each manifest leads to: its manifests and its referrers.
fn leads_to(nodes: &[Node]) -> Vec<Vec<usize>> {
    let numbers: HashMap<_, _> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| (&node.digest, at))
        .collect();
    let mut leads_to: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let children = node.children.iter().filter_map(|child| numbers.get(child));
        leads_to.push(children.copied().collect());
    }
    for (at, node) in nodes.iter().enumerate() {
        if let Some(&subject) = node
            .subject
            .as_ref()
            .and_then(|subject| numbers.get(subject))
        {
            leads_to[subject].push(at);
        }
    }
    // It may be among several of them.
    for numbers in &mut leads_to {
        numbers.sort_unstable();
        numbers.dedup();
    }
    leads_to
}

fn digests(nodes: &[Node], numbers: &[usize]) -> Vec<Digest> {
    let of = |&at: &usize| nodes.get(at).map(|node| node.digest.clone());
    numbers.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn digest(name: &str) -> Digest {
        Digest::of(Algorithm::Sha256, name.as_bytes())
    }

    fn node(name: &str, children: &[&str], subject: Option<&str>, is_candidate: bool) -> Node {
        Node {
            digest: digest(name),
            children: children.iter().map(|child| digest(child)).collect(),
            subject: subject.map(digest),
            is_candidate,
        }
    }

    #[test]
    fn what_a_kept_manifest_leads_to_is_kept_at_any_depth() {
        let nodes = vec![
            node("index", &["index 2"], None, false),
            node("index 2", &["image"], None, true),
            node("image", &[], None, true),
            node("signature", &[], Some("image"), true),
            node("of the signature", &["layers"], Some("signature"), true),
            node("layers", &[], None, true),
        ];
        assert_eq!(in_rounds(&nodes), [[]; 0]);
    }

    #[test]
    fn a_long_chain_goes_link_by_link() {
        let names: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
        let link = |n: usize| {
            let subject = n.checked_sub(1).map(|before| names[before].as_str());
            node(&names[n], &[], subject, true)
        };
        let rounds = in_rounds(&(0..names.len()).map(link).collect::<Vec<_>>());
        let in_order: Vec<_> = names.iter().map(|name| vec![digest(name)]).collect();
        assert_eq!(rounds, in_order);
    }

    #[test]
    fn what_goes_goes_after_what_leads_to_it() {
        let nodes = vec![
            node("image", &[], None, true),
            node("index", &["image", "shared"], None, true),
            node("signature", &[], Some("index"), true),
            node("shared", &[], None, true),
            node("tagged", &["shared"], None, false),
            node("of nobody", &[], Some("deleted long ago"), true),
        ];
        let mut rounds = in_rounds(&nodes);
        for round in &mut rounds {
            round.sort();
        }
        let mut first = ["index", "of nobody"].map(digest);
        let mut second = ["image", "signature"].map(digest);
        first.sort();
        second.sort();
        assert_eq!(rounds, [first.to_vec(), second.to_vec()]);
    }

    #[test]
    fn those_that_lead_to_each_other_go_together() {
        let nodes = vec![
            node("image", &[], None, true),
            node("signature", &["image"], Some("image"), true),
        ];
        assert_eq!(in_rounds(&nodes).concat().len(), 2);
    }
}
