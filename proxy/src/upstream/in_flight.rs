//! The requests in flight to one replica, and those that wait because there are too many.
//!
//! A request below the maximum takes no lock: it counts itself in. Requests beyond it wait in order.
//! Under the lock always holds: somebody waits only while the maximum is reached.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A maximum of requests in flight.
pub(super) struct InFlightLimit {
    max: usize,
    in_flight: AtomicUsize,
    /// The length of the queue. Written under its lock.
    waiting: AtomicUsize,
    queue: Mutex<WaitingRequests>,
}

#[derive(Default)]
struct WaitingRequests {
    next: u64,
    /// In the order of their numbers.
    requests: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// One request in flight, until it is dropped.
pub(super) struct InFlight<'l>(&'l InFlightLimit);

/// One request that waits, until it is dropped.
pub(super) struct WaitingRequest<'l> {
    limit: &'l InFlightLimit,
    number: u64,
    begun: oneshot::Receiver<()>,
    is_done: bool,
}

impl InFlightLimit {
    pub(super) fn new(max: usize) -> InFlightLimit {
        InFlightLimit {
            max,
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    /// How many are in flight or wait.
    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed)
    }

    /// Whether another request would have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.load() >= self.max
    }

    /// Begins a request; `None` if it has to wait.
    pub(super) fn begin(&self) -> Option<InFlight<'_>> {
        // One that waits already goes first.
        let is_free = self.waiting.load(Ordering::Relaxed) == 0 && self.count_in();
        // Not `then_some`: that would make one, and end it.
        is_free.then(|| InFlight(self))
    }

    /// Waits behind those that wait already.
    pub(super) fn wait(&self) -> WaitingRequest<'_> {
        let (sender, begun) = oneshot::channel();
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.requests.push_back((number, sender));
        self.admit(&mut queue);
        WaitingRequest {
            limit: self,
            number,
            begun,
            is_done: false,
        }
    }

    /// The most requests in flight.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn count_in(&self) -> bool {
        let counted = self
            .in_flight
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |count| {
                (count < self.max).then_some(count + 1)
            });
        counted.is_ok()
    }

    fn count_out(&self) {
        // Sequentially consistent, as is `admit`: either this sees the request that begins to wait, or
        // that request sees the place that is free.
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.admit(&mut self.queue.lock());
        }
    }

    /// Begins those that wait, as far as the maximum allows.
    fn admit(&self, queue: &mut WaitingRequests) {
        self.waiting.store(queue.requests.len(), Ordering::SeqCst);
        while !queue.requests.is_empty() && self.count_in() {
            if let Some((_, sender)) = queue.requests.pop_front() {
                // It is there: one that leaves takes itself out of the queue, under the lock.
                let _ = sender.send(());
            }
            self.waiting.store(queue.requests.len(), Ordering::SeqCst);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.count_out();
    }
}

impl<'l> WaitingRequest<'l> {
    /// Ready once the request is in flight. Not to be polled again then.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<InFlight<'l>> {
        let begun = std::pin::Pin::new(&mut self.begun);
        // The sender is never dropped without a message while this waits.
        let _ = ready!(std::future::Future::poll(begun, context));
        self.is_done = true;
        Poll::Ready(InFlight(self.limit))
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut queue = self.limit.queue.lock();
        let place = queue
            .requests
            .binary_search_by_key(&self.number, |(number, _)| *number);
        if let Ok(place) = place {
            queue.requests.remove(place);
            self.limit.admit(&mut queue);
        } else {
            // It was admitted while it left.
            drop(queue);
            self.limit.count_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;
    use std::thread;

    use super::*;

    fn poll<'l>(waiting: &mut WaitingRequest<'l>) -> Option<InFlight<'l>> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(in_flight) => Some(in_flight),
            Poll::Pending => None,
        }
    }

    #[test]
    fn requests_beyond_the_maximum_wait_in_order() {
        let limit = InFlightLimit::new(2);
        let first = limit.begin().unwrap();
        let second = limit.begin().unwrap();
        assert!(limit.begin().is_none() && limit.is_full());
        let (mut third, mut fourth) = (limit.wait(), limit.wait());
        assert_eq!(limit.load(), 4);
        assert!(poll(&mut third).is_none());
        drop(first);
        assert!(poll(&mut fourth).is_none(), "it is the third's turn");
        assert!(limit.begin().is_none(), "nobody overtakes");
        let third = poll(&mut third).unwrap();
        drop((second, third));
        let fourth = poll(&mut fourth).unwrap();
        assert_eq!(limit.load(), 1);
        drop(fourth);
        assert_eq!(limit.load(), 0);
    }

    #[test]
    fn a_request_that_leaves_gives_its_place_to_the_next() {
        let limit = InFlightLimit::new(1);
        let first = limit.begin().unwrap();
        let (leaving, admitted, mut last) = (limit.wait(), limit.wait(), limit.wait());
        drop(leaving);
        drop(first);
        // It was admitted, and leaves without having seen that.
        assert!(poll(&mut last).is_none());
        drop(admitted);
        drop(poll(&mut last).unwrap());
        assert_eq!(limit.load(), 0);
        assert!(limit.begin().is_some());
    }

    #[test]
    fn many_threads_leak_no_place_and_never_exceed_the_maximum() {
        const MAX: usize = 3;
        let limit = Arc::new(InFlightLimit::new(MAX));
        let running = Arc::new(AtomicUsize::new(0));
        let threads = (0..8_u64).map(|seed| {
            let (limit, running) = (Arc::clone(&limit), Arc::clone(&running));
            thread::spawn(move || {
                for round in 0..5_000_u64 {
                    let in_flight = if let Some(in_flight) = limit.begin() {
                        Some(in_flight)
                    } else {
                        let mut waiting = limit.wait();
                        if (round * 7 + seed) % 3 == 0 {
                            // It leaves.
                            None
                        } else {
                            loop {
                                if let Some(in_flight) = poll(&mut waiting) {
                                    break Some(in_flight);
                                }
                                thread::yield_now();
                            }
                        }
                    };
                    if let Some(in_flight) = in_flight {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < MAX);
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(in_flight);
                    }
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().unwrap();
        }
        assert_eq!(limit.load(), 0);
        let all: Vec<_> = (0..MAX).map(|_| limit.begin().unwrap()).collect();
        assert!(limit.begin().is_none());
        drop(all);
    }
}
