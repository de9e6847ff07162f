//! What is written of a request, and what is not.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::*;
use crate::log::config::{LogConfig, LogFormat};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while requests are logged.
fn logged(config: &LogConfig, log: impl FnOnce(&AccessLog)) -> String {
    let lines = Lines::default();
    let access = AccessLog::to(config, lines.clone()).unwrap();
    log(&access);
    access.flush();
    let bytes = lines.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

fn event() -> AccessEvent<'static> {
    AccessEvent {
        endpoint: "manifest",
        repository: Some("team/app"),
        method: "GET",
        status: 200,
        bytes_out: 427,
        duration: Duration::from_micros(1250),
        client: "docker",
        ..AccessEvent::default()
    }
}

#[test]
fn an_access_event_is_one_json_object_without_absent_fields() {
    let line = logged(&LogConfig::default(), |log| log.log(&event()));
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["target"], "access");
    assert_eq!(json["endpoint"], "manifest");
    assert_eq!(json["repository"], "team/app");
    assert_eq!(json["status"], 200);
    assert_eq!(json["duration_ms"], 1.25);
    assert_eq!(json.get("reference"), None);
}

#[test]
fn the_access_log_can_be_off_and_sampled() {
    let off = LogConfig {
        access: false,
        ..LogConfig::default()
    };
    assert_eq!(logged(&off, |log| log.log(&event())), "");
    let some = LogConfig {
        sample: 0.1,
        ..LogConfig::default()
    };
    let written = logged(&some, |log| (0..100).for_each(|_| log.log(&event())));
    assert_eq!(written.lines().count(), 10);
}

#[test]
fn a_name_from_outside_cannot_forge_a_line() {
    let text = LogConfig {
        format: LogFormat::Text,
        ..LogConfig::default()
    };
    let forged = AccessEvent {
        repository: Some("a\nERROR b\u{1b}[2J"),
        ..event()
    };
    let written = logged(&text, |log| log.log(&forged));
    assert_eq!(written.lines().count(), 1, "{written}");
    assert!(!written.contains('\u{1b}'));
}

#[test]
fn an_access_event_is_bounded_whatever_a_client_names() {
    let longest = "n".repeat(255);
    let long = "ä".repeat(30_000);
    let digest = format!("sha512:{}", "0".repeat(128));
    for (repository, reference, cut) in [(&longest, &digest, false), (&long, &long, true)] {
        let event = AccessEvent {
            repository: Some(repository),
            reference: Some(reference),
            ..event()
        };
        let line = logged(&LogConfig::default(), |log| log.log(&event));
        assert!(line.len() < 1000, "{} bytes", line.len());
        let json: Value = serde_json::from_str(&line).unwrap();
        for (field, whole, most) in [
            ("repository", repository, 255),
            ("reference", reference, 135),
        ] {
            let written = json[field].as_str().unwrap();
            assert!(written.len() <= most, "{field}: {written}");
            assert_eq!(written == whole, !cut, "{field}");
            assert_eq!(written.ends_with('…'), cut, "{field}");
            assert!(whole.starts_with(written.trim_end_matches('…')));
        }
    }
}

#[test]
fn an_identifier_that_could_forge_a_line_is_none() {
    let longest = "x".repeat(MAX_REQUEST_ID);
    for id in ["a", "0f-9_Z.z", &longest] {
        assert_eq!(request_id(id.as_bytes()), Some(id));
    }
    let longer = "x".repeat(MAX_REQUEST_ID + 1);
    for wrong in ["", "a b", "a\nb", "\"", "a=b", "\u{1b}[31m", "ä", &longer] {
        assert_eq!(request_id(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(request_id(b"\xff"), None);
}

fn configured(yaml: &str) -> LogConfig {
    serde_yaml::from_str(yaml).unwrap()
}

/// One JSON line.
fn object(yaml: &str, event: &AccessEvent<'_>) -> Value {
    let line = logged(&configured(yaml), |log| log.log(event));
    serde_json::from_str(&line).unwrap()
}

#[test]
fn the_user_is_logged_where_that_is_wanted_and_the_credentials_were_accepted() {
    let authorized = AccessEvent {
        credentials: Some(b"Basic YW5uOnBhc3N3b3Jk"),
        is_authorized: true,
        ..event()
    };
    assert_eq!(object("user: true", &authorized)["user"], "ann");
    assert_eq!(object("{}", &authorized).get("user"), None);
    let refused = AccessEvent {
        is_authorized: false,
        ..authorized
    };
    assert_eq!(object("user: true", &refused).get("user"), None);
    for (status, is_accepted) in [
        (200, true),
        (307, true),
        (404, true),
        (416, true),
        (400, false),
        (401, false),
        (403, false),
        (429, false),
        (500, false),
        (502, false),
    ] {
        assert_eq!(is_authorized(status), is_accepted, "{status}");
    }
}

#[test]
fn an_address_is_logged_as_far_as_is_wanted() {
    let from = AccessEvent {
        client_address: Some("192.0.2.77"),
        ..event()
    };
    assert_eq!(object("{}", &from)["client_address"], "192.0.2.77");
    assert_eq!(
        object("address: network", &from)["client_address"],
        "192.0.2.0/24"
    );
    assert_eq!(object("address: off", &from).get("client_address"), None);
    let clf = logged(
        &configured("{access_format: clf, address: network}"),
        |log| log.log(&from),
    );
    assert!(clf.starts_with("192.0.2.0 - - ["), "{clf}");
}

/// All that a client and an upstream can make long or hostile.
#[test]
fn every_text_is_bounded_and_escaped_in_every_format() {
    let hostile = "\u{1b}[31m\"\\\n\u{0}é\u{9b}🦀".repeat(1000);
    let credentials = format!("Basic {}", base64_of(&format!("{hostile:.2000}:x")));
    let event = AccessEvent {
        repository: Some(&hostile),
        reference: Some(&hostile),
        path: &hostile,
        user_agent: Some(hostile.as_bytes()),
        credentials: Some(credentials.as_bytes()),
        is_authorized: true,
        upstream: Some(&hostile),
        replica: Some(&hostile),
        reason: Some(&hostile),
        ..event()
    };
    for yaml in [
        "{user: true}",
        "{user: true, format: text}",
        "{user: true, access_format: clf}",
    ] {
        let line = logged(&configured(yaml), |log| log.log(&event));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.len() <= 8 << 10, "{} bytes", line.len());
        assert!(
            !line.trim_end().contains(|c: char| c.is_ascii_control()),
            "{line}"
        );
    }
    let json = object("user: true", &event);
    for (field, most) in [("user", MAX_USER), ("user_agent", MAX_USER_AGENT)] {
        let text = json[field].as_str().unwrap();
        assert!(text.len() <= most && text.ends_with('…'), "{field}: {text}");
        assert!(hostile.starts_with(text.trim_end_matches('…')), "{field}");
    }
    let not_utf8 = AccessEvent {
        user_agent: Some(b"a\xff\xfeb"),
        ..event
    };
    assert_eq!(object("{}", &not_utf8)["user_agent"], "a\u{fffd}\u{fffd}b");
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_failure_is_logged_although_nothing_else_is() {
    let logs = |event: AccessEvent<'_>| {
        let config = configured("sample: 0");
        !logged(&config, |log| log.log(&event)).is_empty()
    };
    let with = |status| AccessEvent { status, ..event() };
    assert!(!logs(with(200)));
    assert!(!logs(with(401)), "a challenge");
    let refused = AccessEvent {
        credentials: Some(b"Bearer x"),
        ..with(401)
    };
    assert!(logs(refused));
    for status in [400, 403, 404, 499, 500, 503] {
        assert!(logs(with(status)), "{status}");
    }
    let cut = AccessEvent {
        failure: Some("client_closed"),
        ..event()
    };
    assert!(logs(cut));
}
