//! How much of the machine appends take, all uploads together.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The large buffers of all uploads together. Two keep one upload at full speed. Beyond this number
/// more buffers make uploads no faster, and each one that a broken client leaves has to be written.
const LARGE_BUFFERS: usize = 48;

/// The early syncs that run at the same time. More of them would only wait for the same disk, each
/// on a thread of its own.
const EARLY_SYNCS: usize = 2;

/// Limits that keep many simultaneous uploads from taking a thread or two each: they share the
/// processor anyway.
pub(in crate::store::fs) struct AppendConcurrency {
    pub(in crate::store::fs) batches: Semaphore,
    pub(in crate::store::fs) large_buffers: Arc<Semaphore>,
    pub(in crate::store::fs) early_syncs: Arc<Semaphore>,
}

impl AppendConcurrency {
    pub(in crate::store::fs) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            // Hashing occupies a processor. More batches than this would only wait for one, each with
            // its thread and its buffer.
            batches: Semaphore::new(2 * processors),
            large_buffers: Arc::new(Semaphore::new(LARGE_BUFFERS)),
            early_syncs: Arc::new(Semaphore::new(EARLY_SYNCS)),
        }
    }
}
