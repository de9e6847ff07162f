//! When a job runs by itself.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use service::config;

/// The seconds of a day. UTC has no others.
const DAY: u64 = 24 * 60 * 60;

/// How long a job may pause between two runs.
const PERIODS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
const LONGEST: Duration = config::Duration::YEAR.get();

/// When a job runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// That long after its last run has ended, also if that was before a restart; the first time that long after
    /// the first start.
    Every(config::Duration),
    /// Once a day at this time, in UTC.
    Daily {
        /// From 0 to 23.
        hour: u8,
        /// From 0 to 59.
        minute: u8,
    },
}

impl Schedule {
    /// When the next run begins, if the last one ended then.
    pub fn next(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Every(period) => now + period.get(),
            Self::Daily { hour, minute } => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                let midnight = since.as_secs() / DAY * DAY;
                let time = u64::from(hour) * 3600 + u64::from(minute) * 60;
                let today = UNIX_EPOCH + Duration::from_secs(midnight + time);
                if today > now {
                    today
                } else {
                    today + Duration::from_secs(DAY)
                }
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(period) => period.fmt(f),
            Self::Daily { hour, minute } => write!(f, "{hour:02}:{minute:02}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let odd = || {
            format!(
                "`{text}` is neither a length of time from 1s to 1year, such as 24h, nor a time of day in UTC, \
                 such as 03:00"
            )
        };
        if let Some((hour, minute)) = text.split_once(':') {
            let number = |text: &str, below: u8| {
                let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse()
                    .ok()
                    .filter(|&number| is_number && number < below)
            };
            return match (number(hour, 24), number(minute, 60)) {
                (Some(hour), Some(minute)) => Ok(Self::Daily { hour, minute }),
                _ => Err(odd()),
            };
        }
        let period: config::Duration = text.parse().map_err(|_| odd())?;
        if PERIODS.contains(&period.get()) {
            Ok(Self::Every(period))
        } else {
            Err(odd())
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Schedule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time with its unit, such as 24h, or a time of day, such as \"03:00\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Schedule, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Schedule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "schedule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let duration = config::Duration::json_schema(generator);
        let duration = duration.get("pattern").and_then(|pattern| pattern.as_str());
        let pattern = format!(
            "(^([01][0-9]|2[0-3]):[0-5][0-9]$)|({})",
            duration.unwrap_or_default()
        );
        json_schema!({
            "title": "schedule",
            "type": "string",
            "pattern": pattern,
            "examples": ["24h", "03:00"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_period_or_a_time_of_day() {
        for text in ["24h", "1s", "03:00", "23:59", "00:00"] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string().parse(), Ok(schedule), "{text}");
        }
        let day: Schedule = "24h".parse().unwrap();
        assert_eq!(day, Schedule::Every(config::Duration::from_secs(DAY)));
        for odd in [
            "", "0s", "500ms", "2years", "24", "24:00", "3:00", "03:60", "03:0", "+3:00",
            "03:00:00", ":", "daily", "-1h", "é:00",
        ] {
            let error = odd.parse::<Schedule>().unwrap_err();
            assert!(error.contains("03:00"), "{odd}: {error}");
        }
    }

    #[test]
    fn the_next_run_is_the_first_that_is_ahead() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let daily: Schedule = "03:00".parse().unwrap();
        for (now, next) in [
            (0, 3 * 3600),
            (3 * 3600 - 1, 3 * 3600),
            (3 * 3600, DAY + 3 * 3600),
            (100 * DAY + 12 * 3600, 101 * DAY + 3 * 3600),
        ] {
            assert_eq!(daily.next(at(now)), at(next));
        }
        let every: Schedule = "90m".parse().unwrap();
        assert_eq!(every.next(at(7)), at(7 + 5400));
    }
}
