//! The expiry of idle upload sessions.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::maintenance::{MaintenanceFamilies, Removed};
use crate::store::fs::{Expired, FsStore};
use service::log::{OutcomeChange, OutcomeChanges, causes};

/// The longest and shortest pause between two runs.
const LONGEST: Duration = Duration::from_mins(10);
const SHORTEST: Duration = Duration::from_millis(100);

/// Ends the upload sessions of a store that have been idle for too long: at the start those that a
/// former run left, and from then on.
pub(super) struct Expiry {
    store: FsStore,
    idle: Duration,
    /// `None` where nothing is recorded.
    families: Option<MaintenanceFamilies>,
}

impl Expiry {
    pub(super) fn new(
        store: FsStore,
        idle: Duration,
        families: Option<MaintenanceFamilies>,
    ) -> Self {
        Self {
            store,
            idle,
            families,
        }
    }

    /// Runs again and again until the future is dropped.
    pub(super) async fn run(self) -> Infallible {
        // So a session may live a tenth longer than configured.
        let pause = (self.idle / 10).clamp(SHORTEST, LONGEST);
        let mut ticks = interval(pause);
        let changes = OutcomeChanges::default();
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // It fails only when the program ends, or when the data directory is lost, which the store
            // logs by itself.
            if let Ok(expired) = self.store.expire_uploads(self.idle).await {
                if let Some(families) = &self.families {
                    families.gc_deleted.add(Removed::Upload, expired.sessions);
                }
                log_outcome(&expired, &changes);
            }
        }
    }
}

fn log_outcome(expired: &Expired, changes: &OutcomeChanges) {
    let &Expired {
        sessions, bytes, ..
    } = expired;
    if sessions > 0 {
        tracing::info!(sessions, bytes, "expired upload sessions");
    }
    let failures = &expired.failures;
    let error = failures.first().map(|failure| causes(failure));
    match changes.note(error.as_deref()) {
        OutcomeChange::Failed => tracing::warn!(
            error,
            failures = failures.len(),
            "cannot remove the files of expired upload sessions"
        ),
        OutcomeChange::Recovered => {
            tracing::info!("the files of expired upload sessions can be removed again");
        }
        OutcomeChange::None => {}
    }
}
