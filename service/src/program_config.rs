//! The configuration of a program, as far as `main` needs it.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{ConfigError, Loaded, Origins, Sources, load_with_origins, print};
use super::control::ControlFields;
use super::health::Probe;
use super::limits::Limits;
use super::log::LogConfig;

/// A program's configuration, which is valid as a whole.
pub trait Configuration: Sized + Send + 'static {
    /// The keys as people write them, with their defaults.
    type Fields: Clone + Debug + Default + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Checks the fields, and makes of them what the program needs. Nothing has been started when
    /// this fails.
    fn resolve(fields: Self::Fields, origins: &Origins) -> Result<Self, ConfigError>;

    /// The fields as they take effect, as a file that can be loaded again.
    fn print(fields: &Self::Fields) -> String {
        print(fields)
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

    /// Reads and checks a configuration.
    fn load(sources: Sources) -> Result<(Self, Self::Fields), ConfigError> {
        let Loaded { fields, origins } = load_with_origins::<Self::Fields>(sources)?;
        let config = Self::resolve(fields.clone(), &origins)?;
        Ok((config, fields))
    }
}
