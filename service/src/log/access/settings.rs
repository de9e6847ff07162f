//! Which requests are logged, and how much of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::log::config::{AccessFilterFields, AccessFormat, Level, LogConfig, LoggedAddress};

/// What of the requests is logged at present.
pub(in crate::log) struct AccessSettings {
    pub(in crate::log) is_on: bool,
    pub(super) format: LineFormat,
    pub(super) address: LoggedAddress,
    pub(super) user: bool,
    filter: AccessFilter,
    sampler: Sampler,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    Json,
    Text,
    Clf,
}

/// How a request ended, as far as that decides whether it is logged.
pub(super) struct AccessOutcome {
    pub(super) status: u16,
    pub(super) duration: Duration,
    /// Its response is not whole.
    pub(super) is_cut: bool,
    pub(super) is_failure: bool,
}

impl AccessSettings {
    pub(in crate::log) fn new(config: &LogConfig, level: Level, is_text: bool) -> AccessSettings {
        let is_important = matches!(level, Level::Off | Level::Error | Level::Warn);
        AccessSettings {
            is_on: config.access && !is_important,
            format: match config.access_format {
                AccessFormat::Clf => LineFormat::Clf,
                AccessFormat::Same if is_text => LineFormat::Text,
                AccessFormat::Same => LineFormat::Json,
            },
            address: config.address,
            user: config.user,
            filter: AccessFilter::new(&config.access_filter),
            sampler: Sampler::new(config.sample),
        }
    }

    /// Whether a request that ended so is logged.
    pub(super) fn wants(&self, outcome: &AccessOutcome) -> bool {
        // In this order: the sampler counts only what could be logged.
        self.is_on && self.filter.passes(outcome) && (outcome.is_failure || self.sampler.take())
    }
}

/// The requests that are chosen by status and duration.
#[derive(Default)]
struct AccessFilter {
    /// A bit for each status; `None` chooses by none.
    statuses: Option<Box<[u64; STATUSES / 64]>>,
    min_duration: Option<Duration>,
}

/// More than any status.
const STATUSES: usize = 640;

impl AccessFilter {
    fn new(fields: &AccessFilterFields) -> AccessFilter {
        let mut statuses = (!fields.status.is_empty()).then(|| Box::new([0; STATUSES / 64]));
        if let Some(bits) = &mut statuses {
            for status in fields
                .status
                .iter()
                .flat_map(|range| range.first..=range.last)
            {
                let status = usize::from(status);
                if let Some(word) = bits.get_mut(status / 64) {
                    *word |= 1 << (status % 64);
                }
            }
        }
        AccessFilter {
            statuses,
            min_duration: fields.min_duration.map(Into::into),
        }
    }

    fn passes(&self, outcome: &AccessOutcome) -> bool {
        let has_status = match (&self.statuses, self.min_duration) {
            (None, None) => return true,
            // Somebody who looks for slow requests wants the failed ones no less.
            (None, Some(_)) => outcome.is_failure,
            (Some(statuses), _) => {
                let status = usize::from(outcome.status);
                let word = statuses.get(status / 64);
                word.is_some_and(|word| word >> (status % 64) & 1 == 1)
            }
        };
        has_status
            || outcome.is_cut
            || self
                .min_duration
                .is_some_and(|least| outcome.duration >= least)
    }
}

/// Selects an even part of the events. A sum with a fraction needs no random numbers and no crate.
struct Sampler {
    /// The part, in 2⁻³².
    part: u64,
    seen: AtomicU64,
}

const WHOLE: f64 = 4_294_967_296.0;
/// Where the sum starts, far from a whole number, so that rounding does not show.
const HALF: u64 = 1 << 31;

impl Sampler {
    fn new(part: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2³²"
        )]
        let part = (part.clamp(0.0, 1.0) * WHOLE).round() as u64;
        Self {
            part,
            seen: AtomicU64::new(HALF),
        }
    }

    /// Whether this one is taken: where the running sum passes a whole number.
    fn take(&self) -> bool {
        // Without a write that all threads share.
        if self.part == 1 << 32 {
            return true;
        }
        // Relaxed: only the sum counts, in any order.
        let before = self.seen.fetch_add(self.part, Ordering::Relaxed);
        (before.wrapping_add(self.part) >> 32) != (before >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampler_takes_its_part_evenly() {
        for (part, taken) in [(0.0, 0), (0.001, 1), (0.25, 250), (1.0, 1000), (7.0, 1000)] {
            let sampler = Sampler::new(part);
            assert_eq!(
                (0..1000).filter(|_| sampler.take()).count(),
                taken,
                "{part}"
            );
        }
    }

    fn settings(yaml: &str) -> AccessSettings {
        AccessSettings::new(&serde_yaml::from_str(yaml).unwrap(), Level::Info, false)
    }

    fn outcome(status: u16, millis: u64, is_cut: bool) -> AccessOutcome {
        AccessOutcome {
            status,
            duration: Duration::from_millis(millis),
            is_cut,
            is_failure: status >= 400 || is_cut,
        }
    }

    #[test]
    fn a_filter_chooses_by_status_or_duration_and_keeps_what_was_cut() {
        let slow = "access_filter: {min_duration: 1s}";
        let server_errors = "access_filter: {status: [5xx, 404]}";
        let both = "access_filter: {status: [2xx], min_duration: 1s}";
        for (yaml, logged, left_out) in [
            ("{}", vec![(200, 0, false), (404, 0, false)], vec![]),
            (
                slow,
                vec![
                    (200, 1000, false),
                    (200, 0, true),
                    (404, 0, false),
                    (500, 0, false),
                ],
                vec![(200, 999, false), (304, 0, false)],
            ),
            (
                server_errors,
                vec![
                    (500, 0, false),
                    (599, 0, false),
                    (404, 0, false),
                    (200, 0, true),
                ],
                vec![(200, 5000, false), (403, 0, false), (65535, 0, false)],
            ),
            (
                both,
                vec![(200, 0, false), (500, 1000, false)],
                vec![(404, 0, false), (500, 999, false)],
            ),
        ] {
            let settings = settings(yaml);
            let wants = |(status, millis, is_cut)| settings.wants(&outcome(status, millis, is_cut));
            for one in logged {
                assert!(wants(one), "{yaml}: {one:?}");
            }
            for one in left_out {
                assert!(!wants(one), "{yaml}: {one:?}");
            }
        }
    }

    #[test]
    fn a_failure_is_never_sampled_away() {
        let settings = settings("sample: 0");
        assert!(!settings.wants(&outcome(200, 60_000, false)));
        for failure in [
            outcome(404, 0, false),
            outcome(500, 0, false),
            outcome(200, 0, true),
        ] {
            assert!(settings.wants(&failure));
        }
    }

    #[test]
    fn requests_are_logged_at_info_and_below() {
        for (level, is_on) in [
            (Level::Off, false),
            (Level::Error, false),
            (Level::Warn, false),
            (Level::Info, true),
            (Level::Trace, true),
        ] {
            let settings = AccessSettings::new(&LogConfig::default(), level, false);
            assert_eq!(settings.is_on, is_on, "{level:?}");
        }
    }
}
