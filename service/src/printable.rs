//! Texts of others for a terminal: what would move the cursor, or turn the text around, is written as its
//! number.

use std::fmt::Write as _;

/// The text without characters that a terminal obeys or hides.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) {
            shown.push(character);
        } else {
            let _ = write!(shown, "{}", character.escape_unicode());
        }
    }
    shown
}

/// Neither a control character (ECMA-48), nor one of those that have no width or change the direction of
/// what follows (Unicode Standard Annex #9).
fn is_harmless(character: char) -> bool {
    !(character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'))
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_as_its_number() {
        assert_eq!(printable("team/app-ü"), "team/app-ü");
        assert_eq!(printable("a\x1b[2J\u{9b}b\n"), "a\\u{1b}[2J\\u{9b}b\\u{a}");
        assert_eq!(printable("\u{202e}evil"), "\\u{202e}evil");
    }

    proptest! {
        #[test]
        fn no_text_keeps_a_control_character(text in "\\PC*|.*") {
            assert!(!printable(&text).chars().any(char::is_control));
        }
    }
}
