//! What can be changed while the process runs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::access::settings::AccessSettings;
use super::config::{Level, LogConfig, LogFormat};
use super::queue::LogQueue;
use crate::terminal::TerminalStyle;

/// A handle of the process's log, by which what is logged changes while the process runs. Clones are
/// one handle. No call waits for anything.
#[derive(Clone)]
pub struct LogControl {
    state: Arc<LogState>,
    queue: LogQueue,
}

impl LogControl {
    pub(super) fn new(state: Arc<LogState>, queue: LogQueue) -> LogControl {
        LogControl { state, queue }
    }

    /// Has a checked section `logging` take effect, all of it at once. A level that was set for a time
    /// stays until that has passed.
    pub fn apply(&self, config: &LogConfig) {
        self.state.apply(config);
    }

    /// Sets the level for a time, after which the configured one is in effect again. A later call
    /// replaces an earlier one.
    pub fn level_for(&self, level: Level, duration: Duration) {
        // A time that is beyond the clock never passes.
        let until = Instant::now().checked_add(duration);
        self.state.override_level(level, until);
        self.queue.wake_at(until);
    }

    /// The level in effect.
    pub fn level(&self) -> Level {
        self.state.current().level
    }

    /// The configured level, which is in effect unless another one is for a time.
    pub fn configured_level(&self) -> Level {
        self.state.wanted.lock().config.level
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

/// What is logged at present, and what is wanted.
pub(super) struct LogState {
    is_terminal: bool,
    current: ArcSwap<LogSettings>,
    wanted: Mutex<WantedLog>,
}

/// What is logged at present. Never changed, only replaced, so that no event sees half of a change.
pub(super) struct LogSettings {
    pub(super) level: Level,
    pub(super) is_text: bool,
    pub(super) access: AccessSettings,
}

struct WantedLog {
    config: LogConfig,
    temporary: Option<TemporaryLevel>,
}

struct TemporaryLevel {
    level: Level,
    until: Option<Instant>,
}

impl LogState {
    pub(super) fn new(config: &LogConfig, is_terminal: bool) -> LogState {
        let wanted = WantedLog {
            config: config.clone(),
            temporary: None,
        };
        LogState {
            is_terminal,
            current: ArcSwap::from_pointee(wanted.settings(is_terminal)),
            wanted: Mutex::new(wanted),
        }
    }

    /// Whether text is written with colours.
    pub(super) fn has_colours(&self) -> bool {
        self.is_terminal && TerminalStyle::of_stderr().has_colours()
    }

    pub(super) fn current(&self) -> Guard<Arc<LogSettings>> {
        self.current.load()
    }

    fn apply(&self, config: &LogConfig) {
        self.change(|wanted| wanted.config = config.clone());
    }

    fn override_level(&self, level: Level, until: Option<Instant>) {
        self.change(|wanted| wanted.temporary = Some(TemporaryLevel { level, until }));
    }

    /// Ends a temporary level whose time has passed. Returns the level in effect if it did.
    pub(super) fn expire(&self, now: Instant) -> Option<Level> {
        let is_over =
            |temporary: &TemporaryLevel| temporary.until.is_some_and(|until| until <= now);
        let is_over = {
            let wanted = self.wanted.lock();
            wanted.temporary.as_ref().is_some_and(is_over)
        };
        is_over.then(|| {
            // Asked again under the lock: a new one may have been set meanwhile.
            self.change(|wanted| {
                wanted
                    .temporary
                    .take_if(|temporary| temporary.until.is_some_and(|until| until <= now));
            });
            self.current().level
        })
    }

    fn change(&self, change: impl FnOnce(&mut WantedLog)) {
        let mut wanted = self.wanted.lock();
        change(&mut wanted);
        // Under the lock, so that of two changes the later one stays.
        self.current
            .store(Arc::new(wanted.settings(self.is_terminal)));
        // Tracing keeps for each place of the code whether its events are wanted, so that an unwanted
        // one costs nothing.
        tracing::callsite::rebuild_interest_cache();
    }
}

impl WantedLog {
    fn settings(&self, is_terminal: bool) -> LogSettings {
        let config = &self.config;
        let temporary = self.temporary.as_ref();
        let level = temporary.map_or(config.level, |temporary| temporary.level);
        let is_text = match config.format {
            LogFormat::Auto => is_terminal,
            LogFormat::Text => true,
            LogFormat::Json => false,
        };
        LogSettings {
            level,
            is_text,
            access: AccessSettings::new(config, level, is_text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(level: Level) -> LogConfig {
        LogConfig {
            level,
            ..LogConfig::default()
        }
    }

    #[test]
    fn a_level_for_a_time_outlives_a_reload_and_ends_by_itself() {
        let state = LogState::new(&config(Level::Warn), false);
        let level = || state.current().level;
        assert_eq!(level(), Level::Warn);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        state.override_level(Level::Trace, Some(at(10)));
        assert_eq!(level(), Level::Trace);
        state.apply(&config(Level::Error));
        assert_eq!(level(), Level::Trace, "it stays over a reload");
        assert_eq!(state.expire(at(9)), None);
        assert_eq!(level(), Level::Trace);
        assert_eq!(state.expire(at(10)), Some(Level::Error));
        assert_eq!(level(), Level::Error);
        assert_eq!(state.expire(at(11)), None, "once");
    }

    #[test]
    fn a_later_level_replaces_an_earlier_one() {
        let state = LogState::new(&config(Level::Info), false);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        state.override_level(Level::Trace, Some(at(10)));
        state.override_level(Level::Debug, Some(at(20)));
        assert_eq!(state.expire(at(10)), None);
        assert_eq!(state.current().level, Level::Debug);
        state.override_level(Level::Off, None);
        assert_eq!(state.expire(at(100)), None, "without an end");
        assert_eq!(state.current().level, Level::Off);
    }

    #[test]
    fn all_of_the_section_is_applied() {
        let state = LogState::new(&LogConfig::default(), true);
        assert!(state.current().is_text && state.current().access.is_on);
        state.apply(&LogConfig {
            format: LogFormat::Json,
            access: false,
            sample: 0.0,
            ..LogConfig::default()
        });
        let current = state.current();
        assert!(!current.is_text && !current.access.is_on);
    }
}
