//! Who takes part in a soak: three replicas of docker-registry, each behind a link, a registry of our own,
//! and octoserve in front of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::books::SharedBooks;
use super::comparison::SummedScrapes;
use super::link::ReplicaLink;
use super::watch::CurrentProcess;
use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::foreign::ForeignRegistry;
use crate::octoserve::{Launch, Server};
use crate::poll;
use crate::process::{OutputStream, Signal};
use crate::scrape::{Scrape, metric};
use crate::tls::{self, SecureClient};

/// How long anything on the stage may take. A soak is about what is answered, not about how soon: on a
/// machine that does much else, probes of a replica may time out for minutes.
const DEADLINE: Duration = Duration::from_mins(5);

/// How many lines about panics are kept of each process.
const MOST_PANICS: usize = 5;

/// A replica of the upstream `main`, and the way to it.
pub(crate) struct Replica {
    pub(crate) link: ReplicaLink,
    pub(crate) registry: ForeignRegistry,
}

/// octoserve, in one process after the other.
pub(crate) struct Generations {
    built: Option<PathBuf>,
    directory: TempDir,
    certificate: Certificate,
    pub(crate) authority: Authority,
    replicas: Vec<String>,
    other: String,
    /// The process that serves.
    server: Server,
    secure: SocketAddr,
    /// Those that it took over from, and that have not ended.
    former: Vec<Server>,
    /// The last expositions of those that have.
    counted: SummedScrapes,
    panics: Vec<String>,
    pub(crate) current: CurrentProcess,
    /// How many configurations were made: each differs from the one before.
    revision: usize,
    books: SharedBooks,
}

/// All of it.
pub(crate) struct Stage {
    // Fields are dropped in this order: the replicas share the directory of the first one.
    pub(crate) proxy: Mutex<Generations>,
    pub(crate) replicas: Vec<Mutex<Replica>>,
    _first: ForeignRegistry,
    _other: Server,
}

impl Stage {
    pub(crate) async fn start(built: Option<PathBuf>, books: SharedBooks) -> Result<Arc<Self>> {
        // It holds the directory that the replicas share, and serves nobody.
        let first = ForeignRegistry::start().await?;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            let registry = first.replica().await?;
            let link = ReplicaLink::to(registry.address()).await?;
            replicas.push(Replica { link, registry });
        }
        let mut other = Launch::registry().configuration("logging: {access: false}\n");
        if let Some(built) = &built {
            other = other.built(built);
        }
        let other = other.start().await?;
        let urls = replicas.iter().map(|replica| replica.link.url());
        let proxy = Generations::start(built, urls.collect(), other.url(""), books).await?;
        Ok(Arc::new(Self {
            proxy: Mutex::new(proxy),
            replicas: replicas.into_iter().map(Mutex::new).collect(),
            _first: first,
            _other: other,
        }))
    }
}

impl Replica {
    /// Where it is, for the report.
    pub(crate) fn name(&self) -> String {
        self.link.url()
    }
}

impl Generations {
    async fn start(
        built: Option<PathBuf>,
        replicas: Vec<String>,
        other: String,
        books: SharedBooks,
    ) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-soak-")?;
        let authority = Authority::new("the authority of a soak")?;
        let certificate = Certificate::new()?;
        certificate.become_signed(&authority.sign(&["localhost"])?)?;
        std::fs::write(directory.path().join("session.key"), "k".repeat(40))?;
        let text = configuration(directory.path(), &certificate, &replicas, &other, 0);
        let mut server = launch(built.as_deref(), &text).start().await?;
        let secure = secure_address(&mut server)?;
        let current = Arc::new(AtomicU32::new(server.process().id()));
        let generations = Self {
            built,
            directory,
            certificate,
            authority,
            replicas,
            other,
            server,
            secure,
            former: Vec::new(),
            counted: SummedScrapes::default(),
            panics: Vec::new(),
            current,
            revision: 0,
            books,
        };
        generations.all_healthy().await?;
        Ok(generations)
    }

    /// The addresses without and with TLS, which each process takes over from the one before.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.server.address(), self.secure)
    }

    pub(crate) fn process(&mut self) -> u32 {
        self.server.process().id()
    }

    /// Waits until the probes of the process that serves find all replicas healthy.
    pub(crate) async fn all_healthy(&self) -> Result<()> {
        poll::until("all replicas are healthy", DEADLINE, async || {
            let scrape = self.server.scrape().await?;
            let healthy = metric("octoserve_upstream_replicas_healthy").label("upstream", "main");
            Ok((scrape.sum(&healthy) >= Some(3.0)).then_some(()))
        })
        .await
    }

    /// Changes the configuration, and has octoserve read it again.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        self.revision += 1;
        self.signal_reload(&self.text(), "ok").await
    }

    /// Has octoserve read a file that it must refuse.
    pub(crate) async fn reload_nonsense(&mut self) -> Result<()> {
        let text = self.text();
        self.revision += 1;
        let bad = match self.revision % 3 {
            // Half written: it ends in the middle of the upstreams.
            0 => text[..text.len() / 2].to_owned() + " [",
            1 => format!("{text}unknown_key: 1\n"),
            _ => text.replace("idle_timeout: ", "idle_timeout: 9999"),
        };
        self.signal_reload(&bad, "refused").await?;
        self.write(&text)
    }

    async fn signal_reload(&mut self, text: &str, result: &str) -> Result<()> {
        self.write(text)?;
        let reloads = metric("octoserve_config_reloads_total").label("result", result);
        let before = self.server.scrape().await?.sum(&reloads);
        self.server.process().signal(Signal::HUP)?;
        let server = &self.server;
        let done = poll::until("the reload is done", DEADLINE, async || {
            Ok((server.scrape().await?.sum(&reloads) > before).then_some(()))
        });
        done.await
            .with_context(|| format!("{result}: {}\n{text}", self.server.process().last_words()))?;
        self.books
            .count("config_reloads_total", &[("result", result)]);
        Ok(())
    }

    fn write(&self, text: &str) -> Result<()> {
        let path = self.server.working_directory().join("octoserve.yaml");
        Ok(std::fs::write(path, text)?)
    }

    /// Renews the certificate, and waits until clients get the new one.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        let client = SecureClient::trusting_file(&self.authority.path())?;
        let signed = self.authority.sign(&["localhost"])?;
        self.certificate.become_signed(&signed)?;
        let new = tls::read(&signed.certificate)?;
        poll::until("the new certificate is shown", DEADLINE, async || {
            let stream = client.connect(self.secure).await?;
            self.books.count("connections_total", &[]);
            Ok((tls::shown(&stream)? == new).then_some(()))
        })
        .await
    }

    /// Starts a process that takes over.
    pub(crate) async fn take_over(&mut self) -> Result<()> {
        self.revision += 1;
        let (plain, secure) = self.addresses();
        let next = launch(self.built.as_deref(), &self.text());
        let mut next = next.argument("--take-over").start().await?;
        ensure!(next.address() == plain && secure_address(&mut next)? == secure);
        self.current.store(next.process().id(), Ordering::Relaxed);
        let former = std::mem::replace(&mut self.server, next);
        self.former.push(former);
        self.collect_ended()
    }

    /// Adds the last expositions of the processes that have ended meanwhile.
    fn collect_ended(&mut self) -> Result<()> {
        for mut former in std::mem::take(&mut self.former) {
            if former.process().is_running()? {
                self.former.push(former);
            } else {
                self.collect(&mut former)?;
            }
        }
        Ok(())
    }

    /// What the processes that have ended said of panics.
    pub(crate) fn panics(&self) -> Vec<String> {
        self.panics.clone()
    }

    fn note_panics(panics: &mut Vec<String>, server: &mut Server) -> Result<()> {
        let log = server.process().output(OutputStream::Stderr)?;
        let found = log.lines().filter(|line| line.contains("panic"));
        panics.extend(found.map(ToOwned::to_owned).take(MOST_PANICS));
        Ok(())
    }

    fn collect(&mut self, former: &mut Server) -> Result<()> {
        Self::note_panics(&mut self.panics, former)?;
        let name = format!("last-{}.prom", former.process().id());
        let path = self.directory.path().join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no last exposition: {}", former.process().last_words()))?;
        self.counted.add(&Scrape::parse(text)?);
        Ok(std::fs::remove_file(path)?)
    }

    /// Waits for the former processes, ends the last one, and returns all that was counted.
    pub(crate) async fn finish(&mut self) -> Result<SummedScrapes> {
        let in_flight = metric("octoserve_http_requests_in_flight");
        in_flight.value(0).assert_in(&self.server).await?;
        for mut former in std::mem::take(&mut self.former) {
            let status = former.process().exited(DEADLINE).await?;
            ensure!(status.success(), "{}", former.process().last_words());
            self.collect(&mut former)?;
        }
        let status = self.server.terminate(DEADLINE).await?;
        ensure!(status.success(), "{}", self.server.process().last_words());
        Self::note_panics(&mut self.panics, &mut self.server)?;
        let name = format!("last-{}.prom", self.server.process().id());
        let text = std::fs::read_to_string(self.directory.path().join(name))?;
        self.counted.add(&Scrape::parse(text)?);
        Ok(self.counted.clone())
    }

    fn text(&self) -> String {
        configuration(
            self.directory.path(),
            &self.certificate,
            &self.replicas,
            &self.other,
            self.revision,
        )
    }
}

fn launch(built: Option<&Path>, text: &str) -> Launch {
    let launch = Launch::configured(text)
        .listens_as_configured()
        .announces_metrics();
    match built {
        Some(built) => launch.built(built),
        None => launch,
    }
}

/// The configuration, whose order, limits and rules change with each revision.
fn configuration(
    directory: &Path,
    certificate: &Certificate,
    replicas: &[String],
    other: &str,
    revision: usize,
) -> String {
    let path = directory.display();
    let mut replicas: Vec<_> = replicas.iter().map(|url| format!("'{url}'")).collect();
    let first = revision % replicas.len();
    replicas.rotate_left(first);
    let balance = ["round_robin", "least_connections"][revision % 2];
    let rules = ["[]", "[{match: '^team/tool/.*', name: 'tools'}]"][revision / 2 % 2];
    format!(
        "listen:\n\
         - 127.0.0.1:0\n\
         - {{address: '127.0.0.1:0', tls: {tls}}}\n\
         metrics:\n  listen: '127.0.0.1:0'\n  final_file: {path}/last-%p.prom\n  \
           repositories: {{limit: 5000, group: {rules}}}\n\
         control: {{take_over_socket: {path}/take-over.sock}}\n\
         logging: {{access: true, sample: 0.01}}\n\
         limits: {{idle_timeout: {idle}s, body_stall: {stall}s}}\n\
         upstreams:\n\
         - name: other\n  \
           replicas: ['{other}']\n  \
           match: {{prefixes: [other]}}\n\
         - name: main\n  \
           replicas: [{replicas}]\n  \
           balance: {balance}\n  \
           session_key_file: {path}/session.key\n  \
           health: {{interval: 1s, timeout: 1s, rise: 1, fall: 1}}\n",
        tls = certificate.keys(),
        idle = 60 + revision % 30,
        stall = 20 + revision % 20,
        replicas = replicas.join(", "),
    )
}

/// The address with TLS: the second one.
fn secure_address(server: &mut Server) -> Result<SocketAddr> {
    let output = server.process().output(OutputStream::Stdout)?;
    let line = output.lines().nth(1).context("one address")?;
    let address = line.strip_prefix("listening on ").context("no address")?;
    Ok(address.parse()?)
}
