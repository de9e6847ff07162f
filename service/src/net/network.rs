//! A network of addresses.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::listen::Peer;

/// Where a connection may come from: a network, an address, or the Unix sockets of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Over TCP, from one of these addresses.
    Ip(IpNet),
    /// Over a Unix socket.
    Unix,
}

/// A text that names no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no network: give an address, a network such as 10.0.0.0/8, or `unix:`")]
pub struct NetworkError(String);

impl Network {
    /// Whether the address is in it. An IPv4 address that is written as an IPv6 one is itself.
    pub fn has(&self, address: IpAddr) -> bool {
        match self {
            Self::Ip(network) => network.contains(&address.to_canonical()),
            Self::Unix => false,
        }
    }

    /// Whether the client of a connection is in it.
    pub fn has_peer(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(address) => self.has(address.ip()),
            Peer::Unix => *self == Self::Unix,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "unix:" {
            return Ok(Self::Unix);
        }
        let network = match text.split_once('/') {
            None => address(text).map(IpNet::from),
            Some((first, length)) => address(first).and_then(|first| {
                let length = length.parse().ok()?;
                IpNet::new(first, length).ok()
            }),
        };
        let network = network.ok_or_else(|| NetworkError(text.to_owned()))?;
        Ok(Self::Ip(network))
    }
}

/// An address of a network. An IPv4 address that is written as an IPv6 one would match no peer.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (address == address.to_canonical()).then_some(address)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(network) => network.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

impl JsonSchema for Network {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"title": "network", "type": "string", "examples": ["10.0.0.0/8", "192.0.2.1", "unix:"]})
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            assert!(network(text).has(inside.parse().unwrap()), "{text}");
            assert!(!network(text).has(outside.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_unix_socket_has_no_address() {
        let peer = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        assert!(network("unix:").has_peer(Peer::Unix));
        assert!(!network("unix:").has_peer(peer));
        assert!(!network("0.0.0.0/0").has_peer(Peer::Unix));
        assert!(network("127.0.0.1").has_peer(peer));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/8 ",
            "10.0.0",
            "010.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "unix",
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error, NetworkError(text.to_owned()));
        }
    }

    #[test]
    fn a_network_is_printed_as_it_is_read() {
        for text in ["10.0.0.0/8", "2001:db8::/32", "unix:"] {
            assert_eq!(network(text).to_string(), text);
        }
    }
}
