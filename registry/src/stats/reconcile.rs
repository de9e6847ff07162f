//! A full count of the store, in small pieces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Ledger;
use crate::oci::Name;
use crate::store::fs::{FsStore, RepositoryWalk, Shard};
use crate::store::{Result, StoreError};

/// How long it works before it pauses for as long: half of one thread and one disk queue at most.
const SLICE: Duration = Duration::from_millis(20);

/// What went wrong in a full count; what could not be counted keeps its old figures.
pub(super) type Failures = Vec<StoreError>;

/// Counts everything and puts it into the ledger, step by step.
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
    /// Those the ledger knows and the walk did not meet.
    Missed(Vec<Name>),
    Done,
}

/// Counts everything.
pub(super) async fn reconcile(store: FsStore, ledger: Arc<Ledger>) -> Failures {
    ledger.begin();
    let mut count = Reconciliation {
        shards: Shard::all().collect(),
        walk: store.walk_repositories(),
        stage: ReconcileStage::Content,
        failures: Vec::new(),
        store,
        ledger,
    };
    loop {
        let sliced = spawn_blocking(move || {
            let began = Instant::now();
            while began.elapsed() < SLICE
                && !matches!(count.stage, ReconcileStage::Done)
                && !count.failures.iter().any(super::is_lost)
            {
                count.step();
            }
            (count, began.elapsed())
        });
        // Neither a panic nor the end of the program leaves anything to count with.
        let Ok((returned, worked)) = sliced.await else {
            return vec![StoreError::Interrupted];
        };
        count = returned;
        // Figures of half a count would be wrong: those of the last one stay.
        if count.failures.iter().any(super::is_lost) {
            return count.failures;
        }
        if matches!(count.stage, ReconcileStage::Done) {
            return count.failures;
        }
        sleep(worked).await;
    }
}

impl Reconciliation {
    fn step(&mut self) {
        match &mut self.stage {
            ReconcileStage::Content => match self.shards.pop() {
                Some(shard) => {
                    let tell = |counts| self.ledger.counted_shard(shard, counts);
                    let counted = self.store.count_shard(shard, tell);
                    self.note(counted);
                }
                None => self.stage = ReconcileStage::Repositories,
            },
            ReconcileStage::Repositories => match self.walk.next() {
                Some(Ok(name)) => self.count(&name),
                Some(Err(e)) => self.failures.push(e),
                None => self.stage = ReconcileStage::Missed(self.ledger.not_counted()),
            },
            ReconcileStage::Missed(names) => {
                if let Some(name) = names.pop() {
                    self.count(&name);
                } else {
                    self.ledger
                        .end(self.walk.directories_allocated() + self.store.fixed_allocated());
                    self.stage = ReconcileStage::Done;
                }
            }
            ReconcileStage::Done => {}
        }
    }

    fn count(&mut self, name: &Name) {
        let tell = |counts| self.ledger.counted_repository(name, counts);
        let counted = self.store.count_repository(name, tell);
        if counted.is_err() {
            self.ledger.met_repository(name);
        }
        self.note(counted);
    }

    fn note(&mut self, counted: Result<()>) {
        self.failures.extend(counted.err());
    }
}
