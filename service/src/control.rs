//! The control socket: a Unix socket on which an operator asks a running program for its state, and has
//! it reload, drain or log more.
//!
//! One line of JSON asks, one line answers, and the connection is closed; docs/control.md has the
//! protocol. Whoever asks must be the process's own user or root. A client can take little: so many
//! connections, bytes and seconds.
//!
//! Deliberately not here: what a server does when it is asked ([`Operate`](super::operate::Operate)).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{Checker, ConfigError};

mod client;
mod handler;
mod peer;
mod protocol;
mod server;
mod status;

pub use self::client::{ControlCall, ControlCallError};
pub use self::handler::{ControlHandler, ProcessFacts};
pub(crate) use self::protocol::LONGEST_LEVEL;
pub use self::protocol::{ControlCommand, ControlReply, ControlRequest, RequestError};
pub use self::server::ControlSocket;
pub use self::status::{ControlStatus, ReloadStatus};

/// The longest path that a socket can have, in bytes: `sun_path` ends with a zero byte.
const LONGEST_PATH: usize = 107;

/// The section `control` of both programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlFields {
    /// The path of the socket; none: there is no control socket.
    pub socket: Option<PathBuf>,
}

impl ControlFields {
    /// Checks the values.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        let path = self.socket.as_deref().map(Path::to_string_lossy);
        path.map_or(Ok(()), |path| checker.text("socket", &path, LONGEST_PATH))
    }
}
