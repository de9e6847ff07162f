//! The command `doctor`: what to try, and how to print what was found.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use clap::Args;

use super::flags::{ConfigArgs, ProgramFlags};
use crate::config::ConfigError;
use crate::doctor::DoctorFormat;
use crate::program_config::Configuration;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs<F: Args> {
    #[command(flatten)]
    config: ConfigArgs<F>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with 2 if there are warnings
    #[arg(long)]
    strict: bool,
}

/// What to try.
#[derive(Debug)]
pub struct DoctorCall<C> {
    /// The configuration.
    pub config: C,
    /// How the report is printed.
    pub format: DoctorFormat,
    /// Whether warnings count for the exit code.
    pub strict: bool,
}

impl<F: ProgramFlags> DoctorArgs<F> {
    /// `no_color` is the variable of that name, by which a user wants no colours (no-color.org).
    pub(super) fn call<C: Configuration>(
        self,
        env: Vec<(String, String)>,
        no_color: Option<OsString>,
    ) -> Result<DoctorCall<C>, ConfigError> {
        let wants_none = no_color.is_some_and(|value| !value.is_empty());
        let format = if self.json {
            DoctorFormat::Json
        } else {
            DoctorFormat::Text {
                colours: !wants_none && std::io::stdout().is_terminal(),
            }
        };
        Ok(DoctorCall {
            config: C::load(self.config.sources(env))?.0,
            format,
            strict: self.strict,
        })
    }
}
