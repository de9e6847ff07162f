//! The command line that every program has: serve, health, ctl, schema, hash-password, completions.
//!
//! Flags set keys of the configuration, before the environment and the file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod ctl;
mod doctor;
mod flags;
mod tasks;
#[cfg(feature = "top")]
mod top;

use self::ctl::CtlArgs;
pub use self::ctl::{ProgramCommands, SocketError};
use self::doctor::DoctorArgs;
pub use self::doctor::DoctorCall;
use self::flags::ConfigArgs;
pub use self::flags::ProgramFlags;
pub use self::tasks::{NoTasks, ProgramTasks, Task, TaskEnd};
#[cfg(feature = "top")]
pub use self::top::TopUsageError;
use super::auth::MAX_COST;
use super::build_info;
use super::config::{ConfigError, Sources};
use super::control::ControlCall;
use super::hash_password::PasswordHasher;
use super::health::Probe;
use super::man;
use super::printable::printable;
use super::program_config::Configuration;
#[cfg(feature = "top")]
use super::top::TopCall;

/// Where a clap error has a word of the command line.
const INPUTS: [ContextKind; 3] = [
    ContextKind::InvalidArg,
    ContextKind::InvalidSubcommand,
    ContextKind::InvalidValue,
];

/// What a command line asks for.
#[derive(Debug)]
pub enum Action<C: Configuration, T> {
    /// Serve with this configuration.
    Serve(Box<(C, Startup<C>)>),
    /// Try what this configuration says.
    Doctor(Box<DoctorCall<C>>),
    /// Show what a running program is doing.
    #[cfg(feature = "top")]
    Top(Box<TopCall>),
    /// Probe a running program.
    Probe(Probe),
    /// Ask a running program.
    Control(ControlCall),
    /// Do what only this program can.
    Task(Box<T>),
    /// Read a password, and print its hash.
    HashPassword(PasswordHasher),
    /// Print this text, and do nothing else.
    Print(String),
}

/// A command that only one program has, ready to be done.
pub type TaskOf<F> = <<F as ProgramFlags>::Tasks as ProgramTasks>::Task;

/// What a process starts with, for a later reload.
#[derive(Debug)]
pub struct Startup<C: Configuration> {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// What it said.
    pub fields: C::Fields,
    /// Whether it takes the place of a running process.
    pub take_over: bool,
}

/// A command line or a configuration that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The command line.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What to show.
    #[cfg(feature = "top")]
    #[error(transparent)]
    Top(#[from] TopUsageError),
    /// Where a running program is.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Man pages that cannot be written.
    #[error("{}: cannot write man pages: {source}", dir.display())]
    ManPages {
        /// Where they should have gone.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

#[derive(Debug, Parser)]
// Flags before a subcommand would be lost: the subcommand has flags of its own.
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine<F: ProgramFlags> {
    #[command(subcommand)]
    command: Option<Subcommands<F>>,
    #[command(flatten)]
    serve: ServeArgs<F>,
}

#[derive(Debug, Subcommand)]
enum Subcommands<F: ProgramFlags> {
    /// Serve (the default)
    Serve(ServeArgs<F>),
    /// Tell by the exit code whether a running program is ready
    // In a box, since it is much larger than the others.
    Health(Box<HealthArgs>),
    /// Try what is configured, and say what is wrong and how to mend it
    Doctor(DoctorArgs<F>),
    /// Show at a terminal what a running program is doing
    #[cfg(feature = "top")]
    Top(self::top::TopArgs),
    /// Ask a running program for its state, or have it reload, drain or log more
    Ctl(CtlArgs<F::Commands>),
    #[command(flatten)]
    Program(F::Tasks),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    // Not as a doc comment: the name of a key is no Markdown.
    #[command(
        about = "Read a password, twice at a terminal or once from stdin, and print its bcrypt hash for \
                 metrics.basic_auth.password_hash"
    )]
    HashPassword {
        /// bcrypt's cost, from 4 to 15: each step doubles the time of a check
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=i64::from(MAX_COST)))]
        cost: u32,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages, for packages
    #[command(hide = true)]
    Man {
        /// The directory for them, which must exist
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ServeArgs<F: Args> {
    #[command(flatten)]
    config: ConfigArgs<F>,
    #[arg(
        long,
        help = "Take the place of the running process, found by control.take_over_socket: it hands over its \
                sockets, and ends after its last request"
    )]
    take_over: bool,
    /// Check the configuration, and start nothing
    #[arg(long)]
    check: bool,
    /// Print the effective configuration, secrets masked, and start nothing
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The URL to probe; by default /readyz of the configured listener, that for metrics first
    #[arg(long)]
    url: Option<Probe>,
    /// The running program's configuration, as it got it
    #[arg(long, value_name = "FILE|DIR")]
    config: Vec<PathBuf>,
}

/// Reads a command line, whose first word is the program's path, and the environment.
pub fn read<F: ProgramFlags, C: Configuration>(
    (name, about): (&'static str, &'static str),
    words: impl IntoIterator<Item = OsString>,
    env: Vec<(String, String)>,
) -> Result<Action<C, TaskOf<F>>, UsageError> {
    let mut command = CommandLine::<F>::command()
        .name(name)
        .about(about)
        .version(build_info::LONG_VERSION);
    // `try`: clap itself would exit with 2, and our code for a wrong usage is another one.
    let matches = command.try_get_matches_from_mut(words);
    let matches = matches.map_err(without_controls)?;
    let line = CommandLine::<F>::from_arg_matches(&matches)?;
    match line.command.unwrap_or(Subcommands::Serve(line.serve)) {
        Subcommands::Serve(args) => Ok(args.action(env)?),
        Subcommands::Health(args) => Ok(Action::Probe(args.probe::<C>(env)?)),
        Subcommands::Doctor(args) => {
            let call = args.call(env, std::env::var_os("NO_COLOR"))?;
            Ok(Action::Doctor(Box::new(call)))
        }
        #[cfg(feature = "top")]
        Subcommands::Top(args) => Ok(Action::Top(Box::new(args.call::<C>(env)?))),
        Subcommands::Ctl(args) => Ok(Action::Control(args.call(env)?)),
        Subcommands::Program(tasks) => Ok(Action::Task(Box::new(tasks.prepare(env)?))),
        Subcommands::Schema => Ok(Action::Print(C::schema(name))),
        Subcommands::HashPassword { cost } => Ok(Action::HashPassword(PasswordHasher { cost })),
        Subcommands::Completions { shell } => {
            let mut script = Vec::new();
            // Into memory: `generate` panics if it cannot write, as to a pipe whose reader is gone.
            clap_complete::generate(shell, &mut command, name, &mut script);
            Ok(Action::Print(String::from_utf8_lossy(&script).into_owned()))
        }
        Subcommands::Man { dir } => {
            let command = CommandLine::<F>::command().name(name).about(about);
            // The version alone: a page is to be the same for each build of one version.
            let command = without_help(command).version(build_info::VERSION);
            man::write(command, &C::schema(name), &dir)
                .map_err(|source| UsageError::ManPages { dir, source })?;
            Ok(Action::Print(String::new()))
        }
    }
}

/// The error with the words that it quotes as a terminal can show them.
fn without_controls(mut error: clap::Error) -> clap::Error {
    let quoted: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(word) => Some((kind, printable(word))),
            _ => None,
        })
        .collect();
    for (kind, word) in quoted {
        // clap marks parts of some texts for a terminal itself, which are none of the words.
        if INPUTS.contains(&kind) {
            error.insert(kind, ContextValue::String(word));
        }
    }
    error
}

/// The command without its subcommands `help`, which would get pages of their own.
fn without_help(command: clap::Command) -> clap::Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}

impl<F: ProgramFlags> ServeArgs<F> {
    fn action<C: Configuration>(
        self,
        env: Vec<(String, String)>,
    ) -> Result<Action<C, TaskOf<F>>, ConfigError> {
        let take_over = self.take_over;
        // Before the flags are looked at: both report what is wrong with the configuration.
        let sources = self.config.sources(env);
        let (config, fields) = C::load(sources.clone())?;
        Ok(match (self.print_config, self.check) {
            (true, _) => Action::Print(C::print(&fields)),
            (false, true) => Action::Print(String::new()),
            (false, false) => {
                let startup = Startup {
                    sources,
                    fields,
                    take_over,
                };
                Action::Serve(Box::new((config, startup)))
            }
        })
    }
}

impl HealthArgs {
    fn probe<C: Configuration>(self, env: Vec<(String, String)>) -> Result<Probe, ConfigError> {
        // Before the configuration is read: a given URL needs none.
        if let Some(probe) = self.url {
            return Ok(probe);
        }
        let sources = Sources {
            files: self.config,
            env,
            flags: Vec::new(),
        };
        Ok(C::load(sources)?.0.probe())
    }
}
