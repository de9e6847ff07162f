//! Logs to standard error: text for a person at a terminal, JSON for everything else. Writing
//! never waits for the reader.
//!
//! [`init`] is called once by `main`; nothing else here is global. The caller decides what is
//! logged, within two bounds: an [`AccessEvent`] has no field for a query string, and of the headers
//! only those that its documentation names, so that no secret can get into the access log; and no
//! line is longer than 8 KiB, whatever text a client or an upstream sent.

mod access;
mod bounded;
mod config;
mod control;
mod filter;
mod format;
mod outcome_changes;
mod queue;

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use access::{
    AccessEvent, AccessLog, MAX_REFERENCE, MAX_REPOSITORY, MAX_USER, MAX_USER_AGENT, is_authorized,
    request_id,
};
pub use bounded::cut;
pub use config::{
    AccessFilterFields, AccessFormat, Level, LogConfig, LogFormat, LoggedAddress, StatusRange,
};
pub use control::LogControl;
pub use outcome_changes::{OutcomeChange, OutcomeChanges};

use bounded::BoundedWriter;
use control::LogState;
use filter::LogFilter;
use format::LogFormatter;
use queue::LogQueue;

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
pub struct Log {
    queue: LogQueue,
    control: LogControl,
}

impl Log {
    /// The handle by which what is logged changes while the process runs.
    pub fn control(&self) -> &LogControl {
        &self.control
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush();
    }
}

/// Sets up the process's log, and has every panic logged as one error event.
pub fn init(config: &LogConfig) -> Result<Log, LogError> {
    let state = Arc::new(LogState::new(config, io::stderr().is_terminal()));
    let expiring = Arc::clone(&state);
    let on_lost = |lost| tracing::warn!(lost, "log events lost: the reader is too slow");
    let on_wake = move || {
        if let Some(level) = expiring.expire(Instant::now()) {
            tracing::info!(?level, "the configured log level is in effect again");
        }
    };
    let queue = LogQueue::start(io::stderr(), on_lost, on_wake)?;
    let access = AccessLog::new(Arc::clone(&state), queue.clone());
    subscriber(&state, QueueWriter(queue.clone()), access).try_init()?;
    // After the subscriber: until then, the default hook prints a panic to stderr.
    panic::set_hook(Box::new(log_panic));
    Ok(Log {
        control: LogControl::new(state, queue.clone()),
        queue,
    })
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
        // A transparent error repeats its source, and another one may name it before it says what to do.
        if !text.contains(&said) {
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

/// The access log of this process; `None` before [`init`]. It goes with the subscriber of `tracing`,
/// which is the process's one log already.
pub fn access_log() -> Option<AccessLog> {
    tracing::dispatcher::get_default(|dispatch| {
        let filter = dispatch.downcast_ref::<LogFilter>();
        filter.map(|filter| filter.access.clone())
    })
}

fn subscriber<W>(
    state: &Arc<LogState>,
    writer: W,
    access: AccessLog,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(state.has_colours())
        .event_format(LogFormatter::new(Arc::clone(state)))
        .with_writer(BoundedWriter::new(writer));
    tracing_subscriber::registry()
        .with(layer)
        .with(LogFilter::new(Arc::clone(state), access))
}

#[cfg(test)]
mod tests;
