//! A timer that is armed when it is first waited for.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer whose deadline moves often and is rarely reached, such as that of a connection.
///
/// To move a timer of the runtime takes a lock. So a deadline that moves away does not move it: it
/// fires early, and is armed anew then.
#[derive(Debug, Default)]
pub struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready once the deadline has passed.
    pub fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A deadline that moves closer must move the timer, or the timer fires too late.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// When it fires, if it was ever armed.
    pub fn armed(&self) -> Option<Instant> {
        self.0.as_ref().map(|sleep| sleep.deadline())
    }

    /// Takes it off the runtime's wheel.
    pub fn disarm(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn is_pending(timer: &mut LazyTimer, deadline: Instant) -> bool {
        poll_fn(|context| Poll::Ready(timer.poll(context, deadline).is_pending())).await
    }

    #[tokio::test]
    async fn a_deadline_that_moves_away_does_not_move_the_timer() {
        let (mut timer, now) = (LazyTimer::default(), Instant::now());
        assert_eq!(timer.armed(), None);
        let hour = Duration::from_hours(1);
        assert!(is_pending(&mut timer, now + hour).await);
        assert!(is_pending(&mut timer, now + 2 * hour).await);
        assert_eq!(timer.armed(), Some(now + hour));
        assert!(is_pending(&mut timer, now + hour / 2).await);
        assert_eq!(timer.armed(), Some(now + hour / 2));
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_is_ready_and_an_early_timer_is_armed_anew() {
        let (mut timer, now) = (LazyTimer::default(), Instant::now());
        let moment = Duration::from_millis(5);
        assert!(is_pending(&mut timer, now + moment).await);
        poll_fn(|context| timer.poll(context, now + 3 * moment)).await;
        assert!(Instant::now() >= now + 3 * moment);
        assert!(!is_pending(&mut timer, now).await);
    }
}
