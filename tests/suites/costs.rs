//! The cost of one small request, counted rather than timed, because counts do not depend on the
//! machine's load. A change that exceeds a bound makes every request more expensive.
//!
//! The bounds are a tenth above the counts at the time they were set, in the test profile.
//! docs/explanation/performance.md has the counts of the release profile and explains them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::{Client, MANIFEST};
use harness::cost::{
    self, ALLOCATIONS, Costs, Counts, INSTRUCTIONS, Meter, REMEMBERING, SYSTEM_CALLS, Tool,
};
use harness::octoserve::{Launch, Server};
use harness::poll;

const REPOSITORY: &str = "team/app/web";
const PATH: &str = "/v2/team/app/web/manifests/latest";

/// Warm-up requests, and counted requests.
const FEW: u32 = 100;
const MORE: u32 = 300;

/// How long a program that runs fifty times slower than usual may take to exit.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The bounds of one request's cost.
struct Bounds {
    instructions: f64,
    allocations: f64,
    /// `None` where they depend on time: the log's thread writes once for all lines of a while.
    system_calls: Option<f64>,
}

async fn registry_with_an_image() -> Result<Server> {
    let registry = Launch::registry().start().await?;
    let client = Client::new(&registry.url(""))?;
    client.push_image(REPOSITORY, "latest", &[1]).await?;
    Ok(registry)
}

async fn count(launch: &impl Fn() -> Launch, tool: Tool) -> Result<Costs> {
    let run = async |times| -> Result<Counts> {
        let meter = Meter::new(tool)?;
        let mut server = launch().under(meter.prefix()?).start().await?;
        settle(&mut server).await?;
        cost::ask(server.address(), PATH, MANIFEST, times).await?;
        server.terminate(TIMEOUT).await?;
        meter.counts().await
    };
    cost::each(&run(FEW).await?, &run(FEW + MORE).await?, MORE)
}

/// Waits until the background work of the start, such as the count of the store, is done.
async fn settle(server: &mut Server) -> Result<()> {
    let mut before = server.process().processor_time()?;
    poll::until(
        "the background work of the start is done",
        TIMEOUT,
        async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = server.process().processor_time()?;
            let is_idle = std::mem::replace(&mut before, now) == now;
            Ok(is_idle.then_some(()))
        },
    )
    .await
}

/// Counts without the access log, and compares with the bounds.
async fn keeps_to(bounds: Bounds, launch: impl Fn() -> Launch) -> Result<()> {
    keeps_all_to(bounds, || {
        launch().environment("OCTOSERVE_LOGGING_ACCESS", "false")
    })
    .await
}

async fn keeps_all_to(bounds: Bounds, launch: impl Fn() -> Launch) -> Result<()> {
    let counted = count(&launch, Tool::Callgrind).await?;
    let called = count(&launch, Tool::Strace).await?;
    let costs = [
        (INSTRUCTIONS, &counted, Some(bounds.instructions)),
        (ALLOCATIONS, &counted, Some(bounds.allocations)),
        (SYSTEM_CALLS, &called, bounds.system_calls),
    ];
    let mut reports = Vec::new();
    let mut is_kept = true;
    for (name, costs, bound) in costs {
        let cost = costs.get(name).with_context(|| format!("no {name}"))?;
        let Some(bound) = bound else {
            continue;
        };
        is_kept &= *cost > 0.0 && *cost <= bound;
        reports.push(format!("{cost:.1} {name}, {bound} at most"));
    }
    ensure!(is_kept, "one request: {}; {called:?}", reports.join("; "));
    Ok(())
}

#[tokio::test]
async fn a_proxied_request_stays_within_its_bounds() -> Result<()> {
    let registry = registry_with_an_image().await?;
    let bounds = Bounds {
        instructions: 49_000.0,
        allocations: 18.0,
        system_calls: Some(7.0),
    };
    keeps_to(bounds, || Launch::in_front_of(&registry.url(""))).await
}

#[tokio::test]
async fn a_proxied_request_without_metrics_stays_within_its_bounds() -> Result<()> {
    let registry = registry_with_an_image().await?;
    let bounds = Bounds {
        instructions: 42_300.0,
        allocations: 18.0,
        system_calls: Some(7.0),
    };
    keeps_to(bounds, || {
        Launch::in_front_of(&registry.url("")).without_metrics()
    })
    .await
}

#[tokio::test]
async fn a_request_to_the_embedded_registry_stays_within_its_bounds() -> Result<()> {
    let mut registry = registry_with_an_image().await?;
    let data = registry.data().to_owned();
    registry.terminate(TIMEOUT).await?;
    let bounds = Bounds {
        instructions: 50_700.0,
        allocations: 30.0,
        system_calls: Some(3.3),
    };
    keeps_to(bounds, || Launch::all_in_one().data(&data)).await
}

#[tokio::test]
async fn remembering_a_pull_is_less_than_a_hundredth_of_it() -> Result<()> {
    let mut registry = registry_with_an_image().await?;
    let data = registry.data().to_owned();
    registry.terminate(TIMEOUT).await?;
    let launch = || Launch::registry().data(&data);
    let costs = count(&launch, Tool::Callgrind).await?;
    let (pull, remembering) = (costs[INSTRUCTIONS], costs[REMEMBERING]);
    ensure!(
        remembering > 0.0 && remembering < pull / 100.0,
        "{remembering} of {pull} instructions"
    );
    Ok(())
}

#[tokio::test]
async fn a_logged_request_stays_within_its_bounds() -> Result<()> {
    let registry = registry_with_an_image().await?;
    let bounds = Bounds {
        instructions: 62_700.0,
        allocations: 15.0,
        system_calls: None,
    };
    keeps_all_to(bounds, || Launch::in_front_of(&registry.url(""))).await
}
