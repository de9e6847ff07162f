//! Asking a running program over its control socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ControlCommand, ControlReply, ControlRequest};
use super::status::{ControlStatus, printable};
use crate::job::JobProgress;

/// How long to wait for each line of the answer. A reload reads files from disks that may be slow.
const PATIENCE: Duration = Duration::from_mins(5);

/// The longest line of an answer, in bytes.
const LONGEST_REPLY: u64 = 4 << 20;

/// One request to a running program.
#[derive(Clone, Debug)]
pub struct ControlCall {
    /// The socket.
    pub socket: PathBuf,
    /// What is asked for.
    pub command: ControlCommand,
    /// Whether a state is printed as JSON.
    pub json: bool,
}

/// Why a request was not answered, or what it asked for not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlCallError {
    /// Nobody is there.
    #[error("nobody listens on {}: is the program running, with control.socket at this path?", .0.display())]
    Nobody(PathBuf),
    /// The socket is another user's.
    #[error("no permission to connect to {}: only its own user and root may", .0.display())]
    Permission(PathBuf),
    /// It cannot be connected to for another reason.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The answer did not come, or cannot be understood.
    #[error("no answer on {}: {reason}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It was not done.
    #[error("{0}")]
    Refused(String),
}

impl ControlCall {
    /// Asks, and waits for the answer. Returns what to print. Lines of progress go to `progress`.
    pub async fn call(&self, progress: impl Fn(&str)) -> Result<String, ControlCallError> {
        let reply = self
            .ask(|reply| progress(&printable(&reply.message)))
            .await?;
        Ok(self.print(&reply))
    }

    /// Asks for a job, and waits for its end. Returns its report, with the reason if it ended early.
    pub async fn follow(
        &self,
        mut progress: impl FnMut(&JobProgress),
    ) -> Result<(Value, Option<String>), ControlCallError> {
        let mut each = |reply: &ControlReply| {
            if let Some(now) = &reply.progress {
                progress(now);
            }
        };
        let reply = self.lines(&mut each).await?;
        let message = printable(&reply.message);
        match reply.report {
            Some(report) if reply.ok == Some(true) => Ok((report, None)),
            Some(report) => Ok((report, Some(message))),
            None => Err(ControlCallError::Refused(message)),
        }
    }

    /// Asks for the state of the process.
    pub(crate) async fn status(&self) -> Result<ControlStatus, ControlCallError> {
        let status = self.ask(|_| {}).await?.status;
        let status = status.ok_or_else(|| self.unanswered("it holds no state"))?;
        Ok(*status)
    }

    async fn ask(
        &self,
        mut progress: impl FnMut(&ControlReply),
    ) -> Result<ControlReply, ControlCallError> {
        let reply = self.lines(&mut progress).await?;
        if reply.ok == Some(false) {
            return Err(ControlCallError::Refused(printable(&reply.message)));
        }
        Ok(reply)
    }

    /// Sends the request. Returns the last line of the answer.
    async fn lines(
        &self,
        progress: &mut impl FnMut(&ControlReply),
    ) -> Result<ControlReply, ControlCallError> {
        let stream = UnixStream::connect(&self.socket).await;
        let mut stream = stream.map_err(|error| self.unconnected(error))?;
        // A server that turns a client away answers without reading: what it said counts, then.
        let _ = stream
            .write_all(&ControlRequest(self.command.clone()).line())
            .await;
        let mut lines = BufReader::new(stream);
        loop {
            let reply = self.next(&mut lines).await?;
            if reply.ok.is_some() {
                return Ok(reply);
            }
            progress(&reply);
        }
    }

    async fn next(
        &self,
        lines: &mut BufReader<UnixStream>,
    ) -> Result<ControlReply, ControlCallError> {
        let mut line = String::new();
        let mut limited = lines.take(LONGEST_REPLY);
        match timeout(PATIENCE, limited.read_line(&mut line)).await {
            Err(_) => Err(self.unanswered("it took too long")),
            Ok(Err(error)) => Err(self.unanswered(&error.to_string())),
            Ok(Ok(0)) => Err(self.unanswered("the connection was closed")),
            Ok(Ok(_)) => serde_json::from_str(&line)
                .map_err(|_| self.unanswered("it is no answer of this version of octoserve")),
        }
    }

    fn unanswered(&self, reason: &str) -> ControlCallError {
        ControlCallError::Answer {
            path: self.socket.clone(),
            reason: reason.to_owned(),
        }
    }

    fn unconnected(&self, source: io::Error) -> ControlCallError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlCallError::Nobody(path)
            }
            io::ErrorKind::PermissionDenied => ControlCallError::Permission(path),
            _ => ControlCallError::Connect { path, source },
        }
    }

    fn print(&self, reply: &ControlReply) -> String {
        match &reply.status {
            None => format!("{}\n", printable(&reply.message)),
            Some(status) if self.json => {
                let json = serde_json::to_string_pretty(status).unwrap_or_default();
                format!("{json}\n")
            }
            Some(status) => status.to_string(),
        }
    }
}
