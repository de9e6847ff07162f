//! The instructions of a small response, which do not depend on the machine's load.
//!
//! Each program has one thread, and requests come one after another, so the ratios of this table
//! cover user space only. The other tables include the kernel's work.

use std::time::Duration;

use anyhow::Result;
use harness::client::MANIFEST;
use harness::cost::{self, Counts, INSTRUCTIONS, Meter, REMEMBERING, Tool};
use harness::octoserve::Launch;

use crate::load::Sample;
use crate::peers::Subject;
use crate::pulled::Pulled;
use crate::rounds::{ALL_IN_ONE, DIRECT, HAPROXY, OURS, REGISTRY, UNMEASURED};
use crate::table::{Compare, Table, compare, ratio};
use crate::{Options, say};

/// What the registry spends on remembering when the manifest was pulled.
const REMEMBERED: &str = "of octoserve-registry: remembering the pull";

/// Warm-up requests, and counted requests.
const FEW: u32 = 300;
const MORE: u32 = 1000;

/// How long a program that runs fifty times slower than usual may take to exit.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Counted once, because a second run would give the same.
pub(crate) async fn table(options: &Options, content: &Pulled) -> Result<Table> {
    let title = "Instructions of a small response";
    let load = format!(
        "callgrind, one thread, {MORE} requests on one connection, the {FEW} before them and the \
         start left out: GET of a manifest of {} bytes",
        content.manifest.len()
    );
    let mut table = Table::new(title, load, "instructions", "thousands");
    table.ratios = const {
        &[
            ratio(OURS, HAPROXY, ""),
            ratio(OURS, UNMEASURED, ""),
            ratio(ALL_IN_ONE, REGISTRY, ""),
            compare(REMEMBERED, REGISTRY, Compare::Percentage, "< 1"),
        ]
    };
    if !options.measures(title) {
        return Ok(table);
    }
    say(title);
    let files = Subject::files(DIRECT, content.directory.path()).await?;
    let mut image = Launch::registry().built(&options.bin_dir).start().await?;
    let client = harness::client::Client::new(&image.url(""))?;
    client
        .push_image(crate::pulled::REPOSITORY, "latest", &[1])
        .await?;
    let data = image.data().to_owned();
    image.terminate(TIMEOUT).await?;
    let url = format!("http://{}", files.address());
    for name in [HAPROXY, OURS, UNMEASURED, REGISTRY, ALL_IN_ONE] {
        let start = async |meter: &Meter| {
            let under = meter.prefix()?;
            let launch = match name {
                HAPROXY => return Subject::haproxy_under(name, files.address(), under).await,
                OURS => Launch::in_front_of(&url),
                REGISTRY => Launch::registry().data(&data),
                ALL_IN_ONE => Launch::all_in_one().data(&data),
                _ => Launch::in_front_of(&url).environment("OCTOSERVE_METRICS_ENABLED", "false"),
            };
            Subject::ours(name, launch.under(under), &options.bin_dir).await
        };
        let few = run(&start, FEW).await?;
        let many = run(&start, FEW + MORE).await?;
        let costs = cost::each(&few.0, &many.0, MORE)?;
        let sample = |instructions: f64| Sample {
            value: instructions,
            processor: instructions / 1e3,
            p99: None,
            resident: many.1,
        };
        table.rows.push((name, vec![sample(costs[INSTRUCTIONS])]));
        if name == REGISTRY {
            let part = sample(costs[REMEMBERING]);
            table.rows.push((REMEMBERED, vec![part]));
        }
    }
    Ok(table)
}

async fn run(start: &impl AsyncFn(&Meter) -> Result<Subject>, times: u32) -> Result<(Counts, f64)> {
    let meter = Meter::new(Tool::Callgrind)?;
    let mut subject = start(&meter).await?;
    cost::ask(subject.address(), &Pulled::manifest_path(), MANIFEST, times).await?;
    let resident = subject.resident()?;
    subject.terminate(TIMEOUT).await?;
    Ok((meter.counts().await?, resident))
}
