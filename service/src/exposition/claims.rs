//! The sample names that the families of an exposition print.

use std::collections::HashMap;

use super::metric_type::MetricType;

/// The families of an exposition by name. A histogram `x` also prints `x_count`, so that a family
/// of that name cannot stand beside it.
#[derive(Default)]
pub(super) struct Claims<'a> {
    families: HashMap<&'a str, (MetricType, usize)>,
}

impl<'a> Claims<'a> {
    /// Notes family number `index`.
    pub(super) fn add(&mut self, name: &'a str, kind: MetricType, index: usize) {
        self.families.insert(name, (kind, index));
    }

    /// The family of that name.
    pub(super) fn get(&self, name: &str) -> Option<(MetricType, usize)> {
        self.families.get(name).copied()
    }

    /// Whether a further family would print a name that another one does.
    pub(super) fn clash(&self, name: &str, kind: MetricType) -> bool {
        if self.families.contains_key(name) {
            return true;
        }
        let printed_by_it = kind.suffixes().iter().any(|suffix| {
            self.families
                .contains_key(format!("{name}{suffix}").as_str())
        });
        // Two suffixed names are equal only if their families are: no suffix ends in another one.
        let printed_by_other = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
            name.strip_suffix(suffix)
                .and_then(|base| self.get(base))
                .is_some_and(|(other, _)| other.suffixes().contains(suffix))
        });
        printed_by_it || printed_by_other
    }
}
