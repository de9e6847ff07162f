//! What happens when: the faults in order for a test, or at random for as long as a soak lasts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};

use super::faults::{FaultEpisode, FaultKind, OF_REPLICAS, OF_THE_PROXY};
use super::link::LinkState;
use super::progress::Progress;
use super::stage::{Replica, Stage};
use crate::poll;
use crate::process::Signal;

/// How long clients may take to go on.
const DEADLINE: Duration = Duration::from_mins(2);

/// Lets a fault last.
enum Hold<'p> {
    /// Until half of the clients have succeeded once more: the others may wait for the replica.
    Progress(&'p Progress),
    For(Duration),
}

impl Hold<'_> {
    async fn hold(&self) -> Result<()> {
        match self {
            Self::Progress(progress) => go_on(progress, progress.raw_clients().len() / 2).await,
            Self::For(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
        }
    }
}

/// Waits until so many of the clients that send requests of their own have succeeded once more.
async fn go_on(progress: &Progress, clients: usize) -> Result<()> {
    let before = progress.steps();
    let raw = progress.raw_clients();
    poll::until("clients go on", DEADLINE, async || {
        let now = progress.steps();
        let both = now[raw.clone()].iter().zip(&before[raw.clone()]);
        let on = both.filter(|(now, before)| now > before).count();
        Ok((on >= clients).then_some(()))
    })
    .await
    .with_context(|| format!("{before:?} operations, now {:?}", progress.steps()))
}

/// Waits until all of them have.
async fn all_go_on(progress: &Progress) -> Result<()> {
    go_on(progress, progress.raw_clients().len()).await
}

/// Waits until every client has succeeded once more, programs too.
pub(crate) async fn everybody_goes_on(progress: &Progress) -> Result<()> {
    let before = progress.steps();
    poll::until("everybody goes on", DEADLINE, async || {
        let now = progress.steps();
        let mut both = now.iter().zip(&before);
        Ok(both.all(|(now, before)| now > before).then_some(()))
    })
    .await
    .with_context(|| format!("{before:?} operations, now {:?}", progress.steps()))
}

/// Each fault once, in order. Clients go on before, during and after each.
pub(crate) async fn each_once(
    stage: &Stage,
    progress: &Progress,
    episodes: &mut Vec<FaultEpisode>,
) -> Result<()> {
    everybody_goes_on(progress).await?;
    for (at, kind) in OF_REPLICAS.into_iter().enumerate() {
        let hold = Hold::Progress(progress);
        let which = at % stage.replicas.len();
        let episode = replica_fault(stage, which, kind, progress, &hold).await;
        episodes.push(episode.with_context(|| kind.name())?);
        all_go_on(progress).await?;
        // Takeover in between, so that the new process meets the rest.
        if kind == FaultKind::Freeze {
            proxy_fault(stage, FaultKind::Takeover, progress, episodes).await?;
        }
    }
    for kind in OF_THE_PROXY {
        proxy_fault(stage, kind, progress, episodes).await?;
        all_go_on(progress).await?;
    }
    everybody_goes_on(progress).await
}

/// Faults of the replicas at random, one at a time, until the time is over.
pub(crate) async fn disturb_replicas(
    stage: Arc<Stage>,
    seed: u64,
    end: Duration,
    progress: Arc<Progress>,
) -> Result<Vec<FaultEpisode>> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut episodes = Vec::new();
    // The last seconds are without faults: all clients end well.
    while progress.now() + Duration::from_secs(20) < end {
        pause(&mut dice, 1000..6000).await;
        let kind = *OF_REPLICAS.choose(&mut dice).context("no faults")?;
        let which = dice.random_range(0..stage.replicas.len());
        let time = Duration::from_millis(dice.random_range(500..6000));
        let hold = Hold::For(time);
        let episode = replica_fault(&stage, which, kind, &progress, &hold).await;
        episodes.push(episode.with_context(|| kind.name())?);
    }
    Ok(episodes)
}

/// What an operator does, at random. Nobody takes over in the last third: so one process lives long enough
/// to see whether its memory grows.
pub(crate) async fn operate(
    stage: Arc<Stage>,
    seed: u64,
    end: Duration,
    progress: Arc<Progress>,
) -> Result<Vec<FaultEpisode>> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut episodes = Vec::new();
    while progress.now() + Duration::from_secs(10) < end {
        pause(&mut dice, 2000..12_000).await;
        let kind = *OF_THE_PROXY.choose(&mut dice).context("no faults")?;
        if kind != FaultKind::Takeover || progress.now() < end * 2 / 3 {
            proxy_fault(&stage, kind, &progress, &mut episodes).await?;
        }
    }
    Ok(episodes)
}

async fn pause(dice: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    let time = dice.random_range(milliseconds);
    tokio::time::sleep(Duration::from_millis(time)).await;
}

async fn replica_fault(
    stage: &Stage,
    which: usize,
    kind: FaultKind,
    progress: &Progress,
    hold: &Hold<'_>,
) -> Result<FaultEpisode> {
    let mut replica = stage.replicas[which].lock().await;
    let began = progress.now();
    begin(&mut replica, kind).await?;
    let lasted = hold.hold().await;
    end(&mut replica, kind).await?;
    lasted?;
    // The proxy may need one probe to find it unhealthy, and another to find it healthy: it serves from
    // the others meanwhile, and an error that ends now was caused before.
    stage.proxy.lock().await.all_healthy().await?;
    Ok(FaultEpisode {
        kind,
        of: replica.name(),
        began,
        ended: progress.now(),
    })
}

async fn begin(replica: &mut Replica, kind: FaultKind) -> Result<()> {
    match kind {
        FaultKind::Kill => replica.registry.process().kill(),
        FaultKind::Freeze => replica.registry.process().freeze().await,
        FaultKind::Reset => link(replica, LinkState::Reset),
        FaultKind::Slow => link(replica, LinkState::Slow),
        FaultKind::Garbage => link(replica, LinkState::Garbage),
        FaultKind::Reload | FaultKind::RefusedReload | FaultKind::Renewal | FaultKind::Takeover => {
            Ok(())
        }
    }
}

async fn end(replica: &mut Replica, kind: FaultKind) -> Result<()> {
    match kind {
        FaultKind::Kill => replica.registry.restart().await,
        FaultKind::Freeze => replica.registry.process().signal(Signal::CONT),
        _ => link(replica, LinkState::Well),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "an arm among others that can fail"
)]
fn link(replica: &Replica, state: LinkState) -> Result<()> {
    replica.link.set(state);
    Ok(())
}

async fn proxy_fault(
    stage: &Stage,
    kind: FaultKind,
    progress: &Progress,
    episodes: &mut Vec<FaultEpisode>,
) -> Result<()> {
    let mut proxy = stage.proxy.lock().await;
    let began = progress.now();
    let done = match kind {
        FaultKind::Reload => proxy.reload().await,
        FaultKind::RefusedReload => proxy.reload_nonsense().await,
        FaultKind::Renewal => proxy.renew().await,
        _ => proxy.take_over().await,
    };
    done.with_context(|| kind.name())?;
    episodes.push(FaultEpisode {
        kind,
        of: format!("process {}", proxy.process()),
        began,
        ended: progress.now(),
    });
    Ok(())
}
