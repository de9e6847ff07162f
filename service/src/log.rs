//! Logs to standard error: text for a person at a terminal, JSON for everything else. Writing
//! never waits for the reader.
//!
//! [`init`] is called once by `main`; nothing else here is global. The caller decides what is
//! logged, within two bounds: an [`AccessEvent`] has no field for a header (except a checked
//! [`request_id`]), a query string or an address, so none can get into the access log; and no line
//! is longer than 8 KiB, whatever text a client or an upstream sent.

mod access;
mod bounded;
mod outcome_changes;
mod queue;

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use access::{ACCESS, AccessEvent, MAX_REFERENCE, MAX_REPOSITORY, request_id};
pub use bounded::cut;
pub use outcome_changes::{OutcomeChange, OutcomeChanges};

use super::config::{Checker, ConfigError};
use access::Sampler;
use bounded::BoundedWriter;
use queue::LogQueue;

/// What is logged, and how: the section `logging` of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important level that is logged.
    pub level: Level,
    /// How events are written.
    pub format: LogFormat,
    /// Whether requests are logged.
    pub access: bool,
    /// Which part of the requests is logged, from 0 to 1.
    pub sample: f64,
}

impl LogConfig {
    /// Checks the values against their ranges.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        checker.range("sample", self.sample, &(0.0..=1.0))
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: LogFormat::Auto,
            access: true,
            sample: 1.0,
        }
    }
}

/// A level of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing at all.
    Off,
    /// What somebody must look at.
    Error,
    /// What somebody should look at.
    Warn,
    /// What happens.
    Info,
    /// What is needed to find a mistake.
    Debug,
    /// Everything.
    Trace,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One line of text for each event.
    Text,
    /// One JSON object a line for each event.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// It was already.
    #[error("logging was set up already")]
    Again(#[from] tracing_subscriber::util::TryInitError),
    /// There is no thread to write with.
    #[error("no thread for the log")]
    Thread(#[from] io::Error),
}

/// The process's log. Drop it last: dropping it waits up to a second for the events that are not
/// written yet.
#[derive(Debug)]
#[must_use = "what is logged last is lost unless this is kept to the end"]
pub struct Log(LogQueue);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Sets up the process's log, and has every panic logged as one error event.
pub fn init(config: &LogConfig) -> Result<Log, LogError> {
    let is_terminal = io::stderr().is_terminal();
    let queue = LogQueue::start(io::stderr(), |lost| {
        tracing::warn!(lost, "log events lost: the reader is too slow");
    })?;
    let log = Log(queue.clone());
    subscriber(config, is_terminal, QueueWriter(queue)).try_init()?;
    // After the subscriber: until then, the default hook prints a panic to stderr.
    panic::set_hook(Box::new(log_panic));
    Ok(log)
}

/// The queue, as events are written to it.
struct QueueWriter(LogQueue);

impl<'w> MakeWriter<'w> for QueueWriter {
    type Writer = &'w LogQueue;

    fn make_writer(&'w self) -> &'w LogQueue {
        &self.0
    }
}

/// Has `count` called for every panic from now on, after it was logged. Panics end a task, never
/// the process: this is how they are counted.
pub fn on_panic(count: impl Fn() + Send + Sync + 'static) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // The log first: `count` may panic itself, which ends the process.
        before(info);
        count();
    }));
}

/// An error with its causes, on one line: an event's `error` field prints only the error itself.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // A transparent error repeats its source.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("no message");
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        location = location.as_deref(),
        thread = thread.name(),
        reason = message,
        "panicked"
    );
}

fn subscriber<W>(
    config: &LogConfig,
    is_terminal: bool,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = config.level.filter();
    // At `debug` these crates log protocol details, headers and so credentials among them.
    let others = level.min(LevelFilter::WARN);
    let targets = Targets::new()
        .with_default(level)
        .with_targets(["h2", "hyper", "hyper_util", "mio", "rustls", "tokio"].map(|t| (t, others)))
        .with_target(
            ACCESS,
            if config.access {
                level
            } else {
                LevelFilter::OFF
            },
        );
    let sampler = Sampler::new(config.sample);
    // Dynamic: tracing keeps the result of a static filter, so all requests would fare alike.
    let chosen = dynamic_filter_fn(move |event, _| event.target() != ACCESS || sampler.take());
    let is_text = match config.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let writer = BoundedWriter::new(writer, is_text);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = if is_text {
        // Text may go to a file, where escape sequences for colors are noise.
        layer.with_ansi(is_terminal).boxed()
    } else {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    };
    // In this order: the sampler counts only events that the targets let through.
    tracing_subscriber::registry().with(layer.with_filter(targets.and(chosen)))
}

impl Level {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

#[cfg(test)]
mod tests;
