//! Our two programs, as whoever installs them runs them: built, started on free ports, killed,
//! started again on the same directory.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{OutputStream, Process, Signal};
use crate::scrape::Scrape;
use crate::wire;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `octoserve`: the proxy, with the registry in it where no upstream is named.
    Octoserve,
    /// `octoserve-registry`: the registry alone.
    Registry,
}

/// How a program is to be started.
pub struct Launch {
    program: Program,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    built: Option<PathBuf>,
    under: Vec<OsString>,
    configuration: Option<String>,
    listen: SocketAddr,
    metrics_listener: MetricsListener,
    remote: bool,
}

/// Who says that the metrics have a listener of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricsListener {
    None,
    Flag,
    Configuration,
}

/// A running program of ours. Dropping it kills it.
pub struct Server {
    // In this order: the process goes before the directory it writes into.
    process: Process,
    address: SocketAddr,
    metrics: SocketAddr,
    data: PathBuf,
    _directory: TempDir,
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

    /// The proxy with the upstreams that `configuration`, a YAML file's text, names.
    pub fn configured(configuration: &str) -> Self {
        Self::new(Program::Octoserve, MetricsListener::None, true).configuration(configuration)
    }

    /// Reads this YAML file's text, too.
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

    /// Keeps the registry's content in `directory`, which outlives the server, instead of in one that
    /// goes with it.
    pub fn data(mut self, directory: &Path) -> Self {
        self.data = Some(directory.to_owned());
        self
    }

    /// Starts the program that was built in `directory`, as it is there, instead of one that is built
    /// first if need be.
    pub fn built(mut self, directory: &Path) -> Self {
        self.built = Some(directory.to_owned());
        self
    }

    /// Has another program run it, whose command line begins with `words`.
    pub fn under(mut self, words: Vec<OsString>) -> Self {
        self.under = words;
        self
    }

    /// Serves clients at an address that it had before, instead of on a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Serves the metrics on a listener of their own.
    pub fn metrics_listener(mut self) -> Self {
        self.metrics_listener = MetricsListener::Flag;
        self
    }

    /// The configuration gives the metrics a listener of their own.
    pub fn announces_metrics(mut self) -> Self {
        self.metrics_listener = MetricsListener::Configuration;
        self
    }

    /// Lets it record nothing, and so have no exposition and no listener for one.
    pub fn without_metrics(mut self) -> Self {
        self.metrics_listener = MetricsListener::None;
        self.environment("OCTOSERVE_METRICS_ENABLED", "false")
    }

    /// Starts it and waits until it has announced its addresses.
    ///
    /// # Errors
    /// If it cannot be built or started, or says something else; with what it said.
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
        command.args(["--listen", &self.listen.to_string()]);
        if !self.remote {
            command.arg("--data").arg(&data);
        }
        if self.metrics_listener == MetricsListener::Flag {
            command.args(["--metrics-listen", "127.0.0.1:0"]);
        }
        if let Some(text) = self.configuration {
            let path = directory.path().join("octoserve.yaml");
            std::fs::write(&path, text)?;
            command.arg("--config").arg(path);
        }
        // Configured by the test alone, not by whoever runs it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OCTOSERVE_") {
                command.env_remove(name);
            }
        }
        command
            .args(self.arguments)
            // Where it keeps its sockets: who is killed does not tidy up.
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
            _directory: directory,
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
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
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

    /// The address as image references and Prometheus want it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A URL on the main listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
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
    /// If there is no such exposition, or it does not parse as a whole.
    pub async fn scrape(&self) -> Result<Scrape> {
        let request = wire::request("GET", "/metrics", &[], b"");
        let response = wire::exchange(self.metrics, "GET", &request).await?;
        ensure!(
            response.head.status == 200,
            "/metrics answers {}",
            response.head.status
        );
        Scrape::parse(String::from_utf8(response.body)?)
    }

    /// Asks it to end, as a service manager does, and waits for it.
    ///
    /// # Errors
    /// If it has not ended within `deadline`.
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

    /// Where the program is: in the directory that `HARNESS_PROGRAMS` names, or else built where the
    /// tests were built, if the sources are newer.
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

/// Lets cargo build the programs where it built this test, and returns that directory. It has nothing
/// to do in `make test`, and saves whoever runs one suite by hand from testing yesterday's program.
fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // …/target/debug/deps/suites-0123456789abcdef
    let directory = test
        .parent()
        .and_then(Path::parent)
        .context("a test outside a target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test of its package would make some dependencies build again: ring asks for
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
