//! The end of upload sessions that nobody carries on with.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::store::fs::{Expired, FsStore};
use service::log::{OutcomeChange, OutcomeChanges, causes};

/// The longest and shortest pause between two looks.
const LONGEST: Duration = Duration::from_mins(10);
const SHORTEST: Duration = Duration::from_millis(100);

/// Ends the sessions of a store that have received nothing for a while: at the start, for those
/// that a former run left, and from then on.
pub(super) struct Expiry {
    store: FsStore,
    idle: Duration,
}

impl Expiry {
    pub(super) fn new(store: FsStore, idle: Duration) -> Self {
        Self { store, idle }
    }

    /// Looks again and again until the future is dropped.
    pub(super) async fn run(self) -> Infallible {
        // A session may live a tenth longer than it should, which matters to nobody.
        let pause = (self.idle / 10).clamp(SHORTEST, LONGEST);
        let mut ticks = interval(pause);
        let logged = OutcomeChanges::default();
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // It fails only when the program ends, or when the data directory is lost, of which the log
            // tells.
            if let Ok(expired) = self.store.expire_uploads(self.idle).await {
                tell(&expired, &logged);
            }
        }
    }
}

fn tell(expired: &Expired, logged: &OutcomeChanges) {
    let &Expired {
        sessions, bytes, ..
    } = expired;
    if sessions > 0 {
        tracing::info!(
            sessions,
            bytes,
            "removed uploads that nobody carried on with"
        );
    }
    let failures = &expired.failures;
    let error = failures.first().map(|failure| causes(failure));
    match logged.note(error.as_deref()) {
        OutcomeChange::Failed => tracing::warn!(
            error,
            failures = failures.len(),
            "expired upload sessions could not be removed"
        ),
        OutcomeChange::Recovered => tracing::info!("expired upload sessions can be removed again"),
        OutcomeChange::None => {}
    }
}
