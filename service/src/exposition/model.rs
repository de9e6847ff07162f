//! The exposition in memory: texts, and families whose samples point into them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::escape::{HelpText, unescape};
use super::labels::{LabelPairs, exported_source};
use super::metric_type::MetricType;
use super::number::seconds_to_ms;

/// An exposition: families of samples, ready to be merged and written.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    pub(super) texts: Vec<SourceText>,
    pub(super) families: Vec<FamilyData>,
}

/// A text, and the samples in it.
#[derive(Clone, Debug)]
pub(super) struct SourceText {
    /// Shared by clones of the exposition.
    pub(super) content: Arc<String>,
    /// Whether timestamps are seconds, and HELP texts escape quotes.
    pub(super) openmetrics: bool,
    /// Those of one family lie together, in the order of the text.
    pub(super) samples: Vec<SampleData>,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextSpan {
    pub(super) start: u32,
    pub(super) len: u32,
}

#[derive(Clone, Debug)]
pub(super) struct FamilyData {
    /// The text that the name is a piece of, and which.
    pub(super) name: (u32, TextSpan),
    /// The text that the help is a piece of, and which.
    pub(super) help: Option<(u32, TextSpan)>,
    pub(super) kind: MetricType,
    /// Samples by the exposition they came from, in the order of merging.
    pub(super) parts: Vec<FamilyPart>,
}

/// The samples of one family that came with one exposition.
#[derive(Clone, Debug)]
pub(super) struct FamilyPart {
    pub(super) text: u32,
    /// Which of the text's samples.
    pub(super) samples: Range<usize>,
    /// What to add as label `source`.
    pub(super) source: Option<Arc<str>>,
}

/// One sample: 32 bytes, so that a large exposition costs little beside its text. In the text it is
/// name, gap, labels (what is inside the braces), gap, value.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleData {
    /// The hash of name and label set, whatever the labels' order.
    pub(super) hash: u64,
    /// While an exposition is read: what the sample is sorted by.
    pub(super) family: u32,
    pub(super) start: u32,
    pub(super) labels_len: u32,
    // Narrow: the lexer refuses a line with a name, a gap or a value beyond 64 KiB.
    pub(super) name_len: u16,
    pub(super) labels_gap: u16,
    pub(super) value_gap: u16,
    pub(super) value_len: u16,
    // All eight bits are in use. The padding has room for three more bytes.
    pub(super) flags: u8,
}

/// A timestamp follows the value.
pub(super) const TIMESTAMP: u8 = 1;
/// The labels have our own escapes, and can be copied.
pub(super) const PLAIN: u8 = 2;
/// There is a label `source`.
pub(super) const HAS_SOURCE: u8 = 4;
/// There is a label `le` that is a number.
pub(super) const LE: u8 = 8;
/// There is a label `le` that is none.
pub(super) const WRONG_LE: u8 = 16;
/// There is a label `quantile` that is a number.
pub(super) const QUANTILE: u8 = 32;
/// There is a label `quantile` that is none.
pub(super) const WRONG_QUANTILE: u8 = 64;
/// The value is below zero.
pub(super) const NEGATIVE: u8 = 128;

impl TextSpan {
    /// Where a piece of `text` is in it.
    pub(super) fn locate(text: &str, piece: &str) -> Self {
        // A piece is a slice of its text, so the distance of their pointers is the position: no
        // search.
        let start = (piece.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        // No text reaches 4 GiB. A span that did would be empty, and not wrong.
        match (u32::try_from(start), u32::try_from(piece.len())) {
            (Ok(start), Ok(len)) => Self { start, len },
            _ => Self::default(),
        }
    }

    pub(super) fn of(self, text: &str) -> &str {
        slice(text, self.start as usize, self.len as usize)
    }
}

impl FamilyData {
    pub(super) fn name<'t>(&self, texts: &'t [SourceText]) -> &'t str {
        let (text, name) = self.name;
        name.of(&texts[text as usize].content)
    }
}

impl FamilyPart {
    /// How many samples there are.
    pub(super) fn len(&self) -> u64 {
        self.samples.len() as u64
    }
}

impl SampleData {
    pub(super) fn name(self, text: &str) -> &str {
        slice(text, self.start as usize, usize::from(self.name_len))
    }

    /// The inside of the braces.
    pub(super) fn labels(self, text: &str) -> &str {
        slice(text, self.labels_start(), self.labels_len as usize)
    }

    pub(super) fn value(self, text: &str) -> &str {
        slice(text, self.value_start(), usize::from(self.value_len))
    }

    fn labels_start(self) -> usize {
        self.start as usize + usize::from(self.name_len) + usize::from(self.labels_gap)
    }

    pub(super) fn value_start(self) -> usize {
        self.labels_start() + self.labels_len as usize + usize::from(self.value_gap)
    }

    fn value_end(self) -> usize {
        self.value_start() + usize::from(self.value_len)
    }
}

/// Positions come from the lexer of the same text, so that nothing is ever out of it; were one,
/// the piece would be empty.
fn slice(text: &str, start: usize, len: usize) -> &str {
    text.get(start..start + len).unwrap_or_default()
}

impl Exposition {
    /// The families, in the order in which they are written.
    pub fn families(&self) -> impl ExactSizeIterator<Item = ExpositionFamily<'_>> {
        self.families.iter().map(|data| ExpositionFamily {
            exposition: self,
            data,
        })
    }

    /// The family of that name.
    pub fn family(&self, name: &str) -> Option<ExpositionFamily<'_>> {
        self.families().find(|family| family.name() == name)
    }

    /// How many samples there are.
    pub fn sample_count(&self) -> usize {
        self.families
            .iter()
            .flat_map(|family| &family.parts)
            .map(|part| part.samples.len())
            .sum()
    }

    /// The samples of a part.
    pub(super) fn samples<'a>(
        &'a self,
        part: &'a FamilyPart,
    ) -> impl Iterator<Item = Sample<'a>> + use<'a> {
        let text = &self.texts[part.text as usize];
        text.samples[part.samples.clone()]
            .iter()
            .map(move |&data| Sample { text, part, data })
    }

    /// About how long the exposition is when it is written.
    pub(super) fn size_hint(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.content.len()).sum();
        let parts = self.families.iter().flat_map(|family| &family.parts);
        // Rather too much than too little: a text that outgrows the reserve is copied whole.
        let added = parts.map(|part| {
            part.samples.len() * part.source.as_ref().map_or(0, |source| source.len() + 12)
        });
        texts + added.sum::<usize>() + 64 * self.families.len()
    }
}

/// A family of an exposition.
#[derive(Clone, Copy, Debug)]
pub struct ExpositionFamily<'a> {
    exposition: &'a Exposition,
    data: &'a FamilyData,
}

impl<'a> ExpositionFamily<'a> {
    /// The name, in the text format's sense: that of a counter includes its `_total`.
    pub fn name(&self) -> &'a str {
        self.data.name(&self.exposition.texts)
    }

    /// What the family's samples mean.
    pub fn kind(&self) -> MetricType {
        self.data.kind
    }

    /// The help text without escapes, if the family has one.
    pub fn help(&self) -> Option<Cow<'a, str>> {
        self.escaped_help().map(HelpText::unescape)
    }

    /// The samples, in the order in which they are written.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'a>> + use<'a> {
        let exposition = self.exposition;
        self.parts().flat_map(|part| exposition.samples(part))
    }

    /// The number of the exposition that had the family first.
    pub(super) fn exposition_number(&self) -> u32 {
        self.data.name.0
    }

    /// Samples by the exposition they came from.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'a FamilyPart> + use<'a> {
        self.data.parts.iter()
    }

    /// The samples of one of the parts.
    pub(super) fn samples_of(
        &self,
        part: &'a FamilyPart,
    ) -> impl Iterator<Item = Sample<'a>> + use<'a> {
        self.exposition.samples(part)
    }

    pub(super) fn escaped_help(&self) -> Option<HelpText<'a>> {
        let (text, help) = self.data.help?;
        let text = &self.exposition.texts[text as usize];
        Some(HelpText {
            raw: help.of(&text.content),
            openmetrics: text.openmetrics,
        })
    }
}

/// A sample of an exposition.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub(super) text: &'a SourceText,
    pub(super) part: &'a FamilyPart,
    pub(super) data: SampleData,
}

impl<'a> Sample<'a> {
    /// The name: the family's, or that with a suffix.
    pub fn name(&self) -> &'a str {
        self.data.name(&self.text.content)
    }

    /// The labels with their values unescaped, in the order in which they are written. A label
    /// without a value is as none.
    pub fn labels(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let renamed = self.renamed_source();
        let labels = LabelPairs::new(self.raw_labels()).filter(|(_, value)| !value.is_empty());
        let labels = labels.map(move |(name, value)| {
            let name = match &renamed {
                Some(renamed) if name == "source" => Cow::Owned(renamed.clone()),
                _ => Cow::Borrowed(name),
            };
            (name, unescape(value))
        });
        let source = self.part.source.as_deref();
        // Last, where the writers put it: what is written is read back in the same order.
        labels.chain(source.map(|source| (Cow::Borrowed("source"), Cow::Borrowed(source))))
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        self.labels()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value)
    }

    /// The value.
    pub fn value(&self) -> f64 {
        // Parsed before, so this cannot fail. To keep the number would cost 8 bytes for each
        // sample.
        self.value_text().parse().unwrap_or(f64::NAN)
    }

    /// What merging compares.
    #[cfg(test)]
    pub(crate) fn hash_and_flags(&self) -> (u64, u8) {
        (self.data.hash, self.data.flags)
    }

    /// The text of the value.
    pub fn value_text(&self) -> &'a str {
        self.data.value(&self.text.content)
    }

    /// The timestamp in milliseconds since 1970, if the sample has one.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let raw = self.timestamp_text()?;
        if self.text.openmetrics {
            seconds_to_ms(raw)
        } else {
            raw.parse().ok()
        }
    }

    /// The text of the timestamp, in the unit of its format.
    fn timestamp_text(&self) -> Option<&'a str> {
        if self.data.flags & TIMESTAMP == 0 {
            return None;
        }
        // Found again behind the value: few samples have a timestamp, so none stores its position.
        let rest = self.text.content.get(self.data.value_end()..)?;
        rest.trim_start_matches([' ', '\t'])
            .split([' ', '\t', '\r', '\n'])
            .next()
    }

    /// The labels as the text spells them, without what merging adds.
    pub(super) fn raw_labels(&self) -> &'a str {
        self.data.labels(&self.text.content)
    }

    /// What a label `source` of the text itself is called beside the `source` that is added.
    pub(super) fn renamed_source(&self) -> Option<String> {
        if self.data.flags & HAS_SOURCE == 0 || self.part.source.is_none() {
            return None;
        }
        Some(exported_source(self.raw_labels()))
    }
}
