//! What an upstream is told about the client, and who is believed about it.
//!
//! A proxy in front of this one knows what is lost on the way: the client's address, and the scheme and
//! the host that the client used. It says so in `X-Forwarded-*` or `Forwarded` (RFC 7239). Anybody can send
//! these, so only those of trusted networks are believed.

use std::net::IpAddr;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::listen::Peer;
use service::net::Network;

mod claims;

pub use self::claims::{ClientClaims, joined};

/// Which headers the proxy adds to say who the client is. One that a trusted peer sent is kept, and
/// appended to, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "one switch for each header")]
pub struct ForwardHeaders {
    /// `X-Forwarded-For`: the address of the connection's client.
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Proto`: `https` inside TLS, else `http`.
    pub x_forwarded_proto: bool,
    /// `X-Forwarded-Host`: the `Host` of the request, with its port.
    pub x_forwarded_host: bool,
    /// `X-Forwarded-Port`: the port of `Host`, or that of the scheme.
    pub x_forwarded_port: bool,
    /// `X-Real-IP`: the address of the connection's client.
    pub x_real_ip: bool,
    /// `Forwarded` (RFC 7239): `for`, `host` and `proto`.
    pub forwarded: bool,
    /// `X-Request-ID`: the request's identifier, which the access log has, too.
    pub x_request_id: bool,
    /// `traceparent`: a trace for each logged request that is part of none (W3C Trace Context).
    pub traceparent: bool,
}

impl Default for ForwardHeaders {
    fn default() -> ForwardHeaders {
        ForwardHeaders {
            x_forwarded_for: true,
            x_forwarded_proto: true,
            x_forwarded_host: true,
            x_forwarded_port: false,
            x_real_ip: false,
            forwarded: false,
            x_request_id: true,
            traceparent: true,
        }
    }
}

/// Whom the proxy believes about a client, and what it says of one.
#[derive(Clone, Debug, Default)]
pub struct ForwardedRules {
    /// Whose claims are believed.
    pub trusted: Vec<Network>,
    /// Whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<Network>,
    /// Which headers the proxy adds.
    pub added: ForwardHeaders,
}

impl ForwardedRules {
    /// Whether the claims of this peer are believed.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.trusted.iter().any(|network| network.has_peer(peer))
    }

    /// Whether this peer's connections begin with a header of the PROXY protocol.
    pub fn expects_proxy_header(&self, peer: Peer) -> bool {
        self.proxy_protocol
            .iter()
            .any(|network| network.has_peer(peer))
    }

    /// What a trusted peer claims.
    pub fn claims(&self, headers: &HeaderMap) -> ClientClaims {
        ClientClaims::read(headers, |address| self.trusts_address(address))
    }

    fn trusts_address(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.has(address))
    }
}

/// The headers that say who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimHeader {
    /// Lists that each proxy appends to.
    List,
    /// All others.
    Single,
    /// One whose name is spelt such that some servers take it for one of the others. No proxy sends it.
    Disguised,
}

impl ClaimHeader {
    /// The kind of a header of this name, in lower case; `None` for one that claims nothing.
    pub fn of(name: &str) -> Option<ClaimHeader> {
        // Few names get further than this.
        if !matches!(name.as_bytes().first(), Some(b'x' | b'f')) {
            return None;
        }
        match name {
            "x-forwarded-for" | "forwarded" => Some(ClaimHeader::List),
            "x-real-ip" => Some(ClaimHeader::Single),
            _ if name.starts_with("x-forwarded-") => Some(ClaimHeader::Single),
            _ if name.contains('_') => {
                let plain = name.replace('_', "-");
                ClaimHeader::of(&plain).map(|_| ClaimHeader::Disguised)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_spelling_of_a_claim_is_one() {
        for (name, kind) in [
            ("x-forwarded-for", Some(ClaimHeader::List)),
            ("forwarded", Some(ClaimHeader::List)),
            ("x-forwarded-proto", Some(ClaimHeader::Single)),
            ("x-forwarded-prefix", Some(ClaimHeader::Single)),
            ("x-real-ip", Some(ClaimHeader::Single)),
            ("x_forwarded_for", Some(ClaimHeader::Disguised)),
            ("x-forwarded_host", Some(ClaimHeader::Disguised)),
            ("x_real-ip", Some(ClaimHeader::Disguised)),
            ("x-request-id", None),
            ("x_meta_mtime", None),
            ("from", None),
            ("forwarded-for", None),
            ("", None),
        ] {
            assert_eq!(ClaimHeader::of(name), kind, "{name}");
        }
    }

    #[test]
    fn several_lines_of_a_list_are_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(joined(&headers, "forwarded"), None);
        headers.append("forwarded", HeaderValue::from_static("for=a"));
        assert_eq!(joined(&headers, "forwarded").unwrap(), "for=a");
        headers.append("forwarded", HeaderValue::from_static("for=b"));
        assert_eq!(joined(&headers, "forwarded").unwrap(), "for=a, for=b");
    }
}
