//! Finds the family of each sample, once all metadata of an exposition is known.

use std::collections::HashMap;

use super::claims::Claims;
use super::limits::DroppedSamples;
use super::metric_type::MetricType;
use super::model::{
    FamilyData, FamilyPart, LE, NEGATIVE, QUANTILE, SampleData, TextSpan, WRONG_LE, WRONG_QUANTILE,
};

/// What a TYPE line declares: the text format's types, and OpenMetrics' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeclaredType {
    Known(MetricType),
    /// A gauge whose samples end in `_info`.
    Info,
    /// Its halves have names of their own; as a whole it means nothing in the text format.
    GaugeHistogram,
}

impl DeclaredType {
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Known(MetricType::Counter),
            "gauge" | "stateset" => Self::Known(MetricType::Gauge),
            "histogram" => Self::Known(MetricType::Histogram),
            "summary" => Self::Known(MetricType::Summary),
            "untyped" | "unknown" => Self::Known(MetricType::Untyped),
            "info" => Self::Info,
            "gaugehistogram" => Self::GaugeHistogram,
            _ => return None,
        })
    }
}

/// A name that the exposition mentions, with its metadata.
pub(super) struct MentionedName<'t> {
    pub(super) name: &'t str,
    pub(super) help: Option<&'t str>,
    pub(super) declared: Option<DeclaredType>,
}

/// The names that an exposition mentions, numbered in the order in which they first appear.
#[derive(Default)]
pub(super) struct MentionedNames<'t> {
    ids: HashMap<&'t str, u32>,
    pub(super) all: Vec<MentionedName<'t>>,
    last: u32,
}

impl<'t> MentionedNames<'t> {
    pub(super) fn intern(&mut self, name: &'t str) -> u32 {
        // Samples of one family usually follow each other: an equal name needs no hash.
        if self
            .all
            .get(self.last as usize)
            .is_some_and(|last| last.name == name)
        {
            return self.last;
        }
        let all = &mut self.all;
        self.last = *self.ids.entry(name).or_insert_with(|| {
            all.push(MentionedName {
                name,
                help: None,
                declared: None,
            });
            #[expect(
                clippy::cast_possible_truncation,
                reason = "fewer than the text's 4 GiB"
            )]
            let id = (all.len() - 1) as u32;
            id
        });
        self.last
    }

    /// The name without that ending, if the exposition mentions it with a type.
    fn base(&self, name: &str, suffix: &str) -> Option<(u32, DeclaredType)> {
        let id = *self.ids.get(name.strip_suffix(suffix)?)?;
        Some((id, self.all[id as usize].declared?))
    }
}

pub(super) struct Resolver<'t> {
    text: &'t str,
    openmetrics: bool,
    names: MentionedNames<'t>,
}

impl<'t> Resolver<'t> {
    pub(super) fn new(text: &'t str, openmetrics: bool, names: MentionedNames<'t>) -> Self {
        Self {
            text,
            openmetrics,
            names,
        }
    }

    /// Sorts samples by family, and returns the families. On entry, a sample's `family` is the
    /// number of its group: its name, and the metadata block that it is in.
    pub(super) fn families(
        &self,
        groups: &[(u32, Option<u32>)],
        samples: &mut Vec<SampleData>,
        dropped: &mut DroppedSamples,
    ) -> Vec<FamilyData> {
        let roles: Vec<_> = groups
            .iter()
            .map(|&(name, block)| self.role(name, self.owner(name, block)?))
            .collect();
        let all = samples.len();
        samples.retain_mut(|sample| match &roles[sample.family as usize] {
            Some(role) if role.is_filled_by(*sample) => {
                sample.family = role.owner;
                true
            }
            _ => false,
        });
        dropped.malformed += (all - samples.len()) as u64;
        // By position within a family, so that the text's order stays. Nearly always sorted
        // already, which this sort detects.
        samples.sort_unstable_by_key(|sample| (sample.family, sample.start));

        let meanings: Vec<_> = self
            .names
            .all
            .iter()
            .map(|name| self.meaning(name))
            .collect();
        // A base without samples only describes other families: it would print as an empty one.
        let mut is_base = vec![false; meanings.len()];
        for base in meanings.iter().filter_map(|meaning| meaning.base) {
            is_base[base as usize] = true;
        }
        let mut claims = Claims::default();
        let mut families = Vec::new();
        let mut start = 0;
        for (id, (name, meaning)) in self.names.all.iter().zip(&meanings).enumerate() {
            // Samples are sorted by the numbers of the names, so one walk over both pairs them.
            let count = samples[start..]
                .iter()
                .take_while(|s| s.family as usize == id)
                .count();
            let range = start..start + count;
            start = range.end;
            if count == 0 && (is_base[id] || !self.prints_empty(name)) {
                continue;
            }
            // Two families that print one name would be two TYPE lines for it: the first one stays.
            if claims.clash(name.name, meaning.kind) {
                dropped.type_conflict += count as u64;
                continue;
            }
            claims.add(name.name, meaning.kind, families.len());
            let part = FamilyPart {
                text: 0,
                samples: range,
                source: None,
            };
            families.push(FamilyData {
                name: (0, TextSpan::locate(self.text, name.name)),
                help: meaning
                    .help
                    .map(|help| (0, TextSpan::locate(self.text, help))),
                kind: meaning.kind,
                parts: if count > 0 { vec![part] } else { Vec::new() },
            });
        }
        families
    }

    /// The family that a sample belongs to; none if its name does not go with its family's type.
    fn owner(&self, name: u32, block: Option<u32>) -> Option<u32> {
        let own = &self.names.all[name as usize];
        // Where two families could own the name, the one whose block it stands in does.
        if let Some(block) = block
            && let MentionedName {
                name: base,
                declared: Some(DeclaredType::Known(kind)),
                ..
            } = self.names.all[block as usize]
            && own
                .name
                .strip_prefix(base)
                .is_some_and(|rest| kind.suffixes().contains(&rest))
        {
            return Some(block);
        }
        // A declared name keeps its own samples, even if it ends like part of another family.
        if let Some(declared) = own.declared {
            let bare = !matches!(declared, DeclaredType::Known(kind) if !kind.has_bare_samples());
            return bare.then_some(name);
        }
        let halves = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| {
                let (base, declared) = self.names.base(own.name, suffix)?;
                matches!(declared, DeclaredType::Known(kind) if kind.suffixes().contains(&suffix))
                    .then_some(base)
            });
        Some(halves.unwrap_or(name))
    }

    /// The role of a name's samples in their family.
    fn role(&self, name: u32, owner: u32) -> Option<SampleRole> {
        let family = &self.names.all[owner as usize];
        let suffix = self.names.all[name as usize]
            .name
            .strip_prefix(family.name)?;
        let (wants, refuses) = match (family.declared, suffix) {
            (Some(DeclaredType::Known(MetricType::Histogram)), "_bucket") => {
                (LE, WRONG_LE | NEGATIVE)
            }
            (Some(DeclaredType::Known(MetricType::Histogram)), "_count") => {
                (0, WRONG_LE | NEGATIVE)
            }
            // A sum may be negative: observed values may be.
            (Some(DeclaredType::Known(MetricType::Histogram)), _) => (0, WRONG_LE),
            (Some(DeclaredType::Known(MetricType::Summary)), "") => (QUANTILE, WRONG_QUANTILE),
            (Some(DeclaredType::Known(MetricType::Summary)), _) => (0, WRONG_QUANTILE),
            _ => (0, 0),
        };
        Some(SampleRole {
            owner,
            wants,
            refuses,
        })
    }

    /// The type and help of a family of that name: as declared, or derived from another name.
    fn meaning(&self, name: &MentionedName<'t>) -> FamilyMeaning<'t> {
        if let Some(DeclaredType::Known(kind)) = name.declared {
            return FamilyMeaning {
                kind,
                help: name.help,
                base: None,
            };
        }
        // OpenMetrics declares a counter without its `_total`, an info without its `_info`.
        let counter = self.names.base(name.name, "_total");
        let info = self.names.base(name.name, "_info");
        let derived = match (counter, info) {
            (Some((base, DeclaredType::Known(MetricType::Counter))), _) => {
                Some((base, MetricType::Counter))
            }
            (_, Some((base, DeclaredType::Info))) => Some((base, MetricType::Gauge)),
            _ => None,
        };
        if let Some((base, kind)) = derived {
            let help = name.help.or(self.names.all[base as usize].help);
            return FamilyMeaning {
                kind,
                help,
                base: Some(base),
            };
        }
        // The text format has no creation times. What carries them is a gauge of its own.
        let created = self
            .names
            .base(name.name, "_created")
            .is_some_and(|(_, declared)| {
                matches!(
                    declared,
                    DeclaredType::Known(
                        MetricType::Counter | MetricType::Histogram | MetricType::Summary
                    )
                )
            });
        let kind = if created {
            MetricType::Gauge
        } else {
            MetricType::Untyped
        };
        FamilyMeaning {
            kind,
            help: name.help,
            base: None,
        }
    }

    /// Whether the family is worth printing without a sample. In OpenMetrics the name of a
    /// counter's block is not the one its samples would have.
    fn prints_empty(&self, name: &MentionedName<'_>) -> bool {
        match name.declared {
            Some(DeclaredType::Known(MetricType::Counter)) => !self.openmetrics,
            Some(DeclaredType::Known(_)) => true,
            Some(DeclaredType::Info | DeclaredType::GaugeHistogram) | None => false,
        }
    }
}

/// The owner of a name's samples, and the labels that they need.
struct SampleRole {
    owner: u32,
    /// Flags of which a sample must have all.
    wants: u8,
    /// Flags of which it must have none.
    refuses: u8,
}

impl SampleRole {
    fn is_filled_by(&self, sample: SampleData) -> bool {
        sample.flags & self.wants == self.wants && sample.flags & self.refuses == 0
    }
}

struct FamilyMeaning<'t> {
    kind: MetricType,
    help: Option<&'t str>,
    /// The name whose metadata this one takes over.
    base: Option<u32>,
}
