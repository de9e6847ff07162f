//! The command `ctl`: what to ask a running program for, and over which socket.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};

use super::super::config::{self, ConfigError, Sources, load};
use super::super::control::{ControlCall, ControlCommand, ControlFields};
use super::super::log::Level;

/// The variables of the section `control`.
const VARIABLES: &str = "OCTOSERVE_CONTROL_";

/// How long a log level stays by default.
const LEVEL_FOR: &str = "10m";

/// The commands of `ctl` that only one program has.
pub trait ProgramCommands: Subcommand + Into<ControlCommand> + Debug {}

#[derive(Debug, Args)]
pub(super) struct CtlArgs<U: Subcommand> {
    /// The running program's configuration, as it got it
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "socket")]
    config: Vec<PathBuf>,
    /// The control socket; by default control.socket of the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: CtlCommand<U>,
}

#[derive(Debug, Subcommand)]
enum CtlCommand<U: Subcommand> {
    /// Print what the program is doing
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read the configuration again
    Reload,
    /// End after the requests in flight, as on SIGTERM
    Drain,
    /// Set the level of the log for a time
    LogLevel {
        /// off, error, warn, info, debug or trace
        #[arg(value_parser = level)]
        level: Level,
        /// For how long, from 1s to 24h
        #[arg(long = "for", value_name = "TIME", default_value = LEVEL_FOR, value_parser = time)]
        time: Duration,
    },
    #[command(flatten)]
    Program(U),
}

/// What of a configuration tells where the socket is. All else is left to the running program: it may be
/// half written, or ask for files that this user cannot read.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct ControlKeys {
    control: ControlFields,
}

/// There is no socket to ask over.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no control socket is configured: set control.socket, or pass --socket")]
pub struct NoSocket;

/// Why a socket is not known.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It is not configured.
    #[error(transparent)]
    None(#[from] NoSocket),
    /// The configuration cannot be read.
    #[error("cannot find the control socket: {0}; pass --socket")]
    Config(#[from] ConfigError),
}

impl<U: ProgramCommands> CtlArgs<U> {
    pub(super) fn call(self, env: Vec<(String, String)>) -> Result<ControlCall, SocketError> {
        let json = matches!(self.command, CtlCommand::Status { json: true });
        Ok(ControlCall {
            socket: socket(self.socket, self.config, env)?,
            command: self.command.into(),
            json,
        })
    }
}

impl<U: ProgramCommands> From<CtlCommand<U>> for ControlCommand {
    fn from(command: CtlCommand<U>) -> ControlCommand {
        match command {
            CtlCommand::Status { .. } => ControlCommand::Status {},
            CtlCommand::Reload => ControlCommand::Reload {},
            CtlCommand::Drain => ControlCommand::Drain {},
            CtlCommand::LogLevel { level, time } => ControlCommand::LogLevel {
                level,
                seconds: time.as_secs(),
            },
            CtlCommand::Program(command) => command.into(),
        }
    }
}

fn socket(
    given: Option<PathBuf>,
    files: Vec<PathBuf>,
    mut env: Vec<(String, String)>,
) -> Result<PathBuf, SocketError> {
    if let Some(path) = given {
        return Ok(path);
    }
    env.retain(|(name, _)| name.starts_with(VARIABLES));
    let sources = Sources {
        files,
        env,
        flags: Vec::new(),
    };
    let keys: ControlKeys = load(sources)?;
    Ok(keys.control.socket.ok_or(NoSocket)?)
}

fn level(text: &str) -> Result<Level, String> {
    let text: serde::de::value::StrDeserializer<'_, ValueError> = text.into_deserializer();
    Level::deserialize(text)
        .map_err(|_| "must be off, error, warn, info, debug or trace".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<config::Duration>()?.get();
    let longest = super::super::control::LONGEST_LEVEL;
    if (Duration::from_secs(1)..=longest).contains(&time) {
        Ok(time)
    } else {
        Err("must be from 1s to 24h".to_owned())
    }
}
