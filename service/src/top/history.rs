//! The readings of the last seconds: rates, and quantiles of what happened meanwhile.

use std::collections::{BTreeMap, VecDeque};

use super::reading::{Reading, SeriesLabels, label};

/// The most readings: rates are those of about so many seconds.
const MOST_READINGS: usize = 10;

/// The most series of all readings, so that a large page is not kept ten times.
const MOST_SERIES: usize = 100_000;

/// How many figures of the free space are kept: those of ten minutes.
const MOST_SPACES: usize = 600;

/// For how long the free space must have been followed before it is said when it will be used up.
const SHORTEST_TREND: f64 = 60.0;

/// The endings of the names of what only grows.
const GROWING: &[&str] = &["_total", "_bucket"];

/// The free space of each file system, by the label `source`.
type Spaces = BTreeMap<String, f64>;

/// The readings of the last seconds, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    readings: VecDeque<Reading>,
    /// The free space, with the time in seconds.
    spaces: VecDeque<(f64, Spaces)>,
}

impl History {
    /// Adds one, and drops what is too old. Where a counter is smaller than before, a process was
    /// started anew, and nothing before can be compared.
    pub(super) fn push(&mut self, reading: Reading) {
        if self
            .readings
            .back()
            .is_some_and(|last| is_reset(last, &reading))
        {
            self.readings.clear();
        }
        let space = reading.by("storage_filesystem_avail_bytes", "source");
        self.spaces.push_back((reading.at.as_secs_f64(), space));
        if self.spaces.len() > MOST_SPACES {
            self.spaces.pop_front();
        }
        self.readings.push_back(reading);
        while self.readings.len() > 2 && (self.readings.len() > MOST_READINGS || self.is_large()) {
            self.readings.pop_front();
        }
    }

    fn is_large(&self) -> bool {
        self.readings.iter().map(Reading::count).sum::<usize>() > MOST_SERIES
    }

    /// The last reading.
    pub(super) fn latest(&self) -> Option<&Reading> {
        self.readings.back()
    }

    /// The first and the last reading and the seconds between them; `None` if there is only one.
    fn ends(&self) -> Option<(&Reading, &Reading, f64)> {
        let (first, last) = (self.readings.front()?, self.readings.back()?);
        let seconds = (last.at.saturating_sub(first.at)).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }

    /// How much the series of a name have grown in a second, of those that are `wanted`; `None` where
    /// that is not known yet.
    pub(super) fn rate(&self, name: &str, wanted: impl Fn(&SeriesLabels) -> bool) -> Option<f64> {
        let (_, _, seconds) = self.ends()?;
        let grown = self.grown(name).filter(|(labels, _)| wanted(labels));
        Some(grown.map(|(_, grown)| grown).sum::<f64>() / seconds)
    }

    /// The same for each value of a label.
    pub(super) fn rates_by(&self, name: &str, by: &str) -> BTreeMap<String, f64> {
        let mut rates = BTreeMap::new();
        let Some((_, _, seconds)) = self.ends() else {
            return rates;
        };
        for (labels, grown) in self.grown(name) {
            let of = label(labels, by).unwrap_or_default().to_owned();
            *rates.entry(of).or_default() += grown / seconds;
        }
        rates
    }

    fn grown(&self, name: &str) -> impl Iterator<Item = (&SeriesLabels, f64)> {
        let ends = self.ends().into_iter();
        ends.flat_map(move |(first, last, _)| {
            last.all(name).map(move |(labels, value)| {
                // A series that was not there had counted nothing.
                let before = first.value(name, labels).unwrap_or_default();
                (labels, (value - before).max(0.0))
            })
        })
    }

    /// The quantiles of a histogram, of what was observed meanwhile in the series that are `wanted`.
    /// `None` where nothing was.
    pub(super) fn quantiles<const N: usize>(
        &self,
        name: &str,
        wanted: impl Fn(&SeriesLabels) -> bool,
        quantiles: [f64; N],
    ) -> Option<[f64; N]> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, grown) in self.grown(name).filter(|(labels, _)| wanted(labels)) {
            let Some(le) = label(labels, "le").and_then(|le| le.parse::<f64>().ok()) else {
                continue;
            };
            match buckets
                .iter_mut()
                .find(|(known, _)| known.total_cmp(&le).is_eq())
            {
                Some((_, sum)) => *sum += grown,
                None => buckets.push((le, grown)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let total = buckets.last().map_or(0.0, |last| last.1);
        (total > 0.0).then(|| quantiles.map(|quantile| within(&buckets, quantile * total)))
    }

    /// In how many seconds the file system of a source will be full if it goes on like that; `None` if it
    /// does not fill, or that is not known yet.
    pub(super) fn full_in(&self, source: &str) -> Option<f64> {
        let (first, last) = (self.spaces.front()?, self.spaces.back()?);
        let seconds = last.0 - first.0;
        let left = *last.1.get(source)?;
        let used = first.1.get(source)? - left;
        (seconds >= SHORTEST_TREND && used > 0.0 && left >= 0.0).then(|| left * seconds / used)
    }
}

/// Whether a counter is smaller than before.
fn is_reset(before: &Reading, now: &Reading) -> bool {
    let growing = now.names();
    let mut growing = growing.filter(|name| GROWING.iter().any(|ending| name.ends_with(ending)));
    now.process_start != before.process_start
        || growing.any(|name| {
            let mut all = now.all(name);
            all.any(|(labels, value)| before.value(name, labels).is_some_and(|old| value < old))
        })
}

/// Where in the buckets the observation of this rank is, if those of a bucket lie evenly in it.
fn within(buckets: &[(f64, f64)], rank: f64) -> f64 {
    let mut below = (0.0, 0.0);
    for &(le, count) in buckets {
        if count >= rank {
            // What is beyond the last bucket is at least that.
            if le.is_infinite() {
                return below.0;
            }
            let inside = count - below.1;
            let share = if inside > 0.0 {
                (rank - below.1) / inside
            } else {
                1.0
            };
            return below.0 + (le - below.0) * share.clamp(0.0, 1.0);
        }
        below = (le, count.max(below.1));
    }
    below.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(readings: &[(u64, &str)]) -> History {
        let mut history = History::default();
        for (at, text) in readings {
            history.push(Reading::parse(*at, text));
        }
        history
    }

    fn requests(history: &History) -> Option<f64> {
        history.rate("http_requests_total", |_| true)
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_counts_from_anew_after_a_restart() {
        let one = history(&[(0, "octoserve_http_requests_total 5\n")]);
        assert_eq!(requests(&one), None);
        let two = [
            (0, "octoserve_http_requests_total{status=\"200\"} 5\n"),
            (
                4,
                "octoserve_http_requests_total{status=\"200\"} 15\n\
                 octoserve_http_requests_total{status=\"404\"} 2\n",
            ),
        ];
        let two = history(&two);
        assert_eq!(requests(&two), Some(3.0));
        let by = two.rates_by("http_requests_total", "status");
        assert_eq!((by["200"], by["404"]), (2.5, 0.5));
        let reset = [
            (0, "octoserve_http_requests_total 500\n"),
            (1, "octoserve_http_requests_total 3\n"),
        ];
        assert_eq!(requests(&history(&reset)), None);
        let again = [reset[0], reset[1], (2, "octoserve_http_requests_total 4\n")];
        assert_eq!(requests(&history(&again)), Some(1.0));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        for at in 0..1000 {
            history.push(Reading::parse(at, "octoserve_http_requests_total 5\n"));
        }
        assert_eq!(history.readings.len(), MOST_READINGS);
        assert_eq!(history.spaces.len(), MOST_SPACES);
    }

    #[test]
    fn quantiles_are_of_what_was_observed_meanwhile() {
        let buckets = |one: u32, two: u32, all: u32| {
            format!(
                "# TYPE octoserve_http_request_duration_seconds histogram\n\
                 octoserve_http_request_duration_seconds_bucket{{le=\"0.1\"}} {one}\n\
                 octoserve_http_request_duration_seconds_bucket{{le=\"1\"}} {two}\n\
                 octoserve_http_request_duration_seconds_bucket{{le=\"+Inf\"}} {all}\n"
            )
        };
        let (before, after) = (buckets(100, 100, 100), buckets(110, 120, 121));
        let history = history(&[(0, &before), (1, &after)]);
        let name = "http_request_duration_seconds_bucket";
        let found = history.quantiles(name, |_| true, [0.25, 10.0 / 21.0, 0.999]);
        let [low, middle, high] = found.unwrap();
        assert!((low - 0.0525).abs() < 1e-9, "{low}");
        assert!((middle - 0.1).abs() < 1e-9, "{middle}");
        assert!((high - 1.0).abs() < 1e-9, "{high}");
        assert_eq!(history.quantiles(name, |_| false, [0.5]), None);
    }

    #[test]
    fn a_disk_that_fills_is_full_some_day() {
        let avail = |bytes: u32| format!("octoserve_storage_filesystem_avail_bytes {bytes}\n");
        let fills = history(&[(0, &avail(1000)), (5, &avail(950)), (60, &avail(800))]);
        assert_eq!(fills.full_in(""), Some(240.0));
        assert_eq!(fills.full_in("other"), None);
        let early = history(&[(0, &avail(1000)), (5, &avail(950))]);
        assert_eq!(early.full_in(""), None);
        let empties = history(&[(0, &avail(800)), (60, &avail(1000))]);
        assert_eq!(empties.full_in(""), None);
    }

    proptest! {
        #[test]
        fn no_pages_make_a_rate_or_a_quantile_that_cannot_be(
            values in proptest::collection::vec(
                (any::<f64>(), any::<f64>(), any::<f64>(), 0_u64..3), 1..12),
        ) {
            let mut history = History::default();
            let mut at = 0;
            for (one, two, three, pause) in values {
                at += pause;
                // As a hostile page may have it: not cumulative, negative, infinite.
                let text = format!(
                    "octoserve_http_requests_total {one}\n\
                     octoserve_http_request_duration_seconds_bucket{{le=\"0.1\"}} {two}\n\
                     octoserve_http_request_duration_seconds_bucket{{le=\"+Inf\"}} {three}\n\
                     octoserve_storage_filesystem_avail_bytes {one}\n"
                );
                let limits = crate::exposition::ParseLimits::default();
                let (exposition, _) = crate::exposition::Exposition::parse(text, &limits);
                if let Some(mut reading) =
                    Reading::of(&exposition, std::time::Duration::from_secs(at))
                {
                    reading.wall = 0.0;
                    history.push(reading);
                }
            }
            if let Some(rate) = requests(&history) {
                prop_assert!(rate >= 0.0);
            }
            let name = "http_request_duration_seconds_bucket";
            if let Some([quantile]) = history.quantiles(name, |_| true, [0.5]) {
                prop_assert!((0.0..=0.1).contains(&quantile), "{quantile}");
            }
            if let Some(seconds) = history.full_in("") {
                prop_assert!(seconds >= 0.0, "{seconds}");
            }
        }
    }
}
