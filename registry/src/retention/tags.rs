//! Which tags are kept, and why. No I/O.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::settings::Keep;
use crate::oci::{Algorithm, Tag};
use crate::store::fs::{LastPull, SUBJECT_DIGITS};

/// What a tag is judged by.
pub(super) struct TagRules<'a> {
    keep: &'a Keep,
    now: SystemTime,
    /// When the last of the newest tags was pushed; `None` where nothing is kept for that.
    newest: Option<SystemTime>,
}

/// Why a tag is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptBecause {
    /// It is one of the newest.
    Newest,
    /// It matches a pattern.
    Matches,
    /// It was pushed within the time.
    Pushed,
    /// It was pulled within the time.
    Pulled,
    /// It may have been pulled within the time: what is remembered of pulls does not go back that far.
    PullsUnknown,
    /// It stands for a referrer, and goes with the subject or some time later.
    Referrer,
}

/// A tag that was pushed so short a time ago is kept in any case: another push within one tick of the clock
/// could not be told from this one.
const SETTLED: Duration = Duration::from_secs(1);

/// Finds the time of the last of the newest tags, in the memory of so many times.
pub(super) struct NewestTags {
    most: usize,
    /// The oldest one on top.
    times: BinaryHeap<Reverse<SystemTime>>,
}

impl NewestTags {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            times: BinaryHeap::new(),
        }
    }

    /// Whether a tag that was pushed then would be among them, so far.
    pub(super) fn would_take(&self, pushed: SystemTime) -> bool {
        let oldest = self.times.peek();
        self.times.len() < self.most || oldest.is_some_and(|Reverse(oldest)| pushed > *oldest)
    }

    pub(super) fn offer(&mut self, pushed: SystemTime) {
        self.times.push(Reverse(pushed));
        if self.times.len() > self.most {
            self.times.pop();
        }
    }

    /// The time from which on tags belong to the newest. Of several that were pushed at this time all do.
    pub(super) fn since(mut self) -> Option<SystemTime> {
        self.times.pop().map(|Reverse(time)| time)
    }
}

impl<'a> TagRules<'a> {
    /// `newest` is the time from which on tags belong to the newest, if a number of them is kept.
    pub(super) fn new(keep: &'a Keep, now: SystemTime, newest: Option<SystemTime>) -> Self {
        Self { keep, now, newest }
    }

    /// Why a tag is kept that was last pushed then; `None` if nothing keeps it. `last_pull` is asked only if the
    /// verdict depends on it. Only a tag that `is_counted` can be one of the newest.
    pub(super) fn judge(
        &self,
        tag: &Tag,
        is_counted: bool,
        pushed: SystemTime,
        last_pull: impl FnOnce() -> LastPull,
    ) -> Option<KeptBecause> {
        if is_counted && self.newest.is_some_and(|newest| pushed >= newest) {
            return Some(KeptBecause::Newest);
        }
        let tags = &self.keep.tags;
        if tags.iter().any(|pattern| pattern.matches(tag.as_str())) {
            return Some(KeptBecause::Matches);
        }
        let pushed_within = self.keep.pushed_within.unwrap_or_default();
        if self.is_within(pushed, pushed_within.max(SETTLED)) {
            return Some(KeptBecause::Pushed);
        }
        let pulled_within = self.keep.pulled_within?;
        let last = last_pull();
        self.is_within(last.at, pulled_within)
            .then_some(if last.is_known {
                KeptBecause::Pulled
            } else {
                KeptBecause::PullsUnknown
            })
    }

    /// Whether a time is at most so long ago. A time in the future, as after a clock was set back, counts as now.
    pub(super) fn is_within(&self, time: SystemTime, within: Duration) -> bool {
        self.now.duration_since(time).is_ok_and(|age| age <= within) || time > self.now
    }
}

/// The subject of a referrer, as far as a tag can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagSubject {
    pub(super) algorithm: Algorithm,
    /// The first digits of its digest, at most [`SUBJECT_DIGITS`].
    pub(super) hex: String,
}

/// The subject of a tag that stands for a referrer, as clients set them that do without the referrers API:
/// `sha256-<hex>`, with `.sig`, `.att` or another ending that says what it is.
pub(super) fn subject_of(tag: &Tag) -> Option<TagSubject> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let algorithm = Algorithm::parse(algorithm).ok()?;
    let length = algorithm.hex_length().min(SUBJECT_DIGITS);
    let (hex, ending) = rest.split_at_checked(length)?;
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex || !ending.is_empty() && !ending.starts_with('.') {
        return None;
    }
    let hex = hex.to_owned();
    Some(TagSubject { algorithm, hex })
}

impl fmt::Display for TagSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, hex } = self;
        let is_whole = hex.len() == algorithm.hex_length();
        write!(f, "{algorithm}:{hex}{}", if is_whole { "" } else { "…" })
    }
}

#[cfg(test)]
mod tests;
