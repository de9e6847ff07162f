//! What is written, and what is not.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while `events` are logged.
fn logged(config: &LogConfig, is_terminal: bool, events: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let state = Arc::new(LogState::new(config, is_terminal));
    let subscriber = subscriber(&state, move || writer.clone());
    tracing::subscriber::with_default(subscriber, events);
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn event() -> AccessEvent<'static> {
    AccessEvent {
        endpoint: "manifest",
        repository: Some("team/app"),
        method: "GET",
        status: 200,
        bytes_out: 427,
        duration_ms: 1.25,
        client: "docker",
        ..AccessEvent::default()
    }
}

#[test]
fn an_access_event_is_one_json_object_without_absent_fields() {
    let line = logged(&LogConfig::default(), false, || event().emit());
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["target"], "access");
    assert_eq!(json["endpoint"], "manifest");
    assert_eq!(json["repository"], "team/app");
    assert_eq!(json["status"], 200);
    assert_eq!(json["duration_ms"], 1.25);
    assert_eq!(json.get("reference"), None);
}

#[test]
fn a_terminal_gets_text_and_everything_else_json() {
    let log = || tracing::info!(connections = 42, "listening");
    let auto = LogConfig::default();
    assert!(logged(&auto, true, log).contains("listening"));
    assert!(logged(&auto, false, log).starts_with('{'));
    let text = LogConfig {
        format: LogFormat::Text,
        ..LogConfig::default()
    };
    let line = logged(&text, false, log);
    assert!(line.ends_with("listening connections=42\n"), "{line}");
    let json = LogConfig {
        format: LogFormat::Json,
        ..LogConfig::default()
    };
    assert!(logged(&json, true, log).starts_with('{'));
}

#[test]
fn the_level_decides_and_other_peoples_details_are_left_out() {
    let config = LogConfig {
        level: Level::Debug,
        ..LogConfig::default()
    };
    let written = logged(&config, false, || {
        tracing::debug!("ours");
        tracing::trace!("too much");
        tracing::debug!(target: "h2::codec", "theirs");
        tracing::warn!(target: "h2::codec", "their trouble");
    });
    assert!(written.contains("ours") && written.contains("their trouble"));
    assert!(!written.contains("too much") && !written.contains("theirs"));
}

#[test]
fn the_access_log_can_be_off_and_sampled() {
    let off = LogConfig {
        access: false,
        ..LogConfig::default()
    };
    assert_eq!(logged(&off, false, || event().emit()), "");
    let some = LogConfig {
        sample: 0.1,
        ..LogConfig::default()
    };
    let written = logged(&some, false, || (0..100).for_each(|_| event().emit()));
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
    let written = logged(&text, false, || forged.emit());
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
        let line = logged(&LogConfig::default(), false, || event.emit());
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
fn no_line_is_longer_than_a_bound_whatever_it_repeats() {
    let long = "\u{1}\"ä".repeat(30_000);
    for format in [LogFormat::Text, LogFormat::Json] {
        let config = LogConfig {
            format,
            ..LogConfig::default()
        };
        let written = logged(&config, false, || {
            tracing::warn!(error = %long, reason = ?long, status = 400, "{long}");
            tracing::warn!("the next");
        });
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.len(), 2, "one line for each event");
        assert!(lines[0].len() <= 8 << 10, "{} bytes", lines[0].len());
        assert!(lines[0].contains('…') && lines[1].contains("the next"));
        if format == LogFormat::Json {
            let json: Value = serde_json::from_str(lines[0]).unwrap();
            assert_eq!(
                (&json["level"], &json["status"]),
                (&"WARN".into(), &400.into())
            );
        }
    }
}

#[test]
fn the_configuration_is_read_as_it_is_documented() {
    let config = "{level: warn, format: json, access: false, sample: 0.5}";
    let config: LogConfig = serde_yaml::from_str(config).unwrap();
    assert_eq!(
        (config.level, config.format),
        (Level::Warn, LogFormat::Json)
    );
    assert!(serde_yaml::from_str::<LogConfig>("level: loud").is_err());
}

#[test]
fn level_and_format_change_while_events_are_logged() {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let state = Arc::new(LogState::new(&LogConfig::default(), false));
    let control = LogControl::new(Arc::clone(&state), queue::LogQueue::default());
    let log = |number| {
        tracing::debug!("debug {number}");
        tracing::info!("info {number}");
    };
    tracing::subscriber::with_default(subscriber(&state, move || writer.clone()), || {
        log(1);
        control.level_for(Level::Debug, std::time::Duration::from_mins(1));
        log(2);
        let config = LogConfig {
            level: Level::Warn,
            format: LogFormat::Text,
            ..LogConfig::default()
        };
        control.apply(&config);
        assert_eq!(control.configured_level(), Level::Warn);
        log(3);
        control.level_for(Level::Off, std::time::Duration::MAX);
        log(4);
        assert_eq!(control.level(), Level::Off);
    });
    let bytes = buffer.0.lock().unwrap().clone();
    let written = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = written.lines().collect();
    let expected = ["info 1", "debug 2", "info 2", "debug 3", "info 3"];
    assert_eq!(lines.len(), expected.len(), "{written}");
    for (at, (line, event)) in lines.iter().zip(expected).enumerate() {
        assert!(line.contains(event), "{line}");
        assert_eq!(line.starts_with('{'), at < 3, "{line}");
    }
}
