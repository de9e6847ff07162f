//! Metrics by repository, under a bounded number of labels.
//!
//! A name becomes a label only by [`Repositories::admit`], which the proxy calls for a success that
//! proves that the repository exists, and only while the cap has a free slot; see [`Rules`]. Every
//! other repository is counted as `_other`. When no slot is free, the least recently used label
//! that was idle for long enough is evicted. Its counts are dropped. They are not added to
//! `_other`, which holds only what was counted there.
//!
//! Finding a repository takes no lock: the slots are in a map that is replaced as a whole. Only an
//! admission replaces it, and it has a few hundred entries at most. Where grouping rules are
//! configured, names are first looked up in a bounded cache of the rules' results.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use service::metrics::{Counter, Counters, Gauge, Label, MetricsRegistry, families, labels};

use super::label::Transfer;

mod rules;

use self::rules::RepositoryLabels;
pub use self::rules::{GroupError, GroupRule, Rules, RulesError};

/// The label of every repository that has none of its own. It cannot be a name: no component of a
/// name begins with an underscore.
const OTHER: &str = "_other";

labels! {
    /// An operation on a repository.
    pub enum RepositoryOperation: "operation" {
        /// A manifest that is not an index, a signature or an attestation: an image for one
        /// platform, or an artifact.
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
        /// Any operation that moved none of these.
        Other = "other",
    }
}

/// The `repository_*` families.
pub struct Repositories {
    families: RepositoryFamilies,
    /// Replaced as a whole by a reload.
    labels: ArcSwap<RepositoryLabels>,
    slots: ArcSwap<Slots>,
    /// Locked while the slots change. Readers do not take it.
    admission: Mutex<()>,
    /// Until this time, in milliseconds since `origin`, no label can be evicted, so that a full
    /// table need not be searched.
    full_until: AtomicU64,
    /// The cells of `_other`, which print nothing before they are first used.
    other: OnceLock<RepositoryCells>,
    overflow: Counter,
    origin: Instant,
}

/// Slots by label.
type Slots = HashMap<Arc<str>, Arc<Slot>>;

families! {
    /// The families by repository.
    struct RepositoryFamilies by "repository" {
        /// Successful operations on a repository; counted when they end. pull and push are manifests
        /// of images and artifacts, one for each platform; index_pull and index_push are indexes;
        /// blob_pull and blob_push are blobs; other is everything else, such as a HEAD, a
        /// signature or an attestation. A repository is shown once a manifest or a blob of it was
        /// seen, up to the configured number; the rest is `_other`.
        operations: Counters<RepositoryOperation> = "repository_operations_total",
        /// Body bytes of requests for a repository and of their responses, failed and partial ones
        /// included; counted as they move. For a repository that is not shown, counted when it is
        /// admitted or, as `_other`, when the request ends.
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
    last_used: AtomicU64,
    /// Whether it is never evicted.
    is_reserved: AtomicBool,
}

/// A request's hold on the label of its repository.
///
/// The bytes of an admitted repository are counted as they move. Those of any other are held here
/// until the repository is admitted or the request ends: bytes that were counted as `_other` could
/// not be moved to a label.
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
            labels: ArcSwap::from_pointee(RepositoryLabels::new(rules)),
            slots: ArcSwap::default(),
            admission: Mutex::default(),
            full_until: AtomicU64::new(0),
            other: OnceLock::new(),
            overflow,
            origin: Instant::now(),
        }
    }

    /// Other rules apply to what is admitted from now on. What has a label keeps it and its counts until
    /// it is evicted.
    pub fn replace_rules(&self, rules: Rules) {
        let _admission = self.admission.lock();
        let slots = self.slots.load();
        // Where there are more than the new limit allows, they stay until others need their slots.
        self.families.resize(rules.limit().max(slots.len()) + 1);
        for (label, slot) in slots.iter() {
            let is_reserved = rules.reserves(label);
            slot.is_reserved.store(is_reserved, Ordering::Relaxed);
        }
        self.labels.store(Arc::new(RepositoryLabels::new(rules)));
        self.full_until.store(0, Ordering::Relaxed);
    }

    /// The handle of a repository. Called when a request for it begins. `name` may be any text.
    pub fn find(&self, name: &str) -> RepositoryHandle {
        let slots = self.slots.load();
        let labels = self.labels.load();
        let slot = if labels.are_names() {
            slots.get(name)
        } else {
            let label = labels.cached(name);
            label.and_then(|label| slots.get(&label))
        };
        let slot = slot.cloned();
        RepositoryHandle {
            slot,
            pending_bytes: Default::default(),
        }
    }

    /// Body bytes were received or sent.
    pub fn bytes(&self, handle: &mut RepositoryHandle, direction: Transfer, bytes: u64) {
        match &handle.slot {
            Some(slot) => slot.cells.bytes.add(direction, bytes),
            None => handle.pending_bytes[direction.index()] += bytes,
        }
    }

    /// The repository is proven to exist: one of its manifests was read or written, a tag resolved,
    /// or a blob completed. Gives it a label if a slot is free.
    ///
    /// `name` is the name that the handle was found by.
    pub fn admit(&self, handle: &mut RepositoryHandle, name: &str, now: Instant) {
        if handle.slot.is_some() {
            return;
        }
        handle.slot = self.slot(name, now);
        if let Some(slot) = &handle.slot {
            slot.cells.credit(&mut handle.pending_bytes);
        }
    }

    /// An operation succeeded.
    pub fn record(&self, handle: &RepositoryHandle, operation: RepositoryOperation, now: Instant) {
        if let Some(slot) = &handle.slot {
            slot.cells.operations.inc(operation);
            // A maximum, because operations may be recorded in another order than they ended.
            let now = self.millis(now);
            slot.last_used.fetch_max(now, Ordering::Relaxed);
        } else {
            self.other().operations.inc(operation);
            self.overflow.inc(());
        }
    }

    /// A manifest was pulled or a tag resolved.
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

    /// The request has ended. Bytes that are still held are counted as `_other`: the repository was
    /// not admitted. The operation may be recorded later; the handle keeps the label until then.
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

    /// The slot of a name: the one that it has, or a new one if a slot is free.
    fn slot(&self, name: &str, now: Instant) -> Option<Arc<Slot>> {
        let labels = self.labels.load_full();
        let rules = labels.rules();
        let label = labels.of(name)?;
        let is_reserved = rules.reserves(&label);
        if let Some(slot) = self.slots.load().get(&*label) {
            return Some(Arc::clone(slot));
        }
        let now = self.millis(now);
        // A value that is out of date costs one search, or shows the name a little later.
        if !is_reserved && now < self.full_until.load(Ordering::Relaxed) {
            return None;
        }
        // Admissions are one at a time: each copies the map that the one before has stored.
        let _admission = self.admission.lock();
        // Looked up again: another request may have admitted the name before the lock was taken.
        let mut slots = self.slots.load_full();
        if let Some(slot) = slots.get(&*label) {
            return Some(Arc::clone(slot));
        }
        if !is_reserved && !has_free_slot(&slots, rules) {
            let evicted = self.least_recently_used(&slots, rules, now)?;
            let mut fewer = Slots::clone(&slots);
            fewer.remove(&evicted);
            // Before the new cells are made: the number of series never exceeds the bound.
            self.families.remove(&evicted);
            let is_free = has_free_slot(&fewer, rules);
            slots = Arc::new(fewer);
            self.slots.store(Arc::clone(&slots));
            // A reload may have lowered the limit: each admission then makes one label fewer.
            if !is_free {
                return None;
            }
        }
        let mut slots = Slots::clone(&slots);
        let slot = Arc::new(Slot {
            cells: self.families.cells(&label),
            last_used: AtomicU64::new(now),
            is_reserved: AtomicBool::new(is_reserved),
        });
        slots.insert(label.into(), Arc::clone(&slot));
        self.slots.store(Arc::new(slots));
        Some(slot)
    }

    /// The label to evict. If there is none, `full_until` is set to the earliest time when there
    /// may be one.
    fn least_recently_used(&self, slots: &Slots, rules: &Rules, now: u64) -> Option<Arc<str>> {
        let idle = u64::try_from(rules.idle().as_millis()).unwrap_or(u64::MAX);
        let candidates = slots.iter().filter(|(_, slot)| !slot.is_reserved());
        let by_use = candidates.map(|(label, slot)| {
            let used = slot.last_used.load(Ordering::Relaxed);
            // A request in flight holds a clone, and would go on to count under the evicted label.
            let is_idle = used.saturating_add(idle) <= now && Arc::strong_count(slot) == 1;
            // Idle labels come first, the least recently used before the others.
            (!is_idle, used, label)
        });
        match by_use.min() {
            Some((false, _, label)) => Some(Arc::clone(label)),
            Some((true, used, _)) => {
                let until = used.saturating_add(idle);
                self.full_until.store(until, Ordering::Relaxed);
                None
            }
            // Every slot is reserved, so this never changes.
            None => {
                self.full_until.store(u64::MAX, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Slot {
    fn is_reserved(&self) -> bool {
        self.is_reserved.load(Ordering::Relaxed)
    }
}

/// Whether a slot is free for a name that is not on the allow-list.
fn has_free_slot(slots: &Slots, rules: &Rules) -> bool {
    let taken = slots.values().filter(|slot| !slot.is_reserved()).count();
    taken < rules.unreserved()
}

impl RepositoryFamilies {
    /// The cells of a label. All of them print from now on.
    fn cells(&self, label: &str) -> RepositoryCells {
        let cells = RepositoryCells {
            operations: self.operations.cells(label),
            bytes: self.bytes.cells(label),
            last_pull: self.last_pull.cells(label),
        };
        // At 0: a rate over a counter that first appears with a value would miss that value.
        for &operation in RepositoryOperation::ALL {
            cells.operations.touch(operation);
        }
        for &direction in Transfer::ALL {
            cells.bytes.touch(direction);
        }
        cells.last_pull.touch(());
        cells
    }

    /// Removes the series of a label. All of them exist, see [`RepositoryFamilies::cells`], so that
    /// no removal fails.
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
    /// Counts the bytes that were held, and holds none any more.
    fn credit(&self, pending: &mut [u64; Transfer::ALL.len()]) {
        for &direction in Transfer::ALL {
            self.bytes
                .add(direction, std::mem::take(&mut pending[direction.index()]));
        }
    }
}

#[cfg(test)]
mod tests;
