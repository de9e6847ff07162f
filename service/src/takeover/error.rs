//! Why a takeover does not come about.

use std::io;
use std::path::PathBuf;

use super::super::listen::InheritedSocketError;
use super::message::MessageError;

/// Why a takeover does not come about. The old process serves on, then.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Nobody listens.
    #[error("no process to take over from at {}; start without --take-over", .0.display())]
    Nobody(PathBuf),
    /// The socket can't be connected to.
    #[error("cannot ask the process at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The other process is another user's.
    #[error(
        "the other process is of user {theirs}, and this one of user {own}: run both as the same user"
    )]
    OtherUser {
        /// The other's user id.
        theirs: u32,
        /// Our own one.
        own: u32,
    },
    /// The other process speaks another version of the protocol.
    #[error(
        "the other process, version {version}, hands over by protocol {theirs}, and this one by protocol \
         {own}: restart instead"
    )]
    Protocol {
        /// The other's protocol.
        theirs: u32,
        /// Our own one.
        own: u32,
        /// The other's version.
        version: String,
    },
    /// It is another program.
    #[error("the other process is `{0}`")]
    OtherProgram(String),
    /// The other process says no.
    #[error("the other process refuses: {0}")]
    Refused(String),
    /// This process says no.
    #[error("{0}")]
    Own(&'static str),
    /// The other process said nothing in time.
    #[error("the other process did not say `{0}` within {1:?}")]
    TimedOut(&'static str, std::time::Duration),
    /// The other process closed the connection.
    #[error("the other process closed the connection instead of saying `{0}`")]
    Closed(&'static str),
    /// The other process said something else.
    #[error("the other process said `{said}` instead of `{expected}`")]
    Unexpected {
        /// What it should have said.
        expected: &'static str,
        /// What it said.
        said: &'static str,
    },
    /// What the other process says is none of the protocol.
    #[error(transparent)]
    TakeoverMessage(#[from] MessageError),
    /// There are not as many sockets as descriptions of them.
    #[error("the other process passed {sockets} sockets and described {described}")]
    Count {
        /// The descriptors.
        sockets: usize,
        /// The descriptions.
        described: usize,
    },
    /// One of the sockets is none.
    #[error("a socket that the other process passed cannot be used: {0}")]
    Socket(#[from] InheritedSocketError),
    /// The connection failed.
    #[error("the connection to the other process failed: {0}")]
    Io(#[from] io::Error),
}
