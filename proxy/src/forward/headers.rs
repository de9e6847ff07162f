//! What the proxy adds to the headers it forwards.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use service::log;
use service::trace_context::NewTraceparent;

use super::client_view::ClientView;
use super::framing::BodyLength;
use crate::forwarded::{ClaimHeader, ForwardHeaders, joined};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's id for the request, if it is one that can be logged and searched for without
/// surprises; else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if log::request_id(id.as_bytes()).is_some() => id.clone(),
        _ => new_request_id(),
    }
}

/// What the upstream learns of the client beside its request.
pub(super) struct Forwarded<'a> {
    /// The address of the connection's client, which may be a proxy.
    pub(super) peer: Option<&'a HeaderValue>,
    /// The name of this proxy in `Via`.
    pub(super) proxy: &'a str,
    pub(super) request_id: &'a HeaderValue,
    /// The trace that begins with the request.
    pub(super) traceparent: Option<&'a NewTraceparent>,
    /// The host that it is asked for.
    pub(super) host: &'a HeaderValue,
    /// What precedes the path of each request.
    pub(super) prefix: &'a str,
    /// The target as the upstream knows it.
    pub(super) target: &'a str,
    /// The credentials of a request that brings none.
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) headers: ForwardHeaders,
}

/// Writes the head of a request to the upstream. What a trusted peer says of the client is kept and
/// appended to; what anybody else says is replaced.
pub(super) fn write_request(out: &mut BytesMut, view: ClientView<'_>, added: &Forwarded<'_>) {
    let request = view.request;
    out.reserve(1024);
    let prefix = match added.target {
        // It stands for the whole server (RFC 9112 §3.2.4).
        "*" => "",
        _ => added.prefix,
    };
    for part in [
        request.method.as_str(),
        " ",
        prefix,
        added.target,
        " HTTP/1.1\r\nHost: ",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(added.host.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &request.headers {
        let name = name.as_str();
        let is_passed_on = match ClaimHeader::of(name) {
            None => match name {
                "x-request-id" => false,
                // They are of no valid trace.
                "traceparent" | "tracestate" => added.traceparent.is_none(),
                _ => true,
            },
            Some(ClaimHeader::Single) => view.claims.is_some(),
            // Written below, with what is appended.
            Some(ClaimHeader::List | ClaimHeader::Disguised) => false,
        };
        if is_passed_on {
            write_field(out, name, value.as_bytes());
        }
    }
    if let Some(authorization) = added.authorization {
        write_field(out, "authorization", authorization.as_bytes());
    }
    if request.body == BodyLength::Chunked {
        write_field(out, "transfer-encoding", b"chunked");
    }
    let version: &[u8] = match request.version {
        Version::HTTP_2 => b"via: 2 ",
        Version::HTTP_10 => b"via: 1.0 ",
        _ => b"via: 1.1 ",
    };
    out.extend_from_slice(version);
    out.extend_from_slice(added.proxy.as_bytes());
    out.extend_from_slice(b"\r\n");
    if added.headers.x_request_id {
        write_field(out, "x-request-id", added.request_id.as_bytes());
    }
    if let Some(traceparent) = added.traceparent {
        write_field(out, "traceparent", traceparent.as_bytes());
    }
    write_claims(out, view, added);
    out.extend_from_slice(b"\r\n");
}

/// Writes who the client is, as far as no trusted peer has said it.
fn write_claims(out: &mut BytesMut, view: ClientView<'_>, added: &Forwarded<'_>) {
    let headers = &view.request.headers;
    let kept = |name: &str| view.claims.and_then(|_| joined(headers, name));
    let is_kept = |name: &str| view.claims.is_some() && headers.contains_key(name);
    let begins = added.headers;
    match (kept("x-forwarded-for"), added.peer) {
        (Some(list), Some(peer)) => {
            let list = [list.as_bytes(), b", ", peer.as_bytes()].concat();
            write_field(out, "x-forwarded-for", &list);
        }
        (Some(list), None) => write_field(out, "x-forwarded-for", list.as_bytes()),
        (None, Some(peer)) if begins.x_forwarded_for => {
            write_field(out, "x-forwarded-for", peer.as_bytes());
        }
        (None, _) => {}
    }
    if let Some(host) = view.host() {
        if begins.x_forwarded_host && !is_kept("x-forwarded-host") {
            write_field(out, "x-forwarded-host", host.as_bytes());
        }
        if begins.x_forwarded_port && !is_kept("x-forwarded-port") {
            write_field(out, "x-forwarded-port", port(view, host.as_bytes()));
        }
    }
    if begins.x_forwarded_proto && !is_kept("x-forwarded-proto") {
        write_field(out, "x-forwarded-proto", view.scheme().as_bytes());
    }
    if let Some(peer) = added.peer
        && begins.x_real_ip
        && !is_kept("x-real-ip")
    {
        write_field(out, "x-real-ip", peer.as_bytes());
    }
    let list = kept("forwarded");
    if list.is_some() || begins.forwarded {
        let mut all = list.map_or_else(Vec::new, |list| [list.as_bytes(), b", "].concat());
        append_forwarded(&mut all, view, added.peer);
        write_field(out, "forwarded", &all);
    }
}

/// Appends what this proxy knows (RFC 7239 §4).
fn append_forwarded(list: &mut Vec<u8>, view: ClientView<'_>, peer: Option<&HeaderValue>) {
    list.extend_from_slice(b"for=");
    match peer.map(HeaderValue::as_bytes) {
        // An IPv6 address is a quoted string in brackets (RFC 7239 §6).
        Some(address) if address.contains(&b':') => {
            list.extend_from_slice(&[b"\"[", address, b"]\""].concat());
        }
        Some(address) => list.extend_from_slice(address),
        None => list.extend_from_slice(b"unknown"),
    }
    if let Some(host) = &view.request.host {
        // A host has neither a quote nor a backslash: the framing table refuses those.
        list.extend_from_slice(&[b";host=\"", host.as_bytes(), b"\""].concat());
    }
    list.extend_from_slice(&[b";proto=", view.peer_scheme().as_bytes()].concat());
}

/// The port that the client used: that of the host, or of the scheme.
fn port<'h>(view: ClientView<'_>, host: &'h [u8]) -> &'h [u8] {
    let after_ip = host.rsplit(|byte| *byte == b']').next().unwrap_or(host);
    let port = after_ip.iter().position(|byte| *byte == b':');
    match port.map(|colon| &after_ip[colon + 1..]) {
        Some(port) if !port.is_empty() => port,
        _ if view.scheme() == "https" => b"443",
        _ => b"80",
    }
}

fn write_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// 64 random bits as hexadecimal digits.
pub(super) fn random_hex() -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random: u64 = rand::random();
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[usize::from(random.to_le_bytes()[place / 2] >> (4 * (place % 2)) & 0xf)];
    }
    text
}

fn new_request_id() -> HeaderValue {
    HeaderValue::from_bytes(&random_hex()).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_request_id_is_one_that_we_would_accept() {
        assert!(log::request_id(new_request_id().as_bytes()).is_some());
        assert_ne!(new_request_id(), new_request_id());
    }

    #[test]
    fn a_request_id_that_could_forge_log_lines_is_replaced() {
        let passed_on = |id: &str| {
            let id = HeaderValue::from_str(id).unwrap();
            request_id(&HeaderMap::from_iter([(X_REQUEST_ID, id)]))
        };
        for id in ["", "a b", "\"", "x;y", &"a".repeat(129)] {
            let new = passed_on(id);
            assert_ne!(new, id);
            assert!(log::request_id(new.as_bytes()).is_some(), "{id:?}");
        }
        assert_eq!(passed_on("3f2a-B.c_1"), "3f2a-B.c_1");
    }

    #[test]
    fn a_request_without_an_id_gets_one() {
        let id = request_id(&HeaderMap::new());
        assert!(log::request_id(id.as_bytes()).is_some());
    }
}
