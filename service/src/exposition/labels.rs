//! The labels of a sample, as a text spells them.

use super::cursor::Cursor;
use super::escape::unescape;

/// The labels inside a pair of braces, which `sample_line`'s lexer has accepted: name, and value
/// with its escapes.
#[derive(Clone, Debug)]
pub(super) struct LabelPairs<'a> {
    rest: &'a str,
}

impl<'a> LabelPairs<'a> {
    pub(super) fn new(labels: &'a str) -> Self {
        Self { rest: labels }
    }
}

impl<'a> Iterator for LabelPairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = Cursor {
            line: self.rest,
            at: 0,
        };
        at.skip_blanks();
        let name = at.take_name(false)?;
        at.skip_blanks();
        at.take(b'=');
        at.skip_blanks();
        let (value, _) = at.take_quoted()?;
        at.skip_blanks();
        at.take(b',');
        self.rest = self.rest.get(at.at..).unwrap_or_default();
        Some((name, value))
    }
}

/// Whether two label sets are equal, whatever their order and escapes.
pub(super) fn same_labels(left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    let sorted = |labels| {
        let mut labels: Vec<_> = LabelPairs::new(labels)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, unescape(value)))
            .collect();
        labels.sort_unstable();
        labels
    };
    sorted(left) == sorted(right)
}

/// The first of `exported_source`, `exported_exported_source`, … that no label is called, as
/// Prometheus itself names it.
pub(super) fn exported_source(labels: &str) -> String {
    let mut name = String::from("exported_source");
    while LabelPairs::new(labels).any(|(label, _)| label == name) {
        name.insert_str(0, "exported_");
    }
    name
}
