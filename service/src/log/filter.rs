//! Which events are logged, by their level and by who logs them.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::access::AccessLog;
use super::control::LogState;

/// At `debug` these crates log protocol details, headers and so credentials among them.
const OTHERS: [&str; 6] = ["h2", "hyper", "hyper_util", "mio", "rustls", "tokio"];

/// Lets through what the present settings want. Unlike tracing-subscriber's `reload`, it takes no lock.
/// It holds the access log, too, which has no events, but belongs to the same subscriber.
pub(super) struct LogFilter {
    state: Arc<LogState>,
    pub(super) access: AccessLog,
}

impl LogFilter {
    pub(super) fn new(state: Arc<LogState>, access: AccessLog) -> LogFilter {
        LogFilter { state, access }
    }

    fn level(&self, target: &str) -> LevelFilter {
        let level = self.state.current().level.filter();
        let from = target.split("::").next().unwrap_or_default();
        if OTHERS.contains(&from) {
            level.min(LevelFilter::WARN)
        } else {
            level
        }
    }
}

impl<S: Subscriber> Layer<S> for LogFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() > self.level(metadata.target()) {
            Interest::never()
        } else {
            Interest::always()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.state.current().level.filter())
    }
}
