//! Where to listen.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Where a server listens: `127.0.0.1:5000`, `[::1]:0`, `unix:/run/octoserve.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An IP address and a port; with port 0 the kernel chooses one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text that is no [`ListenAddr`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not an address such as 127.0.0.1:5000, [::1]:5000 or unix:/run/octoserve.sock")]
pub struct AddrError(String);

impl FromStr for ListenAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let unknown = || AddrError(text.to_owned());
        match text.strip_prefix("unix:") {
            // The kernel would cut a path at NUL.
            Some(path) if path.is_empty() || path.contains('\0') => Err(unknown()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| unknown()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_is_read() {
        for text in [
            "127.0.0.1:5000",
            "[::1]:0",
            "0.0.0.0:65535",
            "unix:/run/x.sock",
            "unix:x",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "5000",
            ":5000",
            "localhost:5000",
            "::1:80:",
            "unix:",
            "1.2.3.4:70000",
        ] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
    }
}
