//! Where to listen.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
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

impl ListenAddr {
    /// Whether two listeners cannot both have their address: it is the same, or one of them is the
    /// wildcard of its port.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
                let any = |ip: IpAddr, beside: IpAddr| {
                    // On Linux the wildcard of IPv6 takes IPv4's connections, too.
                    ip.is_unspecified() && (ip.is_ipv6() || beside.is_ipv4())
                };
                // With port 0 the kernel chooses one that is free.
                one.port() == other.port()
                    && one.port() != 0
                    && (ip == other_ip || any(ip, other_ip) || any(other_ip, ip))
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            _ => false,
        }
    }

    /// Whether it is the Unix socket at this path.
    pub fn is_socket(&self, path: &Path) -> bool {
        matches!(self, Self::Unix(own) if own == path)
    }

    /// Whether a client of this host and port reaches the listener at this address, as far as the
    /// texts tell: no name but `localhost` is resolved.
    pub fn is_reached_at(&self, host: &str, port: u16) -> bool {
        let Self::Tcp(address) = self else {
            return false;
        };
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical(),
            Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
            Err(_) => return false,
        };
        let own = address.ip().to_canonical();
        // To connect to a wildcard is to connect to this machine.
        let is_local = ip.is_loopback() || ip.is_unspecified();
        let is_own = ip == own || (own.is_unspecified() || own.is_loopback()) && is_local;
        address.port() != 0 && address.port() == port && is_own
    }
}

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

impl JsonSchema for ListenAddr {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "address",
            "type": "string",
            "examples": ["127.0.0.1:5000", "[::1]:5000", "unix:/run/octoserve.sock"],
        })
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

    fn address(text: &str) -> ListenAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_overlap_that_no_two_listeners_can_have() {
        for (one, other, overlap) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5001", false),
            ("127.0.0.1:5000", "127.0.0.2:5000", false),
            ("0.0.0.0:5000", "127.0.0.1:5000", true),
            ("[::]:5000", "127.0.0.1:5000", true),
            ("[::]:5000", "[::1]:5000", true),
            ("0.0.0.0:5000", "[::1]:5000", false),
            ("[::ffff:127.0.0.1]:5000", "127.0.0.1:5000", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:5000", false),
        ] {
            let (one, other) = (address(one), address(other));
            assert_eq!(one.overlaps(&other), overlap, "{one} {other}");
            assert_eq!(other.overlaps(&one), overlap, "{other} {one}");
        }
    }

    #[test]
    fn a_listener_is_reached_by_its_address_and_by_this_machines_names() {
        for (listener, host, port, reached) in [
            ("127.0.0.1:5000", "127.0.0.1", 5000, true),
            ("127.0.0.1:5000", "localhost", 5000, true),
            ("0.0.0.0:5000", "127.0.0.1", 5000, true),
            ("[::]:5000", "::1", 5000, true),
            ("192.0.2.7:5000", "192.0.2.7", 5000, true),
            ("192.0.2.7:5000", "127.0.0.1", 5000, false),
            ("0.0.0.0:5000", "192.0.2.7", 5000, false),
            ("0.0.0.0:5000", "registry", 5000, false),
            ("127.0.0.1:5000", "127.0.0.1", 5001, false),
            ("127.0.0.1:0", "127.0.0.1", 0, false),
        ] {
            let found = address(listener).is_reached_at(host, port);
            assert_eq!(found, reached, "{listener} at {host}:{port}");
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
