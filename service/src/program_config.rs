//! The configuration of a program, as far as `main` needs it.

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build_info;
use super::config::{
    ChangedKeys, ConfigError, Loaded, Origins, Sources, load_with_origins, print, schema,
    wait_until_settled,
};
use super::control::ControlFields;
use super::health::Probe;
use super::limits::Limits;
use super::log::LogConfig;
use super::operate::ReloadRefusal;

/// Why a configuration that is valid may be refused.
const KEPT: &str = "the listeners of this process stay as they are until a restart";

/// The keys of the listeners.
pub(crate) const LISTENERS: &[&str] = &["listen", "metrics.listen"];

/// A configuration for a process that runs.
#[derive(Debug)]
pub struct LoadedAgain<C: Configuration> {
    /// What is to be applied.
    pub config: C,
    /// The fields as they were read.
    pub fields: C::Fields,
    /// The same with the listeners of the process.
    pub running: C::Fields,
    /// The keys of listeners that stay as they are.
    pub kept: ChangedKeys,
}

/// A program's configuration, which is valid as a whole.
pub trait Configuration: Sized + Send + 'static {
    /// The keys as people write them, with their defaults.
    type Fields: Clone
        + Debug
        + Default
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Send
        + Sync
        + 'static;

    /// The keys that a reload may apply; all others take effect after a restart. `[]` stands for any
    /// entry of a list.
    const RELOADED: &'static [&'static str];

    /// Checks the fields, and makes of them what the program needs. Nothing has been started when
    /// this fails.
    fn resolve(fields: Self::Fields, origins: &Origins) -> Result<Self, ConfigError>;

    /// The fields as they take effect, as a file that can be loaded again.
    fn print(fields: &Self::Fields) -> String {
        print(fields)
    }

    /// The JSON Schema of the configuration of the program of this name.
    fn schema(program: &str) -> String {
        schema::<Self::Fields>(program, build_info::VERSION, Self::RELOADED)
    }

    /// What is logged.
    fn logging(&self) -> &LogConfig;

    /// What one client may take.
    fn limits(&mut self) -> &mut Limits;

    /// Where an operator, and a process that takes over, ask a running process.
    fn control(&self) -> &ControlFields;

    /// Why no other process can take over from one with this configuration, if that is so.
    fn refuses_takeover(&self) -> Option<&'static str>;

    /// The readiness probe of a process with this configuration.
    fn probe(&self) -> Probe;

    /// The fields, with the listeners of a process that runs: a reload neither binds nor closes one. One
    /// with TLS takes the other certificates, if its address is the same.
    fn with_listeners_of(fields: Self::Fields, running: &Self::Fields) -> Self::Fields;

    /// Reads and checks a configuration.
    fn load(sources: Sources) -> Result<(Self, Self::Fields), ConfigError> {
        let Loaded { fields, origins } = load_with_origins::<Self::Fields>(sources)?;
        let config = Self::resolve(fields.clone(), &origins)?;
        Ok((config, fields))
    }

    /// Reads and checks a configuration for a process that runs with other fields. It must be valid for
    /// a new process and for this one: what others may reach depends on the listeners.
    fn load_again(
        sources: Sources,
        running: &Self::Fields,
    ) -> Result<LoadedAgain<Self>, ReloadRefusal> {
        let refused = |error: ConfigError| ReloadRefusal(error.to_string());
        wait_until_settled(&sources.files).map_err(refused)?;
        let Loaded { fields, origins } =
            load_with_origins::<Self::Fields>(sources).map_err(refused)?;
        let config = Self::resolve(fields.clone(), &origins).map_err(refused)?;
        let running = Self::with_listeners_of(fields.clone(), running);
        let kept = ChangedKeys::between(&running, &fields);
        let config = if kept.is_empty() {
            config
        } else {
            let config = Self::resolve(running.clone(), &origins);
            config.map_err(|error| ReloadRefusal(format!("{error} ({KEPT})")))?
        };
        Ok(LoadedAgain {
            config,
            fields,
            running,
            kept,
        })
    }
}
