//! A queue of log events, written by a thread of its own.
//!
//! A write to a paused terminal or a full pipe blocks, and with it every request that logs. So
//! events go into a bounded buffer; an event that does not fit is dropped and counted.
//! tracing-appender's non-blocking writer bounds the number of events instead of their bytes, and
//! does not log how many it dropped.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The bytes that wait to be written: some ten thousand events.
const CAPACITY: usize = 4 << 20;

/// How long the writer waits after a batch, so that the next one gathers: under load each event would
/// wake it otherwise, which costs more than to format it. An event that comes alone is written at once.
const GATHER: Duration = Duration::from_millis(2);

/// How long the process waits at its end for the queue to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Where events are written to. Never blocks and never fails; clones are one queue.
#[derive(Clone, Debug, Default)]
pub(super) struct LogQueue(Arc<LogQueueShared>);

#[derive(Debug, Default)]
struct LogQueueShared {
    state: Mutex<LogQueueState>,
    /// There is something to write.
    filled: Condvar,
    /// There is nothing to write any more.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct LogQueueState {
    waiting: Vec<u8>,
    /// Events dropped since the last report.
    lost: u64,
    /// When the writer is to be woken even if nothing is logged.
    wake_at: Option<Instant>,
    writing: bool,
}

impl LogQueue {
    /// A queue that is written to `out`. `on_lost` is called with the number of dropped events,
    /// once others are written again, and `on_wake` at the time of [`LogQueue::wake_at`]. Fails if no
    /// thread can be started.
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        on_lost: impl Fn(u64) + Send + 'static,
        on_wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self::default();
        let shared = Arc::clone(&queue.0);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                loop {
                    if shared.wait() {
                        on_wake();
                        continue;
                    }
                    let lost = shared.take(&mut batch);
                    // A failure cannot be logged anywhere else.
                    let _ = out.write_all(&batch).and_then(|()| out.flush());
                    batch.clear();
                    if lost > 0 {
                        // Without the lock: it logs an event, which is queued here.
                        on_lost(lost);
                    }
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the thread is the writer's own"
                    )]
                    thread::sleep(GATHER);
                }
            })?;
        Ok(queue)
    }

    /// Has the writer's thread call `on_wake` at this time, and not at another one that was set before.
    pub(super) fn wake_at(&self, at: Option<Instant>) {
        self.0.state.lock().wake_at = at;
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, but no longer than a moment.
    pub(super) fn flush(&self) {
        let mut state = self.0.state.lock();
        let is_busy = |state: &mut LogQueueState| state.writing || !state.waiting.is_empty();
        self.0
            .emptied
            .wait_while_for(&mut state, is_busy, FLUSH_TIMEOUT);
    }
}

impl LogQueueShared {
    /// Waits until there is something to write. Returns whether it is time to wake instead.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        state.writing = false;
        if state.waiting.is_empty() {
            self.emptied.notify_all();
        }
        loop {
            if let Some(at) = state.wake_at
                && at <= Instant::now()
            {
                state.wake_at = None;
                return true;
            }
            if !state.waiting.is_empty() {
                return false;
            }
            match state.wake_at {
                Some(at) => drop(self.filled.wait_until(&mut state, at)),
                None => self.filled.wait(&mut state),
            }
        }
    }

    /// Takes what waits, and how many events were lost before it.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        state.writing = true;
        // Swapped, not copied: the lock is held for a moment, and both buffers keep their capacity.
        std::mem::swap(&mut state.waiting, batch);
        std::mem::take(&mut state.lost)
    }
}

impl Write for &LogQueue {
    /// Takes one event, whole or not at all.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.waiting.len() + event.len() > CAPACITY {
            state.lost += 1;
            return Ok(event.len());
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(event);
        // Notified without the lock, and only when the writer may be waiting: it takes all there
        // is.
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes one write for each permit, and nothing without.
    struct Reader {
        permits: Receiver<()>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.permits.recv().map_err(closed)?;
            self.read.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_arrives_in_order_and_is_there_after_a_flush() {
        let (permit, permits) = channel();
        let (read, reads) = channel();
        let queue = LogQueue::start(Reader { permits, read }, |_| (), || ()).unwrap();
        let events: Vec<String> = (0..100).map(|number| format!("event {number}\n")).collect();
        for event in &events {
            permit.send(()).unwrap();
            (&queue).write_all(event.as_bytes()).unwrap();
        }
        queue.flush();
        let written: Vec<u8> = reads.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(written).unwrap(), events.concat());
    }

    #[test]
    fn a_reader_that_stops_blocks_no_writer_and_learns_how_many_events_were_lost() {
        let (permit, permits) = channel();
        let (read, reads) = channel();
        let (report, reports) = channel();
        let report = move |lost| report.send(lost).unwrap();
        let queue = LogQueue::start(Reader { permits, read }, report, || ()).unwrap();
        let event = vec![b'x'; CAPACITY];
        // One may be at the reader, one waits, the others are lost.
        for _ in 0..4 {
            (&queue).write_all(&event).unwrap();
        }
        let lost = queue.0.state.lock().lost;
        assert!((2..=3).contains(&lost), "{lost}");
        queue.flush();
        for _ in 0..3 {
            permit.send(()).unwrap();
        }
        assert_eq!(reports.recv().unwrap(), lost);
        (&queue).write_all(b"on it goes\n").unwrap();
        let is_last = |read: &Vec<u8>| read == b"on it goes\n";
        assert!(reads.iter().any(|read| is_last(&read)));
    }

    #[test]
    fn the_writer_wakes_at_the_time_that_was_set_last() {
        let (woke, wakes) = channel();
        let on_wake = move || woke.send(Instant::now()).unwrap();
        let queue = LogQueue::start(io::sink(), |_| (), on_wake).unwrap();
        let now = Instant::now();
        queue.wake_at(now.checked_add(Duration::from_hours(1)));
        let at = now + Duration::from_millis(20);
        queue.wake_at(Some(at));
        assert!(wakes.recv().unwrap() >= at);
        queue.wake_at(None);
        (&queue).write_all(b"event").unwrap();
        queue.flush();
        assert!(wakes.try_recv().is_err(), "once");
    }
}
