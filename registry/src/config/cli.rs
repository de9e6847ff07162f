//! The command line of `octoserve-registry`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::service::config::{Flag, Sources, environment};
use crate::service::health::Probe;
use crate::service::listen::ListenAddr;

/// A complete OCI registry on plain files.
#[derive(Debug, Parser)]
#[command(
    name = "octoserve-registry",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the default)
    Serve(ServeArgs),
    /// Tell by the exit code whether a running registry is ready
    Health(HealthArgs),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A YAML file with the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to serve clients: an address and port, or `unix:` and a path
    #[arg(long, value_name = "ADDR")]
    listen: Vec<ListenAddr>,
    /// The folder that holds everything
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to serve metrics and probes
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<ListenAddr>,
    /// Check the configuration, and do nothing else
    #[arg(long)]
    pub check: bool,
    /// Print the whole effective configuration, and do nothing else
    #[arg(long)]
    pub print_config: bool,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The probe; by default /readyz of the metrics listener
    #[arg(long)]
    pub url: Option<Probe>,
    /// The running registry's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cli {
    /// What to do: without a command, serve.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

impl ServeArgs {
    /// The layers of the configuration.
    pub fn sources(&self) -> Sources {
        let mut flags = Vec::new();
        if !self.listen.is_empty() {
            flags.push(Flag::new("--listen", "listen", &self.listen));
        }
        if let Some(data) = &self.data {
            flags.push(Flag::new("--data", "data", data));
        }
        if let Some(listen) = &self.metrics_listen {
            flags.push(Flag::new("--metrics-listen", "metrics.listen", listen));
        }
        Sources {
            file: self.config.clone(),
            env: environment(),
            flags,
        }
    }
}

impl HealthArgs {
    /// The layers of the configuration that tells where the registry is.
    pub fn sources(&self) -> Sources {
        Sources {
            file: self.config.clone(),
            env: environment(),
            flags: Vec::new(),
        }
    }
}
