//! One sample line of an exposition, split into pieces without a copy.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::escape::respell;
use super::labels::LabelPairs;
use super::model::{
    HAS_SOURCE, LE, NEGATIVE, PLAIN, QUANTILE, SampleData, TIMESTAMP, WRONG_LE, WRONG_QUANTILE,
};
use super::number::{is_bound, is_timestamp, parse_value, seconds_to_ms};
use super::series::SeriesHasher;

/// Reads sample lines.
pub(super) struct Lexer<'t> {
    openmetrics: bool,
    hasher: SeriesHasher,
    /// The name of the last sample and its hash: most often that of the next one, too.
    last: (&'t str, u64),
    /// The first labels of the last sample, likewise.
    labels: Vec<ParsedLabel<'t>>,
}

/// A label that was read.
#[derive(Clone, Copy)]
struct ParsedLabel<'t> {
    /// From the start of its name to its closing quote.
    raw: &'t str,
    name: &'t str,
    /// What it adds to the hash of its series.
    hash: u64,
    flags: u8,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(openmetrics: bool) -> Self {
        let hasher = SeriesHasher::get();
        let last = ("", hasher.name(""));
        Self {
            openmetrics,
            hasher,
            last,
            labels: Vec::with_capacity(FEW),
        }
    }

    /// Reads the sample line at `text[start..end]`; none if it is not of the format.
    pub(super) fn sample(&mut self, text: &'t str, start: usize, end: usize) -> Option<SampleData> {
        let line = text.get(start..end)?;
        let openmetrics = self.openmetrics;
        let mut at = Cursor { line, at: 0 };
        at.skip_blanks();
        let name_start = at.at;
        let name = at.take_name(true)?;
        if name != self.last.0 {
            self.last = (name, self.hasher.name(name));
        }
        let mut hash = self.last.1;
        let name_end = at.at;
        at.skip_blanks();
        let mut labels = name_end..name_end;
        let mut flags = PLAIN;
        if at.take(b'{') {
            let labels_start = at.at;
            flags = at.labels(self.hasher, &mut self.labels, &mut hash)?;
            labels = labels_start..at.at - 1;
            at.skip_blanks();
        } else if at.at == name_end {
            // Without braces, only a blank separates name and value: `x-1` is no sample.
            return None;
        }
        let value_start = at.at;
        let value = at.take_token();
        if parse_value(value)? < 0.0 {
            flags |= NEGATIVE;
        }
        let value_len = value.len();
        at.skip_blanks();
        if !at.is_done() && !at.at_exemplar(openmetrics) {
            let timestamp = at.take_token();
            let ms = if openmetrics {
                seconds_to_ms(timestamp)
            } else {
                timestamp.parse().ok()
            };
            if !is_timestamp(ms?) {
                return None;
            }
            flags |= TIMESTAMP;
            at.skip_blanks();
        }
        if !at.is_done() && !at.at_exemplar(openmetrics) {
            return None;
        }
        // A piece too long for its field makes the line malformed: that keeps `SampleData` small.
        Some(SampleData {
            hash,
            family: 0,
            start: u32::try_from(start + name_start).ok()?,
            labels_len: u32::try_from(labels.len()).ok()?,
            name_len: u16::try_from(name.len()).ok()?,
            labels_gap: u16::try_from(labels.start - name_end).ok()?,
            value_gap: u16::try_from(value_start - labels.end).ok()?,
            value_len: u16::try_from(value_len).ok()?,
            flags,
        })
    }
}

impl<'a> Cursor<'a> {
    /// Reads up to the closing brace, and returns the flags of the sample. A repeated name is
    /// malformed.
    fn labels(
        &mut self,
        hasher: SeriesHasher,
        known: &mut Vec<ParsedLabel<'a>>,
        hash: &mut u64,
    ) -> Option<u8> {
        let start = self.at;
        let mut flags = PLAIN;
        let mut count = 0;
        loop {
            let before = self.at;
            self.skip_blanks();
            if self.take(b'}') {
                // Blanks, or a comma before the brace.
                if count > 0 || self.at - before > 1 {
                    flags &= !PLAIN;
                }
                break;
            }
            let label_start = self.at;
            let label = self.label(hasher, known, count)?;
            let label_end = self.at;
            *hash = hash.wrapping_add(label.hash);
            count += 1;
            self.skip_blanks();
            flags |= label.flags & !PLAIN;
            if label.flags & PLAIN == 0 || label_start > before || self.at > label_end {
                flags &= !PLAIN;
            }
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return None;
            }
        }
        let is_unique = count <= FEW || are_unique(&self.line[start..self.at - 1]);
        is_unique.then_some(flags)
    }

    /// The label number `count`, given those of the sample before: most often they begin alike.
    fn label(
        &mut self,
        hasher: SeriesHasher,
        known: &mut Vec<ParsedLabel<'a>>,
        count: usize,
    ) -> Option<ParsedLabel<'a>> {
        let rest = self.line.get(self.at..)?;
        // The same text at the same position means the same label: neither parsed nor hashed again.
        // Its closing quote ends `raw`, so no longer label begins with it.
        if let Some(label) = known.get(count)
            && rest.starts_with(label.raw)
        {
            self.at += label.raw.len();
            return Some(*label);
        }
        known.truncate(count);
        let start = self.at;
        let name = self.take_name(false)?;
        self.skip_blanks();
        // `__name__` and its like are reserved.
        if name.starts_with("__") || !self.take(b'=') {
            return None;
        }
        self.skip_blanks();
        let (value, plain) = self.take_quoted()?;
        let raw = &self.line[start..self.at];
        // With blanks around the `=`, the text is longer than what the writers would write.
        let as_long = raw.len() == name.len() + value.len() + "=\"\"".len();
        let is_plain = plain && as_long && !value.is_empty();
        let spelling = if plain {
            Cow::Borrowed(value)
        } else {
            respell(value)
        };
        let meaning = match name {
            "source" if !value.is_empty() => HAS_SOURCE,
            "le" if is_bound(value) => LE,
            "le" => WRONG_LE,
            "quantile" if is_bound(value) => QUANTILE,
            "quantile" => WRONG_QUANTILE,
            _ => 0,
        };
        let label = ParsedLabel {
            raw,
            name,
            hash: hasher.label(name, &spelling),
            flags: meaning | if is_plain { PLAIN } else { 0 },
        };
        // Quadratic, but `known` is short; `labels` checks the rest by sorting.
        if known.iter().any(|other| other.name == name) {
            return None;
        }
        if count < FEW {
            known.push(label);
        }
        Some(label)
    }

    /// Whether an exemplar starts here. Exemplars are skipped.
    fn at_exemplar(&self, openmetrics: bool) -> bool {
        openmetrics && self.line[self.at..].starts_with("# {")
    }
}

/// Up to this many labels are compared each with each; more are sorted, so that no line costs
/// more than its length.
const FEW: usize = 16;

fn are_unique(labels: &str) -> bool {
    let mut names: Vec<_> = LabelPairs::new(labels).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.is_sorted_by(|left, right| left < right)
}
