//! Figures for a person: sizes, times and counts in a few characters.

/// A number of bytes: `1.5 GiB`.
pub fn bytes(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A count: `12`, `3.4k`.
pub fn count(count: f64) -> String {
    let text = scaled(count, 1000.0, &["", "k", "M", "G", "T"]);
    text.replace(' ', "")
}

/// A time in seconds: `820 µs`, `3.2 ms`, `1.5 s`, `4 min`, `2 h`, `12 days`.
pub fn time(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "-".to_owned();
    }
    let (value, unit) = match seconds.abs() {
        s if s < 0.000_999_5 => (seconds * 1e6, "µs"),
        s if s < 0.999_5 => (seconds * 1e3, "ms"),
        s if s < 120.0 => (seconds, "s"),
        s if s < 7_200.0 => (seconds / 60.0, "min"),
        s if s < 172_800.0 => (seconds / 3_600.0, "h"),
        _ => (seconds / 86_400.0, "days"),
    };
    format!("{} {unit}", short(value))
}

/// In the largest unit of which there is at least one.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let (mut value, mut unit) = (value, 0);
    // What is rounded up to a whole step is one of the next unit.
    while value.abs() >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    format!("{} {unit}", short(value)).trim_end().to_owned()
}

/// With one decimal, unless that is 0 or does not matter any more.
fn short(value: f64) -> String {
    if value.abs() >= 99.95 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_times_are_short() {
        for (value, text) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1536.0, "1.5 KiB"),
            (1024.0 * 1024.0 - 1.0, "1 MiB"),
            (5e18, "4441 PiB"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (12.0, "12"),
            (999.96, "1k"),
            (3_400.0, "3.4k"),
            (-0.01, "0"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(count(value), text);
        }
        for (value, text) in [
            (0.000_82, "820 µs"),
            (0.003_2, "3.2 ms"),
            (0.999_9, "1 s"),
            (1.5, "1.5 s"),
            (240.0, "4 min"),
            (7_200.0, "2 h"),
            (1_036_800.0, "12 days"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(time(value), text);
        }
    }
}
