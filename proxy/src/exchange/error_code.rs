//! The first code in an OCI error's body, read as the body streams by. No piece is held back, and
//! only the parser's state is kept.

use crate::metrics::label::ErrorCodeLabel;
use http::{HeaderMap, header};

/// How many bytes of a body are read.
const LIMIT: usize = 4 << 10;
/// Longer than any string that is searched for: a string that fills it matches none.
const LONGEST: usize = 32;

/// What is known about the error code in a response's body.
pub(super) enum BodyErrorCode {
    None,
    Known(ErrorCodeLabel),
    Reading(ErrorCodeReader),
}

impl BodyErrorCode {
    /// For a response with these headers, whose body will follow.
    pub(super) fn of(status: u16, headers: &HeaderMap) -> BodyErrorCode {
        if status < 400 || !is_json(headers) {
            BodyErrorCode::None
        } else if headers.contains_key(header::CONTENT_ENCODING) {
            // A compressed body is not decompressed for the sake of a metric.
            BodyErrorCode::Known(ErrorCodeLabel::Other)
        } else {
            BodyErrorCode::Reading(ErrorCodeReader::default())
        }
    }

    /// Whether the body is read for it.
    pub(super) fn is_read(&self) -> bool {
        matches!(self, BodyErrorCode::Reading(_))
    }

    /// The next bytes of the body.
    pub(super) fn piece(&mut self, bytes: &[u8]) {
        if let BodyErrorCode::Reading(reader) = self {
            reader.read(bytes);
        }
    }

    /// The code, once the body has ended.
    pub(super) fn found(&self) -> Option<ErrorCodeLabel> {
        match self {
            BodyErrorCode::None => None,
            BodyErrorCode::Known(code) => Some(*code),
            BodyErrorCode::Reading(reader) => reader.code(),
        }
    }
}

/// Finds the string at the dots of `{"errors":[{"code":"…"}]}`, in a body cut anywhere into pieces
/// and with any other content.
///
/// It is a scanner and not a parser: it allocates nothing, and accepts some texts that are no JSON.
#[derive(Debug, Default)]
pub(super) struct ErrorCodeReader {
    /// How many bytes were read.
    seen: usize,
    /// How many objects and arrays are open.
    depth: usize,
    /// How many of those lead to the code: the body, its errors, the first error.
    matched: usize,
    state: LexerState,
    /// Whether the next string is the name of a field.
    is_name: bool,
    /// Whether the current value is that of the field that leads to the code.
    wanted: bool,
    text: JsonString,
    found: Option<ErrorCodeLabel>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum LexerState {
    #[default]
    Between,
    InString,
    Escaped,
}

impl ErrorCodeReader {
    /// Reads the next bytes of the body.
    fn read(&mut self, piece: &[u8]) {
        // An upstream chooses the length of its errors: past the limit they cost no time.
        let unread = &piece[..piece.len().min(LIMIT - self.seen)];
        self.seen += unread.len();
        for &byte in unread {
            if self.ended {
                return;
            }
            self.step(byte);
        }
    }

    /// The code, if the body had one.
    fn code(&self) -> Option<ErrorCodeLabel> {
        self.found
    }

    fn step(&mut self, byte: u8) {
        match (self.state, byte) {
            (LexerState::Between, b'"') => {
                self.text.clear();
                self.state = LexerState::InString;
            }
            (LexerState::Between, b'{' | b'[') => self.open(byte),
            (LexerState::Between, b'}' | b']') => self.close(),
            (LexerState::Between, b',') => (self.is_name, self.wanted) = (true, false),
            (LexerState::Between, b':') => self.is_name = false,
            (LexerState::Between, _) => {}
            (LexerState::InString, b'"') => {
                self.state = LexerState::Between;
                self.end_of_string();
            }
            (LexerState::InString, _) => {
                // No string that is searched for has an escape, so escapes are not decoded.
                if byte == b'\\' {
                    self.state = LexerState::Escaped;
                }
                self.text.push(byte);
            }
            (LexerState::Escaped, _) => {
                self.state = LexerState::InString;
                self.text.push(byte);
            }
        }
    }

    fn open(&mut self, bracket: u8) {
        // Level by level: a `code` inside `detail` is not the code of the error.
        let is_match = self.depth == self.matched
            && match self.matched {
                0 | 2 => bracket == b'{',
                1 => bracket == b'[' && self.wanted,
                _ => false,
            };
        self.depth += 1;
        if is_match {
            self.matched = self.depth;
        }
        (self.is_name, self.wanted) = (bracket == b'{', false);
    }

    fn close(&mut self) {
        // Past the first error, or past the whole body, no code can follow.
        self.ended = self.depth <= 1 || self.depth == self.matched;
        // A broken body may close more than it opened.
        self.depth -= usize::from(self.depth > 0);
        self.is_name = false;
    }

    fn end_of_string(&mut self) {
        if self.depth != self.matched {
            return;
        }
        match self.matched {
            1 if self.is_name => self.wanted = self.text.is("errors"),
            3 if self.is_name => self.wanted = self.text.is("code"),
            3 if self.wanted => {
                self.found = Some(self.text.code());
                self.ended = true;
            }
            _ => {}
        }
    }
}

/// The start of the string that was read last.
#[derive(Debug, Default)]
struct JsonString {
    bytes: [u8; LONGEST],
    len: usize,
}

impl JsonString {
    fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn is(&self, text: &str) -> bool {
        self.bytes[..self.len] == *text.as_bytes()
    }

    fn code(&self) -> ErrorCodeLabel {
        let text = std::str::from_utf8(&self.bytes[..self.len]);
        ErrorCodeLabel::of(text.unwrap_or_default())
    }
}

/// Whether the media type is JSON, or has the suffix `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let mut parts = content_type.as_bytes().split(|&byte| byte == b';');
    let media_type = parts.next().unwrap_or_default().trim_ascii();
    let end = media_type
        .rsplit(|&byte| byte == b'/' || byte == b'+')
        .next();
    end.is_some_and(|end| end.eq_ignore_ascii_case(b"json"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use registry::oci;
    use serde_json::{Value, json};
    use service::metrics::Label;

    use super::*;

    /// The code that is read from a body cut into pieces of this size.
    fn read(body: &str, piece: usize) -> Option<ErrorCodeLabel> {
        let mut reader = ErrorCodeReader::default();
        for piece in body.as_bytes().chunks(piece) {
            reader.read(piece);
        }
        reader.code()
    }

    #[test]
    fn the_code_is_found_wherever_the_body_is_cut() {
        for &code in &oci::ErrorCode::ALL {
            let body = oci::ErrorBody::new(code, "a \"message\"").to_string();
            for piece in 1..body.len() {
                assert_eq!(read(&body, piece), Some(code.into()), "{piece}");
            }
        }
    }

    #[test]
    fn the_code_is_found_in_bodies_of_real_registries() {
        for (body, code) in [
            (
                "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\",\
                 \"detail\":{\"Tag\":\"nope\"}}]}\n",
                "MANIFEST_UNKNOWN",
            ),
            (
                r#"{"errors":[{"message":"x","detail":[{"code":"NO"}],"code":"DENIED"}]}"#,
                "DENIED",
            ),
            (
                r#"{ "status" : 401, "errors" : [ { "code" : "UNAUTHORIZED" } ] }"#,
                "UNAUTHORIZED",
            ),
            (
                r#"{"errors":[{"code":"QUOTA_EXCEEDED"},{"code":"DENIED"}]}"#,
                "other",
            ),
            (r#"{"errors":[{"code":"DENIED\u0021"}]}"#, "other"),
            (
                r#"{"errors":[{"code":"UNAUTHORIZED_BUT_MUCH_LONGER"}]}"#,
                "other",
            ),
        ] {
            let found = read(body, 7).map(service::metrics::Label::value);
            assert_eq!(found, Some(code), "{body}");
        }
    }

    #[test]
    fn a_body_that_is_not_an_oci_error_has_no_code() {
        for body in [
            "",
            "{}",
            "[]",
            "]}{",
            "not found",
            r#"{"code":"DENIED"}"#,
            r#"{"errors":[]}"#,
            r#"{"errors":[{}],"x":[{"code":"DENIED"}]}"#,
            r#"{"errors":{"code":"DENIED"}}"#,
            r#"{"errors":[{"code":7}]}"#,
            r#"{"errors":[{"code":{"code":"DENIED"}}]}"#,
            r#"[{"errors":[{"code":"DENIED"}]}]"#,
            r#"{"x":{"errors":[{"code":"DENIED"}]}}"#,
            r#"{"x":"errors","y":[{"code":"DENIED"}]}"#,
        ] {
            assert_eq!(read(body, 3), None, "{body}");
        }
    }

    #[test]
    fn a_body_is_read_up_to_a_bound() {
        let body = |padding: usize| {
            format!(
                r#"{{"x":"{}","errors":[{{"code":"DENIED"}}]}}"#,
                " ".repeat(padding)
            )
        };
        assert!(read(&body(4000), 1000).is_some());
        assert!(read(&body(4096), 1000).is_none());
    }

    /// Any JSON, often of the shape that is searched for.
    fn document() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("errors".to_owned()),
            Just("code".to_owned()),
            Just("DENIED".to_owned()),
            "[a\"\\\\{}\\[\\],:é]{0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        let any = leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(text.clone(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        });
        prop_oneof![
            any.clone(),
            any.clone().prop_map(|value| json!({"errors": value})),
            (any.clone(), any).prop_map(|(a, b)| json!({"errors": [{"code": a, "detail": b}]})),
        ]
    }

    /// The code that a parser of whole documents finds.
    fn parsed(document: &Value) -> Option<ErrorCodeLabel> {
        let object = document.as_object()?;
        let errors = object.get("errors")?.as_array()?;
        let first = errors.iter().find(|error| error.is_object())?;
        Some(ErrorCodeLabel::of(first.get("code")?.as_str()?))
    }

    proptest! {
        #[test]
        fn the_reader_agrees_with_a_parser(document in document(), piece in 1_usize..50) {
            let body = document.to_string();
            prop_assume!(body.len() <= LIMIT);
            prop_assert_eq!(
                read(&body, piece).map(Label::value),
                parsed(&document).map(Label::value)
            );
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes: Vec<u8>, pieces in proptest::collection::vec("[\\[\\]{}\",:a]{0,20}", 0..20)
        ) {
            let mut reader = ErrorCodeReader::default();
            reader.read(&bytes);
            for piece in pieces {
                reader.read(piece.as_bytes());
            }
        }
    }
}
