//! The commands that only this program has: maintenance.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use service::cli::ProgramTasks;
use service::config::{ConfigError, Flag, Sources};
use service::program_config::Configuration as _;

use super::maintain::MaintainTask;
use crate::config::RegistryConfig;
use crate::maintenance::{JobKind, JobOptions};

/// The commands that only this program has.
#[derive(Debug, Subcommand)]
pub enum RegistryTasks {
    /// Remove what no manifest needs, beside the running registry or in its place
    Gc {
        /// Where to work
        #[command(flatten)]
        target: TargetArgs,
        /// Remove nothing, and print what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare all content with its digests, beside the running registry or in its place
    Scrub {
        /// Where to work
        #[command(flatten)]
        target: TargetArgs,
        /// Move what is corrupt to the quarantine, so that a push can store it again
        #[arg(long)]
        repair: bool,
        /// Move nothing, even with --repair
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete the tags and manifests that no rule keeps, beside the running registry or in its place
    Retention {
        /// Where to work
        #[command(flatten)]
        target: TargetArgs,
        /// Delete nothing, and print what would go; the default as long as `retention.dry_run` is true
        #[arg(
            long,
            help = "Delete nothing, and print what would go; the default as long as retention.dry_run is true"
        )]
        dry_run: bool,
    },
}

/// On which registry to work.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The registry's configuration, as it got it
    #[arg(long, value_name = "FILE|DIR")]
    config: Vec<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    data: Option<PathBuf>,
    #[arg(
        long,
        value_name = "PATH",
        help = "The control socket of the running registry; by default control.socket of the configuration, \
                if the data directory is in use"
    )]
    socket: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl ProgramTasks for RegistryTasks {
    type Task = MaintainTask;

    fn prepare(self, env: Vec<(String, String)>) -> Result<MaintainTask, ConfigError> {
        let (kind, target, repair, dry_run) = match self {
            Self::Gc { target, dry_run } => (JobKind::Gc, target, false, dry_run),
            Self::Scrub {
                target,
                repair,
                dry_run,
            } => (JobKind::Scrub, target, repair, dry_run),
            Self::Retention { target, dry_run } => (JobKind::Retention, target, false, dry_run),
        };
        let data = target.data.iter();
        let sources = Sources {
            files: target.config,
            env,
            flags: data.map(|data| Flag::new("--data", "data", data)).collect(),
        };
        let has_config = !sources.files.is_empty();
        let (config, _) = RegistryConfig::load(sources).map_err(of_the_other_program)?;
        Ok(MaintainTask {
            kind,
            options: JobOptions { dry_run, repair },
            config: Box::new(config),
            has_config,
            socket: target.socket,
            json: target.json,
        })
    }
}

/// Says how to reach the registry of an all-in-one, if the file is its configuration.
fn of_the_other_program(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Invalid {
            place,
            key,
            mut message,
        } if key == "registry" => {
            message.push_str(
                ". Is it the configuration of octoserve? Then give its control.socket as --socket, or its \
                 registry.data as --data",
            );
            ConfigError::Invalid {
                place,
                key,
                message,
            }
        }
        error => error,
    }
}
