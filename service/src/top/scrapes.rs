//! When a page is asked for: never two at a time, and never two within a second.

use std::future::{self, Future};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The least time from the end of a scrape to the begin of the next one. A server counts from when it gets a
/// request, which may be late by more one time than the next: counted from the end, no two of them reach it
/// within a second.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Scrapes, one after the other.
pub(super) struct Scrapes<F, T> {
    begin: F,
    /// The one in flight.
    running: JoinSet<T>,
    /// When the next one may begin.
    next: Instant,
}

impl<F, R, T> Scrapes<F, T>
where
    F: Fn() -> R,
    R: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    /// The first one begins at once; `begin` makes each.
    pub(super) fn new(begin: F) -> Self {
        Self {
            begin,
            running: JoinSet::new(),
            next: Instant::now(),
        }
    }

    /// The next page; `None` if it could not be made because of a panic. Where `is_paused`, none begins. To
    /// drop the future changes nothing: a scrape in flight goes on.
    pub(super) async fn next(&mut self, is_paused: bool) -> Option<T> {
        loop {
            if let Some(ended) = self.running.join_next().await {
                self.next = Instant::now() + EVERY;
                return ended.ok();
            }
            if is_paused {
                future::pending::<()>().await;
            }
            sleep_until(self.next).await;
            self.running.spawn((self.begin)());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// The begin and the end of each scrape.
    type Seen = Arc<Mutex<Vec<(Instant, Instant)>>>;

    /// Scrapes that take so many milliseconds in turn.
    fn scrapes(millis: &'static [u64], seen: &Seen) -> Scrapes<impl Fn() -> Scrape, usize> {
        let (seen, count) = (Arc::clone(seen), Mutex::new(0));
        Scrapes::new(move || {
            let at = {
                let mut count = count.lock();
                *count += 1;
                *count - 1
            };
            let seen = Arc::clone(&seen);
            let scrape: Scrape = Box::pin(async move {
                let began = Instant::now();
                sleep(Duration::from_millis(millis[at % millis.len()])).await;
                seen.lock().push((began, Instant::now()));
                at
            });
            scrape
        })
    }

    type Scrape = std::pin::Pin<Box<dyn Future<Output = usize> + Send>>;

    #[tokio::test(start_paused = true)]
    async fn a_scrape_begins_a_second_after_the_last_one_ended() {
        let seen = Seen::default();
        let mut scrapes = scrapes(&[15, 0, 3, 1500, 0, 5000], &seen);
        for at in 0..60 {
            // Keys and signals interrupt the wait, at any time.
            while timeout(Duration::from_millis(37), scrapes.next(false)).await != Ok(Some(at)) {}
        }
        let seen = seen.lock();
        assert_eq!(seen.len(), 60);
        for pair in seen.windows(2) {
            assert_eq!(pair[1].0 - pair[0].1, EVERY);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lets_a_scrape_end_and_none_begin() {
        let (seen, second) = (Seen::default(), Duration::from_secs(1));
        let mut scrapes = scrapes(&[500], &seen);
        assert!(timeout(second / 4, scrapes.next(false)).await.is_err());
        assert_eq!(timeout(second, scrapes.next(true)).await, Ok(Some(0)));
        assert!(timeout(second * 60, scrapes.next(true)).await.is_err());
        assert_eq!(seen.lock().len(), 1);
        // As the last one ended long ago, the next one begins at once.
        assert_eq!(timeout(second, scrapes.next(false)).await, Ok(Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_panic_it_goes_on() {
        let count = Mutex::new(0);
        let mut scrapes = Scrapes::new(|| {
            *count.lock() += 1;
            let is_first = *count.lock() == 1;
            async move { assert!(!is_first, "on purpose") }
        });
        assert_eq!(scrapes.next(false).await, None);
        assert_eq!(scrapes.next(false).await, Some(()));
    }
}
