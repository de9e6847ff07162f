//! What the parts of a soak tell each other: the time since its start, that it ends, how far each client
//! is, and what went wrong.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A request or a command of a client that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Mishap {
    pub(crate) client: String,
    /// The upstream that it was for.
    pub(crate) upstream: &'static str,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) what: String,
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    stop: AtomicBool,
    raw: usize,
    /// The operations of each client.
    operations: Vec<AtomicU64>,
    mishaps: Mutex<Vec<Mishap>>,
    /// What nothing explains.
    broken: Mutex<Vec<String>>,
}

/// More are only counted: a report with thousands of errors is read by nobody.
const MOST_BROKEN: usize = 200;

impl Progress {
    /// For so many clients, the first of which send requests of their own.
    pub(crate) fn new(raw: usize, clients: usize) -> Self {
        Self {
            raw,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            operations: std::iter::repeat_with(AtomicU64::default)
                .take(clients)
                .collect(),
            mishaps: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    /// The time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A client has done one more operation.
    pub(crate) fn step(&self, client: usize) {
        self.operations[client].fetch_add(1, Ordering::Relaxed);
    }

    /// Which clients send requests of their own.
    pub(crate) fn raw_clients(&self) -> Range<usize> {
        0..self.raw
    }

    pub(crate) fn steps(&self) -> Vec<u64> {
        let steps = self.operations.iter();
        steps.map(|steps| steps.load(Ordering::Relaxed)).collect()
    }

    /// Something failed that a fault may explain.
    pub(crate) fn failed(&self, mishap: Mishap) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        mishaps.push(mishap);
    }

    pub(crate) fn mishaps(&self) -> Vec<Mishap> {
        let mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        mishaps.clone()
    }

    /// Something happened that no fault explains.
    pub(crate) fn broke(&self, what: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.len() < MOST_BROKEN {
            broken.push(format!("{:.1?}: {what}", self.now()));
        }
    }

    pub(crate) fn broken(&self) -> Vec<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.clone()
    }
}
