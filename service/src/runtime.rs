//! The threads that a server of ours runs on.

use std::io;

use tokio::runtime::{Builder, Runtime};

mod workers;

pub use workers::{WorkerId, WorkerSet, WorkerTask, Workers};

/// Threads for work that waits for a disk. Each takes some hundred KB that it never gives back
/// while others come and go, and a disk serves no more of them at a time than this.
const BLOCKING_THREADS: usize = 24;

/// One runtime with a worker for each processor. A single worker needs nobody to share work with:
/// then everything runs on the thread that waits, which spares the wake-ups between threads.
///
/// # Errors
/// If the system has no threads or descriptors left.
pub fn build() -> io::Result<Runtime> {
    let mut builder = match processors() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
}

/// The processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
