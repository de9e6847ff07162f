//! One source: fetched, parsed, and its state recorded.

use std::mem::{Discriminant, discriminant};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Instant as Clock, SystemTime};

use parking_lot::Mutex;
use service::exposition::{DroppedSamples, Exposition, ParseLimits};
use service::log::causes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::fetch::{self, FetchError};
use super::{Aggregation, Fetched, Origin, Source};

/// A source, and how its last scrape ended.
pub(super) struct WatchedSource {
    source: Source,
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
    fn note(&self, failure: Option<&FetchError>) {
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
                tracing::info!(source, "source scrape succeeded")
            }
            None => tracing::info!(source, "source scrape recovered"),
        }
    }
}

impl Aggregation {
    /// Fetches and parses a source's exposition, by a deadline that may still move.
    pub(super) async fn fetch(
        self: Arc<Self>,
        source: usize,
        deadline: watch::Receiver<Instant>,
    ) -> Option<Fetched> {
        let watched = &self.sources[source];
        let started = Clock::now();
        let read = self.read(&watched.source, deadline).await;
        watched.note(read.as_ref().err());
        let cells = self.metrics.source(source);
        cells.duration.set((), started.elapsed().as_secs_f64());
        let Ok((exposition, dropped)) = read else {
            cells.samples.set((), 0.0);
            cells.up.set((), 0.0);
            return None;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        cells
            .last_success
            .set((), now.map_or(0.0, |now| now.as_secs_f64()));
        cells.samples.set((), exposition.sample_count() as f64);
        cells.up.set((), 1.0);
        Some(Fetched {
            source,
            exposition,
            dropped: Some(dropped),
        })
    }

    async fn read(
        &self,
        source: &Source,
        deadline: watch::Receiver<Instant>,
    ) -> Result<(Exposition, DroppedSamples), FetchError> {
        let url = match &source.origin {
            Origin::Endpoint(url) => url,
            Origin::InProcess(registry) => {
                let registry = registry.clone();
                let gathered = tokio::task::spawn_blocking(move || registry.gather()).await;
                // A panic while gathering is a scrape that failed, as any other.
                let exposition = gathered.map_err(|_| FetchError::Unreadable)?;
                return Ok((exposition, DroppedSamples::default()));
            }
        };
        let max_bytes = self.limits.max_bytes;
        let body = by(deadline, fetch::get(url, max_bytes)).await;
        let body = body.ok_or(FetchError::Timeout)??;
        let limits = ParseLimits {
            max_bytes,
            max_samples: self.limits.max_samples,
        };
        let parsed = tokio::task::spawn_blocking(move || Exposition::parse(body, &limits)).await;
        // A panic while parsing is a scrape that failed.
        let (exposition, dropped) = parsed.map_err(|_| FetchError::Unreadable)?;
        // Not one line of it has the format: it is HTML, or binary.
        if exposition.sample_count() == 0 && dropped.malformed > 0 {
            return Err(FetchError::Unreadable);
        }
        Ok((exposition, dropped))
    }
}

/// The output of a future, unless the deadline passes first.
async fn by<F: Future>(mut deadline: watch::Receiver<Instant>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            output = future.as_mut() => return Some(output),
            () = sleep_until(until) => {
                if !deadline.has_changed().unwrap_or(false) {
                    return None;
                }
            }
            changed = deadline.changed() => changed.ok()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_deadline_that_moves_is_waited_for() {
        let now = Instant::now();
        let (sender, deadline) = watch::channel(now);
        assert_eq!(
            by(deadline.clone(), std::future::pending::<()>()).await,
            None
        );
        sender.send_replace(now + Duration::from_hours(1));
        assert_eq!(by(deadline.clone(), async { 1 }).await, Some(1));
        let moved = async {
            sender.send_replace(Instant::now());
        };
        let (output, ()) = tokio::join!(by(deadline, std::future::pending::<()>()), moved);
        assert_eq!(output, None);
    }
}
