//! The command line of `octoserve-registry`.

mod maintain;
mod tasks;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use service::cli::{ProgramCommands, ProgramFlags};
use service::config::Flag;
use service::control::ControlCommand;
use service::doctor::Examination;
use service::listen::Inheritance;
use service::program::Program;

pub use self::tasks::RegistryTasks;
use crate::config::RegistryConfig;
use crate::doctor;
use crate::server::{self, BoundRegistry, RegistryStartError};

/// The registry alone, without the proxy.
#[derive(Debug)]
pub struct OctoserveRegistry;

impl Program for OctoserveRegistry {
    const NAME: &'static str = "octoserve-registry";
    const ABOUT: &'static str = "A complete OCI registry on plain files.";

    type Flags = RegistryFlags;
    type Config = RegistryConfig;
    type Server = BoundRegistry;
    type Error = RegistryStartError;

    async fn bind(
        config: RegistryConfig,
        inheritance: &Inheritance,
    ) -> Result<BoundRegistry, RegistryStartError> {
        server::bind_inherited(config, inheritance).await
    }

    fn examinations(config: &RegistryConfig) -> Vec<Examination> {
        doctor::examinations(config)
    }
}

/// The flags of this program alone.
#[derive(Debug, Args)]
pub struct RegistryFlags {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The commands of `ctl` that only this program has: none.
#[derive(Debug, Subcommand)]
pub enum RegistryCommands {}

impl From<RegistryCommands> for ControlCommand {
    fn from(command: RegistryCommands) -> ControlCommand {
        match command {}
    }
}

impl ProgramCommands for RegistryCommands {}

impl ProgramFlags for RegistryFlags {
    type Commands = RegistryCommands;
    type Tasks = RegistryTasks;

    fn keys(&self) -> Vec<Flag> {
        let data = self.data.iter();
        data.map(|data| Flag::new("--data", "data", data)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use service::cli::{self, Action};
    use service::listen::ListenAddr;

    use super::*;
    use crate::config::RegistryFields;

    fn read(
        words: &str,
        env: &[(&str, &str)],
    ) -> Result<Action<RegistryConfig, maintain::MaintainTask>, String> {
        let words = std::iter::once("octoserve-registry").chain(words.split_whitespace());
        let env = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        let name = (OctoserveRegistry::NAME, OctoserveRegistry::ABOUT);
        let words = words.map(OsString::from);
        let action = cli::read::<RegistryFlags, RegistryConfig>(name, words, env.collect());
        action.map_err(|error| error.to_string())
    }

    fn config(words: &str, env: &[(&str, &str)]) -> RegistryConfig {
        match read(words, env) {
            Ok(Action::Serve(serve)) => serve.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn serving_is_the_default_and_flags_come_before_the_environment() {
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
        assert_eq!(metrics.unwrap().listen, Some(ListenAddr::Unix("/m".into())));
    }

    #[test]
    fn a_mistake_is_named_by_flag_variable_or_file() {
        for (words, env, named) in [
            (
                "--listen nowhere",
                None,
                "--listen: listen[0]: `nowhere` is not an address",
            ),
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
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_check_prints_nothing_and_the_printed_configuration_loads_again() {
        assert!(matches!(read("--check", &[]), Ok(Action::Print(text)) if text.is_empty()));
        let Ok(Action::Print(yaml)) = read("--print-config --data /y", &[]) else {
            panic!("nothing printed");
        };
        let fields: RegistryFields = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(fields.data, PathBuf::from("/y"));
    }

    #[test]
    fn health_probes_the_metrics_listener_or_the_given_url() {
        for (words, env, probed) in [
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
            let Ok(Action::Probe(probe)) = read(words, env.as_slice()) else {
                panic!("no probe");
            };
            assert_eq!(probe.to_string(), probed);
        }
    }

    #[test]
    fn help_version_completions_and_man_pages_are_printed() {
        for (words, has) in [
            ("--help", "--metrics-listen"),
            ("--version", env!("CARGO_PKG_VERSION")),
        ] {
            let text = read(words, &[]).unwrap_err();
            assert!(text.contains(has), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        let pages = read(&format!("man --dir {}", directory.path().display()), &[]);
        assert!(matches!(pages, Ok(Action::Print(text)) if text.is_empty()));
        let page = std::fs::read_to_string(directory.path().join("octoserve-registry.1")).unwrap();
        assert!(page.contains(".TH octoserve-registry 1"), "{page}");
        assert!(!page.contains("help(1)"), "{page}");
        let file = directory.path().join("octoserve-registry.yaml.5");
        let page = std::fs::read_to_string(file).unwrap();
        for has in [
            ".TH octoserve-registry.yaml 5",
            "uploads.expire",
            "OCTOSERVE_DATA",
        ] {
            assert!(page.contains(has), "{has} in {page}");
        }
        let error = read("man --dir /does/not/exist", &[]).unwrap_err();
        assert!(
            error.contains("/does/not/exist: cannot write man pages"),
            "{error}"
        );

        let completions = read("completions bash", &[]);
        assert!(matches!(completions, Ok(Action::Print(text)) if text.contains("complete -F")));
    }
}
