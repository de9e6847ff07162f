//! One round of fetches, for all scrapes that arrive meanwhile.
//!
//! A scrape that arrives while a round fetches joins it. A scrape that times out before the last source
//! responded gets what is there; the fetches that are left go on, and the next round has what they bring. The
//! expositions are merged, and the result is encoded once for each format that was asked for. The next round
//! begins when that is done, so that there is never more than one in memory.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::scrape::{EncodedExposition, ScrapeFormat};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::aggregation::{Aggregation, Fetched};
use super::fetches::{FetchFailed, Fetches};

/// The part of a scraper's timeout that is left for merging and sending the exposition.
const RESERVE: Duration = Duration::from_millis(250);

/// A scrape that waits for its exposition.
pub(super) struct PendingScrape {
    pub(super) format: ScrapeFormat,
    /// When it gets what is there; `None` where the scraper did not tell its timeout.
    pub(super) due: Option<Instant>,
    pub(super) reply: oneshot::Sender<Arc<EncodedExposition>>,
}

impl PendingScrape {
    /// When a scrape that arrives at `now` gets what is there, given its scraper's timeout.
    pub(super) fn due(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
        let timeout = timeout?;
        // A timeout too short for the reserve is shortened by a quarter.
        let reserve = RESERVE.min(timeout / 4);
        now.checked_add(timeout.saturating_sub(reserve))
    }
}

/// Begins a round whenever a scrape arrives, until none can arrive any more.
pub(super) async fn serve(
    current: Arc<ArcSwap<Aggregation>>,
    mut queue: mpsc::Receiver<PendingScrape>,
) {
    let mut fetches = Fetches::new(current.load_full());
    loop {
        let scrape = tokio::select! {
            scrape = queue.recv() => scrape,
            // Too late for all who waited, and too old for the next one. It has recorded how it ended.
            Some(_) = fetches.next() => continue,
        };
        let Some(scrape) = scrape else { return };
        let mut round = Round::begin(&mut fetches, &current.load_full());
        round.waiting.push(scrape);
        round.run(&mut queue).await;
    }
}

struct Round<'a> {
    fetches: &'a mut Fetches,
    /// What was fetched, in the order of the sources.
    fetched: Vec<Option<Fetched>>,
    waiting: Vec<PendingScrape>,
}

impl<'a> Round<'a> {
    fn begin(fetches: &'a mut Fetches, aggregation: &Arc<Aggregation>) -> Round<'a> {
        fetches.begin(aggregation);
        Round {
            fetched: aggregation.sources.iter().map(|_| None).collect(),
            fetches,
            waiting: Vec::new(),
        }
    }

    async fn run(mut self, queue: &mut mpsc::Receiver<PendingScrape>) {
        // A fetch that is in flight when nobody waits any more is for the next round.
        while !self.waiting.is_empty() {
            let next = self.waiting.iter().filter_map(|scrape| scrape.due).min();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ended = self.fetches.next() => match ended {
                    Some(Ok(fetched)) => {
                        let source = fetched.source;
                        self.fetched[source] = Some(fetched);
                    }
                    Some(Err(FetchFailed)) => {}
                    None => return self.end(queue).await,
                },
                Some(scrape) = queue.recv() => self.waiting.push(scrape),
                () = due => self.respond_to_due().await,
            }
        }
    }

    /// Gives everybody what all fetches have brought.
    async fn end(mut self, queue: &mut mpsc::Receiver<PendingScrape>) {
        // These arrived after the last fetch ended: they are served by this round, too.
        while let Ok(scrape) = queue.try_recv() {
            self.waiting.push(scrape);
        }
        let fetched = self.fetched.into_iter().flatten().collect();
        respond(self.fetches.aggregation(), self.waiting, fetched, &[]).await;
    }

    /// Gives the scrapes that cannot wait any longer what is there.
    async fn respond_to_due(&mut self) {
        let now = Instant::now();
        let is_due = |scrape: &PendingScrape| scrape.due.is_some_and(|due| due <= now);
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_due);
        self.waiting = waiting;
        // The texts are shared, so that this is no second copy of them.
        let there = self.fetched.iter_mut().flatten();
        let there = there.map(|fetched| Fetched {
            source: fetched.source,
            exposition: fetched.exposition.clone(),
            // Taken, so that dropped samples are counted once.
            dropped: fetched.dropped.take(),
        });
        let there = there.collect();
        let late = self.fetches.in_flight();
        respond(self.fetches.aggregation(), due, there, &late).await;
    }
}

/// Encodes the exposition in each format that was asked for, and hands it out.
async fn respond(
    aggregation: &Arc<Aggregation>,
    mut scrapes: Vec<PendingScrape>,
    fetched: Vec<Fetched>,
    late: &[usize],
) {
    scrapes.retain(|scrape| !scrape.reply.is_closed());
    let mut formats: Vec<ScrapeFormat> = Vec::new();
    for scrape in &scrapes {
        if !formats.contains(&scrape.format) {
            formats.push(scrape.format);
        }
    }
    if formats.is_empty() {
        return;
    }
    let encoded = aggregation.write(&formats.into(), fetched, late).await;
    for scrape in scrapes {
        let exposition = encoded.iter().find(|(format, _)| *format == scrape.format);
        if let Some((_, exposition)) = exposition {
            // A scraper that has left does not need it.
            let _ = scrape.reply.send(Arc::clone(exposition));
        }
    }
}
