//! A new process takes the place of a running one, and no client notices.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::wire::{self, Wire};
use tempfile::TempDir;

/// Clients that go on over a takeover: many, in all protocols, and their own books.
mod load;
/// What is not a takeover: garbage, other versions, other users, processes that die half way.
mod refused;
/// Which sockets are handed over, and what becomes of their files.
mod sockets;
/// Transfers that last over a takeover.
mod transfers;

const DEADLINE: Duration = Duration::from_secs(30);

/// A proxy in front of two registries, in one generation of processes after the other.
struct Generations {
    directory: TempDir,
    certificate: Certificate,
    registries: [Server; 2],
    configuration: String,
}

impl Generations {
    /// None yet. `more` is added to the configuration.
    async fn new(more: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-")?;
        let certificate = Certificate::new()?;
        let registries = [
            Launch::registry().start().await?,
            Launch::registry().start().await?,
        ];
        let path = directory.path().display();
        let tls = format!(
            "{{certificate: {}, key: {}}}",
            certificate.path().display(),
            certificate.key().display()
        );
        // The drain has no time at all: after a takeover it does not count.
        let configuration = format!(
            "listen:\n\
             - 127.0.0.1:0\n\
             - {{address: '127.0.0.1:0', tls: {tls}}}\n\
             - unix:{path}/main.sock\n\
             metrics: {{listen: '127.0.0.1:0', final_file: {path}/last-%p.prom}}\n\
             control: {{socket: {path}/control.sock, take_over_socket: {path}/take-over.sock}}\n\
             limits: {{drain: 0s}}\n\
             upstreams:\n\
             - name: main\n  \
               replicas: ['{}', '{}']\n  \
               balance: round_robin\n\
             {more}",
            registries[0].url(""),
            registries[1].url(""),
        );
        Ok(Self {
            directory,
            certificate,
            registries,
            configuration,
        })
    }

    fn launch(&self) -> Launch {
        Launch::configured(&self.configuration)
            .listens_as_configured()
            .announces_metrics()
    }

    /// The first process.
    async fn first(&self) -> Result<Server> {
        let server = self.launch().start().await?;
        // The replicas' health is known.
        poll::until("it is ready", DEADLINE, async || {
            Ok((ready(server.metrics_address()).await? == 200).then_some(()))
        })
        .await?;
        Ok(server)
    }

    /// The next one, which takes over from the one that runs.
    async fn next(&self, old: &mut Server) -> Result<Server> {
        let new = self.launch().argument("--take-over").start().await?;
        said(old, "another process has taken over").await?;
        said(old, "draining").await?;
        Ok(new)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Waits until a process logs this.
async fn said(server: &mut Server, words: &str) -> Result<()> {
    let process = server.process();
    let found = |line: &str| line.contains(words).then_some(());
    process.announced(OutputStream::Stderr, words, found).await
}

/// The address with TLS: the second one.
fn secure_address(server: &mut Server) -> Result<SocketAddr> {
    let output = server.process().output(OutputStream::Stdout)?;
    let line = output.lines().nth(1).context("one address")?;
    let address = line.strip_prefix("listening on ").context("no address")?;
    Ok(address.parse()?)
}

async fn ready(address: SocketAddr) -> Result<u16> {
    let request = wire::request("GET", "/readyz", &[], b"");
    let response = wire::exchange(address, "GET", &request).await?;
    Ok(response.head.status)
}

/// Asks on a connection that is kept, until the response that ends it. It may take one more than the first
/// after the takeover, whose connections hear of it one after the other.
async fn last_response(wire: &mut Wire, request: &[u8]) -> Result<wire::Response> {
    poll::until("a response ends the connection", DEADLINE, async || {
        wire.send(request).await?;
        let response = wire.response("GET").await?;
        let is_last = response.head.header("connection") == Some("close");
        Ok(is_last.then_some(response))
    })
    .await
}

/// Ends well, by itself.
async fn ended(mut server: Server) -> Result<()> {
    let status = server.process().exited(DEADLINE).await?;
    ensure!(
        status.success(),
        "{status}: {}",
        server.process().last_words()
    );
    Ok(())
}

/// The sum of a counter in the last expositions in a directory.
fn last_sum(directory: &Path, metric: &harness::scrape::Metric) -> Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "prom")
        {
            let text = std::fs::read_to_string(&path)?;
            let scrape = harness::scrape::Scrape::parse(text)?;
            sum += scrape.sum(metric).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// The server still serves, with the sockets that it has.
async fn serves(server: &Server) -> Result<()> {
    Client::new(&server.url(""))?.read("/v2/").await?;
    assert_eq!(ready(server.metrics_address()).await?, 200);
    Ok(())
}
