//! Requests while the proxy is reloaded, and while one process after another takes over from it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval};

use crate::load::Sample;
use crate::pulled::Pulled;
use crate::rounds::{RELOADED, STEADY, TAKEN_OVER};
use crate::table::{Compare, Table, compare, load_average};
use crate::{Options, many, say};

/// How often the proxy is changed.
const EVERY: Duration = Duration::from_secs(1);

/// How long a process that was taken over from may take to end.
const END: Duration = Duration::from_secs(90);

/// A proxy in one process after the other.
struct Changed<'o> {
    options: &'o Options,
    upstream: SocketAddr,
    directory: TempDir,
    server: Server,
    /// The processes that were taken over from, which end by themselves.
    old: Vec<Server>,
    reloads: usize,
}

/// Measures the latency of requests without changes, and with each kind of them.
pub(crate) async fn table(
    options: &Options,
    content: &Pulled,
    upstream: SocketAddr,
) -> Result<Table> {
    let load = format!(
        "{} requests a second over {} connections for {} s: GET of a manifest of {} bytes; where the \
         proxy ends a connection, the next request waits for a new one; a reload adds or takes away a \
         replica; memory is that of the last process",
        many::PACE,
        many::CONNECTIONS,
        options.seconds,
        content.manifest.len()
    );
    let title = "Proxies, latency while the proxy changes";
    let mut table = Table::new(title, load, "ms (median)", "µs/request");
    table.ratios = const {
        &[
            compare(RELOADED, STEADY, Compare::DifferenceAt99, "< 10"),
            compare(TAKEN_OVER, STEADY, Compare::DifferenceAt99, "< 10"),
        ]
    };
    if !options.measures(title) {
        return Ok(table);
    }
    let path = Pulled::manifest_path();
    table.averages.0 = load_average()?;
    let names = [STEADY, RELOADED, TAKEN_OVER];
    table.rows = names.map(|name| (name, Vec::new())).into();
    for round in 0..usize::try_from(options.rounds)? {
        say(&format!(
            "{title}: round {} of {}",
            round + 1,
            options.rounds
        ));
        for turn in 0..names.len() {
            let (name, samples) = &mut table.rows[(round + turn) % names.len()];
            let mut proxy = Changed::start(options, upstream).await?;
            let sample = proxy.measure(name, &path).await;
            samples.push(sample.with_context(|| format!("{title}: {name}"))?);
            proxy.end().await?;
        }
    }
    table.averages.1 = load_average()?;
    Ok(table)
}

impl<'o> Changed<'o> {
    async fn start(options: &'o Options, upstream: SocketAddr) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-bench-")?;
        let launch = launch(options, &configuration(upstream, &directory, 0));
        Ok(Self {
            options,
            upstream,
            server: launch.start().await?,
            directory,
            old: Vec::new(),
            reloads: 0,
        })
    }

    /// The latency of requests while the proxy changes in the way that this row is about.
    async fn measure(&mut self, name: &str, path: &str) -> Result<Sample> {
        let (address, seconds) = (self.server.address(), self.options.seconds);
        let before = self.server.process().processor_time()?;
        let path = path.to_owned();
        let mut asking =
            tokio::spawn(async move { many::latencies(address, &path, seconds).await });
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns.tick().await;
        let latencies = loop {
            tokio::select! {
                latencies = &mut asking => break latencies??,
                _ = turns.tick() => match name {
                    RELOADED => self.reload().await?,
                    TAKEN_OVER => self.take_over().await?,
                    _ => {}
                }
            }
        };
        let mut spent = self.server.process().processor_time()?;
        for old in &mut self.old {
            // What the kernel has of one that has ended is gone.
            spent += old.process().processor_time().unwrap_or_default();
        }
        let at = |share: usize| latencies.get(latencies.len() * share / 100).copied();
        Ok(Sample {
            value: at(50).context("nothing was asked")?,
            processor: spent.saturating_sub(before).as_secs_f64() * 1e6 / latencies.len() as f64,
            p99: at(99),
            resident: self.server.process().memory()?.resident as f64 / 1e6,
        })
    }

    async fn reload(&mut self) -> Result<()> {
        self.reloads += 1;
        let next = configuration(self.upstream, &self.directory, self.reloads);
        self.server.configure(&next)?;
        ensure!(self.server.reload().await?, "the reload was refused");
        Ok(())
    }

    async fn take_over(&mut self) -> Result<()> {
        let launch = launch(
            self.options,
            &configuration(self.upstream, &self.directory, 0),
        );
        let new = launch.argument("--take-over").start().await?;
        self.old.push(std::mem::replace(&mut self.server, new));
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        for old in &mut self.old {
            let status = old.process().exited(END).await?;
            ensure!(status.success(), "{status}: {}", old.process().last_words());
        }
        Ok(())
    }
}

fn launch(options: &Options, configuration: &str) -> Launch {
    Launch::configured(configuration)
        .listens_as_configured()
        .announces_metrics()
        .environment("OCTOSERVE_LOGGING_ACCESS", "false")
        .built(&options.bin_dir)
}

/// With another replica in every other configuration, which takes no requests.
fn configuration(upstream: SocketAddr, directory: &TempDir, change: usize) -> String {
    let other = match change % 2 {
        0 => "",
        _ => ", {url: 'http://127.0.0.1:9', drain: true}",
    };
    format!(
        "listen: 127.0.0.1:0\n\
         metrics: {{listen: '127.0.0.1:0'}}\n\
         control: {{take_over_socket: {}/take-over.sock}}\n\
         upstreams: [{{replicas: ['http://{upstream}'{other}]}}]\n",
        directory.path().display()
    )
}
