//! The sources, and the state of each.

use std::mem::{Discriminant, discriminant};

use parking_lot::Mutex;
use service::log::causes;
use service::metrics::MetricsRegistry;
use service::net::GetRequest;

use super::fetch::FetchError;

/// A source of metrics beside the proxy's own.
#[derive(Clone, Debug)]
pub struct Source {
    /// The value of the `source` label.
    pub name: String,
    /// Where its exposition comes from.
    pub origin: Origin,
}

/// Where an exposition comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A metrics endpoint.
    Endpoint(Box<GetRequest>),
    /// Families in this process, which are gathered: no text, no socket.
    InProcess(MetricsRegistry),
}

/// A source, and how its last scrape ended.
pub(super) struct WatchedSource {
    pub(super) source: Source,
    state: Mutex<SourceState>,
}

/// The state that was logged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceState {
    Unknown,
    Up,
    /// With the kind of the failure.
    Down(Discriminant<FetchError>),
}

impl WatchedSource {
    pub(super) fn new(source: Source) -> WatchedSource {
        WatchedSource {
            source,
            state: Mutex::new(SourceState::Unknown),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    /// Logs how a scrape ended, if the last one ended differently.
    pub(super) fn note(&self, failure: Option<&FetchError>) {
        // The kind and not the text: a text with a changing figure would fill the log.
        let state = failure.map_or(SourceState::Up, |error| {
            SourceState::Down(discriminant(error))
        });
        let before = std::mem::replace(&mut *self.state.lock(), state);
        if before == state {
            return;
        }
        let source = self.name();
        match failure {
            Some(error) => {
                tracing::warn!(source, error = causes(error), "source scrape failed");
            }
            None if before == SourceState::Unknown => {
                tracing::info!(source, "source scrape succeeded");
            }
            None => tracing::info!(source, "source scrape recovered"),
        }
    }
}
