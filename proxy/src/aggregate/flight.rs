//! One fetch of all sources, for all who scrape meanwhile.
//!
//! A task of its own fetches: it belongs to no scraper, so that none can end it by leaving. Whoever
//! scrapes while it fetches joins, and may let the sources have more time, up to
//! `metrics.aggregate.timeout`; whoever has to leave before the last source has come gets what is
//! there. Pages are merged, and the result is written, once for each form that is wanted. The next
//! fetch begins when that is done, so that there is never more than one in memory.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use service::scrape::ScrapeFormat;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Fetched, Parts, Scrape};

/// What the sources get however short a scraper's patience is: a hasty one must not make them look
/// slow.
const SHORTEST: Duration = Duration::from_secs(1);

/// Fetches whenever somebody scrapes, until nobody can any more.
pub(super) async fn serve(parts: Arc<Parts>, mut queue: mpsc::Receiver<Scrape>) {
    while let Some(scrape) = queue.recv().await {
        let mut flight = Flight::begin(&parts);
        flight.join(scrape);
        flight.run(&mut queue).await;
    }
}

struct Flight {
    parts: Arc<Parts>,
    /// The sources have until then at most.
    latest: Instant,
    /// They have until then, as things are.
    deadline: watch::Sender<Instant>,
    fetches: JoinSet<Option<Fetched>>,
    /// In the order of the sources, once they are there.
    fetched: Vec<Option<Fetched>>,
    waiting: Vec<Scrape>,
}

impl Flight {
    fn begin(parts: &Arc<Parts>) -> Flight {
        let started = Instant::now();
        let timeout = parts.bounds.timeout;
        let (deadline, _) = watch::channel(started + timeout.min(SHORTEST));
        let mut fetches = JoinSet::new();
        for source in 0..parts.sources.len() {
            fetches.spawn(Arc::clone(parts).fetch(source, deadline.subscribe()));
        }
        Flight {
            parts: Arc::clone(parts),
            latest: started + timeout,
            deadline,
            fetched: parts.sources.iter().map(|_| None).collect(),
            fetches,
            waiting: Vec::new(),
        }
    }

    fn join(&mut self, scrape: Scrape) {
        let wanted = scrape.times.fetched.unwrap_or(self.latest).min(self.latest);
        self.deadline.send_if_modified(|deadline| {
            let is_later = wanted > *deadline;
            *deadline = wanted.max(*deadline);
            is_later
        });
        self.waiting.push(scrape);
    }

    async fn run(mut self, queue: &mut mpsc::Receiver<Scrape>) {
        loop {
            let next = self.waiting.iter().filter_map(|s| s.times.answered).min();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                fetched = self.fetches.join_next() => match fetched {
                    Some(Ok(Some(fetched))) => {
                        let source = fetched.source;
                        self.fetched[source] = Some(fetched);
                    }
                    // It failed, and has said so.
                    Some(_) => {}
                    None => break,
                },
                Some(scrape) = queue.recv() => self.join(scrape),
                () = due => self.answer_due().await,
            }
        }
        while let Ok(scrape) = queue.try_recv() {
            self.waiting.push(scrape);
        }
        let fetched = self.fetched.into_iter().flatten().collect();
        answer(&self.parts, self.waiting, fetched).await;
    }

    /// Gives those who cannot wait any longer what is there.
    async fn answer_due(&mut self) {
        let now = Instant::now();
        let is_due = |scrape: &Scrape| scrape.times.answered.is_some_and(|due| due <= now);
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_due);
        self.waiting = waiting;
        // The texts are shared, so that this is no second copy of all of it.
        let there = self.fetched.iter_mut().flatten();
        let there = there.map(|fetched| Fetched {
            source: fetched.source,
            page: fetched.page.clone(),
            dropped: fetched.dropped.take(),
        });
        let there = there.collect();
        answer(&self.parts, due, there).await;
    }
}

/// Writes the page in each form that is wanted, and answers.
async fn answer(parts: &Arc<Parts>, mut scrapes: Vec<Scrape>, fetched: Vec<Fetched>) {
    scrapes.retain(|scrape| !scrape.reply.is_closed());
    let mut forms: Vec<ScrapeFormat> = Vec::new();
    for scrape in &scrapes {
        if !forms.contains(&scrape.wanted) {
            forms.push(scrape.wanted);
        }
    }
    if forms.is_empty() {
        return;
    }
    let written = parts.write(&forms.into(), fetched).await;
    for scrape in scrapes {
        let exposition = written.iter().find(|(form, _)| *form == scrape.wanted);
        if let Some((_, exposition)) = exposition {
            // Who has left does not need it.
            let _ = scrape.reply.send(Arc::clone(exposition));
        }
    }
}
