//! How many connections a listener serves at a time, and which one gives way when there are as many.
//!
//! A connection without a request in flight is idle: one between two requests, one that never sent a
//! byte, one that drips a half of its head, one in its TLS handshake, an HTTP/2 connection without
//! streams. At the cap, the connection that has been idle longest is closed and the new one is
//! served; a connection with a request in flight never is. So clients that say nothing cannot keep
//! others out.
//!
//! Connections are kept in an order by the time since which they may be idle. A request does not
//! touch the order, only the atomics of its own connection; whoever looks for the longest idle one
//! moves those that have been busy since. A busy one is not looked at again for a moment, so that
//! many busy connections cost little however many new ones come.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a connection with a request in flight is not looked at again.
const BUSY_FOR: Duration = Duration::from_millis(500);

/// How often a waiting connection looks for an idle one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The connections of some listeners, of which there are so many at most. Clones count together.
#[derive(Clone)]
pub struct ConnectionCap(Arc<SharedCap>);

struct SharedCap {
    limit: usize,
    started: Instant,
    table: Mutex<ConnectionTable>,
    /// Told whenever a connection has ended, or does not give way after all.
    changed: Notify,
}

#[derive(Default)]
struct ConnectionTable {
    open: usize,
    next_id: u64,
    /// Connections that were told to give way and have not ended yet.
    leaving: usize,
    /// All others, by the earliest time since which they may be idle.
    order: BTreeMap<OrderKey, Arc<ConnectionEntry>>,
}

/// Nanoseconds since the cap was made, and the connection's number.
type OrderKey = (u64, u64);

struct ConnectionEntry {
    id: u64,
    started: Instant,
    /// How many are in flight.
    requests: AtomicUsize,
    /// Since when there is none, in nanoseconds after `started`.
    idle_since: AtomicU64,
    /// The time of its key; `LEAVING` where it is not in the order. Changed under the lock.
    key: AtomicU64,
    give_way: Notify,
}

const LEAVING: u64 = u64::MAX;

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
            limit,
            started: Instant::now(),
            table: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// A slot for a new connection. At the cap, the connection that has been idle longest is told to
    /// give way, and its slot is waited for; `None` if every connection has a request in flight.
    /// Cancel safe.
    pub async fn admit(&self) -> Option<ConnectionSlot> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            {
                let mut table = self.0.table.lock();
                let now = self.now();
                if table.open < self.0.limit {
                    return Some(self.open(&mut table, now));
                }
                if table.leaving == 0 {
                    table.longest_idle(now)?.give_way.notify_one();
                }
            }
            changed.await;
        }
    }

    /// A slot for a new connection, as soon as there is one. Cancel safe.
    pub async fn admit_when_free(&self) -> ConnectionSlot {
        loop {
            if let Some(slot) = self.admit().await {
                return slot;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.0.changed.notified()).await;
        }
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
            key: AtomicU64::new(LEAVING),
            give_way: Notify::new(),
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
        f.debug_tuple("ConnectionCap").field(&self.0.limit).finish()
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
                    entry.key.store(LEAVING, Ordering::Relaxed);
                    self.leaving += 1;
                    return Some(entry);
                }
                // It has had a request since it was looked at: its turn comes later.
                Some(since) => self.put(since, entry),
                None => self.put(now + nanoseconds(BUSY_FOR), entry),
            }
        }
    }

    /// Forgets a connection that has ended.
    fn remove(&mut self, entry: &ConnectionEntry) {
        let key = entry.key.load(Ordering::Relaxed);
        if key == LEAVING {
            self.leaving -= 1;
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

    /// Waits until the connection is to be closed for another one. Whoever is told must drop the
    /// connection before it serves anything more. Cancel safe.
    pub async fn evicted(&self) {
        loop {
            self.entry.give_way.notified().await;
            if self.entry.idle_since().is_some() {
                return;
            }
            // A request has begun in the meantime.
            let key = self.cap.now() + nanoseconds(BUSY_FOR);
            {
                let mut table = self.cap.0.table.lock();
                table.leaving -= 1;
                table.put(key, Arc::clone(&self.entry));
            }
            self.cap.0.changed.notify_waiters();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
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

    /// The one request that a connection can have has begun. For a connection that has one at a
    /// time, and does not use [`Requests::begin`].
    pub fn set_busy(&self) {
        self.0.requests.store(1, Ordering::Release);
    }

    /// The one request that a connection can have has ended, at that time. Does nothing if there was
    /// none.
    pub fn set_idle(&self, now: Instant) {
        if self.is_busy() {
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
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests;
