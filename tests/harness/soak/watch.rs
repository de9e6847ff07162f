//! The memory, descriptors and threads of the process that serves, once a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::progress::Progress;

const EVERY: Duration = Duration::from_secs(1);

/// What a process held at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldResources {
    pub(crate) at: Duration,
    pub(crate) process: u32,
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

/// The number of the process that serves now.
pub(crate) type CurrentProcess = Arc<AtomicU32>;

impl HeldResources {
    /// `None` if the process has just ended.
    pub(crate) fn of(process: u32, at: Duration) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{process}"));
        let status = std::fs::read_to_string(directory.join("status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            at,
            process,
            resident: field("VmRSS:")? * 1024,
            descriptors: std::fs::read_dir(directory.join("fd")).ok()?.count() as u64,
            threads: field("Threads:")?,
        })
    }
}

/// Watches until it is stopped.
pub(crate) async fn watch(
    current: CurrentProcess,
    progress: Arc<Progress>,
    mut seen: impl FnMut(HeldResources),
) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let process = current.load(Ordering::Relaxed);
        if let Some(held) = HeldResources::of(process, progress.now()) {
            seen(held);
        }
    }
}
