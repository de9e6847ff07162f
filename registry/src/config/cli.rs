//! The command line of `octoserve-registry`: from words to an [`Action`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::{Config, Fields};
use service::build_info;
use service::config::{ConfigError, Flag, Sources, print};
use service::health::Probe;
use service::listen::ListenAddr;
use service::log::LogConfig;

const NAME: &str = "octoserve-registry";

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Serve with this configuration, and log so.
    Serve(Box<Config>, LogConfig),
    /// Ask a running registry whether it is ready.
    Ask(Probe),
    /// Print this text, and nothing else.
    Print(String),
}

/// A command line or a configuration that can't be followed; its text is for a person.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The command line.
    #[error("{0}")]
    Arguments(clap::Error),
    /// The configuration.
    #[error("{NAME}: {0}\n")]
    Config(#[from] ConfigError),
}

/// A complete OCI registry on plain files.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build_info::LONG_VERSION, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
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

#[derive(Debug, Args)]
struct ServeArgs {
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
    check: bool,
    /// Print the whole effective configuration, and do nothing else
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// The probe; by default /readyz of the metrics listener
    #[arg(long)]
    url: Option<Probe>,
    /// The running registry's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Action {
    /// What a command line, whose first word is the program, and the environment ask for.
    pub fn read(
        words: impl IntoIterator<Item = OsString>,
        env: Vec<(String, String)>,
    ) -> Result<Self, UsageError> {
        let cli = match Cli::try_parse_from(words) {
            Ok(cli) => cli,
            // Help and version come as errors, too.
            Err(error) if error.use_stderr() => return Err(UsageError::Arguments(error)),
            Err(text) => return Ok(Self::Print(text.to_string())),
        };
        match cli.command.unwrap_or(Command::Serve(cli.serve)) {
            Command::Serve(args) => args.action(env),
            Command::Health(args) => args.probe(env).map(Self::Ask),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
                Ok(Self::Print(String::from_utf8_lossy(&script).into_owned()))
            }
        }
    }
}

impl ServeArgs {
    fn action(self, env: Vec<(String, String)>) -> Result<Action, UsageError> {
        let (check, print_config) = (self.check, self.print_config);
        let (config, fields): (Config, Fields) = Config::load(self.sources(env))?;
        Ok(if print_config {
            Action::Print(print(&fields))
        } else if check {
            Action::Print(String::new())
        } else {
            Action::Serve(Box::new(config), fields.logging)
        })
    }

    fn sources(self, env: Vec<(String, String)>) -> Sources {
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
            file: self.config,
            env,
            flags,
        }
    }
}

impl HealthArgs {
    fn probe(self, env: Vec<(String, String)>) -> Result<Probe, UsageError> {
        if let Some(probe) = self.url {
            return Ok(probe);
        }
        let sources = Sources {
            file: self.config,
            env,
            flags: Vec::new(),
        };
        Ok(Config::load(sources)?.0.probe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, env: &[(&str, &str)]) -> Result<Action, String> {
        let words = std::iter::once(NAME).chain(words.split_whitespace());
        let env = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        let action = Action::read(words.map(OsString::from), env.collect());
        action.map_err(|error| error.to_string())
    }

    fn config(words: &str, env: &[(&str, &str)]) -> Config {
        match read(words, env) {
            Ok(Action::Serve(config, _)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn to_serve_is_the_default_and_flags_come_before_the_environment() {
        let env = [
            ("OCTOSERVE_LISTEN", "127.0.0.1:1"),
            ("OCTOSERVE_DATA", "/x"),
        ];
        for words in [
            "--listen 127.0.0.1:2 --listen [::1]:2",
            "serve --listen 127.0.0.1:2 --listen [::1]:2",
        ] {
            let config = config(words, &env);
            let listen = ["127.0.0.1:2", "[::1]:2"].map(|address| address.parse().unwrap());
            assert_eq!(config.listen, listen);
            assert_eq!(config.storage.data, PathBuf::from("/x"));
        }
        let metrics = config("--metrics-listen unix:/m", &[]).metrics;
        assert_eq!(metrics.unwrap().listen, ListenAddr::Unix("/m".into()));
    }

    #[test]
    fn what_is_wrong_is_told_by_flag_variable_or_file() {
        for (words, env, told) in [
            ("--listen nowhere", None, "--listen"),
            ("--bogus", None, "--bogus"),
            ("serve --check --data /x extra", None, "extra"),
            ("", Some(("OCTOSERVE_LIMTS", "1")), "OCTOSERVE_LIMTS"),
            (
                "",
                Some(("OCTOSERVE_DELETE", "maybe")),
                "OCTOSERVE_DELETE: delete: ",
            ),
            ("--config /nonexistent.yaml", None, "/nonexistent.yaml: "),
        ] {
            let error = read(words, env.as_slice()).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_check_prints_nothing_and_the_configuration_loads_again() {
        assert!(matches!(read("--check", &[]), Ok(Action::Print(text)) if text.is_empty()));
        let Ok(Action::Print(yaml)) = read("--print-config --data /y", &[]) else {
            panic!("nothing printed");
        };
        let fields: Fields = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(fields.data, PathBuf::from("/y"));
    }

    #[test]
    fn health_is_asked_of_the_metrics_listener_or_of_whom_one_says() {
        for (words, env, asked) in [
            ("health", None, "http://127.0.0.1:5001/readyz"),
            (
                "health",
                Some(("OCTOSERVE_METRICS_LISTEN", "0.0.0.0:9")),
                "http://127.0.0.1:9/readyz",
            ),
            (
                "health",
                Some(("OCTOSERVE_METRICS_ENABLED", "false")),
                "http://127.0.0.1:5000/v2/",
            ),
            ("health --url unix:/m", None, "unix:/m"),
        ] {
            let Ok(Action::Ask(probe)) = read(words, env.as_slice()) else {
                panic!("nothing asked");
            };
            assert_eq!(probe.to_string(), asked);
        }
    }

    #[test]
    fn help_version_and_completions_are_printed() {
        for (words, has) in [
            ("--help", "--metrics-listen"),
            ("--version", env!("CARGO_PKG_VERSION")),
            ("completions bash", "complete -F"),
        ] {
            assert!(matches!(read(words, &[]), Ok(Action::Print(text)) if text.contains(has)));
        }
    }
}
