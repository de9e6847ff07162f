//! Telling every part of a server that it is to stop, and waiting until work in flight is done.
//!
//! Deliberately not here: what a server does when it is told.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

/// The wish to stop, as its receivers see it. Clones see the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

/// Says that it is time to stop. Dropping it says so too: nobody is left who could.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Stage>);

/// What is wished for; a later stage never becomes an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// To serve.
    Serve,
    /// To stop, and to let work in flight end.
    Drain,
    /// To stop, and to wait for nothing.
    Hurry,
}

impl Shutdown {
    /// A trigger and what it triggers.
    pub fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(Stage::Serve);
        (Trigger(sender), Self(receiver))
    }

    /// Waits until it is time to stop; returns at once if it is already. Cancel safe.
    pub async fn recv(&mut self) {
        // An error means that the trigger is gone, which says the same.
        let _ = self.0.wait_for(|&stage| stage >= Stage::Drain).await;
    }

    /// Waits until work in flight is not to be waited for any more; for ever if nobody says so.
    /// Cancel safe.
    pub async fn hurried(&mut self) {
        if self
            .0
            .wait_for(|&stage| stage == Stage::Hurry)
            .await
            .is_err()
        {
            pending::<()>().await;
        }
    }

    /// Whether it is time to stop.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow() >= Stage::Drain || self.0.has_changed().is_err()
    }
}

impl Trigger {
    /// Says so; further calls change nothing.
    pub fn trigger(&self) {
        self.reach(Stage::Drain);
    }

    /// Says that it is time to stop, and not to wait for work in flight.
    pub fn hurry(&self) {
        self.reach(Stage::Hurry);
    }

    fn reach(&self, wished: Stage) {
        self.0.send_if_modified(|stage| {
            let is_later = wished > *stage;
            *stage = wished.max(*stage);
            is_later
        });
    }
}

/// Stops on the first SIGTERM or SIGINT, and hurries on the second: whoever asks twice does not want
/// to wait. Must be called within a tokio runtime; fails where the handlers cannot be installed.
pub fn signals() -> io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (trigger, shutdown) = Shutdown::new();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "shutting down");
        trigger.trigger();
        let name = next().await;
        tracing::warn!(signal = name, "shutting down at once");
        trigger.hurry();
        // Kept, so that only the signals are what receivers saw.
        trigger.0.closed().await;
    });
    Ok(shutdown)
}

/// Counts work in flight, to wait for its end. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<InFlight>);

#[derive(Debug, Default)]
struct InFlight {
    count: AtomicUsize,
    idle: Notify,
}

/// One piece of work in flight, until it is dropped.
#[derive(Debug)]
pub struct DrainGuard(Arc<InFlight>);

impl Drain {
    /// Counts one piece of work until the guard is dropped. Neither locks nor allocates.
    pub fn guard(&self) -> DrainGuard {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        DrainGuard(Arc::clone(&self.0))
    }

    /// How much work is in flight.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until nothing is in flight, at most so long; whether it came to that.
    pub async fn wait(&self, deadline: Duration) -> bool {
        let idle = async {
            loop {
                let notified = self.0.idle.notified();
                if self.count() == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(deadline, idle).await.is_ok()
    }

    /// Waits as [`Drain::wait`] does, and no longer than until the shutdown is hurried.
    pub async fn wait_unhurried(&self, deadline: Duration, shutdown: &mut Shutdown) -> bool {
        tokio::select! {
            drained = self.wait(deadline) => drained,
            () = shutdown.hurried() => self.count() == 0,
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn every_clone_sees_the_trigger() {
        let (trigger, shutdown) = Shutdown::new();
        let mut clone = shutdown.clone();
        assert!(!shutdown.is_triggered());
        trigger.trigger();
        clone.recv().await;
        clone.recv().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_trigger() {
        let (trigger, mut shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.recv().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_hurry_is_a_trigger_and_is_never_taken_back() {
        let (trigger, mut shutdown) = Shutdown::new();
        trigger.hurry();
        trigger.trigger();
        shutdown.recv().await;
        shutdown.hurried().await;
    }

    #[tokio::test]
    async fn a_drain_is_waited_for_until_the_shutdown_is_hurried() {
        let drain = Drain::default();
        let guard = drain.guard();
        let (trigger, mut shutdown) = Shutdown::new();
        trigger.trigger();
        let moment = Duration::from_millis(1);
        assert!(!drain.wait_unhurried(moment, &mut shutdown).await);
        trigger.hurry();
        assert!(!drain.wait_unhurried(LONG, &mut shutdown).await);
        drop(guard);
        assert!(drain.wait_unhurried(LONG, &mut shutdown).await);
    }

    #[tokio::test]
    async fn a_dropped_trigger_hurries_nobody() {
        let drain = Drain::default();
        let guard = drain.guard();
        let (trigger, mut shutdown) = Shutdown::new();
        drop(trigger);
        let waiting = drain.wait_unhurried(LONG, &mut shutdown);
        let (drained, ()) = tokio::join!(waiting, async { drop(guard) });
        assert!(drained);
    }

    #[tokio::test]
    async fn an_idle_drain_is_done_at_once() {
        assert!(Drain::default().wait(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_last_guard() {
        let drain = Drain::default();
        let (first, second) = (drain.guard(), drain.guard());
        assert_eq!(drain.count(), 2);
        assert!(!drain.wait(Duration::from_millis(1)).await);
        drop(first);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.wait(LONG).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        assert!(waiting.await.unwrap());
        assert_eq!(drain.count(), 0);
    }
}
