//! The rows of a table of names: how often, and how many in all.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::escaped::escaped;

/// The most rows of a table.
const MOST_ROWS: usize = 50;

/// By what tables are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    /// What happens most often now.
    #[default]
    Rate,
    /// What has happened most often.
    Total,
    /// Its name.
    Name,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TableRow {
    /// The name, fit for a terminal.
    pub(super) name: String,
    /// How often in a second; `None` where that is not known yet.
    pub(super) rate: Option<f64>,
    /// How many since the start.
    pub(super) total: f64,
}

impl SortBy {
    /// The next one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Rate => Self::Total,
            Self::Total => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    /// What it is called.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Total => "total",
            Self::Name => "name",
        }
    }
}

/// The first rows of a table, without those that have counted nothing.
pub(super) fn rows(
    totals: BTreeMap<String, f64>,
    rates: &BTreeMap<String, f64>,
    sort: SortBy,
) -> Vec<TableRow> {
    let counted = totals.into_iter().filter(|(_, total)| *total > 0.0);
    let rows = counted.map(|(name, total)| TableRow {
        rate: rates.get(&name).copied(),
        name: escaped(&name),
        total,
    });
    let mut rows: Vec<_> = rows.collect();
    let most = |one: f64, other: f64| other.total_cmp(&one);
    rows.sort_by(|one, other| {
        let by_rate = most(one.rate.unwrap_or_default(), other.rate.unwrap_or_default());
        let by_total = most(one.total, other.total);
        let first = match sort {
            SortBy::Rate => by_rate.then(by_total),
            SortBy::Total => by_total,
            SortBy::Name => Ordering::Equal,
        };
        first.then_with(|| one.name.cmp(&other.name))
    });
    rows.truncate(MOST_ROWS);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_bounded() {
        let map = |all: &[(&str, f64)]| all.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let totals = [("a", 1.0), ("b", 30.0), ("c", 20.0), ("none", 0.0)];
        let rates: BTreeMap<_, _> = map(&[("a", 2.0), ("c", 2.0)]);
        let mut sort = SortBy::Rate;
        for (word, names) in [
            ("rate", ["c", "a", "b"]),
            ("total", ["b", "c", "a"]),
            ("name", ["a", "b", "c"]),
        ] {
            assert_eq!(sort.word(), word);
            let rows = rows(map(&totals), &rates, sort).into_iter();
            assert_eq!(rows.map(|row| row.name).collect::<Vec<_>>(), names);
            sort = sort.next();
        }
        assert_eq!(sort, SortBy::Rate);
        let many = (0..100).map(|at| (at.to_string(), 1.0)).collect();
        assert_eq!(rows(many, &rates, sort).len(), MOST_ROWS);
    }
}
