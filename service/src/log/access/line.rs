//! A line of the access log as JSON, or as text that looks as `tracing` writes it.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use super::event::{AccessEvent, MAX_REFERENCE, MAX_REPOSITORY, MAX_USER, MAX_USER_AGENT};
use super::json::push_string;
use super::time::{push_digits, push_rfc3339};
use crate::log::bounded::cut;

/// The longest name of an upstream or a replica, in bytes. They are configured, and may be URLs.
const MAX_UPSTREAM: usize = 256;

/// The name of a field, as each format writes it.
#[derive(Clone, Copy)]
pub(super) struct FieldName {
    json: &'static str,
    text: &'static str,
}

macro_rules! field {
    ($name:literal) => {
        FieldName {
            json: concat!(",\"", $name, "\":"),
            text: concat!(" ", $name, "="),
        }
    };
}

/// Writes the fields of a line.
pub(super) trait FieldWriter {
    fn text(&mut self, name: FieldName, value: &str);
    fn number(&mut self, name: FieldName, value: u64);
    /// A length of time in milliseconds.
    fn millis(&mut self, name: FieldName, value: Duration);
    fn flag(&mut self, name: FieldName, value: bool);

    fn some_text(&mut self, name: FieldName, value: Option<&str>, most: usize) {
        if let Some(value) = value {
            self.text(name, &cut(value, most));
        }
    }

    fn some_millis(&mut self, name: FieldName, value: Option<Duration>) {
        if let Some(value) = value {
            self.millis(name, value);
        }
    }
}

/// Writes what is known of a request; a field that has no meaning for it is absent.
pub(super) fn write_fields(
    line: &mut impl FieldWriter,
    event: &AccessEvent<'_>,
    address: Option<&str>,
    user: Option<&str>,
) {
    line.text(field!("method"), event.method);
    line.text(field!("endpoint"), event.endpoint);
    line.some_text(field!("repository"), event.repository, MAX_REPOSITORY);
    line.some_text(field!("reference"), event.reference, MAX_REFERENCE);
    line.number(field!("status"), event.status.into());
    line.some_text(field!("failure"), event.failure, MAX_UPSTREAM);
    line.some_text(field!("reason"), event.reason, MAX_UPSTREAM);
    line.millis(field!("duration_ms"), event.duration);
    line.some_millis(field!("ttfb_ms"), event.ttfb);
    line.some_millis(field!("queue_ms"), event.queue);
    line.some_millis(field!("connect_ms"), event.connect);
    line.number(field!("bytes_in"), event.bytes_in);
    line.number(field!("bytes_out"), event.bytes_out);
    line.some_text(field!("upstream"), event.upstream, MAX_UPSTREAM);
    line.some_text(field!("replica"), event.replica, MAX_UPSTREAM);
    if event.retries > 0 {
        line.number(field!("retries"), event.retries.into());
    }
    line.some_text(field!("client_address"), address, MAX_UPSTREAM);
    line.some_text(field!("user"), user, MAX_USER);
    line.text(field!("client"), event.client);
    if let Some(agent) = event.user_agent {
        let agent = decoded(agent, MAX_USER_AGENT);
        line.text(field!("user_agent"), &cut(&agent, MAX_USER_AGENT));
    }
    line.text(field!("protocol"), event.protocol);
    line.flag(field!("tls"), event.is_tls);
    line.some_text(field!("request_id"), event.request_id, MAX_UPSTREAM);
    line.some_text(field!("trace_id"), event.trace_id, MAX_UPSTREAM);
}

/// The text of a header, of which a little more than `most` bytes are looked at.
fn decoded(header: &[u8], most: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(&header[..header.len().min(most + 4)])
}

/// A line that is a JSON object.
pub(super) struct JsonLine<'l>(&'l mut Vec<u8>);

impl<'l> JsonLine<'l> {
    pub(super) fn begin(line: &'l mut Vec<u8>, now: SystemTime) -> JsonLine<'l> {
        line.extend_from_slice(b"{\"timestamp\":\"");
        push_rfc3339(line, now);
        line.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\"");
        JsonLine(line)
    }

    pub(super) fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }

    fn name(&mut self, name: FieldName) {
        self.0.extend_from_slice(name.json.as_bytes());
    }
}

impl FieldWriter for JsonLine<'_> {
    fn text(&mut self, name: FieldName, value: &str) {
        self.name(name);
        push_string(self.0, value);
    }

    fn number(&mut self, name: FieldName, value: u64) {
        self.name(name);
        push_number(self.0, value);
    }

    fn millis(&mut self, name: FieldName, value: Duration) {
        self.name(name);
        push_millis(self.0, value);
    }

    fn flag(&mut self, name: FieldName, value: bool) {
        self.name(name);
        self.0.extend_from_slice(flag(value));
    }
}

/// A line of text.
pub(super) struct TextLine<'l>(&'l mut Vec<u8>);

impl<'l> TextLine<'l> {
    pub(super) fn begin(line: &'l mut Vec<u8>, now: SystemTime) -> TextLine<'l> {
        push_rfc3339(line, now);
        line.extend_from_slice(b"  INFO access:");
        TextLine(line)
    }

    pub(super) fn end(self) {
        self.0.push(b'\n');
    }

    fn name(&mut self, name: FieldName) {
        self.0.extend_from_slice(name.text.as_bytes());
    }
}

impl FieldWriter for TextLine<'_> {
    fn text(&mut self, name: FieldName, value: &str) {
        self.name(name);
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if value.as_bytes().iter().all(is_plain) {
            self.0.push(b'"');
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'"');
        } else {
            // Escapes whatever a terminal might obey. A vector takes everything.
            let _ = write!(self.0, "{value:?}");
        }
    }

    fn number(&mut self, name: FieldName, value: u64) {
        self.name(name);
        push_number(self.0, value);
    }

    fn millis(&mut self, name: FieldName, value: Duration) {
        self.name(name);
        push_millis(self.0, value);
    }

    fn flag(&mut self, name: FieldName, value: bool) {
        self.name(name);
        self.0.extend_from_slice(flag(value));
    }
}

fn flag(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    let count = number.checked_ilog10().unwrap_or(0) as usize + 1;
    push_digits(out, number, count);
}

/// Milliseconds, with three digits after the point.
fn push_millis(out: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1000);
    out.push(b'.');
    push_digits(out, micros % 1000, 3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        for (micros, written) in [(0, "0.000"), (1, "0.001"), (999, "0.999"), (1_250, "1.250")] {
            let mut out = Vec::new();
            push_millis(&mut out, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
        push_millis(&mut Vec::new(), Duration::MAX);
    }
}
