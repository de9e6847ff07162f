//! The commands that only one program has, such as the maintenance of a registry.

use std::fmt::Debug;
use std::future::Future;

use clap::Subcommand;

use crate::config::ConfigError;

/// The commands that only one program has.
pub trait ProgramTasks: Subcommand + Debug {
    /// A command that can be followed.
    type Task: Task;

    /// Reads the configuration that a command needs, also from these variables of the environment.
    fn prepare(self, env: Vec<(String, String)>) -> Result<Self::Task, ConfigError>;
}

/// A command of a program, which does something and ends.
pub trait Task: Debug {
    /// Does it, in a tokio runtime.
    fn perform(self) -> impl Future<Output = TaskEnd>;
}

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEnd {
    /// What to print on stdout.
    pub output: String,
    /// Why it failed, for stderr; `None` if it did not.
    pub failure: Option<String>,
    /// Whether the exit code tells of success.
    pub is_success: bool,
}

/// A program has no commands of its own.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum NoTasks {}

impl ProgramTasks for NoTasks {
    type Task = Self;

    fn prepare(self, _: Vec<(String, String)>) -> Result<Self, ConfigError> {
        match self {}
    }
}

impl Task for NoTasks {
    async fn perform(self) -> TaskEnd {
        match self {}
    }
}
