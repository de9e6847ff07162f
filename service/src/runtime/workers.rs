//! Threads that share nothing: each has a runtime of its own, and so waits for its own sockets.
//!
//! Tasks that move between threads cost a proxy more than they gain: an idle thread is woken to look for
//! work, and a task's data has to move to the cache of the thread that takes it. So a connection stays on
//! one thread, next to the connections that it uses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::{BLOCKING_THREADS, processors};

/// The fewest threads of a worker for work that waits for a disk.
const MIN_BLOCKING: usize = 4;

/// How long the end of a worker waits for its work on blocking threads, as that of the process does.
const BLOCKING_DRAIN: Duration = Duration::from_secs(1);

/// The number of a worker, from 0. What is not run by one has number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerId(pub usize);

/// Threads that run tasks, one for each processor. They end when this is dropped.
pub struct Workers {
    all: Vec<Worker>,
    threads: Vec<WorkerThread>,
}

/// The workers that share the tasks. Clones are the same ones.
#[derive(Clone)]
pub struct WorkerSet(Arc<[Worker]>);

/// One thread, and how much it has to do.
#[derive(Clone)]
struct Worker {
    id: WorkerId,
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
}

/// Where a task is to run, of which its worker has one more for as long as this is there.
pub struct WorkerTask {
    worker: Worker,
}

struct WorkerThread {
    /// Dropped to let the thread end.
    _running: oneshot::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads: none where there is a single processor, since then the thread that accepts
    /// connections serves them, too.
    ///
    /// # Errors
    /// If the system has no threads or descriptors left.
    pub fn start() -> io::Result<Workers> {
        let count = match WorkerId::count() {
            1 => 0,
            count => count,
        };
        let mut workers = Workers {
            all: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
        };
        for id in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads((BLOCKING_THREADS / count).max(MIN_BLOCKING))
                .build()?;
            workers.all.push(Worker {
                id: WorkerId(id),
                runtime: runtime.handle().clone(),
                tasks: Arc::default(),
            });
            let (running, ended) = oneshot::channel();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{id}"))
                .spawn(move || {
                    let _ = runtime.block_on(ended);
                    runtime.shutdown_timeout(BLOCKING_DRAIN);
                })?;
            workers.threads.push(WorkerThread {
                _running: running,
                thread: Some(thread),
            });
        }
        Ok(workers)
    }

    /// All of them.
    pub fn all(&self) -> WorkerSet {
        WorkerSet(self.all.iter().cloned().collect())
    }
}

impl WorkerId {
    /// How many numbers there are.
    pub fn count() -> usize {
        processors()
    }
}

impl WorkerSet {
    /// No workers: tasks run where this is called.
    pub fn none() -> WorkerSet {
        WorkerSet(Arc::default())
    }

    /// A place for one more task: with the worker that has the fewest.
    pub fn place(&self) -> WorkerTask {
        let fewest = self
            .0
            .iter()
            .min_by_key(|worker| worker.tasks.load(Ordering::Relaxed));
        let worker = fewest.cloned().unwrap_or_else(|| Worker {
            id: WorkerId::default(),
            runtime: Handle::current(),
            tasks: Arc::default(),
        });
        worker.tasks.fetch_add(1, Ordering::Relaxed);
        WorkerTask { worker }
    }
}

impl WorkerTask {
    /// The worker's number.
    pub fn id(&self) -> WorkerId {
        self.worker.id
    }

    /// Where the task is spawned.
    pub fn runtime(&self) -> &Handle {
        &self.worker.runtime
    }
}

impl Drop for WorkerTask {
    fn drop(&mut self) {
        self.worker.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All are told before any is waited for.
        let threads: Vec<_> = self
            .threads
            .drain(..)
            .filter_map(|mut thread| thread.thread.take())
            .collect();
        for thread in threads {
            // Tasks that panic do not end the thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_to_the_worker_that_has_the_fewest() {
        let workers = Workers::start().unwrap();
        let (all, count) = (workers.all(), workers.all.len());
        let mut tasks: Vec<WorkerTask> = (0..2 * count).map(|_| all.place()).collect();
        for worker in &workers.all {
            assert_eq!(worker.tasks.load(Ordering::Relaxed), 2);
        }
        let freed = tasks.pop().map(|task| task.id());
        assert_eq!(count.checked_sub(1).map(|_| all.place().id()), freed);
        drop(tasks);
        for worker in &workers.all {
            assert_eq!(worker.tasks.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn each_worker_is_a_thread_that_ends_with_them() {
        let workers = Workers::start().unwrap();
        let (sent, names) = std::sync::mpsc::channel();
        let tasks: Vec<WorkerTask> = workers.all.iter().map(|_| workers.all().place()).collect();
        for task in &tasks {
            let sent = sent.clone();
            let expected = format!("worker-{}", task.id().0);
            task.runtime().spawn(async move {
                let thread = std::thread::current();
                sent.send(thread.name() == Some(&expected)).unwrap();
                std::future::pending::<()>().await;
            });
        }
        drop(sent);
        for _ in &tasks {
            assert!(names.recv().unwrap());
        }
        drop(workers);
        // The tasks are gone, and what they held.
        assert!(names.recv().is_err());
    }

    #[tokio::test]
    async fn without_workers_a_task_runs_where_it_is_placed() {
        let task = WorkerSet::none().place();
        assert_eq!(task.id(), WorkerId::default());
        task.runtime().spawn(async {}).await.unwrap();
    }
}
