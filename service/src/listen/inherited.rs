//! A listening socket that another process bound.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::unix::{FileIdentity, SocketFile};
use super::{BoundSocket, ListenAddr};

/// A descriptor that is no socket of ours to accept from.
#[derive(Debug, Error)]
pub enum InheritedSocketError {
    /// It is something else.
    #[error("it is no listening stream socket")]
    NotListening,
    /// Its address is none that can be configured.
    #[error("it is at an address that is neither IP nor a path")]
    Address,
    /// The kernel refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A listening socket that another process bound, at a known address.
#[derive(Debug)]
pub struct InheritedSocket {
    socket: StdSocket,
    address: ListenAddr,
}

#[derive(Debug)]
enum StdSocket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener, PathBuf),
}

impl InheritedSocket {
    /// Checks that it is one, and makes it ready for a runtime.
    pub fn new(descriptor: OwnedFd) -> Result<Self, InheritedSocketError> {
        let fd = descriptor.as_fd();
        // Of what is no socket, the kernel refuses to say what type it has.
        let kind = sockopt::socket_type(fd).map_err(|_| InheritedSocketError::NotListening)?;
        let is_listening = sockopt::socket_acceptconn(fd).map_err(io::Error::from)?;
        if kind != SocketType::STREAM || !is_listening {
            return Err(InheritedSocketError::NotListening);
        }
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(io::Error::from)?;
        let family = sockopt::socket_domain(fd).map_err(io::Error::from)?;
        let (socket, address) = match family {
            AddressFamily::INET | AddressFamily::INET6 => {
                let socket = StdTcpListener::from(descriptor);
                socket.set_nonblocking(true)?;
                let address = ListenAddr::Tcp(socket.local_addr()?);
                (StdSocket::Tcp(socket), address)
            }
            AddressFamily::UNIX => {
                let socket = StdUnixListener::from(descriptor);
                socket.set_nonblocking(true)?;
                let address = socket.local_addr()?;
                let path = address.as_pathname().ok_or(InheritedSocketError::Address)?;
                let path = path.to_owned();
                (
                    StdSocket::Unix(socket, path.clone()),
                    ListenAddr::Unix(path),
                )
            }
            _ => return Err(InheritedSocketError::Address),
        };
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// Whether a client of this address reaches it. A Unix socket may have been bound by another name
    /// of its path; one whose file is gone, or is no more the one that was bound, is reached by nobody.
    pub(super) fn is_at(&self, address: &ListenAddr, file: Option<FileIdentity>) -> bool {
        match (&self.socket, address) {
            (StdSocket::Tcp(_), _) => self.address == *address,
            (StdSocket::Unix(_, own), ListenAddr::Unix(path)) => {
                let Ok(found) = FileIdentity::of(path) else {
                    return false;
                };
                match file {
                    Some(bound) => bound == found,
                    // Who bound it does not say which file that was: the path has to do.
                    None => FileIdentity::of(own).is_ok_and(|bound| bound == found),
                }
            }
            (StdSocket::Unix(..), ListenAddr::Tcp(_)) => false,
        }
    }

    /// Gives it to the runtime that this is called in. `is_owned` says whether a Unix socket's file is
    /// removed with it.
    pub(super) fn into_bound(self, is_owned: bool) -> io::Result<BoundSocket> {
        Ok(match self.socket {
            StdSocket::Tcp(socket) => BoundSocket::Tcp(TcpListener::from_std(socket)?),
            StdSocket::Unix(socket, path) => BoundSocket::Unix {
                file: SocketFile::inherited(path.clone(), FileIdentity::of(&path)?, is_owned),
                listener: UnixListener::from_std(socket)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn only_a_listening_stream_socket_at_a_known_address_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let tcp = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddr::Tcp(tcp.local_addr().unwrap());
        let connected = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let inherited = InheritedSocket::new(tcp.into()).unwrap();
        assert_eq!(inherited.address(), &address);
        let unix = StdUnixListener::bind(&path).unwrap();
        let inherited = InheritedSocket::new(unix.into()).unwrap();
        assert_eq!(inherited.address(), &ListenAddr::Unix(path.clone()));

        let refused: [OwnedFd; 4] = [
            connected.into(),
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            std::fs::File::open("/dev/null").unwrap().into(),
            std::os::unix::net::UnixStream::pair().unwrap().0.into(),
        ];
        for descriptor in refused {
            let error = InheritedSocket::new(descriptor).unwrap_err();
            assert_eq!(error.to_string(), "it is no listening stream socket");
        }
    }

    #[test]
    fn a_unix_socket_is_at_its_file_under_any_name_and_nowhere_once_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = StdUnixListener::bind(&path).unwrap();
        let inherited = InheritedSocket::new(socket.into()).unwrap();
        let bound = FileIdentity::of(&path).unwrap();
        let dotted = ListenAddr::Unix(directory.path().join("./s"));
        assert!(inherited.is_at(&dotted, None));
        assert!(inherited.is_at(&dotted, Some(bound)));
        let other = directory.path().join("t");
        let _other = StdUnixListener::bind(&other).unwrap();
        assert!(!inherited.is_at(&ListenAddr::Unix(other.clone()), None));
        std::fs::rename(&other, &path).unwrap();
        assert!(!inherited.is_at(&ListenAddr::Unix(path), Some(bound)));
    }
}
