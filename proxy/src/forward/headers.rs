//! What the proxy adds to the headers it forwards.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use service::log;

use super::framing::{BodyLength, RequestHead, ResponseHead};
use crate::upstream::Upstream;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How clients reach the proxy.
const SCHEME: &str = "http";

/// The client's id for the request, if it is one that can be logged and searched for without
/// surprises; else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if log::request_id(id.as_bytes()).is_some() => id.clone(),
        _ => new_request_id(),
    }
}

/// What the upstream learns of the client.
pub(super) struct Forwarded<'a> {
    /// The client's address.
    pub(super) client: Option<&'a HeaderValue>,
    /// The name of this proxy in `Via`.
    pub(super) proxy: &'a str,
    pub(super) request_id: &'a HeaderValue,
    /// The host where the client names none.
    pub(super) host: &'a HeaderValue,
}

/// Writes the head of a request to the upstream. What a client claims of others is replaced:
/// `X-Forwarded-*` is ours.
pub(super) fn write_request(out: &mut BytesMut, request: &RequestHead, added: &Forwarded<'_>) {
    out.reserve(1024);
    for part in [
        request.method.as_str(),
        " ",
        request.target.as_str(),
        " HTTP/1.1\r\nHost: ",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    // HTTP/1.1 must name a host (RFC 9112 §3.2), and HTTP/1.0 need not.
    let host = request.host.as_ref().unwrap_or(added.host);
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &request.headers {
        if !matches!(
            name.as_str(),
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-request-id"
        ) {
            write_field(out, name.as_str(), value.as_bytes());
        }
    }
    if request.body == BodyLength::Chunked {
        write_field(out, "transfer-encoding", b"chunked");
    }
    if let Some(client) = added.client {
        write_field(out, "x-forwarded-for", client.as_bytes());
    }
    if let Some(host) = &request.host {
        write_field(out, "x-forwarded-host", host.as_bytes());
    }
    let version: &[u8] = match request.version {
        Version::HTTP_2 => b"via: 2 ",
        Version::HTTP_10 => b"via: 1.0 ",
        _ => b"via: 1.1 ",
    };
    out.extend_from_slice(version);
    out.extend_from_slice(added.proxy.as_bytes());
    out.extend_from_slice(b"\r\n");
    write_field(out, "x-request-id", added.request_id.as_bytes());
    write_field(out, "x-forwarded-proto", SCHEME.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Lets a `Location` that names the upstream by its own address name the proxy instead, as the
/// client does: the client may not know that address, and would pass the proxy by. Any other stays
/// byte for byte.
pub(super) fn localize(request: &RequestHead, response: &mut ResponseHead, upstream: &Upstream) {
    let Some(location) = response.headers.get(header::LOCATION) else {
        return;
    };
    let Some(path) = location.to_str().ok().and_then(|url| upstream.within(url)) else {
        return;
    };
    let host = request.host.as_ref().and_then(|host| host.to_str().ok());
    let own = match host {
        Some(host) => format!("{SCHEME}://{host}{path}"),
        // HTTP/1.0 need not name a host; a path alone is relative to whatever was asked.
        None if path.starts_with('/') => path.to_owned(),
        None => format!("/{path}"),
    };
    // Parts of header values make a header value.
    if let Ok(own) = HeaderValue::try_from(own) {
        response.headers.insert(header::LOCATION, own);
    }
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
