//! One line for each request.
//!
//! The access log does not go through `tracing`: its lines are written straight into the buffer of the
//! log's queue.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use self::address::logged_address;
use self::clf::write_clf;
use self::line::{JsonLine, TextLine};
use self::settings::LineFormat;
use super::config::LogConfig;
use super::control::LogState;
use super::queue::LogQueue;

mod address;
mod clf;
mod event;
mod json;
mod line;
pub(super) mod settings;
mod time;
mod user;

pub use self::event::{AccessEvent, MAX_REFERENCE, MAX_REPOSITORY, MAX_USER, MAX_USER_AGENT};

/// The longest identifier of a request that is taken from its headers.
const MAX_REQUEST_ID: usize = 128;

/// The access log. Clones are one log.
#[derive(Clone)]
pub struct AccessLog {
    state: Arc<LogState>,
    queue: LogQueue,
}

thread_local! {
    /// The line that is being written: its memory is used again.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    pub(super) fn new(state: Arc<LogState>, queue: LogQueue) -> AccessLog {
        AccessLog { state, queue }
    }

    /// An access log of its own, as the section `logging` has it, which is written to `out`. Fails if no
    /// thread can be started.
    pub fn to(config: &LogConfig, out: impl Write + Send + 'static) -> io::Result<AccessLog> {
        let queue = LogQueue::start(out, |_| (), || ())?;
        Ok(AccessLog::new(
            Arc::new(LogState::new(config, false)),
            queue,
        ))
    }

    /// Waits until everything is written, but no longer than a moment.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// Whether requests are logged at present, if only some of them.
    pub fn is_on(&self) -> bool {
        self.state.current().access.is_on
    }

    /// Logs a request, if it is among those that are.
    pub fn log(&self, event: &AccessEvent<'_>) {
        let current = self.state.current();
        let settings = &current.access;
        if !settings.wants(&event.outcome()) {
            return;
        }
        let address = event.client_address;
        let address = address.and_then(|address| logged_address(address, settings.address));
        let credentials = event
            .credentials
            .filter(|_| settings.user && event.is_authorized);
        let user = credentials.and_then(user::name);
        let (address, user) = (address.as_deref(), user.as_deref());
        let now = SystemTime::now();
        let write = |line: &mut Vec<u8>| {
            line.clear();
            match settings.format {
                LineFormat::Json => {
                    let mut line = JsonLine::begin(line, now);
                    line::write_fields(&mut line, event, address, user);
                    line.end();
                }
                LineFormat::Text => {
                    let mut line = TextLine::begin(line, now);
                    line::write_fields(&mut line, event, address, user);
                    line.end();
                }
                LineFormat::Clf => write_clf(line, now, event, address, user),
            }
            // The queue never fails.
            let _ = (&self.queue).write_all(line);
        };
        // A thread that ends has none any more.
        if LINE.try_with(|line| write(&mut line.borrow_mut())).is_err() {
            write(&mut Vec::new());
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

/// Whether a response of this status says that the request's credentials were accepted. A 400 or a 429
/// may precede their check, and an upstream that failed says nothing of them.
pub fn is_authorized(status: u16) -> bool {
    status < 500 && !matches!(status, 400 | 401 | 403 | 407 | 429)
}

/// The identifier that an `X-Request-Id` header gives a request, if it is one that can be logged
/// and searched for without surprises: up to 128 letters, digits, hyphens, underscores and periods.
pub fn request_id(header: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let id = str::from_utf8(header).ok()?;
    ((1..=MAX_REQUEST_ID).contains(&id.len()) && header.iter().all(plain)).then_some(id)
}

#[cfg(test)]
mod tests;
