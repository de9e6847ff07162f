//! A new process takes the place of a running one: it gets the listening sockets, and clients notice
//! nothing.
//!
//! The running process listens on a Unix socket (`control.take_over_socket`). The new one connects to it,
//! and then:
//!
//! | from | message | |
//! |---|---|---|
//! | new | `hello` | its protocol, program and version |
//! | old | `hello` or `refused` | |
//! | old | `estate` | the listening sockets, and the state that the new one has to know |
//! | new | `ready` | everything is open that can fail to open |
//! | old | `go` | |
//! | new | `serving` | it accepts connections on the sockets |
//! | old | `taken_over` | it drains, without a deadline |
//!
//! Until `serving` the old process serves as if nothing were happening, whatever the new one does. Both
//! accept for a moment, so that at no time nobody does. Each step has a time limit.
//!
//! Deliberately not here: what the state means, and how connections end at a drain.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use thiserror::Error;

use super::control::ControlFields;
use super::listen::{BindError, Inheritance, ListenAddr, Listener, UnclaimedSocket};
use super::notify::Notifier;
use super::shutdown::{Shutdown, Trigger};

mod channel;
mod error;
mod identity;
mod message;
mod predecessor;
mod successor;

pub use error::TakeoverError;
pub use identity::ProcessIdentity;
use predecessor::Predecessor;
use successor::Successor;

/// The key of the socket where a new process asks.
const KEY: &str = "control.take_over_socket";

/// Why a process can't take its place.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// The other process does not hand over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The socket where the next process is to ask can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// systemd passed a socket that is not configured.
    #[error(transparent)]
    Unclaimed(#[from] UnclaimedSocket),
    /// The configuration names no socket.
    #[error("--take-over needs {KEY} in the configuration, the same that the running process has")]
    NoSocket,
    /// This program takes over from nobody.
    #[error("--take-over is not possible: {0}")]
    Refused(&'static str),
}

/// The place of a process in the row of those that take over from each other.
#[derive(Debug)]
pub struct Handover {
    identity: ProcessIdentity,
    inheritance: Inheritance,
    notifier: Notifier,
    socket: Option<PathBuf>,
    /// The process that it takes over from.
    successor: Option<Successor>,
    listener: Option<Listener>,
}

impl Handover {
    /// Begins: with `take_over`, what the running process has is in the inheritance afterwards.
    pub async fn begin(
        identity: ProcessIdentity,
        control: &ControlFields,
        take_over: bool,
        inheritance: &Inheritance,
    ) -> Result<Self, HandoverError> {
        let socket = control.take_over_socket.clone();
        let mut notifier = Notifier::from_environment();
        let successor = if take_over {
            if let Some(refusal) = identity.refusal {
                return Err(HandoverError::Refused(refusal));
            }
            let path = socket.as_deref().ok_or(HandoverError::NoSocket)?;
            let (successor, notify) = Successor::begin(path, &identity, inheritance).await?;
            // The service is the same one: its manager listens there, whatever started this process.
            if let Some(settings) = notify {
                notifier = Notifier::new(settings);
            }
            Some(successor)
        } else {
            None
        };
        Ok(Self {
            identity,
            inheritance: inheritance.clone(),
            notifier,
            socket,
            successor,
            listener: None,
        })
    }

    /// What tells the service manager.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Once everything else is bound: says that this process is ready to serve, and waits for the other's
    /// consent.
    pub async fn ready(&mut self) -> Result<(), HandoverError> {
        if let Some(path) = self.socket.take() {
            let address = ListenAddr::Unix(path);
            self.listener = Some(self.inheritance.listen(&address, KEY).await?);
        }
        self.inheritance.close_unclaimed()?;
        if let Some(successor) = &mut self.successor {
            successor.ready().await?;
        }
        Ok(())
    }

    /// Serves to the end, which comes with the shutdown, or once another process has taken over. `serve`
    /// accepts connections by the time that it first waits.
    pub async fn serve(
        self,
        serve: impl Future<Output = bool>,
        trigger: Arc<Trigger>,
        shutdown: Shutdown,
    ) -> bool {
        let mut serve = pin!(serve);
        if let Poll::Ready(drained) = futures_util::poll!(serve.as_mut()) {
            return drained;
        }
        // Stopped while it started: the process that was to be replaced goes on.
        if shutdown.is_triggered() {
            drop(self.successor);
            return serve.await;
        }
        self.inheritance.own_files(true);
        let notifier = self.notifier.clone();
        tokio::spawn(notify(self.successor, notifier.clone(), shutdown.clone()));
        let (ending, ended) = (notifier.clone(), shutdown.clone());
        // After a takeover the other process speaks for the service: this does nothing then.
        let told = tokio::spawn(async move {
            ended.recv().await;
            ending.stopping().await;
        });
        if let Some(listener) = self.listener {
            let predecessor = Predecessor {
                identity: self.identity,
                inheritance: self.inheritance,
                notifier: notifier.clone(),
                trigger,
                shutdown: shutdown.clone(),
            };
            tokio::spawn(predecessor.serve(listener));
        }
        let drained = serve.await;
        if shutdown.is_triggered() {
            // An idle process is faster than its words.
            let _ = told.await;
        }
        drained
    }
}

/// Tells the other process, and the service manager, that this one serves; the latter again and again.
async fn notify(successor: Option<Successor>, notifier: Notifier, shutdown: Shutdown) {
    if let Some(successor) = successor {
        let old = successor.pid();
        match successor.serving().await {
            Ok(()) => tracing::info!(pid = old, "took over"),
            Err(error) => tracing::warn!(
                pid = old,
                %error,
                "serving, but the process that this one takes over from does not confirm: look whether it ends"
            ),
        }
    }
    if !shutdown.is_triggered() {
        notifier.ready().await;
    }
    match notifier.keep_alive().await {}
}
