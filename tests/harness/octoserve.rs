//! Our two programs as their users run them: built, started on free ports, killed, and restarted on
//! the same directory.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::poll;
use crate::process::{OutputStream, Process, Signal};
use crate::scrape::{Scrape, metric};
use crate::wire;

/// The name of the configuration file.
const CONFIGURATION: &str = "octoserve.yaml";

/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(30);

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `octoserve`: the proxy, with the embedded registry unless an upstream is configured.
    Octoserve,
    /// `octoserve-registry`: the registry alone.
    Registry,
}

/// The command line, environment and configuration of a program to start.
pub struct Launch {
    program: Program,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    built: Option<PathBuf>,
    under: Vec<OsString>,
    configuration: Option<String>,
    /// `None` where the configuration says it.
    listen: Option<SocketAddr>,
    metrics_listener: MetricsListener,
    remote: bool,
}

/// What configures the metrics listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricsListener {
    None,
    Flag,
    Configuration,
}

/// A running program of ours. Dropping it kills it.
pub struct Server {
    // Fields are dropped in this order: the process must end before its directory is removed.
    process: Process,
    address: SocketAddr,
    metrics: SocketAddr,
    data: PathBuf,
    directory: TempDir,
}

impl Launch {
    /// The proxy and the registry in one process.
    pub fn all_in_one() -> Self {
        Self::new(Program::Octoserve, MetricsListener::None, false)
    }

    /// The proxy in front of the registry at `url`.
    pub fn in_front_of(url: &str) -> Self {
        Self::new(Program::Octoserve, MetricsListener::None, true)
            .argument("--upstream")
            .argument(url)
    }

    /// The proxy with the upstreams of `configuration`, the text of a YAML file.
    pub fn configured(configuration: &str) -> Self {
        Self::new(Program::Octoserve, MetricsListener::None, true).configuration(configuration)
    }

    /// Adds a configuration file with this text.
    pub fn configuration(mut self, configuration: &str) -> Self {
        self.configuration = Some(configuration.to_owned());
        self
    }

    /// The registry alone.
    pub fn registry() -> Self {
        Self::new(Program::Registry, MetricsListener::Flag, false)
    }

    /// Adds one command line argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds one environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the registry's content in `directory`, which outlives the server, instead of in a
    /// temporary one.
    pub fn data(mut self, directory: &Path) -> Self {
        self.data = Some(directory.to_owned());
        self
    }

    /// Starts the program in `directory`, without building it first.
    pub fn built(mut self, directory: &Path) -> Self {
        self.built = Some(directory.to_owned());
        self
    }

    /// Runs it through another program, whose command line begins with `words`.
    pub fn under(mut self, words: Vec<OsString>) -> Self {
        self.under = words;
        self
    }

    /// Listens for clients at this address instead of on a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Listens where the configuration says, at a free port of 127.0.0.1.
    pub fn listens_as_configured(mut self) -> Self {
        self.listen = None;
        self
    }

    /// Listens with this certificate at a free port of 127.0.0.1, and serves the metrics without TLS
    /// elsewhere. `more` is the rest of the configuration.
    pub fn secured(self, tls: &str, more: &str) -> Self {
        let listen = format!("listen: [{{address: '127.0.0.1:0', tls: {tls}}}]\n{more}");
        self.configuration(&listen)
            .listens_as_configured()
            .metrics_listener()
    }

    /// Adds a metrics listener on the command line.
    pub fn metrics_listener(mut self) -> Self {
        self.metrics_listener = MetricsListener::Flag;
        self
    }

    /// Expects a metrics listener from the configuration.
    pub fn announces_metrics(mut self) -> Self {
        self.metrics_listener = MetricsListener::Configuration;
        self
    }

    /// Disables metrics, and thereby the metrics endpoint and its listener.
    pub fn without_metrics(mut self) -> Self {
        self.metrics_listener = MetricsListener::None;
        self.environment("OCTOSERVE_METRICS_ENABLED", "false")
    }

    /// Starts it and waits until it has printed its addresses.
    ///
    /// # Errors
    /// If it cannot be built or started, or prints something else; with its output.
    pub async fn start(self) -> Result<Server> {
        let directory = TempDir::with_prefix("octoserve-")?;
        let data = self.data.unwrap_or_else(|| directory.path().join("data"));
        let program = match self.built {
            Some(directory) => directory.canonicalize()?.join(self.program.name()),
            None => self.program.path()?,
        };
        let mut words = self.under;
        words.push(program.into());
        let mut command = Command::new(words.remove(0));
        command.args(words);
        if let Some(listen) = self.listen {
            command.args(["--listen", &listen.to_string()]);
        }
        if !self.remote {
            command.arg("--data").arg(&data);
        }
        if self.metrics_listener == MetricsListener::Flag {
            command.args(["--metrics-listen", "127.0.0.1:0"]);
        }
        if let Some(text) = self.configuration {
            let path = directory.path().join(CONFIGURATION);
            std::fs::write(&path, text)?;
            command.arg("--config").arg(path);
        }
        // Only the test configures the program, not the environment of the user who runs the tests.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OCTOSERVE_") {
                command.env_remove(name);
            }
        }
        command
            .args(self.arguments)
            // Its sockets go here, because a killed program leaves them behind.
            .env("TMPDIR", directory.path())
            .envs(self.environment)
            .current_dir(directory.path());
        let mut process = Process::start(self.program.name(), command, directory.path())?;
        let address = announced(&mut process, "listening on ").await?;
        let metrics = match self.metrics_listener {
            MetricsListener::None => address,
            _ => announced(&mut process, "metrics on ").await?,
        };
        Ok(Server {
            process,
            address,
            metrics,
            data,
            directory,
        })
    }

    fn new(program: Program, metrics_listener: MetricsListener, remote: bool) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            data: None,
            built: None,
            under: Vec::new(),
            configuration: None,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            metrics_listener,
            remote,
        }
    }
}

impl Server {
    /// The address that clients use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address in image references and Prometheus targets: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A URL on the main listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `localhost` and its port: the name that certificates are made for.
    pub fn secure_host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// The directory that it runs in.
    pub fn working_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The address that serves `/metrics`.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The registry's directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The child process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Reads `/metrics` as text 0.0.4.
    ///
    /// # Errors
    /// If there is no exposition, or a line of it does not parse.
    pub async fn scrape(&self) -> Result<Scrape> {
        let request = wire::request("GET", "/metrics", &[], b"");
        let response = wire::exchange(self.metrics, "GET", &request).await?;
        ensure!(
            response.head.status == 200,
            "/metrics responds {}",
            response.head.status
        );
        Scrape::parse(String::from_utf8(response.body)?)
    }

    /// Writes another configuration, which is not read before a reload.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.configuration_file(), text)?)
    }

    /// The configuration file, if it was started with one.
    pub fn configuration_file(&self) -> PathBuf {
        self.directory.path().join(CONFIGURATION)
    }

    /// Sends SIGHUP, and waits until the reload has ended. Whether the configuration was applied.
    ///
    /// # Errors
    /// If there is no exposition that tells, before or after.
    pub async fn reload(&self) -> Result<bool> {
        let reloads = |scrape: &Scrape, result| {
            let total = metric("octoserve_config_reloads_total").label("result", result);
            scrape.sum(&total).context("no count of reloads")
        };
        let before = self.scrape().await?;
        let before = (reloads(&before, "ok")?, reloads(&before, "refused")?);
        self.process.signal(Signal::HUP)?;
        poll::until("the configuration is reloaded", RELOAD, async || {
            let now = self.scrape().await?;
            let ok = reloads(&now, "ok")? > before.0;
            let refused = reloads(&now, "refused")? > before.1;
            Ok((ok || refused).then_some(ok))
        })
        .await
    }

    /// Sends SIGTERM, as a service manager does, and waits for its exit.
    ///
    /// # Errors
    /// If it has not exited within `deadline`.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.exited(deadline).await
    }
}

impl Program {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Octoserve => "octoserve",
            Self::Registry => "octoserve-registry",
        }
    }

    /// The program's path: in the directory of `HARNESS_PROGRAMS`, or else where the tests were
    /// built, after building it if its sources are newer.
    ///
    /// # Errors
    /// If it does not build.
    pub fn path(self) -> Result<PathBuf> {
        static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let directory = DIRECTORY.get_or_init(|| match std::env::var_os("HARNESS_PROGRAMS") {
            Some(directory) => Ok(directory.into()),
            None => build().map_err(|error| format!("{error:#}")),
        });
        match directory {
            Ok(directory) => Ok(directory.join(self.name())),
            Err(error) => bail!("{error}"),
        }
    }
}

/// Builds the programs next to this test and returns that directory. In `make test` they are up to
/// date already; a suite run by hand would otherwise test an old program.
fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // …/target/debug/deps/suites-0123456789abcdef
    let directory = test
        .parent()
        .and_then(Path::parent)
        .context("a test outside a target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The variables that cargo sets for a test would rebuild some dependencies: ring depends on
    // CARGO_MANIFEST_DIR.
    for (name, _) in std::env::vars_os() {
        let variable = name.to_string_lossy();
        if variable.starts_with("CARGO_MANIFEST_") || variable.starts_with("CARGO_PKG_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .args(["build", "--quiet", "--workspace", "--bins", "--tests"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .context("cargo build")?;
    ensure!(
        output.status.success(),
        "cargo build\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(directory.to_owned())
}

async fn announced(process: &mut Process, words: &str) -> Result<SocketAddr> {
    let parse = |line: &str| line.strip_prefix(words)?.trim().parse().ok();
    process
        .announced(OutputStream::Stdout, words.trim(), parse)
        .await
}
