//! The flags that set keys of the configuration, for each command that reads it.

use std::path::PathBuf;

use clap::Args;

use super::ctl::ProgramCommands;
use super::tasks::ProgramTasks;
use crate::config::{Flag, Sources};

/// The flags that only one program has.
pub trait ProgramFlags: Args {
    /// The commands of `ctl` that only this program has.
    type Commands: ProgramCommands;
    /// The commands that only this program has.
    type Tasks: ProgramTasks;

    /// The keys that they set.
    fn keys(&self) -> Vec<Flag>;
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs<F: Args> {
    #[arg(
        long,
        value_name = "FILE|DIR",
        help = "A configuration file, YAML, or a directory of *.yaml; may be given several times, and the \
                later override the earlier"
    )]
    config: Vec<PathBuf>,
    // Not as doc comments: clap prints Markdown as it is.
    #[arg(
        long,
        value_name = "ADDR",
        help = "An address to listen on: 127.0.0.1:5000, [::1]:0, unix:/run/octoserve.sock"
    )]
    listen: Vec<String>,
    /// An address for metrics and probes alone
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<String>,
    #[command(flatten)]
    program: F,
}

impl<F: ProgramFlags> ConfigArgs<F> {
    /// Where the configuration comes from.
    pub(super) fn sources(self, env: Vec<(String, String)>) -> Sources {
        let flags = self.flags();
        let files = self.config;
        Sources { files, env, flags }
    }

    fn flags(&self) -> Vec<Flag> {
        let mut flags = self.program.keys();
        if !self.listen.is_empty() {
            flags.push(Flag::new("--listen", "listen", &self.listen));
        }
        if let Some(address) = &self.metrics_listen {
            flags.push(Flag::new("--metrics-listen", "metrics.listen", address));
        }
        flags
    }
}
