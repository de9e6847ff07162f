//! What a process has from elsewhere, and passes on: listening sockets of systemd or of the process that
//! it takes over from, and what else the next process has to know.
//!
//! A listener asks here for its socket by its address. It gets the one that was passed, or else one
//! that is bound.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::inherited::InheritedSocket;
use super::unix::{FileIdentity, SocketFile};
use super::{BindError, BoundSocket, ListenAddr, Listener};

/// The listening sockets of a process, and its state, as far as others passed them to it or it passes them
/// on. Clones are of the same process.
#[derive(Clone, Default)]
pub struct Inheritance(Arc<Mutex<Estate>>);

#[derive(Default)]
struct Estate {
    /// Inherited, and not asked for yet.
    waiting: Vec<Waiting>,
    open: Vec<OpenSocket>,
    /// The files of sockets that nobody asked for.
    unclaimed: Vec<SocketFile>,
    /// What the process before this one said.
    received: BTreeMap<String, String>,
    /// What this process says to the next one.
    state: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Waiting {
    socket: InheritedSocket,
    /// `None` for a socket of systemd.
    passed: Option<PassedSocket>,
}

/// A socket that a listener of this process has.
#[derive(Debug)]
struct OpenSocket {
    socket: Weak<BoundSocket>,
    key: String,
    configured: ListenAddr,
    /// Whether the file of a Unix socket is to be removed in the end: that of systemd stays.
    removes_file: bool,
}

/// What one process tells another about a socket that it passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedSocket {
    /// The key of the configuration that it was bound for.
    pub key: String,
    /// The address that the key said, whose port may be 0.
    pub configured: ListenAddr,
    /// The file of a Unix socket.
    pub file: Option<FileIdentity>,
    /// Whether the last process that has it removes that file.
    pub removes_file: bool,
}

/// A socket of systemd that nothing in the configuration asks for.
#[derive(Debug, Error)]
#[error(
    "systemd passed a socket at {0}, which the configuration does not name: add {0} to listen, or remove \
     it from ListenStream= of the socket unit"
)]
pub struct UnclaimedSocket(ListenAddr);

impl Inheritance {
    /// A process that systemd passed these sockets.
    pub fn from_systemd(sockets: Vec<InheritedSocket>) -> Self {
        let inheritance = Self::default();
        let waiting = sockets.into_iter().map(|socket| Waiting {
            socket,
            passed: None,
        });
        inheritance.0.lock().waiting.extend(waiting);
        inheritance
    }

    /// Adds what the process before this one passed.
    pub fn add(
        &self,
        sockets: impl IntoIterator<Item = (PassedSocket, InheritedSocket)>,
        state: BTreeMap<String, String>,
    ) {
        let mut estate = self.0.lock();
        // After those of systemd, which are the same ones where systemd passed them to both.
        estate
            .waiting
            .extend(sockets.into_iter().map(|(passed, socket)| Waiting {
                socket,
                passed: Some(passed),
            }));
        estate.received = state;
    }

    /// The listener of an address that `key` of the configuration names: with a socket that was passed
    /// for it, or else bound by [`Listener::bind`]. Must be called within a tokio runtime.
    pub async fn listen(&self, address: &ListenAddr, key: &str) -> Result<Listener, BindError> {
        let failed = |source| BindError {
            address: address.clone(),
            source,
        };
        let claimed = self.claim(address, key).map_err(failed)?;
        let (listener, removes_file) = match claimed {
            None => (Listener::bind(address).await?, true),
            Some(Waiting { socket, passed }) => {
                let address = socket.address().clone();
                // Not owned before the takeover has come to its end: until then the other process serves.
                let bound = socket.into_bound(false).map_err(failed)?;
                let removes_file = passed.is_some_and(|passed| passed.removes_file);
                (Listener::new(bound, address), removes_file)
            }
        };
        self.0.lock().open.push(OpenSocket {
            socket: Arc::downgrade(&listener.socket),
            key: key.to_owned(),
            configured: address.clone(),
            removes_file,
        });
        Ok(listener)
    }

    /// The listeners of several addresses of one key, or none if one of them cannot be bound.
    pub async fn listen_all(
        &self,
        addresses: &[ListenAddr],
        key: &str,
    ) -> Result<Vec<Listener>, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(self.listen(address, key).await?);
        }
        Ok(listeners)
    }

    fn claim(&self, address: &ListenAddr, key: &str) -> io::Result<Option<Waiting>> {
        let mut estate = self.0.lock();
        let found = estate.waiting.iter().position(|waiting| {
            let passed = waiting.passed.as_ref();
            let is_same_key = |passed: &PassedSocket| {
                passed.key == key && passed.configured == *address && has_no_port(address)
            };
            let file = passed.and_then(|passed| passed.file);
            waiting.socket.is_at(address, file) || passed.is_some_and(is_same_key)
        });
        if let Some(at) = found {
            return Ok(Some(estate.waiting.remove(at)));
        }
        // To bind would fail, and the error would not say why.
        let is_taken = |waiting: &&Waiting| {
            waiting.passed.is_none() && waiting.socket.address().overlaps(address)
        };
        match estate.waiting.iter().find(is_taken) {
            None => Ok(None),
            Some(taken) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                UnclaimedSocket(taken.socket.address().clone()),
            )),
        }
    }

    /// Closes the sockets that nobody asked for, which the process before this one had for addresses that
    /// are not configured any more.
    ///
    /// # Errors
    /// If systemd passed one: its socket would queue clients that nobody serves.
    pub fn close_unclaimed(&self) -> Result<(), UnclaimedSocket> {
        let mut estate = self.0.lock();
        for Waiting { socket, passed } in std::mem::take(&mut estate.waiting) {
            let address = socket.address();
            match passed {
                Some(passed) => {
                    tracing::info!(%address, key = passed.key, "not configured any more: closed");
                    if let (ListenAddr::Unix(path), Some(file), true) =
                        (address, passed.file, passed.removes_file)
                    {
                        let file = SocketFile::inherited(path.clone(), file, false);
                        estate.unclaimed.push(file);
                    }
                }
                None => return Err(UnclaimedSocket(address.clone())),
            }
        }
        Ok(())
    }

    /// What the process before this one said under a name.
    pub fn received(&self, name: &str) -> Option<String> {
        self.0.lock().received.get(name).cloned()
    }

    /// Says something to the process after this one.
    pub fn pass_on(&self, name: &str, value: String) {
        self.0.lock().state.insert(name.to_owned(), value);
    }

    /// What is said to the process after this one.
    pub fn state(&self) -> BTreeMap<String, String> {
        self.0.lock().state.clone()
    }

    /// Copies of all sockets that are still open, to be passed on.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<(PassedSocket, OwnedFd)>> {
        let mut copies = Vec::new();
        for open in &self.0.lock().open {
            let Some(socket) = open.socket.upgrade() else {
                continue;
            };
            let (descriptor, file): (BorrowedFd<'_>, _) = match &*socket {
                BoundSocket::Tcp(listener) => (listener.as_fd(), None),
                BoundSocket::Unix { listener, file } => (listener.as_fd(), Some(file.identity())),
            };
            let passed = PassedSocket {
                key: open.key.clone(),
                configured: open.configured.clone(),
                file,
                removes_file: open.removes_file,
            };
            copies.push((passed, descriptor.try_clone_to_owned()?));
        }
        Ok(copies)
    }

    /// Says whether the files of Unix sockets are this process's to remove: not before it serves, nor once
    /// another process serves on them. Those of sockets that were closed are removed at once then.
    pub fn own_files(&self, is_owned: bool) {
        let mut estate = self.0.lock();
        if is_owned {
            for file in estate.unclaimed.drain(..) {
                file.set_owned(true);
            }
        }
        for open in &estate.open {
            let socket = open.socket.upgrade();
            if let Some(BoundSocket::Unix { file, .. }) = socket.as_deref() {
                file.set_owned(is_owned && open.removes_file);
            }
        }
    }
}

impl fmt::Debug for Inheritance {
    /// Without the state, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inheritance(…)")
    }
}

/// Whether the kernel chooses the port.
fn has_no_port(address: &ListenAddr) -> bool {
    matches!(address, ListenAddr::Tcp(address) if address.port() == 0)
}

#[cfg(test)]
mod tests;
