//! What a run did, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::tags::KeptBecause;
use crate::store::maintenance::LeftItem;

/// What one run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionReport {
    /// Whether it only tells what it would delete.
    pub dry_run: bool,
    /// The figures of all repositories together.
    pub total: RetentionCounts,
    /// How many repositories were gone through.
    pub repositories: u64,
    /// The repositories, the first [`RetentionReport::MOST`] of them; those that lose something come first.
    pub page: Vec<RepositoryReport>,
    /// What was deleted, the first [`RetentionReport::MOST`] of it.
    pub deletions: Vec<RetentionDeletion>,
    /// How often something was left as it is, because it could not be read or removed.
    pub failures: u64,
    /// What that was, the first [`LeftItem::MOST`] of it.
    #[serde(default)]
    pub left: Vec<LeftItem>,
}

/// What was found in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryReport {
    /// Its name.
    pub repository: String,
    /// The number of its rule, from 0; `None` where no rule names it.
    pub rule: Option<usize>,
    /// Its figures.
    #[serde(flatten)]
    pub counts: RetentionCounts,
}

/// How many tags and manifests are kept and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionCounts {
    /// Tags that are deleted.
    pub tags_deleted: u64,
    /// Tags that are kept.
    pub tags_kept: KeptTags,
    /// Manifests that are deleted.
    pub manifests_deleted: u64,
    /// Manifests that are kept. Where untagged ones are kept for ever, none is looked at.
    pub manifests_kept: KeptManifests,
}

/// How many tags are kept, by the first reason that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTags {
    /// They are among the newest.
    pub newest: u64,
    /// They match a pattern.
    pub matches: u64,
    /// They were pushed within the time.
    pub pushed: u64,
    /// They were pulled within the time.
    pub pulled: u64,
    /// They may have been pulled within the time: what is remembered of pulls does not go back that far.
    pub pulls_unknown: u64,
    /// They stand for referrers of a manifest that is there, or that went a short time ago.
    pub referrers: u64,
    /// They were pushed, or moved, or pulled after it was decided to delete them.
    pub changed: u64,
    /// No rule says anything of them.
    pub no_rule: u64,
}

/// How many manifests are kept, by the first reason that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifests {
    /// A tag points at them.
    pub tagged: u64,
    /// They were pushed or used, or lost a tag, within the time.
    pub recent: u64,
    /// They belong to an index, or refer to a subject, that is kept.
    pub needed: u64,
}

/// A tag or a manifest that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionDeletion {
    /// The repository.
    pub repository: String,
    /// The tag; `None` where a manifest was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest, or the one that the tag pointed at.
    pub digest: String,
    /// Why nothing keeps it.
    pub reason: String,
}

impl RetentionReport {
    /// The most repositories, and the most deletions, that a report names. The rest is only counted.
    pub const MOST: usize = 1000;

    /// Adds what was found in a repository.
    pub(super) fn add(&mut self, repository: RepositoryReport) {
        self.repositories += 1;
        self.total.add(&repository.counts);
        let losing = self.page.partition_point(RepositoryReport::loses);
        if repository.loses() {
            self.page.insert(losing, repository);
            self.page.truncate(Self::MOST);
        } else if self.page.len() < Self::MOST {
            self.page.push(repository);
        }
    }

    /// Counts something that stays as it is.
    pub(super) fn leave(&mut self, left: LeftItem) {
        self.failures += 1;
        if self.left.len() < LeftItem::MOST {
            self.left.push(left);
        }
    }

    /// Adds a deletion, which the counts of its repository have, too.
    pub(super) fn deleted(&mut self, deletion: RetentionDeletion) {
        if self.deletions.len() < Self::MOST {
            self.deletions.push(deletion);
        }
    }
}

impl RepositoryReport {
    /// Whether anything of it is deleted.
    fn loses(&self) -> bool {
        self.counts.tags_deleted + self.counts.manifests_deleted > 0
    }
}

impl RetentionCounts {
    fn add(&mut self, other: &Self) {
        // Taken apart, so that a new figure does not compile before it is added up.
        let Self {
            tags_deleted,
            tags_kept,
            manifests_deleted,
            manifests_kept,
        } = other;
        self.tags_deleted += tags_deleted;
        for (sum, more) in self.tags_kept.all().into_iter().zip({ *tags_kept }.all()) {
            *sum += *more;
        }
        self.manifests_deleted += manifests_deleted;
        for (sum, more) in self
            .manifests_kept
            .all()
            .into_iter()
            .zip({ *manifests_kept }.all())
        {
            *sum += *more;
        }
    }
}

impl KeptTags {
    /// How many they are.
    pub fn total(mut self) -> u64 {
        self.all().into_iter().map(|count| *count).sum()
    }

    /// The count of those that are kept for a reason.
    pub(super) fn of(&mut self, because: KeptBecause) -> &mut u64 {
        match because {
            KeptBecause::Newest => &mut self.newest,
            KeptBecause::Matches => &mut self.matches,
            KeptBecause::Pushed => &mut self.pushed,
            KeptBecause::Pulled => &mut self.pulled,
            KeptBecause::PullsUnknown => &mut self.pulls_unknown,
            KeptBecause::Referrer => &mut self.referrers,
        }
    }

    fn all(&mut self) -> [&mut u64; 8] {
        let Self {
            newest,
            matches,
            pushed,
            pulled,
            pulls_unknown,
            referrers,
            changed,
            no_rule,
        } = self;
        [
            newest,
            matches,
            pushed,
            pulled,
            pulls_unknown,
            referrers,
            changed,
            no_rule,
        ]
    }
}

impl fmt::Display for RetentionCounts {
    /// What is kept and why, such as `10 newest, 2 pulled`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tags, manifests) = (&self.tags_kept, &self.manifests_kept);
        let kept = [
            (tags.newest, "newest"),
            (tags.matches, "matching"),
            (tags.pushed, "pushed"),
            (tags.pulled, "pulled"),
            (tags.pulls_unknown, "perhaps pulled"),
            (tags.referrers, "of referrers"),
            (tags.changed, "changed"),
            (tags.no_rule, "without a rule"),
            (manifests.tagged, "tagged manifest"),
            (manifests.needed, "needed manifest"),
            (manifests.recent, "recent manifest"),
        ];
        let mut separator = "";
        for (count, reason) in kept.into_iter().filter(|(count, _)| *count > 0) {
            let plural = if count > 1 && reason.ends_with("manifest") {
                "s"
            } else {
                ""
            };
            write!(f, "{separator}{count} {reason}{plural}")?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

impl KeptManifests {
    /// How many they are.
    pub fn total(mut self) -> u64 {
        self.all().into_iter().map(|count| *count).sum()
    }

    fn all(&mut self) -> [&mut u64; 3] {
        let Self {
            tagged,
            recent,
            needed,
        } = self;
        [tagged, recent, needed]
    }
}
