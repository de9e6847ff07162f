//! What each repository is asked for, under a number of labels that is bounded whatever comes.
//!
//! A name becomes a label only by [`Repositories::admit`], which the proxy calls for a success that
//! proves the repository to exist, and only as long as there is room under the cap; see [`Rules`].
//! Everything else is counted as `_other`. A name that is in use keeps its slot: when the cap is
//! full, the least recently used one that was idle for long enough gives way, and what it counted
//! goes with it rather than into `_other`, which is a counter of its own.
//!
//! Finding a repository takes no lock: the labels are in a map that is replaced as a whole, which
//! happens at admissions only, at most a few hundred entries at a time. Where grouping rules are
//! configured, names are first looked up in a bounded cache of what the rules said.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use service::metrics::{Counter, Counters, Gauge, Label, MetricsRegistry, families, labels};

use super::label::Transfer;

mod rules;

use self::rules::RepositoryLabels;
pub use self::rules::{GroupError, GroupRule, Rules, RulesError};

/// Stands for every repository without a label of its own. No name can be this: no component of
/// one begins with an underscore.
const OTHER: &str = "_other";

labels! {
    /// What was done with a repository.
    pub enum RepositoryOperation: "operation" {
        /// A manifest that is no index, signature or attestation: an image for one platform, or an
        /// artifact.
        Pull = "pull",
        Push = "push",
        /// A manifest or a blob.
        Delete = "delete",
        /// A blob mounted from another repository.
        Mount = "mount",
        IndexPull = "index_pull",
        IndexPush = "index_push",
        BlobPull = "blob_pull",
        BlobPush = "blob_push",
        /// Whatever moved none of these.
        Other = "other",
    }
}

/// The `repository_*` families.
pub struct Repositories {
    families: RepositoryFamilies,
    labels: RepositoryLabels,
    slots: ArcSwap<Slots>,
    /// Held while the slots change.
    admission: Mutex<()>,
    /// Before this time, in milliseconds since `origin`, nobody can give way: of a full table no
    /// more need be looked at.
    full_until: AtomicU64,
    /// What has no label of its own.
    other: OnceLock<RepositoryCells>,
    overflow: Counter,
    origin: Instant,
}

/// RepositoryLabels and their cells.
type Slots = HashMap<Arc<str>, Arc<Slot>>;

families! {
    /// The families by repository.
    struct RepositoryFamilies by "repository" {
        /// Successful operations on a repository; counted when they end. pull and push are manifests
        /// of images and artifacts, one for each platform; index_pull and index_push are indexes;
        /// blob_pull and blob_push are blobs; other is what moved none of these, such as a HEAD, a
        /// signature or an attestation. A repository is shown once a manifest or a blob of it was
        /// seen, up to the configured number; the rest is `_other`.
        operations: Counters<RepositoryOperation> = "repository_operations_total",
        /// Body bytes of requests for a repository and of their responses, failed and partial ones
        /// included; counted as they move, and at the end of the request for a repository that is not
        /// shown until then.
        bytes: Counters<Transfer> = "repository_bytes_total",
        /// Time of the last successful pull of a manifest, or resolution of a tag, in seconds since
        /// 1970; 0 before the first.
        last_pull: Gauge = "repository_last_pull_timestamp_seconds",
    }
}

families! {
    /// What no repository has.
    struct RepositoryOverflow {
        /// Operations counted as `_other`, because their repository is not shown; counted when they
        /// end.
        overflow: Counter = "repository_label_overflow_total",
    }
}

/// The cells of one label.
struct RepositoryCells {
    operations: Counters<RepositoryOperation>,
    bytes: Counters<Transfer>,
    last_pull: Gauge,
}

/// An admitted label.
struct Slot {
    cells: RepositoryCells,
    /// When it last counted an operation, in milliseconds since `origin`.
    used: AtomicU64,
    /// Never gives way.
    is_reserved: bool,
}

/// What one request knows of its repository.
///
/// A transfer's bytes show while it runs where the repository is admitted. Those of any other are
/// held here until it is admitted or the request ends, because a byte that was counted as `_other`
/// could not be taken back.
#[derive(Default)]
pub struct RepositoryHandle {
    slot: Option<Arc<Slot>>,
    pending_bytes: [u64; Transfer::ALL.len()],
}

impl RepositoryHandle {
    /// Whether the repository has a label, its own or its group's.
    pub fn is_shown(&self) -> bool {
        self.slot.is_some()
    }
}

impl Repositories {
    /// Declares the families.
    pub fn new(registry: &MetricsRegistry, rules: Rules) -> Repositories {
        let families = RepositoryFamilies::declare(registry, rules.limit() + 1);
        let RepositoryOverflow { overflow } = RepositoryOverflow::declare(registry);
        Repositories {
            families,
            labels: RepositoryLabels::new(rules),
            slots: ArcSwap::default(),
            admission: Mutex::default(),
            full_until: AtomicU64::new(0),
            other: OnceLock::new(),
            overflow,
            origin: Instant::now(),
        }
    }

    /// What is known of a repository when a request for it begins. Any text will do.
    pub fn find(&self, name: &str) -> RepositoryHandle {
        let slots = self.slots.load();
        let slot = if self.labels.are_names() {
            slots.get(name)
        } else {
            let label = self.labels.remembered(name);
            label.and_then(|label| slots.get(&label))
        };
        let slot = slot.cloned();
        RepositoryHandle {
            slot,
            pending_bytes: Default::default(),
        }
    }

    /// Body bytes moved.
    pub fn bytes(&self, handle: &mut RepositoryHandle, direction: Transfer, bytes: u64) {
        match &handle.slot {
            Some(slot) => slot.cells.bytes.add(direction, bytes),
            None => handle.pending_bytes[direction.index()] += bytes,
        }
    }

    /// The repository is known to exist: a manifest of it was read or written, a tag resolved, or a
    /// blob completed. Gives it a label if there is room for it.
    ///
    /// `name` is the one that the handle was found by.
    pub fn admit(&self, handle: &mut RepositoryHandle, name: &str, now: Instant) {
        if handle.slot.is_some() {
            return;
        }
        handle.slot = self.slot(name, now);
        if let Some(slot) = &handle.slot {
            slot.cells.credit(&mut handle.pending_bytes);
        }
    }

    /// An operation ended with success.
    pub fn record(&self, handle: &RepositoryHandle, operation: RepositoryOperation, now: Instant) {
        if let Some(slot) = &handle.slot {
            slot.cells.operations.inc(operation);
            slot.used.fetch_max(self.millis(now), Ordering::Relaxed);
        } else {
            self.other().operations.inc(operation);
            self.overflow.inc(());
        }
    }

    /// A manifest was pulled, or a tag resolved, with success.
    pub fn pulled(&self, handle: &RepositoryHandle, now: SystemTime) {
        let cells = match &handle.slot {
            Some(slot) => &slot.cells,
            None => self.other(),
        };
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        cells
            .last_pull
            .set((), since.map_or(0.0, |t| t.as_secs_f64()));
    }

    /// The request has ended: bytes that are still held belong to a repository that is not shown.
    /// Its operation may be recorded later; the handle keeps the label until then.
    pub fn finish(&self, handle: &mut RepositoryHandle) {
        if handle.pending_bytes.iter().any(|&bytes| bytes > 0) {
            self.other().credit(&mut handle.pending_bytes);
        }
    }
}

impl Repositories {
    fn other(&self) -> &RepositoryCells {
        self.other.get_or_init(|| self.families.cells(OTHER))
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The slot of a name, a new one if there is room.
    fn slot(&self, name: &str, now: Instant) -> Option<Arc<Slot>> {
        let label = self.labels.of(name)?;
        let is_reserved = self.labels.rules().reserves(&label);
        if let Some(slot) = self.slots.load().get(&*label) {
            return Some(Arc::clone(slot));
        }
        let now = self.millis(now);
        if !is_reserved && now < self.full_until.load(Ordering::Relaxed) {
            return None;
        }
        let _changing = self.admission.lock();
        let slots = self.slots.load_full();
        if let Some(slot) = slots.get(&*label) {
            return Some(Arc::clone(slot));
        }
        let evicted = if is_reserved || self.has_free_slot(&slots) {
            None
        } else {
            Some(self.least_recently_used(&slots, now)?)
        };
        let mut slots = Slots::clone(&slots);
        if let Some(evicted) = evicted {
            slots.remove(&evicted);
            self.families.remove(&evicted);
        }
        let slot = Arc::new(Slot {
            cells: self.families.cells(&label),
            used: AtomicU64::new(now),
            is_reserved,
        });
        slots.insert(label.into(), Arc::clone(&slot));
        self.slots.store(Arc::new(slots));
        Some(slot)
    }

    /// Whether a name that nothing is reserved for finds room.
    fn has_free_slot(&self, slots: &Slots) -> bool {
        let taken = slots.values().filter(|slot| !slot.is_reserved).count();
        taken < self.labels.rules().unreserved()
    }

    /// The label that is to give way, or `None` and the time until which that is so.
    fn least_recently_used(&self, slots: &Slots, now: u64) -> Option<Arc<str>> {
        let idle = u64::try_from(self.labels.rules().idle().as_millis()).unwrap_or(u64::MAX);
        let candidates = slots.iter().filter(|(_, slot)| !slot.is_reserved);
        let by_use = candidates.map(|(label, slot)| {
            let used = slot.used.load(Ordering::Relaxed);
            // A request under way has a handle on it.
            let is_idle = used.saturating_add(idle) <= now && Arc::strong_count(slot) == 1;
            (!is_idle, used, label)
        });
        match by_use.min() {
            Some((false, _, label)) => Some(Arc::clone(label)),
            Some((true, used, _)) => {
                let until = used.saturating_add(idle);
                self.full_until.store(until, Ordering::Relaxed);
                None
            }
            // Everything is reserved, for ever.
            None => {
                self.full_until.store(u64::MAX, Ordering::Relaxed);
                None
            }
        }
    }
}

impl RepositoryFamilies {
    /// The cells of a label, all of which print from now on.
    fn cells(&self, label: &str) -> RepositoryCells {
        let cells = RepositoryCells {
            operations: self.operations.cells(label),
            bytes: self.bytes.cells(label),
            last_pull: self.last_pull.cells(label),
        };
        for &operation in RepositoryOperation::ALL {
            cells.operations.touch(operation);
        }
        for &direction in Transfer::ALL {
            cells.bytes.touch(direction);
        }
        cells.last_pull.touch(());
        cells
    }

    /// Lets a label print no more. Each of its cells is there: see [`RepositoryFamilies::cells`].
    fn remove(&self, label: &str) {
        for &operation in RepositoryOperation::ALL {
            self.operations.remove(label, operation);
        }
        for &direction in Transfer::ALL {
            self.bytes.remove(label, direction);
        }
        self.last_pull.remove(label, ());
    }
}

impl RepositoryCells {
    /// Counts bytes that were held, once.
    fn credit(&self, pending: &mut [u64; Transfer::ALL.len()]) {
        for &direction in Transfer::ALL {
            self.bytes
                .add(direction, std::mem::take(&mut pending[direction.index()]));
        }
    }
}

#[cfg(test)]
mod tests;
