//! One round of fetches, for all scrapes that arrive meanwhile.
//!
//! A task of its own fetches: it belongs to no scraper, so that none can end it by leaving. A scrape
//! that arrives while it fetches joins the round, and may give the sources more time, up to
//! `metrics.aggregate.timeout`. A scrape that times out before the last source responded gets what is
//! there. The expositions are merged, and the result is encoded once for each format that was asked
//! for. The next round begins when that is done, so that there is never more than one in memory.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use service::scrape::{EncodedExposition, ScrapeFormat};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::aggregation::{Aggregation, Fetched};

/// The time that the sources have however short a scraper's timeout is: a hasty scraper must not make
/// them look slow.
const SHORTEST: Duration = Duration::from_secs(1);

/// The part of a scraper's timeout that is left for merging and sending the exposition.
const RESERVE: Duration = Duration::from_millis(500);

/// A scrape that waits for its exposition.
pub(super) struct PendingScrape {
    pub(super) format: ScrapeFormat,
    pub(super) deadlines: Deadlines,
    pub(super) reply: oneshot::Sender<Arc<EncodedExposition>>,
}

/// When a scrape times out; `None` where the scraper did not tell its timeout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// The sources have this long.
    pub(super) fetch: Option<Instant>,
    /// Then the scraper gets what is there.
    pub(super) respond: Option<Instant>,
}

impl Deadlines {
    pub(super) fn of(now: Instant, timeout: Option<Duration>) -> Deadlines {
        let Some(timeout) = timeout else {
            return Deadlines {
                fetch: None,
                respond: None,
            };
        };
        // A timeout too short for the reserve is halved: else the sources would have no time.
        let fetch = timeout.saturating_sub(RESERVE).max(timeout / 2);
        // What was fetched in time is still parsed, before the rest is left out.
        let respond = fetch + timeout.saturating_sub(fetch) / 2;
        Deadlines {
            fetch: now.checked_add(fetch),
            respond: now.checked_add(respond),
        }
    }
}

/// Begins a round whenever a scrape arrives, until none can arrive any more.
pub(super) async fn serve(
    current: Arc<ArcSwap<Aggregation>>,
    mut queue: mpsc::Receiver<PendingScrape>,
) {
    while let Some(scrape) = queue.recv().await {
        let mut round = Round::begin(&current.load_full());
        round.join(scrape);
        round.run(&mut queue).await;
    }
}

struct Round {
    aggregation: Arc<Aggregation>,
    /// The latest deadline that a scrape can ask for.
    latest: Instant,
    /// The deadline of the fetches, which scrapes that join move.
    deadline: watch::Sender<Instant>,
    fetches: JoinSet<Option<Fetched>>,
    /// What was fetched, in the order of the sources.
    fetched: Vec<Option<Fetched>>,
    waiting: Vec<PendingScrape>,
}

impl Round {
    fn begin(aggregation: &Arc<Aggregation>) -> Round {
        let started = Instant::now();
        let timeout = aggregation.limits.timeout;
        let (deadline, _) = watch::channel(started + timeout.min(SHORTEST));
        let mut fetches = JoinSet::new();
        for source in 0..aggregation.sources.len() {
            fetches.spawn(Arc::clone(aggregation).fetch(source, deadline.subscribe()));
        }
        Round {
            aggregation: Arc::clone(aggregation),
            latest: started + timeout,
            deadline,
            fetched: aggregation.sources.iter().map(|_| None).collect(),
            fetches,
            waiting: Vec::new(),
        }
    }

    fn join(&mut self, scrape: PendingScrape) {
        let deadline = scrape
            .deadlines
            .fetch
            .unwrap_or(self.latest)
            .min(self.latest);
        self.deadline.send_if_modified(|current| {
            let is_later = deadline > *current;
            *current = deadline.max(*current);
            is_later
        });
        self.waiting.push(scrape);
    }

    async fn run(mut self, queue: &mut mpsc::Receiver<PendingScrape>) {
        loop {
            let next = self
                .waiting
                .iter()
                .filter_map(|s| s.deadlines.respond)
                .min();
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
                    // The fetch failed, and its task has recorded that.
                    Some(_) => {}
                    None => break,
                },
                Some(scrape) = queue.recv() => self.join(scrape),
                () = due => self.respond_to_due().await,
            }
        }
        // These arrived after the last fetch ended: they are served by this round, too.
        while let Ok(scrape) = queue.try_recv() {
            self.waiting.push(scrape);
        }
        let fetched = self.fetched.into_iter().flatten().collect();
        respond(&self.aggregation, self.waiting, fetched).await;
    }

    /// Gives the scrapes that cannot wait any longer what is there.
    async fn respond_to_due(&mut self) {
        let now = Instant::now();
        let is_due =
            |scrape: &PendingScrape| scrape.deadlines.respond.is_some_and(|due| due <= now);
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
        respond(&self.aggregation, due, there).await;
    }
}

/// Encodes the exposition in each format that was asked for, and hands it out.
async fn respond(
    aggregation: &Arc<Aggregation>,
    mut scrapes: Vec<PendingScrape>,
    fetched: Vec<Fetched>,
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
    let encoded = aggregation.write(&formats.into(), fetched).await;
    for scrape in scrapes {
        let exposition = encoded.iter().find(|(format, _)| *format == scrape.format);
        if let Some((_, exposition)) = exposition {
            // A scraper that has left does not need it.
            let _ = scrape.reply.send(Arc::clone(exposition));
        }
    }
}
