//! The command `top`: which metrics endpoint to show, and as whom to ask.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigError, Sources};
use crate::program_config::Configuration;
use crate::top::{TopCall, TopTarget, TopTargetError};

/// The path of the metrics of a program with the default configuration.
const METRICS: &str = "/metrics";

/// The width of a screen that is printed.
const WIDTH: u16 = 100;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[arg(
        long,
        help = "The metrics endpoint: http[s]://[USER:PASSWORD@]HOST[:PORT]/PATH or unix:/PATH; by default \
                /metrics of the configured listener"
    )]
    url: Option<String>,
    /// The running program's configuration, as it got it
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "url")]
    config: Vec<PathBuf>,
    /// The user to ask as
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file that holds the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// A PEM file: the authorities that may have signed the server's certificate
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// Print one screen as plain text; the exit code tells whether the page could be read
    #[arg(long)]
    once: bool,
}

/// Why there is nothing to ask.
#[derive(Debug, thiserror::Error)]
pub enum TopUsageError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The target cannot be used.
    #[error(transparent)]
    Target(#[from] TopTargetError),
}

impl TopArgs {
    pub(super) fn call<C: Configuration>(
        self,
        env: Vec<(String, String)>,
    ) -> Result<TopCall, TopUsageError> {
        let mut target = if let Some(url) = &self.url {
            TopTarget::parse(url, self.ca.as_deref())?
        } else {
            let sources = Sources {
                files: self.config,
                env,
                flags: Vec::new(),
            };
            TopTarget::of(C::load(sources)?.0.probe().request_for(METRICS))
        };
        if let Some(user) = &self.user {
            target = target.with_user(user, self.password_file.as_deref())?;
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = std::env::var("COLUMNS").ok();
        Ok(TopCall {
            target,
            once: self.once,
            colours: !no_color && std::io::stdout().is_terminal(),
            width: width.and_then(|width| width.parse().ok()).unwrap_or(WIDTH),
        })
    }
}
