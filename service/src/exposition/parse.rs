//! Reads an exposition in one pass over its lines. Never fails: a bad line is dropped and counted.
//!
//! Metadata may follow the samples that it describes, and families may be interleaved. So the first
//! pass notes for each sample the metadata block it is in; `resolve` then finds its family, once
//! all metadata is known.

use std::collections::HashMap;

use super::cursor::split_name;
use super::labels::same_labels;
use super::limits::{DroppedSamples, ParseLimits};
use super::model::{Exposition, SampleData, SourceText};
use super::resolve::{DeclaredType, MentionedNames, Resolver};
use super::sample_line::Lexer;
use super::series::SeriesIndex;

impl Exposition {
    /// Reads an exposition of text 0.0.4 or, where it ends with `# EOF`, of OpenMetrics. What is
    /// not of the format, or over a limit, is left out and counted.
    ///
    /// Of the format is what Prometheus, promtool and the strict parsers of OpenMetrics all read:
    /// no label begins with `__`; `le` of a histogram and `quantile` of a summary are numbers, and
    /// every bucket and quantile has its own; a histogram counts from 0 up; no timestamp is
    /// negative or has more than 53 bits; nothing holds a NUL. A label without a value is as none.
    ///
    /// A `Vec` or `String` is taken over without a copy.
    pub fn parse(text: impl Into<Vec<u8>>, limits: &ParseLimits) -> (Self, DroppedSamples) {
        let mut dropped = DroppedSamples::default();
        let mut bytes = text.into();
        // Positions in the text are `u32`, whatever the configured limit is.
        let max_bytes = limits.max_bytes.min(u32::MAX as usize);
        dropped.limit += cut(&mut bytes, max_bytes);
        let (text, invalid) = into_text(bytes);
        dropped.malformed += invalid;

        // OpenMetrics demands this last line, so the text itself says which format it is.
        let openmetrics = text.trim_end().lines().next_back() == Some("# EOF");
        let mut reader = LineReader::new(&text, openmetrics, limits.max_samples);
        let mut start = 0;
        for line in text.split('\n') {
            let end = start + line.len();
            reader.line(line.trim_end_matches('\r'), start);
            start = end + 1;
        }
        dropped += reader.dropped;
        let LineReader {
            names,
            groups,
            mut samples,
            ..
        } = reader;
        let resolver = Resolver::new(&text, openmetrics, names);
        let families = resolver.families(&groups.all, &mut samples, &mut dropped);
        (
            Self {
                texts: vec![SourceText {
                    content: text.into(),
                    openmetrics,
                    samples,
                }],
                families,
            },
            dropped,
        )
    }
}

/// Cuts an exposition behind the last whole line within the limit; how many samples that loses.
fn cut(bytes: &mut Vec<u8>, max: usize) -> u64 {
    if bytes.len() <= max {
        return 0;
    }
    let end = bytes[..max]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    // An estimate: what is cut off is not parsed, so a malformed line counts as a sample, too.
    let lost = bytes[end..].split(|&byte| byte == b'\n').filter(|line| {
        line.iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|&byte| byte != b'#')
    });
    let lost = lost.count() as u64;
    bytes.truncate(end);
    lost
}

/// Overwrites the lines that are not UTF-8 with blanks, and counts them. Positions stay the same,
/// and the text is not copied.
fn into_text(bytes: Vec<u8>) -> (String, u64) {
    let mut invalid = 0;
    let mut bytes = match String::from_utf8(bytes) {
        Ok(text) => return (text, 0),
        Err(error) => error.into_bytes(),
    };
    // No longer character contains the byte of a newline, so each line can be checked alone.
    for line in bytes.split_mut(|&byte| byte == b'\n') {
        if std::str::from_utf8(line).is_err() {
            line.fill(b' ');
            invalid += 1;
        }
    }
    (String::from_utf8(bytes).unwrap_or_default(), invalid)
}

/// The content of the lines read so far.
struct LineReader<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    max_samples: usize,
    names: MentionedNames<'t>,
    groups: SampleGroups,
    /// The name whose metadata came last.
    block: Option<u32>,
    samples: Vec<SampleData>,
    series: SeriesIndex,
    dropped: DroppedSamples,
}

impl<'t> LineReader<'t> {
    fn new(text: &'t str, openmetrics: bool, max_samples: usize) -> Self {
        // A sample line of under 64 bytes is rare; a wrong guess costs a reallocation.
        let expected = (text.len() / 64).min(max_samples);
        Self {
            text,
            lexer: Lexer::new(openmetrics),
            max_samples,
            names: MentionedNames::default(),
            groups: SampleGroups::default(),
            block: None,
            samples: Vec::with_capacity(expected),
            series: SeriesIndex::default(),
            dropped: DroppedSamples::default(),
        }
    }

    fn line(&mut self, line: &'t str, start: usize) {
        let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
        match line.as_bytes().get(blank) {
            None => {}
            Some(b'#') => {
                let is_fine = self.metadata(&line[blank + 1..]).is_some();
                self.dropped.malformed += u64::from(!is_fine);
            }
            Some(_) => self.sample(start + blank, start + line.len()),
        }
    }

    fn sample(&mut self, start: usize, end: usize) {
        let Some(mut sample) = self.lexer.sample(self.text, start, end) else {
            self.dropped.malformed += 1;
            return;
        };
        // After the lexer: a malformed line is reported as such, even beyond the limit.
        if self.samples.len() >= self.max_samples {
            self.dropped.limit += 1;
            return;
        }
        let (text, samples) = (self.text, &self.samples);
        let (name, labels) = (sample.name(text), sample.labels(text));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "fewer than the text's 4 GiB"
        )]
        let id = samples.len() as u32;
        let is_equal = |other: u32| {
            let other = samples[other as usize];
            other.name(text) == name && same_labels(other.labels(text), labels)
        };
        let hash_of = |other: u32| samples[other as usize].hash;
        if !self.series.insert(sample.hash, id, hash_of, is_equal) {
            self.dropped.duplicate += 1;
            return;
        }
        let name = self.names.intern(name);
        sample.family = self.groups.intern(name, self.block);
        self.samples.push(sample);
    }

    /// A line that begins with `#`, what follows it. None if it is metadata and malformed.
    fn metadata(&mut self, rest: &'t str) -> Option<()> {
        let trimmed = rest.trim_start_matches([' ', '\t']);
        let (is_help, after) = if let Some(after) = trimmed.strip_prefix("HELP") {
            (true, after)
        } else if let Some(after) = trimmed.strip_prefix("TYPE") {
            (false, after)
        } else {
            return Some(());
        };
        if !after.starts_with([' ', '\t']) {
            // A comment that happens to begin so, or a bare word that describes nothing.
            return (!after.is_empty()).then_some(());
        }
        let (name, after) = split_name(after.trim_start_matches([' ', '\t']))?;
        let value = after.trim_start_matches([' ', '\t']);
        let declared = if is_help {
            // Prometheus stops reading at a NUL.
            if value.contains('\0') {
                return None;
            }
            None
        } else {
            Some(DeclaredType::parse(value.trim_end())?)
        };
        let id = self.names.intern(name);
        self.block = Some(id);
        let entry = &mut self.names.all[id as usize];
        let Some(declared) = declared else {
            return is_new(&mut entry.help, value, |old| *old == value);
        };
        is_new(&mut entry.declared, declared, |old| *old == declared)
    }
}

/// Fills an empty slot. Repeating the same metadata is allowed; contradicting it is malformed.
fn is_new<T>(slot: &mut Option<T>, value: T, is_same: impl Fn(&T) -> bool) -> Option<()> {
    match slot {
        None => *slot = Some(value),
        Some(old) if is_same(old) => {}
        Some(_) => return None,
    }
    Some(())
}

/// Pairs of a sample's name and the block it stands in, numbered likewise.
#[derive(Default)]
struct SampleGroups {
    ids: HashMap<(u32, Option<u32>), u32>,
    all: Vec<(u32, Option<u32>)>,
    last: u32,
}

impl SampleGroups {
    fn intern(&mut self, name: u32, block: Option<u32>) -> u32 {
        let group = (name, block);
        // Consecutive samples nearly always share their group, which spares the hash.
        if self.all.get(self.last as usize) == Some(&group) {
            return self.last;
        }
        let all = &mut self.all;
        self.last = *self.ids.entry(group).or_insert_with(|| {
            all.push(group);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "fewer than the text's 4 GiB"
            )]
            let id = (all.len() - 1) as u32;
            id
        });
        self.last
    }
}

#[cfg(test)]
mod tests;
