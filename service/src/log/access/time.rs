//! The time of a line, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date and a time of day.
struct UtcTime {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    micros: u64,
}

impl UtcTime {
    /// A clock that is before 1970 is wrong, and shows that year.
    fn of(time: SystemTime) -> UtcTime {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Counted from March of the year 0, so that a leap day ends a year of the calendar's 400:
        // https://howardhinnant.github.io/date_algorithms.html#civil_from_days
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let leaps = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
        let year_of_era = (day_of_era - leaps) / 365;
        let first_of_year = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
        let day_of_year = day_of_era - first_of_year;
        let from_march = (5 * day_of_year + 2) / 153;
        let month = (from_march + 2) % 12 + 1;
        UtcTime {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            second_of_day,
            micros: u64::from(since.subsec_micros()),
        }
    }

    fn push_time_of_day(&self, out: &mut Vec<u8>) {
        let seconds = self.second_of_day;
        push_digits(out, seconds / 3600, 2);
        out.push(b':');
        push_digits(out, seconds / 60 % 60, 2);
        out.push(b':');
        push_digits(out, seconds % 60, 2);
    }
}

/// Appends a time as RFC 3339 has it, with microseconds.
pub(super) fn push_rfc3339(out: &mut Vec<u8>, time: SystemTime) {
    let time = UtcTime::of(time);
    push_digits(out, time.year, 4);
    out.push(b'-');
    push_digits(out, time.month, 2);
    out.push(b'-');
    push_digits(out, time.day, 2);
    out.push(b'T');
    time.push_time_of_day(out);
    out.push(b'.');
    push_digits(out, time.micros, 6);
    out.push(b'Z');
}

/// Appends a time as the Common Log Format has it.
pub(super) fn push_clf(out: &mut Vec<u8>, time: SystemTime) {
    let time = UtcTime::of(time);
    push_digits(out, time.day, 2);
    out.push(b'/');
    let month = usize::try_from(time.month - 1).ok();
    let month = month.and_then(|month| MONTHS.get(month));
    out.extend_from_slice(month.map_or("", |month| *month).as_bytes());
    out.push(b'/');
    push_digits(out, time.year, 4);
    out.push(b':');
    time.push_time_of_day(out);
    out.extend_from_slice(b" +0000");
}

/// Appends a number with so many digits, at most 20: the last ones, or zeros before it.
pub(super) fn push_digits(out: &mut Vec<u8>, mut number: u64, count: usize) {
    let mut digits = [b'0'; 20];
    let count = count.min(digits.len());
    for digit in digits[..count].iter_mut().rev() {
        let last = (number % 10) as u8;
        *digit += last;
        number /= 10;
    }
    out.extend_from_slice(&digits[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seconds: u64, micros: u64) -> (String, String) {
        let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        let (mut rfc, mut clf) = (Vec::new(), Vec::new());
        push_rfc3339(&mut rfc, time);
        push_clf(&mut clf, time);
        (
            String::from_utf8(rfc).unwrap(),
            String::from_utf8(clf).unwrap(),
        )
    }

    #[test]
    fn a_time_is_written_in_utc() {
        for (seconds, rfc, clf) in [
            (
                0,
                "1970-01-01T00:00:00.000007Z",
                "01/Jan/1970:00:00:00 +0000",
            ),
            (
                951_782_400,
                "2000-02-29T00:00:00.000007Z",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_709_251_199,
                "2024-02-29T23:59:59.000007Z",
                "29/Feb/2024:23:59:59 +0000",
            ),
            (
                1_735_689_599,
                "2024-12-31T23:59:59.000007Z",
                "31/Dec/2024:23:59:59 +0000",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00.000007Z",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ] {
            assert_eq!(written(seconds, 7), (rfc.to_owned(), clf.to_owned()));
        }
    }

    /// Each day of four centuries follows the one before it.
    #[test]
    fn days_follow_each_other() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097 {
            let time = UtcTime::of(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399));
            assert_eq!((time.year, time.month, time.day), (year, month, day));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        let before = UtcTime::of(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!((before.year, before.second_of_day), (1970, 0));
    }
}
