//! Escapes of label values and help texts, read leniently and written canonically.
//!
//! Label values escape backslash, quote and newline in both formats. Help texts escape backslash
//! and newline, in OpenMetrics quotes too. A backslash before anything else stands for itself, as
//! Prometheus reads it. Written by hand: general escape crates know other rules.

use std::borrow::Cow;

/// A label value without its escapes.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    unescape_with(raw, true)
}

/// Appends a label value with its escapes.
pub(super) fn escape_label(value: &str, out: &mut String) {
    escape_with(value, true, out);
}

/// A label value with our own escapes, whatever escapes it came with.
pub(super) fn respell(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len() + 8);
    escape_label(&unescape(raw), &mut out);
    Cow::Owned(out)
}

/// Appends a help text with the escapes of the text format, or of OpenMetrics.
pub(super) fn escape_help(help: &str, openmetrics: bool, out: &mut String) {
    escape_with(help, openmetrics, out);
}

/// A help text as an exposition spells it.
#[derive(Clone, Copy)]
pub(super) struct HelpText<'a> {
    pub(super) raw: &'a str,
    /// The exposition's dialect.
    pub(super) openmetrics: bool,
}

impl<'a> HelpText<'a> {
    /// The text without its escapes.
    pub(super) fn unescape(self) -> Cow<'a, str> {
        unescape_with(self.raw, self.openmetrics)
    }
}

fn unescape_with(raw: &str, quotes: bool) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (replacement, taken) = match rest.as_bytes().get(at + 1) {
            Some(b'n') => ('\n', 2),
            Some(b'\\') => ('\\', 2),
            Some(b'"') if quotes => ('"', 2),
            _ => ('\\', 1),
        };
        out.push(replacement);
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn escape_with(value: &str, quotes: bool, out: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(|c| c == '\n' || c == '\\' || quotes && c == '"') {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push(if rest.as_bytes()[at] == b'\n' {
            'n'
        } else {
            char::from(rest.as_bytes()[at])
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut out = String::new();
        escape_label(value, &mut out);
        out
    }

    #[test]
    fn a_label_value_comes_back_from_its_escapes() {
        for value in [
            "",
            "plain",
            "\\",
            "\"",
            "\n",
            "a\\nb",
            "C:\\new \"dir\"\n",
            "é\\",
        ] {
            assert_eq!(unescape(&escaped(value)), value);
        }
    }

    #[test]
    fn a_backslash_before_anything_else_stands_for_itself() {
        assert_eq!(unescape(r"\d+\.\w"), r"\d+\.\w");
        assert_eq!(unescape("end\\"), "end\\");
    }

    #[test]
    fn a_help_text_escapes_quotes_in_openmetrics_only() {
        let help = |openmetrics| HelpText {
            raw: r#"say \"hi\""#,
            openmetrics,
        };
        assert_eq!(help(true).unescape(), r#"say "hi""#);
        assert_eq!(help(false).unescape(), r#"say \"hi\""#);
    }
}
