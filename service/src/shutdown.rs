//! Telling every part of a server to stop, and waiting until work in flight has ended.
//!
//! Deliberately not here: what a server does when it stops.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A shutdown, as its receivers see it. Clones see the same one.
///
/// It has three steps, each of which has the one before it: to drain, to drain within a deadline, and not to
/// wait any more. One that begins with a takeover has no deadline: clients notice nothing of it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    drain: CancellationToken,
    insist: CancellationToken,
    hurry: CancellationToken,
}

/// Triggers a shutdown. Dropping it triggers it, too: nobody is left who could.
#[derive(Debug)]
pub struct Trigger(Shutdown);

impl Shutdown {
    /// A trigger and the shutdown that it triggers.
    pub fn new() -> (Trigger, Self) {
        let shutdown = Self {
            drain: CancellationToken::new(),
            insist: CancellationToken::new(),
            hurry: CancellationToken::new(),
        };
        (Trigger(shutdown.clone()), shutdown)
    }

    /// Waits until it is time to stop, and to let work in flight end; returns at once if it is
    /// already. Cancel safe.
    pub async fn recv(&self) {
        self.drain.cancelled().await;
    }

    /// Waits until another process serves in place of this one. Cancel safe.
    pub async fn handed_over(&self) {
        self.recv().await;
        if self.is_insisted() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it is time to stop within a deadline: what is idle has to end. Cancel safe.
    pub async fn insisted(&self) {
        self.insist.cancelled().await;
    }

    /// Waits until work in flight is not to be waited for any more. Cancel safe.
    pub async fn hurried(&self) {
        self.hurry.cancelled().await;
    }

    /// Whether it is time to stop.
    pub fn is_triggered(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether it is time to stop within a deadline.
    pub fn is_insisted(&self) -> bool {
        self.insist.is_cancelled()
    }
}

impl Trigger {
    /// Says that another process serves now: time to stop, and to wait for work in flight however long it
    /// takes.
    pub fn hand_over(&self) {
        self.0.drain.cancel();
    }

    /// Says that it is time to stop; further calls change nothing.
    pub fn trigger(&self) {
        // The drain last: a task that sees it can tell whether it has a deadline.
        self.0.insist.cancel();
        self.0.drain.cancel();
    }

    /// Says that it is time to stop, and not to wait for work in flight.
    pub fn hurry(&self) {
        self.trigger();
        self.0.hurry.cancel();
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.trigger();
    }
}

/// The signals that an operator sends.
#[derive(Debug)]
pub struct Signals {
    /// Triggered by SIGTERM and its like.
    pub shutdown: Shutdown,
    /// Triggers it, too, for others who may stop the process.
    pub trigger: Arc<Trigger>,
    /// SIGHUP, which asks for a reload.
    pub hangup: Signal,
}

/// Stops on the first SIGTERM, SIGINT or SIGQUIT, and hurries on the second: an operator who asks twice
/// does not want to wait. SIGHUP is the caller's. SIGUSR1 and SIGUSR2, which would end the process
/// by default, are logged and ignored. Must be called within a tokio runtime.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn signals() -> io::Result<Signals> {
    // Installed here, not in the tasks: a signal that comes before a task runs must not kill the
    // process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let (trigger, shutdown) = Shutdown::new();
    let trigger = Arc::new(trigger);
    let by_signal = Arc::clone(&trigger);
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = quit.recv() => "SIGQUIT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "shutting down");
        by_signal.trigger();
        let name = next().await;
        tracing::warn!(signal = name, "shutting down at once");
        by_signal.hurry();
    });
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = user1.recv() => "SIGUSR1",
                _ = user2.recv() => "SIGUSR2",
            };
            tracing::info!(signal = name, "signal ignored");
        }
    });
    Ok(Signals {
        shutdown,
        trigger,
        hangup,
    })
}

/// Counts work in flight, to wait for its end. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Drain(TaskTracker);

/// One piece of work in flight, until it is dropped.
pub type DrainGuard = TaskTrackerToken;

impl Drain {
    /// Counts one piece of work until the guard is dropped. Neither locks nor allocates.
    pub fn guard(&self) -> DrainGuard {
        self.0.token()
    }

    /// How much work is in flight.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until nothing is in flight, at most so long; whether it came to that.
    pub async fn wait(&self, deadline: Duration) -> bool {
        // An open tracker is never done. Work that begins after this is still counted.
        self.0.close();
        tokio::time::timeout(deadline, self.0.wait()).await.is_ok()
    }

    /// Waits as [`Drain::wait`] does, and no longer than until the shutdown is hurried. The deadline begins
    /// once the shutdown is insisted on.
    pub async fn wait_unhurried(&self, deadline: Duration, shutdown: &Shutdown) -> bool {
        self.0.close();
        let too_late = async {
            shutdown.insisted().await;
            tokio::time::sleep(deadline).await;
        };
        tokio::select! {
            biased;
            () = self.0.wait() => true,
            () = too_late => false,
            () = shutdown.hurried() => false,
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
        let clone = shutdown.clone();
        assert!(!shutdown.is_triggered());
        trigger.trigger();
        clone.recv().await;
        clone.recv().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_trigger() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.recv().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_hurry_is_a_trigger_and_stays() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.hurry();
        trigger.trigger();
        shutdown.recv().await;
        shutdown.hurried().await;
    }

    #[tokio::test]
    async fn a_drain_is_waited_for_until_the_shutdown_is_hurried() {
        let drain = Drain::default();
        let guard = drain.guard();
        let (trigger, shutdown) = Shutdown::new();
        trigger.trigger();
        let moment = Duration::from_millis(1);
        assert!(!drain.wait_unhurried(moment, &shutdown).await);
        trigger.hurry();
        assert!(!drain.wait_unhurried(LONG, &shutdown).await);
        drop(guard);
        assert!(drain.wait_unhurried(LONG, &shutdown).await);
    }

    #[tokio::test]
    async fn a_takeover_has_no_deadline_until_somebody_insists() {
        let drain = Drain::default();
        let guard = drain.guard();
        let (trigger, shutdown) = Shutdown::new();
        trigger.hand_over();
        shutdown.recv().await;
        assert!(!shutdown.is_insisted());
        let mut waiting = std::pin::pin!(drain.wait_unhurried(Duration::ZERO, &shutdown));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        trigger.trigger();
        assert!(shutdown.is_insisted());
        assert!(!waiting.await);
        drop(guard);
        assert!(drain.wait_unhurried(Duration::ZERO, &shutdown).await);
    }

    #[tokio::test]
    async fn a_dropped_trigger_does_not_hurry() {
        let drain = Drain::default();
        let guard = drain.guard();
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        let waiting = drain.wait_unhurried(LONG, &shutdown);
        let (drained, ()) = tokio::join!(waiting, async { drop(guard) });
        assert!(drained);
    }

    #[tokio::test]
    async fn a_drain_without_work_is_done_at_once() {
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
