//! The control socket: a Unix socket on which an operator asks a running program for its state, and has
//! it reload, drain or log more.
//!
//! One line of JSON asks, others answer, and the connection is closed; docs/reference/control.md has the
//! protocol. A client must be the process's own user or root. A client can take little: so many
//! connections, bytes and seconds.
//!
//! Deliberately not here: what a server does when it is asked ([`Operate`](super::operate::Operate)).

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{Checker, ConfigError};

mod client;
mod follow;
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

/// The longest path of a Unix socket, in bytes (`unix(7)`).
const LONGEST_PATH: usize = 107;

/// The sockets of a process that only its own user reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ControlFields {
    /// The Unix socket at which `ctl` asks; null: there is none. At most 107 bytes.
    pub socket: Option<PathBuf>,
    /// The Unix socket at which a new process asks for the listening sockets (`--take-over`); null: nobody
    /// can ask. At most 107 bytes.
    pub take_over_socket: Option<PathBuf>,
}

impl ControlFields {
    /// Checks the paths.
    pub fn check(&self, checker: &Checker<'_>) -> Result<(), ConfigError> {
        for (key, path) in [
            ("socket", &self.socket),
            ("take_over_socket", &self.take_over_socket),
        ] {
            if let Some(path) = path {
                check_socket(key, path, checker)?;
            }
        }
        if self.socket.is_some() && self.socket == self.take_over_socket {
            let message = "must be another socket than control.socket";
            return Err(checker.error("take_over_socket", message));
        }
        Ok(())
    }
}

fn check_socket(key: &str, path: &Path, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_path = !bytes.is_empty() && !bytes.contains(&0) && bytes.len() <= LONGEST_PATH;
    if is_path {
        Ok(())
    } else {
        let message = format!("must be the path of a Unix socket, of at most {LONGEST_PATH} bytes");
        Err(checker.error(key, &message))
    }
}
