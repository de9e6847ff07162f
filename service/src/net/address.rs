//! The address of a server, as a client needs it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::listen::ListenAddr;

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// Over TCP.
    Tcp {
        /// The host: a name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Over the Unix socket at this path.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Where a listener of this machine is reached: one that listens everywhere is reached at the
    /// loopback address.
    pub fn of_listener(address: &ListenAddr) -> Self {
        match address {
            ListenAddr::Tcp(address) => {
                let host = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Self::Tcp {
                    host: host.to_string(),
                    port: address.port(),
                }
            }
            ListenAddr::Unix(path) => Self::Unix(path.clone()),
        }
    }

    /// Whether a client of this address reaches the listener, as far as the texts tell: no name but
    /// `localhost` is resolved.
    pub fn reaches(&self, listener: &ListenAddr) -> bool {
        match self {
            Self::Tcp { host, port } => listener.is_reached_at(host, *port),
            Self::Unix(path) => listener.is_socket(path),
        }
    }

    /// The address as a `Host` header has it (RFC 9110, section 7.2). A socket has no name.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "http://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
