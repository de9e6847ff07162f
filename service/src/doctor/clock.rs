//! Whether the clock of a server agrees with ours.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;

use super::Finding;

/// How far clocks may be apart: tokens are valid for a minute or more, and logs are compared by time.
const APART: Duration = Duration::from_secs(30);

/// Compares the clock of a server that has just sent these headers with ours.
pub fn clock(headers: &HeaderMap) -> Finding {
    at(headers, SystemTime::now())
}

fn at(headers: &HeaderMap, now: SystemTime) -> Finding {
    let check = "clock";
    let said = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(said) = said else {
        return Finding::ok(check, "it does not tell its time");
    };
    let Ok(date) = httpdate::parse_http_date(said) else {
        let mend = "RFC 9110 wants a Date such as Sun, 06 Nov 1994 08:49:37 GMT";
        return Finding::warn(check, "its header Date is no time", mend);
    };
    let (apart, word) = match date.duration_since(now) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = apart.as_secs();
    if apart <= APART {
        return Finding::ok(
            check,
            format!("agrees with this machine's ({seconds} s apart)"),
        );
    }
    let message = format!("is {seconds} s {word} this machine's");
    Finding::warn(check, message, "set the wrong one, by NTP if you can")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::doctor::CheckResult::{Ok, Warn};

    #[test]
    fn a_clock_may_be_half_a_minute_off() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (date, result, text) in [
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), Ok, "0 s apart"),
            (Some("Sun, 06 Nov 1994 08:50:07 GMT"), Ok, "30 s apart"),
            (Some("Sun, 06 Nov 1994 08:50:08 GMT"), Warn, "31 s ahead"),
            (Some("Sun, 06 Nov 1994 07:49:37 GMT"), Warn, "3600 s behind"),
            (Some("yesterday"), Warn, "is no time"),
            (None, Ok, "does not tell"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            let found = at(&headers, now);
            assert_eq!(found.result, result, "{date:?}");
            assert!(found.message.contains(text), "{found:?}");
        }
    }
}
