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
    tracing::subscriber::with_default(subscriber_to(&state, writer), events);
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn subscriber_to(state: &Arc<LogState>, writer: Buffer) -> impl Subscriber + use<> {
    let access = AccessLog::new(Arc::clone(state), LogQueue::default());
    subscriber(state, move || writer.clone(), access)
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
    let control = LogControl::new(Arc::clone(&state), LogQueue::default());
    let log = |number| {
        tracing::debug!("debug {number}");
        tracing::info!("info {number}");
    };
    tracing::subscriber::with_default(subscriber_to(&state, writer), || {
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

#[test]
fn the_access_log_goes_with_the_subscriber() {
    let state = Arc::new(LogState::new(&LogConfig::default(), false));
    let before = access_log();
    let within =
        tracing::subscriber::with_default(subscriber_to(&state, Buffer::default()), access_log);
    assert!(before.is_none() && within.is_some_and(|access| access.is_on()));
}
