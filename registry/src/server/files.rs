//! What a registry on files does beside serving.

use std::convert::Infallible;
use std::future::pending;

use service::admin::Readiness;

use super::expiry::Expiry;
use super::pulls::PullSaver;
use crate::maintenance::Maintenance;
use crate::store::fs::{FsStore, Presence};

/// The background work of a store of files.
pub(super) struct Files {
    /// The store whose data directory is watched.
    store: FsStore,
    /// Ends idle upload sessions; `None` for a store that is read-only.
    expiry: Option<Expiry>,
    pulls: PullSaver,
    maintenance: Maintenance,
}

impl Files {
    pub(super) fn new(store: FsStore, expiry: Option<Expiry>, maintenance: Maintenance) -> Self {
        Self {
            pulls: PullSaver::new(store.clone()),
            store,
            expiry,
            maintenance,
        }
    }

    /// Whether the data directory is there.
    pub(super) fn presence(&self) -> Presence {
        self.store.presence()
    }

    /// The jobs.
    pub(super) fn maintenance(&self) -> Maintenance {
        self.maintenance.clone()
    }

    /// What saves the pulls, for the last time after the last request.
    pub(super) fn pulls(&self) -> PullSaver {
        self.pulls.clone()
    }

    /// Expires upload sessions, saves what is remembered of pulls and watches the data directory until the
    /// future is dropped.
    pub(super) async fn maintain(self) -> Infallible {
        let expire = async {
            match self.expiry {
                Some(expiry) => expiry.run().await,
                None => pending().await,
            }
        };
        tokio::select! {
            never = expire => never,
            never = self.pulls.run() => never,
            never = self.store.watch() => never,
        }
    }
}

/// Tells a readiness whether the data directory is there, until the future is dropped or the store
/// is closed. A store that has no directory is always healthy.
pub async fn follow(presence: Option<Presence>, readiness: &Readiness) {
    let Some(mut presence) = presence else {
        readiness.set_health(Ok(()));
        return;
    };
    loop {
        // `lost` leaves the value unseen: a change between here and the wait ends the wait at once.
        let lost = presence.lost();
        readiness.set_health(lost.map_or(Ok(()), |lost| Err(lost.to_string())));
        if !presence.changed().await {
            return;
        }
    }
}
