//! The command line of `octoserve`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use service::cli::{NoTasks, ProgramCommands, ProgramFlags};
use service::config::Flag;
use service::control::ControlCommand;
use service::doctor::Examination;
use service::listen::Inheritance;
use service::program::Program;

use crate::config::ProxyConfig;
use crate::doctor;
use crate::server::{self, BoundProxy, ProxyStartError};

/// The proxy, with the embedded registry if no upstream is configured.
#[derive(Debug)]
pub struct Octoserve;

impl Program for Octoserve {
    const NAME: &'static str = "octoserve";
    const ABOUT: &'static str = "See what your container registry is doing: a metrics proxy in front of any OCI registry. \
         Without an upstream the registry runs in the same process, with its data in ./data.";

    type Flags = ProxyFlags;
    type Config = ProxyConfig;
    type Server = BoundProxy;
    type Error = ProxyStartError;

    async fn bind(
        config: ProxyConfig,
        inheritance: &Inheritance,
    ) -> Result<BoundProxy, ProxyStartError> {
        server::bind(config, inheritance).await
    }

    fn examinations(config: &ProxyConfig) -> Vec<Examination> {
        doctor::examinations(config)
    }
}

/// The flags of this program alone.
#[derive(Debug, Args)]
pub struct ProxyFlags {
    // Not a doc comment: rustdoc would take the pattern for a link.
    #[arg(
        long,
        value_name = "URL",
        help = "The registry to proxy: http[s]://HOST[:PORT][/PATH] or unix:/PATH"
    )]
    upstream: Vec<String>,
    /// The data directory of the embedded registry
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    data: Option<PathBuf>,
    /// Serve clients over TLS with a certificate that is made for a try, in ./octoserve-tls
    #[arg(long)]
    tls_self_signed: bool,
}

/// The commands of `ctl` that only this program has.
#[derive(Debug, Subcommand)]
pub enum ProxyCommands {
    /// Send an upstream, or one of its replicas, no new requests, or send it some again
    Upstream {
        /// The upstream, and after a slash the replica
        #[arg(value_name = "NAME[/REPLICA]")]
        target: String,
        /// What it is to do
        state: WantedState,
    },
}

/// What an upstream is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WantedState {
    /// Get no new requests; those in flight end
    Drain,
    /// Get requests again
    Ready,
}

impl From<ProxyCommands> for ControlCommand {
    fn from(command: ProxyCommands) -> ControlCommand {
        let ProxyCommands::Upstream { target, state } = command;
        // The replica is an address or a URL, which may hold slashes of its own.
        let (upstream, replica) = match target.split_once('/') {
            Some((upstream, replica)) => (upstream.to_owned(), Some(replica.to_owned())),
            None => (target, None),
        };
        ControlCommand::Upstream {
            upstream,
            replica,
            draining: state == WantedState::Drain,
        }
    }
}

impl ProgramCommands for ProxyCommands {}

impl ProgramFlags for ProxyFlags {
    type Commands = ProxyCommands;
    type Tasks = NoTasks;

    fn keys(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if !self.upstream.is_empty() {
            let upstreams = self.upstream.iter();
            let upstreams: Vec<_> = upstreams
                // One upstream for each flag: a second one is refused, as in the file.
                .map(|url| BTreeMap::from([("replicas", vec![url])]))
                .collect();
            flags.push(Flag::new("--upstream", "upstreams", upstreams));
        }
        if let Some(data) = &self.data {
            flags.push(Flag::new("--data", "registry.data", data));
        }
        if self.tls_self_signed {
            flags.push(Flag::new("--tls-self-signed", "tls_self_signed", true));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use service::cli::{self, Action};

    use super::*;

    fn probed(words: &str, env: &[(&str, &str)]) -> String {
        let words = std::iter::once("octoserve").chain(words.split_whitespace());
        let env = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        let name = (Octoserve::NAME, Octoserve::ABOUT);
        let words = words.map(OsString::from);
        match cli::read::<ProxyFlags, ProxyConfig>(name, words, env.collect()) {
            Ok(Action::Probe(probe)) => probe.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn health_probes_where_the_configuration_listens() {
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
            assert_eq!(probed(words, variables), url, "{words} {variables:?}");
        }
    }
}
