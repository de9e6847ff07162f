//! Merges expositions into one that is valid whatever they hold.

use std::sync::Arc;

use super::claims::Claims;
use super::escape::{escape_label, respell};
use super::labels::{LabelPairs, exported_source};
use super::limits::{DroppedSamples, ParseLimits};
use super::model::{Exposition, FamilyData, FamilyPart, HAS_SOURCE, Sample, SourceText};
use super::series::{SeriesHasher, SeriesIndex};

impl Exposition {
    /// Adds what another exposition holds, each sample with a label `source`. A label of that name
    /// which a sample has already becomes `exported_source`.
    ///
    /// What is here stays as it is: of the other exposition, families of another type and families
    /// that print names of another family are dropped, and so are series that are here already.
    /// Help and type are those of the exposition that had the family first.
    pub fn merge(&mut self, other: Self, source: &str) -> DroppedSamples {
        let mut dropped = DroppedSamples::default();
        // A `source` that was added before must be in the text before the next one is added.
        let mut other = other.flattened();
        for text in &mut other.texts {
            text.add_source(source);
        }
        let offset = self.texts.len();
        self.texts.append(&mut other.texts);
        let source = source.into();
        for joined in self.join(other.families, offset, &source, &mut dropped) {
            dropped.duplicate += self.drop_duplicates(joined);
        }
        dropped
    }

    /// The same exposition with a single text and no added labels.
    fn flattened(self) -> Self {
        let mut parts = self.families.iter().flat_map(|family| &family.parts);
        if self.texts.len() <= 1 && parts.all(|part| part.source.is_none()) {
            return self;
        }
        let mut text = String::new();
        self.write_text(&mut text);
        // It was within the limits when it came in: nothing may be lost now.
        Self::parse(
            text,
            &ParseLimits {
                max_bytes: usize::MAX,
                max_samples: usize::MAX,
            },
        )
        .0
    }

    /// Adds families, and returns the numbers of the families here that gained samples.
    fn join(
        &mut self,
        families: Vec<FamilyData>,
        offset: usize,
        source: &Arc<str>,
        dropped: &mut DroppedSamples,
    ) -> Vec<usize> {
        let Self {
            texts,
            families: ours,
        } = self;
        let mut claims = Claims::default();
        for (index, family) in ours.iter().enumerate() {
            claims.add(family.name(texts), family.kind, index);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "one text for each exposition merged"
        )]
        let offset = offset as u32;
        let mut joined = Vec::new();
        for mut family in families {
            family.name.0 += offset;
            family.help = family.help.map(|(text, help)| (text + offset, help));
            for part in &mut family.parts {
                part.text += offset;
                part.source = Some(Arc::clone(source));
            }
            let name = family.name(texts);
            match claims.get(name) {
                Some((kind, index)) if kind == family.kind => {
                    let own = &mut ours[index];
                    own.help = own.help.or(family.help);
                    if !family.parts.is_empty() {
                        joined.push(index);
                    }
                    own.parts.append(&mut family.parts);
                }
                None if !claims.clash(name, family.kind) => {
                    claims.add(name, family.kind, ours.len());
                    joined.push(ours.len());
                    ours.push(family);
                }
                _ => dropped.type_conflict += family.parts.iter().map(FamilyPart::len).sum::<u64>(),
            }
        }
        joined
    }

    /// Removes from the last part of a family the series that the family has already.
    fn drop_duplicates(&mut self, family: usize) -> u64 {
        let lost = self.duplicates(&self.families[family].parts);
        let Some(part) = self.families[family].parts.last_mut() else {
            return 0;
        };
        let samples = &mut self.texts[part.text as usize].samples[part.samples.clone()];
        // Compacts in place: the part keeps its range in the text's samples.
        let mut lost_ones = lost.iter().copied().peekable();
        let mut kept = 0;
        for at in 0..samples.len() {
            if lost_ones.next_if_eq(&at).is_none() {
                samples[kept] = samples[at];
                kept += 1;
            }
        }
        part.samples.end = part.samples.start + kept;
        lost.len() as u64
    }

    /// Which samples of the last part are in an earlier one, or in itself. Only a label `source`
    /// can make them equal: what is added otherwise differs between parts.
    fn duplicates(&self, parts: &[FamilyPart]) -> Vec<usize> {
        let Some((last, earlier)) = parts.split_last() else {
            return Vec::new();
        };
        let mut known = SeenSeries::default();
        for part in earlier {
            let all = part.source == last.source;
            if all || part.source.is_none() {
                let samples = self.samples(part);
                samples
                    .filter(|s| all || s.data.flags & HAS_SOURCE != 0)
                    .for_each(|sample| {
                        known.insert(sample);
                    });
            }
        }
        // In the usual case no label was renamed, and nothing needs a hash: parsing has checked the
        // last part, and its added `source` keeps it apart from the others.
        let renamed = self
            .samples(last)
            .any(|sample| sample.data.flags & HAS_SOURCE != 0);
        if known.samples.is_empty() && !renamed {
            return Vec::new();
        }
        let samples = self.samples(last).enumerate();
        samples
            .filter_map(|(at, sample)| (!known.insert(sample)).then_some(at))
            .collect()
    }
}

impl SourceText {
    /// Updates the hashes of the series for the label `source` that merging adds.
    fn add_source(&mut self, source: &str) {
        let mut escaped = String::new();
        escape_label(source, &mut escaped);
        let hasher = SeriesHasher::get();
        let added = hasher.label("source", &escaped);
        for sample in &mut self.samples {
            // The hashes of labels are added up, so that a label can be added without the others.
            sample.hash = sample.hash.wrapping_add(added);
            if sample.flags & HAS_SOURCE == 0 {
                continue;
            }
            let labels = sample.labels(&self.content);
            if let Some((name, value)) = LabelPairs::new(labels).find(|(name, _)| *name == "source")
            {
                let value = respell(value);
                let renamed = hasher.label(&exported_source(labels), &value);
                let hash = sample.hash.wrapping_sub(hasher.label(name, &value));
                sample.hash = hash.wrapping_add(renamed);
            }
        }
    }
}

/// Series that have been seen.
#[derive(Default)]
struct SeenSeries<'a> {
    samples: Vec<Sample<'a>>,
    index: SeriesIndex,
}

impl<'a> SeenSeries<'a> {
    fn insert(&mut self, sample: Sample<'a>) -> bool {
        let samples = &self.samples;
        #[expect(clippy::cast_possible_truncation, reason = "fewer than a text's 4 GiB")]
        let id = samples.len() as u32;
        let hash_of = |other: u32| samples[other as usize].data.hash;
        let is_equal = |other: u32| {
            // Reached with equal hashes only, so sorting is rare.
            let other = &samples[other as usize];
            other.name() == sample.name() && sorted_labels(other) == sorted_labels(&sample)
        };
        let is_new = self.index.insert(sample.data.hash, id, hash_of, is_equal);
        if is_new {
            self.samples.push(sample);
        }
        is_new
    }
}

fn sorted_labels(sample: &Sample<'_>) -> Vec<(String, String)> {
    let mut labels: Vec<_> = sample
        .labels()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    labels.sort_unstable();
    labels
}

#[cfg(test)]
mod tests;
