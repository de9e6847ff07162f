//! The tags of one repository in a run.

use std::time::SystemTime;

use super::context::{RetentionRun, failed, log_deletion};
use super::reason;
use super::report::{RetentionCounts, RetentionDeletion, RetentionReport};
use super::settings::{Keep, RetentionRule};
use super::tags::{KeptBecause, NewestTags, TagRules, TagSubject, subject_of};
use crate::oci::{Digest, Name, Tag};
use crate::store::fs::{DatedTag, TaggedSubjects};
use crate::store::{Result, StoreError};

/// How many tags are removed, and synced, together.
const TOGETHER: usize = 256;

/// A tag that nothing keeps.
struct DoomedTag {
    found: DatedTag,
    /// What it pointed at when it was judged.
    digest: Digest,
    /// The subject, if the tag stands for a referrer.
    subject: Option<TagSubject>,
}

/// What is to be done with a tag.
enum TagFate {
    Kept(KeptBecause),
    /// It goes; with the subject, if it stands for a referrer.
    Doomed(Option<TagSubject>),
}

/// The rules for the tags of one repository.
struct TagRun<'a> {
    run: &'a RetentionRun<'a>,
    name: &'a Name,
    rule: &'a RetentionRule,
    keep: &'a Keep,
    rules: TagRules<'a>,
    subjects: TaggedSubjects<'a>,
}

/// Deletes the tags of a repository that its rule does not keep.
pub(super) fn tags(
    run: &RetentionRun<'_>,
    name: &Name,
    rule: Option<&RetentionRule>,
    counts: &mut RetentionCounts,
    report: &mut RetentionReport,
) -> Result<()> {
    let Some((rule, keep)) = rule.and_then(|rule| Some((rule, rule.keep.as_ref()?))) else {
        return run.items.each_tag(name, |_| {
            counts.tags_kept.no_rule += 1;
            run.pause()
        });
    };
    let rules = TagRules::new(keep, run.now, newest(run, name, keep)?);
    let tags = TagRun {
        run,
        name,
        rule,
        keep,
        rules,
        subjects: run.items.subjects(name),
    };
    let mut doomed = Vec::new();
    run.items.each_tag(name, |found| {
        run.pause()?;
        let judged = tags.digest(&found).and_then(|digest| {
            let fate = tags.judge(&found, &digest)?;
            Ok((fate, digest))
        });
        match judged {
            Ok((TagFate::Kept(because), _)) => *counts.tags_kept.of(because) += 1,
            Ok((TagFate::Doomed(subject), digest)) => doomed.push(DoomedTag {
                found,
                digest,
                subject,
            }),
            // It went meanwhile.
            Err(StoreError::ManifestUnknown) => {}
            // Nobody can tell what it points at, nor when that was pulled: it stays.
            Err(error @ StoreError::Corrupt { .. }) => failed(Some(name), error, report)?,
            Err(error) => return Err(error),
        }
        if doomed.len() >= TOGETHER {
            tags.delete(&std::mem::take(&mut doomed), counts, report)?;
        }
        Ok(())
    })?;
    tags.delete(&doomed, counts, report)
}

/// The time from which on tags belong to the newest.
fn newest(run: &RetentionRun<'_>, name: &Name, keep: &Keep) -> Result<Option<SystemTime>> {
    let Some(most) = keep.newest else {
        return Ok(None);
    };
    let mut newest = NewestTags::new(most);
    run.items.each_tag(name, |found| {
        let pushed = found.version.pushed();
        // A signature takes no image's place, and neither does a damaged tag, which nobody can pull.
        if subject_of(&found.tag).is_none() && newest.would_take(pushed) {
            match run.items.tag_digest(name, &found.tag) {
                Ok(Some(_)) => newest.offer(pushed),
                Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        run.pause()
    })?;
    Ok(newest.since())
}

impl TagRun<'_> {
    /// What a tag points at. Tags that are kept are read, too, so that a damaged one is always reported.
    fn digest(&self, found: &DatedTag) -> Result<Digest> {
        let digest = self.run.items.tag_digest(self.name, &found.tag)?;
        digest.ok_or(StoreError::ManifestUnknown)
    }

    fn judge(&self, found: &DatedTag, digest: &Digest) -> Result<TagFate> {
        let pushed = found.version.pushed();
        let subject = subject_of(&found.tag);
        let last_pull = || self.run.pulls.last(self.name, &found.tag, digest);
        let is_counted = subject.is_none();
        let kept = self.rules.judge(&found.tag, is_counted, pushed, last_pull);
        Ok(match (kept, subject) {
            (Some(because), _) => TagFate::Kept(because),
            (None, None) => TagFate::Doomed(None),
            (None, Some(subject)) if self.keeps_referrer(&subject, pushed)? => {
                TagFate::Kept(KeptBecause::Referrer)
            }
            (None, Some(subject)) => TagFate::Doomed(Some(subject)),
        })
    }

    /// Whether the tag of a referrer stays: as long as its subject is there, and then as long as a referrer
    /// without a tag would.
    fn keeps_referrer(&self, subject: &TagSubject, pushed: SystemTime) -> Result<bool> {
        let untagged = self.rule.untagged;
        let is_recent = untagged.is_none_or(|time| self.rules.is_within(pushed, time));
        Ok(is_recent || self.subjects.holds(subject.algorithm, &subject.hex)?)
    }

    /// Deletes tags that are as they were found.
    fn delete(
        &self,
        doomed: &[DoomedTag],
        counts: &mut RetentionCounts,
        report: &mut RetentionReport,
    ) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let dry = self.run.dry_run;
        let items = &self.run.items;
        let mut gone = Vec::with_capacity(doomed.len());
        let mut done = Ok(());
        if dry {
            gone.extend(doomed.iter().map(|one| Some(one.digest.clone())));
        } else {
            let found: Vec<_> = doomed.iter().map(|one| one.found.clone()).collect();
            let confirm = |tag: &Tag, digest: &Digest| self.is_doomed(tag, digest);
            // What is gone is told, even if something failed then.
            done = items.remove_tags(self.name, &found, &confirm, &mut gone);
        }
        for (one, digest) in doomed.iter().zip(gone) {
            let Some(digest) = digest else {
                counts.tags_kept.changed += 1;
                continue;
            };
            counts.tags_deleted += 1;
            let deletion = RetentionDeletion {
                repository: self.name.as_str().to_owned(),
                tag: Some(one.found.tag.as_str().to_owned()),
                digest: digest.as_str().to_owned(),
                reason: self.reason(one, &digest),
            };
            log_deletion(&deletion, dry);
            report.deleted(deletion);
        }
        done
    }

    /// Whether a tag still goes: nobody has pulled it, or pushed its subject, since it was judged.
    fn is_doomed(&self, tag: &Tag, digest: &Digest) -> bool {
        if let Some(TagSubject { algorithm, hex }) = subject_of(tag)
            && self.subjects.holds_now(algorithm, &hex).unwrap_or(true)
        {
            return false;
        }
        let last = || self.run.pulls.last(self.name, tag, digest);
        let within = self.keep.pulled_within;
        within.is_none_or(|within| !self.rules.is_within(last().at, within))
    }

    fn reason(&self, one: &DoomedTag, digest: &Digest) -> String {
        let (pushed, now) = (one.found.version.pushed(), self.run.now);
        if let Some(subject) = &one.subject {
            return reason::of_referrer(subject, pushed, now);
        }
        let last = self.run.pulls.last(self.name, &one.found.tag, digest);
        reason::of_tag(self.keep, pushed, last, now)
    }
}
