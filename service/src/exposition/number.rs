//! Numbers of the exposition formats. Written by hand: they follow Go's `ParseFloat` and `%g`, from
//! which Rust's differ.

use std::fmt::Write as _;

/// A sample's value as Prometheus reads it: what Go's `ParseFloat` takes, but for hexadecimal
/// numbers and underscores. A number too large for a float is none.
pub(super) fn parse_value(raw: &str) -> Option<f64> {
    let value: f64 = raw.parse().ok()?;
    let is_read = if value.is_nan() {
        // Rust also reads a NaN with a sign, which Go refuses.
        !raw.starts_with(['+', '-'])
    } else {
        // Rust reads a number that is too large as infinite: digits give it away.
        value.is_finite() || !raw.contains(|c: char| c.is_ascii_digit())
    };
    is_read.then_some(value)
}

/// Whether every parser reads this as the bound of a bucket, or as a quantile.
pub(super) fn is_bound(raw: &str) -> bool {
    // Most are a few digits, and perhaps a point between them.
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = raw.split_once('.').unwrap_or((raw, "0"));
    raw.len() < 20 && digits(whole) && digits(fraction)
        || parse_value(raw).is_some_and(|bound| !bound.is_nan())
}

/// Whether this can be a count: whole, not negative, and small enough to be read alike by all.
pub(super) fn is_count(value: f64) -> bool {
    (0.0..EXACT).contains(&value) && value.fract() == 0.0
}

/// Up to here every whole number is a float of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whether every parser reads these milliseconds since 1970: Prometheus refuses a text with a time
/// before, and those too large for a float are others in OpenMetrics.
pub(super) fn is_timestamp(ms: i64) -> bool {
    (0..=1 << 53).contains(&ms)
}

/// OpenMetrics' timestamp in the text format's unit; none if it is no finite number of a size
/// that fits.
pub(super) fn seconds_to_ms(raw: &str) -> Option<i64> {
    let ms = (raw.parse::<f64>().ok()? * 1000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and within the range just checked"
    )]
    (ms.abs() <= EXACT).then_some(ms as i64)
}

/// Appends the text format's timestamp as OpenMetrics' seconds, exactly.
pub(super) fn push_ms_as_seconds(ms: i64, out: &mut String) {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    let _ = write!(out, "{sign}{}", ms / 1000);
    if !ms.is_multiple_of(1000) {
        let _ = write!(out, ".{:03}", ms % 1000);
    }
}

/// Appends a value of ours: whole numbers without a point, everything else in its shortest form.
pub(super) fn push_value(value: f64, out: &mut String) {
    let _ = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' })
    } else if value == 0.0 {
        write!(out, "0")
    } else if (1e-5..1e17).contains(&value.abs()) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

/// Appends a bucket's bound as OpenMetrics wants `le` to be written (`1.0`, `0.001`, `1e+06`), which
/// is also how Prometheus 3 keeps it whatever the exposition said: so both formats make the same
/// series.
pub(super) fn push_bound(bound: f64, out: &mut String) {
    if bound.is_infinite() {
        out.push_str(if bound > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    // Go's `%g` in its shortest form goes scientific from 1e-5 down and from 1e6 up.
    let scientific = format!("{bound:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let _ = if (-4..6).contains(&exponent) {
        write!(out, "{bound:?}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_prometheus_reads_as_one() {
        for good in [
            "0", "-1", "+1", "1.", ".5", "1e5", "1E-5", "1e+300", "Inf", "+Inf", "-inf",
            "Infinity", "NaN", "nan", "00012", "1e-400",
        ] {
            assert!(parse_value(good).is_some(), "{good}");
        }
        for bad in [
            "", "-", ".", "e5", "1e", "0x1p-2", "1_000", "+NaN", "1e400", "1,5", "one",
        ] {
            assert_eq!(parse_value(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bound_is_any_number_but_nan() {
        for good in [
            "1",
            "0.5",
            ".5",
            "-1",
            "1e-3",
            "+Inf",
            "inf",
            "00000000000000000000000",
        ] {
            assert!(is_bound(good), "{good}");
        }
        for bad in ["", ".", "1.2.3", "NaN", "x", "1e400", "0x1p2", " 1", "1_0"] {
            assert!(!is_bound(bad), "{bad}");
        }
    }

    #[test]
    fn bounds_are_written_as_openmetrics_requires() {
        let spell = |bound| {
            let mut out = String::new();
            push_bound(bound, &mut out);
            out
        };
        let bounds = [
            0.0,
            0.0001,
            0.00001,
            0.25,
            1.0,
            900.0,
            65536.0,
            1_048_576.0,
            1e21,
        ];
        let expected = [
            "0.0",
            "0.0001",
            "1e-05",
            "0.25",
            "1.0",
            "900.0",
            "65536.0",
            "1.048576e+06",
            "1e+21",
        ];
        assert_eq!(bounds.map(spell), expected);
        assert_eq!(spell(f64::INFINITY), "+Inf");
    }

    #[test]
    fn values_of_ours_read_back_as_themselves() {
        for value in [
            0.0,
            1.0,
            -2.5,
            809_123_456.0,
            1e300,
            1e-300,
            0.1 + 0.2,
            f64::INFINITY,
        ] {
            let mut out = String::new();
            push_value(value, &mut out);
            assert!(parse_value(&out).is_some(), "{out}");
            assert_eq!(
                out.parse::<f64>().unwrap().to_bits(),
                value.to_bits(),
                "{out}"
            );
        }
    }

    #[test]
    fn timestamps_change_their_unit_exactly() {
        for (ms, seconds) in [
            (0, "0"),
            (1_500, "1.500"),
            (-1, "-0.001"),
            (1_700_000_000_123, "1700000000.123"),
        ] {
            let mut out = String::new();
            push_ms_as_seconds(ms, &mut out);
            assert_eq!(out, seconds);
            assert_eq!(seconds_to_ms(&out), Some(ms));
        }
        assert_eq!(seconds_to_ms("1e300"), None);
        assert_eq!(seconds_to_ms("NaN"), None);
    }
}
