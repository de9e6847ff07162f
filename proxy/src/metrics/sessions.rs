//! How upload sessions go.

use registry::metrics::label::LATENCY;
use service::metrics::MetricsRegistry;
use service::metrics::{Counters, Gauge, Histograms, Label, labels};

labels! {
    /// What became of an upload session.
    pub enum SessionEvent {
        Started = "started",
        Completed = "completed",
        Cancelled = "cancelled",
        Failed = "failed",
        Expired = "expired",
        /// It was opened elsewhere, and is known from now on.
        Unknown = "unknown",
    }

    /// How an upload session ended.
    pub enum SessionOutcome {
        Completed = "completed",
        Cancelled = "cancelled",
        Failed = "failed",
        Expired = "expired",
    }
}

/// The `upload_session*` families. [`Sessions`](crate::sessions::Sessions) moves them.
pub struct SessionMetrics {
    /// Transitions. Those that are known (`started` and `unknown`) are those that ended and those
    /// that are open, added up.
    pub events: Counters<SessionEvent>,
    /// Open sessions.
    pub active: Gauge,
    /// The age of the oldest.
    pub oldest_age: Gauge,
    /// How long sessions were open that were seen from their start.
    pub duration: Histograms<SessionOutcome>,
}

impl SessionMetrics {
    /// Registers the families.
    pub fn new(registry: &MetricsRegistry) -> SessionMetrics {
        let events = registry.counters(
            "upload_sessions_total",
            "Upload sessions by what became of them; counted when it is seen: `unknown` when one \
             that was opened elsewhere is carried on with, `expired` when one has been idle for \
             24 hours or gives way to others, `failed` when the registry refused to complete it \
             or has lost it.",
            &["event"],
        );
        for &event in SessionEvent::ALL {
            events.touch(event);
        }
        let active = registry.gauge(
            "upload_sessions_active",
            "Upload sessions that are open, as far as was seen; counted at each scrape.",
        );
        let oldest_age = registry.gauge(
            "upload_session_oldest_age_seconds",
            "Age of the oldest open upload session, 0 without any; taken at each scrape.",
        );
        SessionMetrics {
            events,
            active,
            oldest_age,
            duration: registry.histograms(
                "upload_session_duration_seconds",
                "Time from the start of an upload session to its end; observed when it ends, if \
                 it was started here.",
                &["outcome"],
                LATENCY,
            ),
        }
    }

    /// Counts the end of a session.
    pub fn ended(&self, outcome: SessionOutcome) {
        self.events.inc(match outcome {
            SessionOutcome::Completed => SessionEvent::Completed,
            SessionOutcome::Cancelled => SessionEvent::Cancelled,
            SessionOutcome::Failed => SessionEvent::Failed,
            SessionOutcome::Expired => SessionEvent::Expired,
        });
    }
}
