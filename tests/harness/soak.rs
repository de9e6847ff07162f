//! A soak: everything at once, for as long as one likes.
//!
//! Clients of all kinds push and pull through octoserve, in front of three replicas of docker-registry and
//! of a registry of our own, while replicas fail and an operator reloads, renews and replaces octoserve. It
//! passes if each error that a client saw is explained by a fault that was there at that time, if every
//! counter equals the clients' own books, and if neither memory nor descriptors grow.
//!
//! | module | what it is |
//! |---|---|
//! | `stage` | the registries, and octoserve in one process after the other |
//! | `link` | the way to a replica, which can be reset, slow, or carry garbage |
//! | `script`, `faults` | what happens when, and which errors it explains |
//! | `raw_client`, `line` | clients that choose their requests, over HTTP/1.1, h2 and TLS |
//! | `tool_client`, `relay`, `meter` | docker, skopeo and podman, and the relay that keeps their books |
//! | `observation`, `books`, `comparison` | one request as its client saw it, all of them, and the counters next to them |
//! | `watch`, `report` | memory and descriptors, and the report |
//!
//! All choices come from one seed. What the kernel and the programs make of them does not, so a seed
//! repeats what was tried, and not to the microsecond what happened.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use self::books::SharedBooks;
use self::comparison::FamilyComparison;
use self::faults::FaultEpisode;
use self::line::BookedLine;
use self::progress::Progress;
use self::raw_client::RawClient;
use self::relay::{BookKeepingRelay, RelayTarget};
use self::report::SoakReport;
use self::stage::Stage;
use self::tool_client::{Tool, ToolClient};
use self::watch::HeldResources;
use crate::docker::Docker;
use crate::podman::Podman;
use crate::poll;
use crate::skopeo::Skopeo;
use crate::tls::SecureClient;

mod books;
mod comparison;
mod faults;
mod line;
mod link;
mod meter;
mod observation;
mod progress;
mod raw_client;
mod relay;
mod report;
mod script;
mod stage;
mod tool_client;
mod watch;

/// How long clients may take to end, and then a process to settle.
const DEADLINE: Duration = Duration::from_mins(3);

/// What is to happen.
#[derive(Clone, Debug)]
pub struct SoakPlan {
    /// All choices follow from it.
    pub seed: u64,
    /// How long faults come at random; `None` for each of them once, in order.
    pub duration: Option<Duration>,
    /// How many clients send requests of their own.
    pub raw_clients: usize,
    /// The directory of the programs, or that of the tests.
    pub built: Option<PathBuf>,
}

/// What came of it.
pub struct SoakOutcome {
    /// The report, in Markdown.
    pub report: String,
    /// What must not have happened; empty for a run that passed.
    pub failures: Vec<String>,
    /// The directories of what ran are removed with it. After two hours that takes minutes, and the report
    /// is not to wait for it.
    _stage: Arc<Stage>,
}

/// Runs it to its end.
///
/// # Errors
/// If something does not start, or hangs.
pub async fn run(plan: &SoakPlan) -> Result<SoakOutcome> {
    let books = SharedBooks::default();
    let docker = Docker::shared().await?;
    let tools = [
        Tool::Docker(docker),
        Tool::Skopeo(Skopeo::new()?),
        Tool::Podman(Podman::new()?),
        Tool::Skopeo(Skopeo::new()?),
    ];
    let stage = Stage::start(plan.built.clone(), books.clone()).await?;
    let progress = Arc::new(Progress::new(
        plan.raw_clients,
        plan.raw_clients + tools.len(),
    ));
    let samples = Arc::new(Mutex::new(Vec::new()));
    let watching = {
        let current = Arc::clone(&stage.proxy.lock().await.current);
        let (progress, samples) = (Arc::clone(&progress), Arc::clone(&samples));
        tokio::spawn(watch::watch(current, progress, move |held| {
            let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push(held);
        }))
    };
    let mut clients = JoinSet::new();
    start_clients(plan, &stage, &progress, &books, tools, &mut clients).await?;
    let episodes = disturb(plan, &stage, &progress).await;
    progress.stop();
    let ended = async {
        while let Some(client) = clients.join_next().await {
            client.context("a client panicked")?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, ended)
        .await
        .context("clients do not end")??;
    watching.abort();
    let mut samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    let mut proxy = stage.proxy.lock().await;
    let ended = progress.now();
    let settled = settle(
        proxy.process(),
        progress.steps().len(),
        &mut samples,
        &progress,
    )
    .await;
    let counted = proxy.finish().await;
    let counted = match (counted, &episodes) {
        (Ok(counted), _) => counted,
        // What went wrong first says more.
        (Err(_), Err(_)) => comparison::SummedScrapes::default(),
        (Err(error), Ok(_)) => return Err(error),
    };
    let panics = proxy.panics();
    for line in panics {
        progress.broke(&line);
    }
    let books = books.copy();
    let (episodes, stopped) = match episodes {
        Ok(episodes) => (episodes, None),
        Err((episodes, error)) => (episodes, Some(format!("{error:#}"))),
    };
    crate::report(&format!(
        "soak: {} requests in {ended:.1?}, ended after {:.1?}",
        books.requests,
        progress.now()
    ));
    let report = SoakReport {
        plan,
        lasted: progress.now(),
        operations: progress.steps(),
        mishaps: faults::explain(&episodes, &progress.mishaps()),
        episodes: &episodes,
        broken: progress.broken(),
        stopped,
        comparisons: FamilyComparison::all(&books, &counted),
        counted: &counted,
        books: &books,
        samples: &samples,
        settled,
    };
    let (failures, report) = (report.failures(), report.markdown());
    drop(proxy);
    Ok(SoakOutcome {
        report,
        failures,
        _stage: stage,
    })
}

async fn start_clients(
    plan: &SoakPlan,
    stage: &Stage,
    progress: &Arc<Progress>,
    books: &SharedBooks,
    tools: [Tool; 4],
    clients: &mut JoinSet<()>,
) -> Result<()> {
    let proxy = stage.proxy.lock().await;
    let addresses = proxy.addresses();
    let authority = proxy.authority.path();
    let http1 = SecureClient::trusting_authority(&authority, &["http/1.1"])?;
    let http2 = SecureClient::trusting_authority(&authority, &["h2"])?;
    drop(proxy);
    let kinds = raw_client::kinds(&http1, &http2);
    for number in 0..plan.raw_clients {
        let (kind, agent) = kinds[number % kinds.len()].clone();
        let line = BookedLine::new(kind, addresses, agent, books.clone());
        // Every third client is one of the other upstream.
        let upstream = if number % 3 == 2 { "other" } else { "main" };
        let client = RawClient::new(number, plan.seed, line, Arc::clone(progress), upstream);
        clients.spawn(client.run());
    }
    // A registry that knows of TLS sends Locations with https, which a relay without TLS cannot serve. Those
    // of our registry are relative.
    let places = [
        ("team", "main", None),
        ("other", "other", Some(http1.clone())),
        ("team", "main", None),
        ("team", "main", None),
    ];
    for (at, (tool, (prefix, upstream, tls))) in tools.into_iter().zip(places).enumerate() {
        let address = if tls.is_some() {
            addresses.1
        } else {
            addresses.0
        };
        let target = RelayTarget { address, tls };
        let relay = BookKeepingRelay::start(target, books.clone(), Arc::clone(progress)).await?;
        let number = plan.raw_clients + at;
        let client = ToolClient {
            number,
            tool,
            relay,
            progress: Arc::clone(progress),
            prefix,
            upstream,
            seed: plan.seed ^ number as u64,
        };
        clients.spawn(client.run());
    }
    Ok(())
}

/// All faults. An error comes with those before it.
async fn disturb(
    plan: &SoakPlan,
    stage: &Arc<Stage>,
    progress: &Arc<Progress>,
) -> Result<Vec<FaultEpisode>, (Vec<FaultEpisode>, anyhow::Error)> {
    let mut episodes = Vec::new();
    let Some(duration) = plan.duration else {
        let done = script::each_once(stage, progress, &mut episodes).await;
        return match done {
            Ok(()) => Ok(episodes),
            Err(error) => Err((episodes, error)),
        };
    };
    let end = progress.now() + duration;
    let replicas = script::disturb_replicas(
        Arc::clone(stage),
        plan.seed.wrapping_add(1),
        end,
        Arc::clone(progress),
    );
    let operator = script::operate(
        Arc::clone(stage),
        plan.seed.wrapping_add(2),
        end,
        Arc::clone(progress),
    );
    let (replicas, operator) = tokio::join!(replicas, operator);
    let mut first = None;
    for lane in [replicas, operator] {
        match lane {
            Ok(lane) => episodes.extend(lane),
            Err(error) => first = first.or(Some(error)),
        }
    }
    episodes.sort_by_key(|episode| episode.began);
    if first.is_none() {
        tokio::time::sleep(end.saturating_sub(progress.now())).await;
        first = script::everybody_goes_on(progress).await.err();
    }
    match first {
        Some(error) => Err((episodes, error)),
        None => Ok(episodes),
    }
}

/// Waits until the last process, which has no clients any more, has closed what they left: what it keeps for
/// the next ones are its connections to the upstreams.
async fn settle(
    process: u32,
    clients: usize,
    samples: &mut Vec<HeldResources>,
    progress: &Progress,
) -> Result<HeldResources> {
    let mut latest = None;
    let settled = poll::until(
        "the process closes what clients left",
        DEADLINE,
        async || {
            let Some(now) = HeldResources::of(process, progress.now()) else {
                bail!("the process has ended");
            };
            latest = Some(now);
            let own = samples.iter().filter(|held| held.process == process);
            let fewest = own.map(|held| held.descriptors).min();
            let kept = 2 * clients as u64;
            let is_idle = fewest.is_none_or(|fewest| now.descriptors <= fewest + kept);
            Ok(is_idle.then_some(now))
        },
    );
    let settled = settled.await;
    samples.extend(latest);
    settled.with_context(|| format!("{latest:?}"))
}
