//! Saves what a store remembers of pulls, now and then.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::store::fs::FsStore;
use service::log::{OutcomeChange, OutcomeChanges, causes};

/// What a crash may lose. A pull is remembered to the minute, so that saving more often would write the same.
const EVERY: Duration = Duration::from_mins(1);

/// Saves the pulls of a store. Clones save the same.
#[derive(Clone)]
pub(super) struct PullSaver {
    store: FsStore,
    changes: Arc<OutcomeChanges>,
}

impl PullSaver {
    pub(super) fn new(store: FsStore) -> Self {
        Self {
            store,
            changes: Arc::default(),
        }
    }

    /// Saves every minute until the future is dropped.
    pub(super) async fn run(self) -> Infallible {
        loop {
            sleep(EVERY).await;
            self.save().await;
        }
    }

    /// Saves what has changed. A failure is logged, and what was not saved is saved the next time.
    pub(super) async fn save(&self) {
        let error = self.store.save_pulls().await.err();
        // By its kind: the name of the file that is written aside is another one each time.
        let kind = error.as_ref().map(|error| format!("{:?}", error.kind()));
        let error = error.map(|error| causes(&error));
        match self.changes.note(kind.as_deref()) {
            OutcomeChange::Failed => tracing::warn!(error, "cannot save when tags were pulled"),
            OutcomeChange::Recovered => tracing::info!("when tags were pulled is saved again"),
            OutcomeChange::None => {}
        }
    }
}
