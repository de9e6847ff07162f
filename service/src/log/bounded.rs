//! Bounds the length of one event.
//!
//! An error may repeat what a client or an upstream sent, through any number of causes and crates.
//! So an event is cut where its line is written, and not where it is logged. A text that was cut ends with `…`.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

/// The longest line, in bytes, without its end.
pub(super) const LONGEST: usize = 8 << 10;

/// What says that the rest of a text is not there.
const ELLIPSIS: &str = "…";

/// A text of at most `most` bytes: one that is longer is cut between two characters and ends with
/// `…`.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len()));
    Cow::Owned([&text[..end], ELLIPSIS].concat())
}

/// Passes on events of at most [`LONGEST`] bytes.
pub(super) struct BoundedWriter<W>(W);

impl<W> BoundedWriter<W> {
    pub(super) fn new(to: W) -> Self {
        Self(to)
    }
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for BoundedWriter<W> {
    type Writer = BoundedWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        BoundedWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for BoundedWriter<W> {
    /// Takes one event, whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if event.len() <= LONGEST {
            self.0.write_all(event)?;
        } else {
            self.0.write_all(shorten(event).as_bytes())?;
        }
        // The whole length, even of a shortened event: else `write_all` would pass on the rest as
        // well.
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The same event on a line that is short enough.
fn shorten(event: &[u8]) -> String {
    let line = String::from_utf8_lossy(event);
    let line = line.trim_end_matches('\n');
    // No text begins so: it begins with the time.
    let json = line.starts_with('{').then(|| shorten_json(line)).flatten();
    let mut short = json.unwrap_or_else(|| cut(line, LONGEST).into_owned());
    short.push('\n');
    short
}

/// Cuts each text of an object, so that the object stays one.
fn shorten_json(line: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(line).ok()?;
    let mut most = LONGEST / 8;
    loop {
        cut_texts(&mut event, most);
        let short = event.to_string();
        // An event has no more fields than were written in its code, so a few rounds will do.
        if short.len() <= LONGEST || most == 0 {
            return Some(short);
        }
        most /= 2;
    }
}

fn cut_texts(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.len() > most => *text = cut(text, most).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| cut_texts(value, most)),
        Value::Object(fields) => fields.values_mut().for_each(|value| cut_texts(value, most)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("", 0), "");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "lo…");
        assert_eq!(cut("äöüäöü", 11), "äöüä…");
        assert_eq!(cut("äöüäöü", 10), "äöü…");
        assert_eq!(cut("longer", 0), "…");
        for most in 3..20 {
            assert!(cut("äöüäöü🦀🦀🦀", most).len() <= most);
        }
    }

    #[test]
    fn a_line_that_is_too_long_stays_an_object() {
        let text = "\u{1}".repeat(100_000);
        let event = serde_json::json!({"a": text, "b": {"c": [text]}, "status": 200});
        let short = shorten(format!("{event}\n").as_bytes());
        assert!(short.ends_with("}\n") && short.len() <= LONGEST + 1);
        let short: Value = serde_json::from_str(&short).unwrap();
        assert_eq!(short["status"], 200);
        let left = short["a"].as_str().unwrap();
        assert!(left.starts_with('\u{1}') && left.ends_with('…'), "{left:?}");
    }

    #[test]
    fn what_is_no_object_is_cut_as_text() {
        for byte in [0xff, b'{'] {
            let short = shorten(&vec![byte; 3 * LONGEST]);
            assert!(short.ends_with("…\n") && short.len() <= LONGEST + 1);
        }
    }
}
