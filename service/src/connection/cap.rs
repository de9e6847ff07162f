//! The most connections that listeners serve at a time, and which one is closed for a new one.
//!
//! A connection without a request in flight is idle: one between two requests, one that never sent
//! a byte, one that sends its head byte by byte, one in its TLS handshake, an HTTP/2 connection
//! without streams. At the cap, the connection that has been idle longest is closed and the new one
//! is served; a connection with a request in flight never is. So silent clients cannot keep others
//! out.
//!
//! Connections are ordered by the earliest time since which they may be idle. A request does not
//! change the order, only the atomics of its own connection, so it takes no lock. The search for
//! the longest idle connection corrects the order: it moves connections that have had a request
//! since. It skips a busy one for a moment afterwards, so many busy connections cost little however
//! many new ones arrive.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the search skips a connection that had a request in flight.
const BUSY_FOR: Duration = Duration::from_millis(500);

/// How often a new connection that waits searches again for an idle one.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// The cap that some listeners share. Clones share their count.
#[derive(Clone)]
pub struct ConnectionCap(Arc<SharedCap>);

struct SharedCap {
    limit: AtomicUsize,
    started: Instant,
    table: Mutex<ConnectionTable>,
    /// Notified when a connection has ended, or turned out to be busy when it was to be closed.
    changed: Notify,
}

#[derive(Default)]
struct ConnectionTable {
    open: usize,
    next_id: u64,
    /// Connections that are being closed for a new one and have not ended yet.
    closing: usize,
    /// All other connections, by the earliest time since which they may be idle.
    order: BTreeMap<OrderKey, Arc<ConnectionEntry>>,
}

/// Nanoseconds since the cap was made, and the connection's number.
type OrderKey = (u64, u64);

struct ConnectionEntry {
    id: u64,
    started: Instant,
    /// Requests in flight.
    requests: AtomicUsize,
    /// When the last request ended, in nanoseconds after `started`.
    idle_since: AtomicU64,
    /// The time in its key; `CLOSING` while it is not in the order. Only read and written under the
    /// table's lock, so relaxed accesses do: it is an atomic because the entry is shared.
    key: AtomicU64,
    close: Notify,
}

const CLOSING: u64 = u64::MAX;

/// The slot of one open connection. Dropping it frees the slot.
pub struct ConnectionSlot {
    cap: ConnectionCap,
    entry: Arc<ConnectionEntry>,
}

/// The requests in flight on one connection. Clones are of the same connection.
#[derive(Clone)]
pub struct Requests(Arc<ConnectionEntry>);

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct RequestGuard(Requests);

impl ConnectionCap {
    /// No connections yet, of at most `limit` at a time.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(SharedCap {
            limit: AtomicUsize::new(limit),
            started: Instant::now(),
            table: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// A slot for a new connection. At the cap, closes the connection that has been idle longest
    /// and waits for its slot. `None` if every connection has a request in flight. Cancel safe.
    pub async fn admit(&self) -> Option<ConnectionSlot> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Before the table is read: a connection that ends in between must not be missed.
            changed.as_mut().enable();
            {
                let mut table = self.0.table.lock();
                let now = self.now();
                if table.open < self.limit() {
                    return Some(self.open(&mut table, now));
                }
                // One at a time: several waiters must not close more connections than they need.
                // Each is woken when that one has ended, and searches again.
                if table.closing == 0 {
                    table.longest_idle(now)?.close.notify_one();
                }
            }
            changed.await;
        }
    }

    /// A slot for a new connection, as soon as one is free or can be freed. Cancel safe.
    pub async fn admit_when_free(&self) -> ConnectionSlot {
        loop {
            if let Some(slot) = self.admit().await {
                return slot;
            }
            // The end of a request wakes no waiter, which keeps requests cheap: hence the interval.
            let _ = tokio::time::timeout(SEARCH_INTERVAL, self.0.changed.notified()).await;
        }
    }

    /// From now on so many connections are served at a time. More than that stay open until they end.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
        // Who waits may have a slot now.
        self.0.changed.notify_waiters();
    }

    fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.0.table.lock().open
    }

    fn open(&self, table: &mut ConnectionTable, now: u64) -> ConnectionSlot {
        let entry = Arc::new(ConnectionEntry {
            id: table.next_id,
            started: self.0.started,
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now),
            key: AtomicU64::new(CLOSING),
            close: Notify::new(),
        });
        table.next_id += 1;
        table.open += 1;
        table.put(now, Arc::clone(&entry));
        ConnectionSlot {
            cap: self.clone(),
            entry,
        }
    }

    fn now(&self) -> u64 {
        since(self.0.started, Instant::now())
    }
}

impl fmt::Debug for ConnectionCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionCap").field(&self.limit()).finish()
    }
}

impl ConnectionTable {
    fn put(&mut self, key: u64, entry: Arc<ConnectionEntry>) {
        entry.key.store(key, Ordering::Relaxed);
        self.order.insert((key, entry.id), entry);
    }

    /// Takes the connection that has been idle longest out of the order.
    fn longest_idle(&mut self, now: u64) -> Option<Arc<ConnectionEntry>> {
        loop {
            let first = self.order.first_entry()?;
            let (key, _) = *first.key();
            if key > now {
                return None;
            }
            let entry = first.remove();
            match entry.idle_since() {
                Some(since) if since <= key => {
                    entry.key.store(CLOSING, Ordering::Relaxed);
                    self.closing += 1;
                    return Some(entry);
                }
                // It has had a request since it was put here: it belongs later in the order.
                Some(since) => self.put(since, entry),
                None => self.put(now + nanoseconds(BUSY_FOR), entry),
            }
        }
    }

    /// Forgets a connection that has ended.
    fn remove(&mut self, entry: &ConnectionEntry) {
        let key = entry.key.load(Ordering::Relaxed);
        if key == CLOSING {
            self.closing -= 1;
        } else {
            self.order.remove(&(key, entry.id));
        }
        self.open -= 1;
    }
}

impl ConnectionSlot {
    /// The connection's requests.
    pub fn requests(&self) -> Requests {
        Requests(Arc::clone(&self.entry))
    }

    /// Whether the connection may have to be closed for a new one: true before [`ConnectionSlot::evicted`]
    /// wakes its task.
    pub fn is_closing(&self) -> bool {
        self.entry.key.load(Ordering::Relaxed) == CLOSING
    }

    /// Waits until the connection is to be closed for a new one. The caller must then drop the
    /// connection before it serves another request. Cancel safe.
    pub async fn evicted(&self) {
        loop {
            self.entry.close.notified().await;
            if self.entry.idle_since().is_some() {
                return;
            }
            // A request has begun since the search: keep the connection, and let the waiter search
            // for another one.
            let key = self.cap.now() + nanoseconds(BUSY_FOR);
            {
                let mut table = self.cap.0.table.lock();
                table.closing -= 1;
                table.put(key, Arc::clone(&self.entry));
            }
            self.cap.0.changed.notify_waiters();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // The lock is released before waiters wake, or each would block on it at once.
        self.cap.0.table.lock().remove(&self.entry);
        self.cap.0.changed.notify_waiters();
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionSlot")
            .field(&self.entry.id)
            .finish()
    }
}

impl Requests {
    /// A request begins.
    pub fn begin(&self) -> RequestGuard {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(self.clone())
    }

    /// Whether a request is in flight.
    pub fn is_busy(&self) -> bool {
        self.0.requests.load(Ordering::Acquire) > 0
    }

    /// When the last request ended; if there was none, when the connection was opened.
    pub fn last_ended(&self) -> Instant {
        self.0.started + Duration::from_nanos(self.0.idle_since.load(Ordering::Acquire))
    }

    /// A request begins on a connection that serves one at a time. Not to be mixed with
    /// [`Requests::begin`].
    pub fn set_busy(&self) {
        self.0.requests.store(1, Ordering::Release);
    }

    /// The request that [`Requests::set_busy`] began has ended, at that time. Does nothing if there
    /// is none.
    pub fn set_idle(&self, now: Instant) {
        if self.is_busy() {
            // The time first: an entry that reads as idle must not show the time before this
            // request.
            self.0.ended(now);
            self.0.requests.store(0, Ordering::Release);
        }
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Requests").field(&self.0.requests).finish()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let entry = &self.0.0;
        // The time first, released by the count: a reader that sees no request (acquire) sees at
        // least this time, and does not take the connection for idle since long ago.
        entry.ended(Instant::now());
        entry.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ConnectionEntry {
    fn ended(&self, now: Instant) {
        self.idle_since
            .store(since(self.started, now), Ordering::Release);
    }

    fn idle_since(&self) -> Option<u64> {
        let is_idle = self.requests.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.idle_since.load(Ordering::Acquire))
    }
}

fn since(started: Instant, now: Instant) -> u64 {
    nanoseconds(now.saturating_duration_since(started))
}

fn nanoseconds(duration: Duration) -> u64 {
    // Below `CLOSING`, which is no time.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests;
