//! A line in the Common Log Format: host, identity, user, time, request line, status and bytes
//! (<https://httpd.apache.org/docs/2.4/logs.html#common>).

use std::time::SystemTime;

use super::event::{AccessEvent, MAX_USER};
use super::line::push_number;
use super::time::push_clf;
use crate::log::bounded::cut;

/// The longest path that is written whole, in bytes.
const MAX_PATH: usize = 1024;

const UPLOADS: &str = "/blobs/uploads/";

pub(super) fn write_clf(
    line: &mut Vec<u8>,
    now: SystemTime,
    event: &AccessEvent<'_>,
    address: Option<&str>,
    user: Option<&str>,
) {
    // A network is written as its first address: readers expect an address.
    let host = address.and_then(|address| address.split('/').next());
    push_word(line, host.unwrap_or("-"));
    line.extend_from_slice(b" - ");
    push_word(line, &cut(user.unwrap_or("-"), MAX_USER));
    line.extend_from_slice(b" [");
    push_clf(line, now);
    line.extend_from_slice(b"] \"");
    line.extend_from_slice(event.method.as_bytes());
    line.push(b' ');
    push_path(line, event);
    line.push(b' ');
    line.extend_from_slice(event.protocol.as_bytes());
    line.extend_from_slice(b"\" ");
    push_number(line, event.status.into());
    line.push(b' ');
    match event.bytes_out {
        0 => line.push(b'-'),
        bytes => push_number(line, bytes),
    }
    line.push(b'\n');
}

/// The path of an upload session is left out: who knows it can write to the session. So is a path of no
/// kind that is known: it may be one of a session that another process has opened, at a location of the
/// upstream's own.
fn push_path(line: &mut Vec<u8>, event: &AccessEvent<'_>) {
    let path = event.path;
    let (path, rest) = if event.endpoint == "other" {
        ("", "/-")
    } else if event.endpoint == "upload_session" {
        let known = path.find(UPLOADS).map_or(0, |at| at + UPLOADS.len());
        (&path[..known], if known == 0 { "/-" } else { "-" })
    } else if path.len() > MAX_PATH {
        (&path[..path.floor_char_boundary(MAX_PATH)], "...")
    } else {
        (path, "")
    };
    push_word(line, &cut(path, MAX_PATH));
    line.extend_from_slice(rest.as_bytes());
}

/// Escapes what would end a word or a quoted text, as Apache does.
fn push_word(line: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            b'!'..=b'~' => line.push(byte),
            _ => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                line.extend_from_slice(b"\\x");
                line.extend_from_slice(&digits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(event: &AccessEvent<'_>, address: Option<&str>, user: Option<&str>) -> String {
        let (mut line, now) = (Vec::new(), UNIX_EPOCH + Duration::from_secs(971_211_336));
        write_clf(&mut line, now, event, address, user);
        String::from_utf8(line).unwrap()
    }

    fn event(path: &str) -> AccessEvent<'_> {
        AccessEvent {
            endpoint: "manifest",
            method: "GET",
            path,
            protocol: "HTTP/1.1",
            status: 200,
            bytes_out: 2326,
            ..AccessEvent::default()
        }
    }

    const PATH: &str = "/v2/team/app/manifests/1";

    #[test]
    fn a_line_is_that_of_other_servers() {
        assert_eq!(
            written(&event(PATH), Some("192.0.2.0/24"), Some("ann")),
            "192.0.2.0 - ann [10/Oct/2000:20:55:36 +0000] \
             \"GET /v2/team/app/manifests/1 HTTP/1.1\" 200 2326\n"
        );
        let empty = AccessEvent {
            status: 304,
            bytes_out: 0,
            ..event(PATH)
        };
        assert!(written(&empty, None, None).starts_with("- - - ["));
        assert!(written(&empty, None, None).ends_with("\" 304 -\n"));
    }

    #[test]
    fn neither_a_name_nor_a_path_can_forge_a_line() {
        let event = event("/v2/\"\\ \n\u{1b}ä");
        let line = written(&event, None, Some("a\" b\n\u{7f}"));
        assert!(line.contains(" - a\\\"\\x20b\\x0a\\x7f ["), "{line}");
        assert!(
            line.contains("\"GET /v2/\\\"\\\\\\x20\\x0a\\x1b\\xc3\\xa4 HTTP"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn no_upload_session_is_named_and_no_path_is_endless() {
        for (path, shown) in [
            (
                "/v2/a/blobs/uploads/secret",
                "\"GET /v2/a/blobs/uploads/- HTTP",
            ),
            ("/opaque/secret", "\"GET /- HTTP"),
        ] {
            let event = AccessEvent {
                endpoint: "upload_session",
                ..event(path)
            };
            let line = written(&event, None, None);
            assert!(line.contains(shown) && !line.contains("secret"), "{line}");
        }
        let unknown = AccessEvent {
            endpoint: "other",
            ..event("/opaque/secret")
        };
        let line = written(&unknown, None, None);
        assert!(line.contains("\"GET /- HTTP"), "{line}");
        let path = "/ä".repeat(5000);
        let line = written(&event(&path), None, None);
        assert!(line.len() < 4 << 10 && line.contains("... HTTP"), "{line}");
    }
}
