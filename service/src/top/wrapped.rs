//! Texts over several lines.

/// A text in lines of at most so many characters, which end between words where they can.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((end, next)) = rest.char_indices().nth(most.max(1)) {
        let space = rest[..end].rfind(' ').filter(|at| *at > 0);
        let cut = match space {
            _ if next == ' ' => end,
            Some(space) => space,
            None => end,
        };
        lines.push(&rest[..cut]);
        rest = rest[cut..].trim_start_matches(' ');
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words_where_they_can() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 13), ["one two three"]);
        assert_eq!(wrapped("/a/long/path x", 5), ["/a/lo", "ng/pa", "th x"]);
        assert_eq!(wrapped("äöü ß", 3), ["äöü", "ß"]);
        assert_eq!(wrapped("", 3), [""]);
    }
}
