//! The command line: what to do, and the configuration that flags, environment and file give.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use service::config::{self, ConfigError, Flag, Sources};
use service::health::Probe;

use crate::config::{Config, Fields};

/// See what your container registry is doing: a metrics proxy in front of any OCI registry.
///
/// Without an upstream the registry runs in the same process, with its data in ./data.
#[derive(Debug, Parser)]
#[command(name = "octoserve", version = service::build_info::LONG_VERSION)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(Serve),
    /// Tell by the exit code whether a running octoserve is ready.
    Health(Health),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, Default, Args)]
struct Serve {
    /// The configuration file, YAML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address to listen on, such as `127.0.0.1:5000`, `[::1]:0` or `unix:/run/octoserve.sock`
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The registry to stand in front of: `http://HOST[:PORT]` or `unix:/PATH`
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// The folder of the embedded registry.
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    data: Option<String>,
    /// An address for metrics and probes alone.
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// Check the configuration, and start nothing.
    #[arg(long)]
    check: bool,
    /// Print the effective configuration, secrets masked, and start nothing.
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
struct Health {
    /// What to ask; by default `/readyz` of the configured listener, that for metrics first
    #[arg(long)]
    url: Option<Probe>,
    /// The running program's configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Serve.
    Serve(Box<Config>),
    /// Ask a running octoserve whether it is ready.
    Ask(Probe),
    /// Print this, and be done.
    Print(String),
}

impl Cli {
    /// Reads the environment and the file; nothing has been started when this fails.
    pub fn resolve(self) -> Result<Action, ConfigError> {
        let serve = match self.command {
            None => self.serve,
            Some(Command::Serve(serve)) => serve,
            Some(Command::Health(health)) => return health.resolve(config::environment()),
            Some(Command::Completions { shell }) => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "octoserve", &mut text);
                return Ok(Action::Print(String::from_utf8_lossy(&text).into_owned()));
            }
        };
        serve.resolve(config::environment())
    }
}

impl Health {
    fn resolve(self, environment: Vec<(String, String)>) -> Result<Action, ConfigError> {
        if let Some(probe) = self.url {
            return Ok(Action::Ask(probe));
        }
        let loaded = config::load_with_origins::<Fields>(Sources {
            flags: Vec::new(),
            file: self.config,
            env: environment,
        })?;
        let config = Config::resolve(loaded.fields, &loaded.origins)?;
        Ok(Action::Ask(config.probe()))
    }
}

impl Serve {
    fn resolve(self, environment: Vec<(String, String)>) -> Result<Action, ConfigError> {
        let loaded = config::load_with_origins::<Fields>(Sources {
            flags: self.flags(),
            file: self.config,
            env: environment,
        })?;
        let text = loaded.fields.print();
        let resolved = Config::resolve(loaded.fields, &loaded.origins)?;
        Ok(match (self.print_config, self.check) {
            (true, _) => Action::Print(text),
            (false, true) => Action::Print(String::new()),
            (false, false) => Action::Serve(Box::new(resolved)),
        })
    }

    fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if !self.listen.is_empty() {
            let listen: Vec<_> = self
                .listen
                .iter()
                .map(|address| BTreeMap::from([("address", address)]))
                .collect();
            flags.push(Flag::new("--listen", "listen", listen));
        }
        if !self.upstream.is_empty() {
            let upstreams: Vec<_> = self
                .upstream
                .iter()
                .map(|url| BTreeMap::from([("replicas", vec![url])]))
                .collect();
            flags.push(Flag::new("--upstream", "upstreams", upstreams));
        }
        if let Some(data) = &self.data {
            flags.push(Flag::new("--data", "registry.data", data));
        }
        if let Some(address) = &self.metrics_listen {
            flags.push(Flag::new("--metrics-listen", "metrics.listen", address));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str, variables: &[(&str, &str)]) -> String {
        let words = ["octoserve"].into_iter().chain(words.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let Some(Command::Health(health)) = cli.command else {
            panic!("no health command");
        };
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        match health.resolve(variables.collect()).unwrap() {
            Action::Ask(probe) => probe.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn health_asks_where_the_configuration_listens() {
        let metrics = ("OCTOSERVE_METRICS_LISTEN", "127.0.0.1:6");
        let off = ("OCTOSERVE_METRICS_ENABLED", "false");
        let everywhere = ("OCTOSERVE_LISTEN", "0.0.0.0:5");
        for (words, variables, url) in [
            ("health", &[][..], "http://127.0.0.1:5000/readyz"),
            ("health", &[everywhere], "http://127.0.0.1:5/readyz"),
            (
                "health",
                &[everywhere, metrics],
                "http://127.0.0.1:6/readyz",
            ),
            (
                "health",
                &[everywhere, metrics, off],
                "http://127.0.0.1:5/readyz",
            ),
            (
                "health --url http://a:1/livez",
                &[metrics],
                "http://a:1/livez",
            ),
        ] {
            assert_eq!(asked(words, variables), url, "{words} {variables:?}");
        }
    }
}
