//! Upload sessions.

use registry::metrics::label::LATENCY;
use service::metrics::{Counters, Gauge, Histograms, Label, MetricsRegistry, families, labels};

labels! {
    /// An event in the life of an upload session.
    pub enum SessionEvent: "event" {
        Started = "started",
        Completed = "completed",
        Cancelled = "cancelled",
        Failed = "failed",
        Expired = "expired",
        /// A session that was opened elsewhere was resumed here.
        Unknown = "unknown",
    }

    /// How an upload session ended.
    pub enum SessionOutcome: "outcome" {
        Completed = "completed",
        Cancelled = "cancelled",
        Failed = "failed",
        Expired = "expired",
    }
}

families! {
    /// The `upload_session*` families. [`SessionTable`](crate::sessions::SessionTable) moves them.
    pub struct SessionMetrics {
        /// Events of upload sessions; counted when they happen. `unknown` is the resumption of a
        /// session that was opened elsewhere, `expired` the end of one that was idle for 24 hours or
        /// was evicted for others, `failed` the end of one that the registry refused to complete or
        /// has lost.
        pub events: Counters<SessionEvent> = "upload_sessions_total",
        /// Upload sessions that are open, as far as the proxy saw; counted at each scrape.
        pub active: Gauge = "upload_sessions_active",
        /// Age of the oldest open upload session, 0 without any; taken at each scrape.
        pub oldest_age: Gauge = "upload_session_oldest_age_seconds",
        /// Time from the start of an upload session to its end; observed when it ends, if the proxy
        /// saw its start.
        pub duration: Histograms<SessionOutcome> = "upload_session_duration_seconds" in LATENCY,
    }
}

impl SessionMetrics {
    /// Declares the families. `started` and `unknown` add up to the sessions that ended and those
    /// that are open.
    pub fn new(registry: &MetricsRegistry) -> SessionMetrics {
        let metrics = SessionMetrics::declare(registry);
        for &event in SessionEvent::ALL {
            // All from the start: in PromQL a sum with a missing series has no result.
            metrics.events.touch(event);
        }
        metrics
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
