//! A reconcile: a full count of the store, in small steps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Ledger;
use crate::oci::Name;
use crate::store::fs::{FsStore, RepositoryWalk, Shard};
use crate::store::{Result, StoreError};

/// How long a reconcile works before it pauses for the same time. It takes at most half of a thread, and
/// leaves half of the disk's time to requests.
const SLICE: Duration = Duration::from_millis(20);

/// The failures of a reconcile. What could not be counted keeps its old figures.
pub(super) type Failures = Vec<StoreError>;

/// A reconcile in progress.
struct Reconciliation {
    store: FsStore,
    ledger: Arc<Ledger>,
    shards: Vec<Shard>,
    walk: RepositoryWalk,
    stage: ReconcileStage,
    failures: Failures,
}

enum ReconcileStage {
    Content,
    Repositories,
    /// Counts the repositories that the ledger knows and the walk has not met: they are gone, or were made
    /// during the walk.
    Unmet(Vec<Name>),
    Done,
}

/// Counts the whole store, and sets the figures of the ledger step by step.
pub(super) async fn reconcile(store: FsStore, ledger: Arc<Ledger>) -> Failures {
    ledger.begin();
    let mut reconciliation = Reconciliation {
        shards: Shard::all().collect(),
        walk: store.walk_repositories(),
        stage: ReconcileStage::Content,
        failures: Vec::new(),
        store,
        ledger,
    };
    loop {
        // One slice per blocking task: a task for the whole reconcile would hold a thread for hours, and delay
        // the end of the program.
        let sliced = spawn_blocking(move || {
            let began = Instant::now();
            while began.elapsed() < SLICE
                && !matches!(reconciliation.stage, ReconcileStage::Done)
                && !reconciliation.failures.iter().any(is_lost)
            {
                reconciliation.step();
            }
            (reconciliation, began.elapsed())
        });
        // The task panicked, or the runtime shuts down: the reconciliation is lost with it.
        let Ok((returned, worked)) = sliced.await else {
            return vec![StoreError::Interrupted];
        };
        reconciliation = returned;
        // What is left would count as gone. The figures stay as they are instead.
        if reconciliation.failures.iter().any(is_lost) {
            return reconciliation.failures;
        }
        if matches!(reconciliation.stage, ReconcileStage::Done) {
            return reconciliation.failures;
        }
        sleep(worked).await;
    }
}

impl Reconciliation {
    fn step(&mut self) {
        match &mut self.stage {
            ReconcileStage::Content => match self.shards.pop() {
                Some(shard) => {
                    let set = |counts| self.ledger.set_shard(shard, counts);
                    let counted = self.store.count_shard(shard, set);
                    self.record(counted);
                }
                None => self.stage = ReconcileStage::Repositories,
            },
            ReconcileStage::Repositories => match self.walk.next() {
                Some(Ok(name)) => self.count_repository(&name),
                Some(Err(e)) => self.failures.push(e),
                None => self.stage = ReconcileStage::Unmet(self.ledger.unmet_repositories()),
            },
            ReconcileStage::Unmet(names) => {
                if let Some(name) = names.pop() {
                    self.count_repository(&name);
                } else {
                    self.ledger
                        .complete(self.walk.directories_allocated() + self.store.fixed_allocated());
                    self.stage = ReconcileStage::Done;
                }
            }
            ReconcileStage::Done => {}
        }
    }

    fn count_repository(&mut self, name: &Name) {
        let set = |counts| self.ledger.set_repository(name, counts);
        let counted = self.store.count_repository(name, set);
        // Without this it would be unmet, counted once more, and fail once more.
        if counted.is_err() {
            self.ledger.keep_repository(name);
        }
        self.record(counted);
    }

    fn record(&mut self, counted: Result<()>) {
        self.failures.extend(counted.err());
    }
}

pub(super) fn is_lost(failure: &StoreError) -> bool {
    matches!(failure, StoreError::Lost { .. })
}
