//! For how long a certificate is good.

use std::time::{Duration, UNIX_EPOCH};

use super::Finding;
use crate::tls::{SOON, Validity, now};

const DAY: i64 = 24 * 3600;

/// Whether a certificate is valid now, and until when. `name` says whose it is.
pub fn certificate(name: &str, validity: Validity, renew: &str) -> Finding {
    at(name, validity, renew, now())
}

fn at(name: &str, validity: Validity, renew: &str, now: i64) -> Finding {
    let Validity { from, until } = validity;
    let check = "certificate";
    if now < from {
        let message = format!("{name} is not valid before {}", day(from));
        return Finding::fail(
            check,
            message,
            "set this machine's clock, or make a new one",
        );
    }
    if now > until {
        return Finding::fail(check, format!("{name} expired on {}", day(until)), renew);
    }
    let days = (until - now) / DAY;
    let message = format!("{name} is good until {} ({days} days)", day(until));
    if until - now < SOON {
        return Finding::warn(check, message, renew);
    }
    Finding::ok(check, message)
}

/// The day of a time in seconds since 1970.
fn day(at: i64) -> String {
    // The year 9999 is the last that the format has.
    let seconds = u64::try_from(at).unwrap_or_default().min(253_402_300_799);
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut text = time.to_string();
    text.truncate("2026-01-01".len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckResult::{Fail, Ok, Warn};

    #[test]
    fn a_certificate_is_good_between_its_two_times() {
        let validity = Validity {
            from: 100 * DAY,
            until: 200 * DAY,
        };
        for (now, result, text) in [
            (99, Fail, "x is not valid before 1970-04-11"),
            (100, Ok, "x is good until 1970-07-20 (100 days)"),
            (186, Ok, "(14 days)"),
            (187, Warn, "(13 days)"),
            (201, Fail, "x expired on 1970-07-20"),
        ] {
            let found = at("x", validity, "renew it", now * DAY);
            assert_eq!(found.result, result, "{now}");
            assert!(found.message.contains(text), "{found:?}");
        }
        let forever = Validity {
            from: i64::MIN,
            until: i64::MAX,
        };
        let found = at("x", forever, "", 0);
        assert!(found.message.contains("9999-12-31"), "{found:?}");
    }
}
