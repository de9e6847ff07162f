//! The counters of all processes, summed, next to the clients' books.

use std::collections::{BTreeMap, BTreeSet};

use super::books::{Books, SeriesKey};
use super::observation::Bounds;
use crate::scrape::Scrape;

/// A family that the books have, and by which labels it is compared.
#[derive(Debug)]
pub(crate) struct ComparedFamily {
    pub(crate) name: &'static str,
    labels: &'static [&'static str],
    /// The labels that are known of an event whose others are not: sums over them are compared, too.
    known: &'static [&'static str],
    /// Why its bounds may differ, if they may.
    pub(crate) why: &'static str,
}

const fn family(
    name: &'static str,
    labels: &'static [&'static str],
    known: &'static [&'static str],
    why: &'static str,
) -> ComparedFamily {
    ComparedFamily {
        name,
        labels,
        known,
        why,
    }
}

const PAIR: &[&str] = &["endpoint", "method"];

/// Every family that clients can keep books of.
pub(crate) const FAMILIES: &[ComparedFamily] = &[
    family(
        "http_requests_total",
        &["endpoint", "method", "status"],
        PAIR,
        "the status of a request whose client saw no response is not known; the sum by endpoint and method is",
    ),
    family("http_request_duration_seconds_count", PAIR, PAIR, ""),
    family(
        "http_response_ttfb_seconds_count",
        PAIR,
        PAIR,
        "whether a response began that the client never saw",
    ),
    family(
        "http_request_body_bytes_total",
        PAIR,
        PAIR,
        "how much the proxy read of a body whose upload failed",
    ),
    family(
        "http_response_body_bytes_total",
        PAIR,
        PAIR,
        "how much the proxy sent to a client that had left",
    ),
    family(
        "http_request_size_bytes_count",
        &["endpoint"],
        &["endpoint"],
        "whether the proxy read the whole body of an upload that failed",
    ),
    family(
        "http_response_size_bytes_count",
        &["endpoint"],
        &["endpoint"],
        "whether all was sent to a client that had left",
    ),
    family(
        "blob_operations_total",
        &["operation", "result"],
        &["operation"],
        "the result of a request whose client saw no response",
    ),
    family(
        "manifest_operations_total",
        &["operation", "reference", "kind", "result"],
        &["operation", "reference"],
        "the result of a request whose client saw no response",
    ),
    family(
        "blob_mounts_total",
        &["result"],
        &[],
        "as blob_operations_total",
    ),
    family(
        "repository_operations_total",
        &["operation"],
        &[],
        "as blob_operations_total",
    ),
    family(
        "repository_bytes_total",
        &["direction"],
        &["direction"],
        "as http_request_body_bytes_total",
    ),
    family(
        "client_requests_total",
        &["client", "operation"],
        &["client"],
        "",
    ),
    family(
        "auth_total",
        &["scheme", "result"],
        &["scheme"],
        "whether the upstream responded where the client saw nothing",
    ),
    family(
        "oci_errors_total",
        &["code"],
        &[],
        "the code in a response that the client did not see whole",
    ),
    family(
        "transfers_aborted_total",
        &["endpoint", "side"],
        &["endpoint"],
        "whether a body was cut before a client that left had all of it",
    ),
    family(
        "transfer_speed_bytes_per_second_count",
        &["direction"],
        &["direction"],
        "whether a transfer whose client saw no end was whole",
    ),
    family(
        "upload_sessions_total",
        &["event"],
        &[],
        "whether the process knew the session that a request was for",
    ),
    family("connections_total", &[], &[], ""),
    family("config_reloads_total", &["result"], &["result"], ""),
    // Nothing here may ever move.
    family("connections_rejected_total", &["reason"], &[], ""),
    family("http_rejected_total", &[], &[], ""),
    family("redirects_total", &["endpoint"], &[], ""),
    family("panics_total", &[], &[], ""),
];

/// The series of all processes, summed.
#[derive(Clone, Debug, Default)]
pub(crate) struct SummedScrapes {
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
    /// How many expositions.
    pub(crate) processes: usize,
}

/// How one family compares.
#[derive(Debug)]
pub(crate) struct FamilyComparison {
    pub(crate) family: &'static ComparedFamily,
    /// What the processes counted.
    pub(crate) counted: u64,
    /// What the clients' books have.
    pub(crate) books: Bounds,
    pub(crate) series: usize,
    pub(crate) differences: Vec<String>,
}

impl SummedScrapes {
    pub(crate) fn add(&mut self, scrape: &Scrape) {
        self.processes += 1;
        for family in scrape.exposition().families() {
            for sample in family.samples() {
                let labels = sample
                    .labels()
                    .map(|(name, value)| (name.into_owned(), value.into_owned()));
                let series = (sample.name().to_owned(), labels.collect());
                *self.series.entry(series).or_default() += sample.value();
            }
        }
    }

    /// The sum of a family's series that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("octoserve_{name}");
        let matching = self.series.iter().filter(|((of, has), _)| {
            *of == name
                && labels
                    .iter()
                    .all(|(name, value)| has.get(*name).is_some_and(|has| has == value))
        });
        matching.map(|(_, value)| value).sum()
    }

    /// A family's series, summed over the labels that are not named.
    fn by(&self, family: &ComparedFamily) -> BTreeMap<SeriesKey, u64> {
        let name = format!("octoserve_{}", family.name);
        let mut sums: BTreeMap<SeriesKey, f64> = BTreeMap::new();
        for ((of, has), value) in &self.series {
            if *of == name {
                let mut labels: Vec<_> = family
                    .labels
                    .iter()
                    .map(|label| (*label, has.get(*label).cloned().unwrap_or_default()))
                    .collect();
                labels.sort_unstable();
                *sums.entry((family.name, labels)).or_default() += value;
            }
        }
        // Counters are whole numbers, and far below the largest that a double holds exactly.
        let whole = |value: f64| format!("{value:.0}").parse().unwrap_or(u64::MAX);
        sums.into_iter().map(|(key, v)| (key, whole(v))).collect()
    }
}

impl FamilyComparison {
    /// Compares every family.
    pub(crate) fn all(books: &Books, counted: &SummedScrapes) -> Vec<Self> {
        FAMILIES
            .iter()
            .map(|family| Self::of(family, books, counted))
            .collect()
    }

    fn of(family: &'static ComparedFamily, books: &Books, counted: &SummedScrapes) -> Self {
        let counted = counted.by(family);
        let own = |key: &SeriesKey| key.0 == family.name;
        let loose: Vec<_> = books.loose.iter().filter(|(key, _)| own(key)).collect();
        let booked = books.series.iter().filter(|(key, _)| own(key));
        let booked: BTreeMap<_, _> = booked.collect();
        let mut differences = Vec::new();
        let keys: BTreeSet<&SeriesKey> = counted.keys().chain(booked.keys().copied()).collect();
        for key in &keys {
            let value = counted.get(*key).copied().unwrap_or_default();
            let mut bounds = booked.get(*key).map_or_else(Bounds::default, |b| **b);
            for (of, count) in &loose {
                if of.1.iter().all(|label| key.1.contains(label)) {
                    bounds.high += count.high;
                }
            }
            check(&mut differences, key, value, bounds);
        }
        // By the labels that are always known: here an unknown status hides nothing.
        let mut groups: BTreeMap<SeriesKey, (u64, Bounds)> = BTreeMap::new();
        let group = |key: &SeriesKey| {
            let mut labels = key.1.clone();
            labels.retain(|(name, _)| family.known.contains(name));
            (family.name, labels)
        };
        for (key, value) in &counted {
            groups.entry(group(key)).or_default().0 += value;
        }
        for (key, bounds) in booked.iter().map(|(k, b)| (*k, *b)).chain(loose) {
            groups.entry(group(key)).or_default().1.add(*bounds);
        }
        for (key, (value, bounds)) in &groups {
            check(&mut differences, key, *value, *bounds);
        }
        let mut all = Bounds::default();
        for (_, bounds) in groups.values() {
            all.add(*bounds);
        }
        differences.sort();
        differences.dedup();
        Self {
            family,
            counted: counted.values().sum(),
            books: all,
            series: keys.len(),
            differences,
        }
    }
}

fn check(differences: &mut Vec<String>, key: &SeriesKey, value: u64, bounds: Bounds) {
    if (bounds.low..=bounds.high).contains(&value) {
        return;
    }
    let labels: Vec<_> = key.1.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    let books = if bounds.low == bounds.high {
        bounds.low.to_string()
    } else {
        format!("{} to {}", bounds.low, bounds.high)
    };
    differences.push(format!(
        "octoserve_{}{{{}}}: {value} counted, {books} in the books",
        key.0,
        labels.join(",")
    ));
}

#[cfg(test)]
mod tests {
    use super::super::books::SharedBooks;
    use super::super::observation::{Known, Observation};
    use super::*;

    fn counted(text: &str) -> SummedScrapes {
        let mut summed = SummedScrapes::default();
        summed.add(&Scrape::parse(text.to_owned()).unwrap());
        summed
    }

    fn differences(books: &SharedBooks, text: &str) -> Vec<String> {
        let all = FamilyComparison::all(&books.copy(), &counted(text));
        let requests = all
            .into_iter()
            .find(|c| c.family.name == "http_requests_total");
        requests.unwrap().differences
    }

    #[test]
    fn a_request_that_is_counted_otherwise_is_a_difference() {
        let books = SharedBooks::default();
        let mut seen = Observation::new("GET", "/v2/", "curl/8");
        seen.status = Some(200);
        seen.received_whole = Known::Yes;
        books.record(&seen);
        let line = |status: u16, count: u16| {
            format!(
                "# TYPE octoserve_http_requests_total counter\n\
                 octoserve_http_requests_total{{endpoint=\"base\",method=\"GET\",status=\"{status}\"}} {count}\n"
            )
        };
        assert!(differences(&books, &line(200, 1)).is_empty());
        assert!(!differences(&books, &line(200, 2)).is_empty());
        assert!(!differences(&books, &line(502, 1)).is_empty());
        assert!(!differences(&books, "").is_empty());
        // Its status is anybody's guess, but it is one request.
        seen.status = None;
        books.record(&seen);
        assert!(differences(&books, &line(200, 2)).is_empty());
        assert!(!differences(&books, &line(200, 1)).is_empty());
        assert!(!differences(&books, &line(200, 3)).is_empty());
    }
}
