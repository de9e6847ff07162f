//! A future that is ready once in a long while, in a task that is polled often.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future that is polled only where that makes a difference.
///
/// A shutdown, for one, is waited for by every connection. To poll such a future takes a lock, which
/// all of them share; once it has the task's waker, nothing more is needed until it is due.
#[derive(Debug)]
pub struct Seldom<F> {
    future: F,
    /// The waker that the future has.
    waker: Option<Waker>,
}

impl<F: Future + Unpin> Seldom<F> {
    /// Not polled yet.
    pub fn new(future: F) -> Self {
        Self {
            future,
            waker: None,
        }
    }

    /// Polls the future if it is due, or does not have this waker yet. It is due where what it waits for
    /// may have happened: cheaper to find out, and true before it wakes the task.
    pub fn poll(&mut self, context: &mut Context<'_>, is_due: bool) -> Poll<F::Output> {
        let known = self.waker.as_ref();
        let has_waker = known.is_some_and(|waker| waker.will_wake(context.waker()));
        if has_waker && !is_due {
            return Poll::Pending;
        }
        if !has_waker {
            self.waker = Some(context.waker().clone());
        }
        Pin::new(&mut self.future).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Counted(usize);

    impl Future for &mut Counted {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            self.0 += 1;
            Poll::Pending
        }
    }

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn it_is_polled_once_for_each_waker_and_when_it_is_due() {
        let mut counted = Counted(0);
        let mut seldom = Seldom::new(&mut counted);
        let wakers = [(); 2].map(|()| Waker::from(Arc::new(Nobody)));
        let mut polls = Vec::new();
        for (waker, is_due) in [(0, false), (0, false), (0, true), (1, false), (1, false)] {
            let mut context = Context::from_waker(&wakers[waker]);
            assert!(seldom.poll(&mut context, is_due).is_pending());
            polls.push(seldom.future.0);
        }
        assert_eq!(polls, [1, 1, 2, 3, 3]);
    }
}
