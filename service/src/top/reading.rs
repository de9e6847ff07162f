//! The series of one scrape that are shown, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::exposition::Exposition;

/// The most series that are kept: a page of ours has a few thousand.
const MOST_SERIES: usize = 50_000;

/// What every page of ours begins with.
const PREFIX: &str = "octoserve_";

/// The samples that are kept, by name without the prefix.
const KEPT: &[&str] = &[
    "aggregate_duration_seconds",
    "aggregate_last_success_timestamp_seconds",
    "aggregate_samples",
    "aggregate_up",
    "blobs",
    "build_info",
    "client_requests_total",
    "config_last_reload_successful",
    "connections_active",
    "connections_rejected_total",
    "http_request_body_bytes_total",
    "http_request_duration_seconds_bucket",
    "http_requests_in_flight",
    "http_requests_total",
    "http_response_body_bytes_total",
    "http_response_ttfb_seconds_bucket",
    "oci_errors_total",
    "panics_total",
    "registry_http_request_duration_seconds_bucket",
    "registry_http_requests_total",
    "registry_upload_bytes",
    "registry_upload_oldest_age_seconds",
    "registry_upload_sessions",
    "repositories",
    "repository_bytes_total",
    "repository_label_overflow_total",
    "repository_operations_total",
    "storage_bytes_total",
    "storage_disk_usage_bytes",
    "storage_filesystem_avail_bytes",
    "storage_filesystem_size_bytes",
    "tags",
    "tls_certificate_expiry_timestamp_seconds",
    "upload_session_oldest_age_seconds",
    "upload_sessions_active",
    "upstream_errors_total",
    "upstream_queue_length",
    "upstream_replicas",
    "upstream_replicas_healthy",
    "upstream_request_duration_seconds_bucket",
];

/// The labels of a series, sorted.
pub(super) type SeriesLabels = Vec<(String, String)>;

/// The series of one scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// When it was taken, on a clock that only goes forward.
    pub(super) at: Duration,
    /// When it was taken, in seconds since 1970.
    pub(super) wall: f64,
    /// Since when the process runs, in seconds since 1970.
    pub(super) process_start: Option<f64>,
    /// Whether there were more series than are kept.
    pub(super) is_cut: bool,
    series: HashMap<&'static str, BTreeMap<SeriesLabels, f64>>,
    count: usize,
}

impl Reading {
    /// What an exposition says; `None` if it is none of ours.
    pub(super) fn of(exposition: &Exposition, at: Duration) -> Option<Self> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut reading = Self {
            at,
            wall: wall.unwrap_or_default().as_secs_f64(),
            ..Self::default()
        };
        let mut is_ours = false;
        for family in exposition.families() {
            is_ours |= family.name().starts_with(PREFIX);
            if family.name() == "process_start_time_seconds" {
                // The proxy's own: those of its sources have a label.
                let own = family
                    .samples()
                    .find(|sample| sample.labels().next().is_none());
                reading.process_start = own.map(|sample| sample.value());
            }
            for sample in family.samples() {
                let Some(name) = sample.name().strip_prefix(PREFIX) else {
                    continue;
                };
                let Ok(at) = KEPT.binary_search(&name) else {
                    continue;
                };
                let labels = sample.labels();
                let labels = labels.map(|(name, value)| (name.into_owned(), value.into_owned()));
                reading.insert(KEPT[at], labels.collect(), sample.value());
            }
        }
        is_ours.then_some(reading)
    }

    fn insert(&mut self, name: &'static str, mut labels: SeriesLabels, value: f64) {
        if self.count >= MOST_SERIES {
            self.is_cut = true;
            return;
        }
        if value.is_nan() {
            return;
        }
        labels.sort_unstable();
        self.series.entry(name).or_default().insert(labels, value);
        self.count += 1;
    }

    /// How many series there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The series of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = (&SeriesLabels, f64)> {
        let found = self.series.get(name).into_iter().flatten();
        found.map(|(labels, value)| (labels, *value))
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.series.keys().copied()
    }

    /// The value of one series.
    pub(super) fn value(&self, name: &str, labels: &SeriesLabels) -> Option<f64> {
        self.series.get(name)?.get(labels).copied()
    }

    /// The sum of all series of a name; `None` if there is none.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        let mut values = self.all(name).map(|(_, value)| value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The sums by the values of a label.
    pub(super) fn by(&self, name: &str, by: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.all(name) {
            let of = label(labels, by).unwrap_or_default().to_owned();
            *sums.entry(of).or_default() += value;
        }
        sums
    }

    /// A reading of these series, for tests.
    #[cfg(test)]
    pub(super) fn parse(at: u64, text: &str) -> Self {
        let (exposition, dropped) =
            Exposition::parse(text, &crate::exposition::ParseLimits::default());
        assert_eq!(dropped.total(), 0, "{text}");
        let mut reading = Self::of(&exposition, Duration::from_secs(at)).unwrap();
        reading.wall = 1_000_000.0 + at as f64;
        reading
    }
}

/// The value of a label.
pub(super) fn label<'l>(labels: &'l SeriesLabels, name: &str) -> Option<&'l str> {
    let mut labels = labels.iter();
    labels
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_as_they_are_searched() {
        assert!(KEPT.is_sorted());
    }

    #[test]
    fn a_foreign_page_is_no_reading_and_one_of_ours_is_reduced() {
        let parse = |text: &str| {
            let (exposition, _) =
                Exposition::parse(text, &crate::exposition::ParseLimits::default());
            Reading::of(&exposition, Duration::ZERO)
        };
        assert!(parse("registry_http_requests_total 1\n").is_none());
        assert!(parse("<html>").is_none());
        let text = "octoserve_tags 3\noctoserve_tags{source=\"a\"} 4\nother 1\n\
                    octoserve_strange{x=\"y\"} 1\noctoserve_blobs NaN\n\
                    process_start_time_seconds 12\nprocess_start_time_seconds{source=\"a\"} 13\n";
        let reading = parse(text).unwrap();
        assert_eq!(reading.count(), 2);
        assert_eq!(reading.sum("tags"), Some(7.0));
        assert_eq!(reading.sum("blobs"), None);
        assert_eq!(reading.process_start, Some(12.0));
        assert_eq!(reading.by("tags", "source").get("a"), Some(&4.0));
    }

    #[test]
    fn a_page_with_too_many_series_is_cut() {
        let mut reading = Reading::default();
        for at in 0..=MOST_SERIES {
            let labels = vec![("a".to_owned(), at.to_string())];
            reading.insert("tags", labels, 1.0);
        }
        assert!(reading.is_cut);
        assert_eq!(reading.count(), MOST_SERIES);
    }
}
