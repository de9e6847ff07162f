//! Texts of a server for a terminal, none of which takes more than a few lines.

use crate::printable::printable;

/// The longest text, in characters.
const LONGEST: usize = 200;

/// The text without characters that a terminal obeys or hides, and without an end that is too long.
pub(super) fn escaped(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_none_has_what_a_terminal_obeys() {
        assert_eq!(escaped("a\x1b[2J"), "a\\u{1b}[2J");
        assert_eq!(escaped(&"ü".repeat(LONGEST)), "ü".repeat(LONGEST));
        assert_eq!(escaped(&"x".repeat(LONGEST + 5)), "x".repeat(LONGEST) + "…");
    }
}
