//! The form in which each family is written in OpenMetrics, where a type reserves more names than
//! the text format prints: a counter `x` has `x`, `x_total` and `x_created`.

use std::collections::HashSet;

use super::sound::Soundness;
use crate::exposition::metric_type::MetricType;
use crate::exposition::model::{Exposition, ExpositionFamily};
use crate::exposition::series::SeriesHasher;

/// How a family is written.
pub(super) enum FamilyForm {
    /// Under its type.
    Typed {
        /// The numbers of the parts that are left out, because they do not go with the type.
        without: Vec<usize>,
    },
    /// As `unknown`.
    Unknown,
    /// Not at all.
    Omitted,
}

impl Exposition {
    /// The form of each family.
    pub(super) fn forms(&self) -> Vec<FamilyForm> {
        let mut order: Vec<_> = self.families().enumerate().collect();
        order.sort_by_key(|(_, family)| rank(family));
        let mut names = TakenNames::new();
        let mut forms: Vec<_> = order.iter().map(|_| FamilyForm::Omitted).collect();
        for (index, family) in order {
            // By index: the result has the order of the exposition, not that of the claims.
            forms[index] = form(&family, &mut names);
        }
        forms
    }
}

/// The order in which families claim their names: by exposition, first merged first. Within one,
/// counters come after the others, because they lose least as `unknown`. Names in `_created` come
/// last, because they usually belong to another family.
fn rank(family: &ExpositionFamily<'_>) -> (u32, u8) {
    let class = if family.name().ends_with("_created") {
        2
    } else {
        u8::from(family.kind() == MetricType::Counter)
    };
    (family.exposition_number(), class)
}

fn form(family: &ExpositionFamily<'_>, names: &mut TakenNames) -> FamilyForm {
    let kind = family.kind();
    // In this order: a family that cannot have its type must not claim the type's names.
    if let Some(without) = unsound_parts(family)
        && names.take(typed_name(family), reserved(kind))
    {
        FamilyForm::Typed { without }
    } else if names.take(family.name(), kind.endings()) {
        FamilyForm::Unknown
    } else {
        FamilyForm::Omitted
    }
}

/// The name on the family's TYPE line: a counter's is without `_total`.
pub(super) fn typed_name<'a>(family: &ExpositionFamily<'a>) -> &'a str {
    let name = family.name();
    match family.kind() {
        MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    }
}

/// The parts that do not go with the family's type; none if the first is of these.
fn unsound_parts(family: &ExpositionFamily<'_>) -> Option<Vec<usize>> {
    match family.kind() {
        MetricType::Gauge | MetricType::Untyped => Some(Vec::new()),
        MetricType::Counter => {
            let base = family.name().strip_suffix("_total")?;
            // A counter named `_total` would have no name left on its TYPE line.
            (!base.is_empty()).then(Vec::new)
        }
        kind @ (MetricType::Histogram | MetricType::Summary) => {
            let mut soundness = Soundness::new(family.name(), kind);
            let parts = family.parts().enumerate();
            let unsound = parts.filter(|(_, part)| !soundness.holds(family.samples_of(part)));
            let unsound: Vec<_> = unsound.map(|(index, _)| index).collect();
            (unsound.first() != Some(&0)).then_some(unsound)
        }
    }
}

/// What follows a family's name in the names that nothing else may have.
fn reserved(kind: MetricType) -> impl Iterator<Item = &'static str> {
    let (total, created): (&[_], &[_]) = match kind {
        MetricType::Counter => (&["_total"], &["_created"]),
        MetricType::Histogram | MetricType::Summary => (&[], &["_created"]),
        MetricType::Gauge | MetricType::Untyped => (&[], &[]),
    };
    // With the bare name: the TYPE line has it, even if no sample does.
    let own = [""].iter().chain(kind.suffixes());
    own.chain(total).chain(created).copied()
}

/// The names that are taken, by their hashes: an exposition can have a family for each of its
/// samples.
struct TakenNames {
    taken: HashSet<u64>,
    hasher: SeriesHasher,
    name: String,
}

impl TakenNames {
    fn new() -> Self {
        Self {
            taken: HashSet::new(),
            hasher: SeriesHasher::get(),
            name: String::new(),
        }
    }

    /// Claims a name with each of these endings, or none of them if one is taken.
    fn take(&mut self, name: &str, endings: impl Iterator<Item = &'static str>) -> bool {
        let mut hashes = [0; 5];
        let mut count = 0;
        // No family has more than five names.
        for (hash, ending) in hashes.iter_mut().zip(endings) {
            self.name.clear();
            self.name.push_str(name);
            self.name.push_str(ending);
            *hash = self.hasher.name(&self.name);
            count += 1;
        }
        let hashes = &hashes[..count];
        let is_free = !hashes.iter().any(|hash| self.taken.contains(hash));
        if is_free {
            self.taken.extend(hashes);
        }
        is_free
    }
}
