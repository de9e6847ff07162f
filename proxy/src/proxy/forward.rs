//! What the proxy adds to the headers it passes on, and the head of an answer of its own.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use registry::service::log;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's id for the request, if it is one that can be logged and searched for without
/// surprises; else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if log::request_id(id.as_bytes()).is_some() => id.clone(),
        _ => new_request_id(),
    }
}

/// Adds what the upstream should know of the client. What a client claims of others is replaced:
/// nobody's `X-Forwarded-*` is believed.
pub(super) fn add_headers(
    session: &Session,
    request: &mut RequestHeader,
    id: Option<&HeaderValue>,
) -> Result<()> {
    let downstream = session.req_header();
    // An address prints as visible ASCII.
    match client(session).map(|client| HeaderValue::try_from(client.to_string())) {
        Some(Ok(client)) => request.insert_header(X_FORWARDED_FOR, client)?,
        _ => drop(request.remove_header(&X_FORWARDED_FOR)),
    }
    let host = downstream
        .headers
        .get(header::HOST)
        .cloned()
        .or_else(|| authority(session));
    if let Some(host) = host {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    request.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static("http"))?;
    let via = match downstream.version {
        http::Version::HTTP_2 => HeaderValue::from_static("2 octoserve"),
        http::Version::HTTP_10 => HeaderValue::from_static("1.0 octoserve"),
        _ => HeaderValue::from_static("1.1 octoserve"),
    };
    request.append_header(header::VIA, via)?;
    if let Some(id) = id {
        request.insert_header(X_REQUEST_ID, id.clone())?;
    }
    Ok(())
}

/// The head of an answer of the proxy's own.
pub(super) fn error_head(status: u16, length: usize) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(2))?;
    head.insert_header(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )?;
    head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
    Ok(head)
}

/// The client's address; a Unix socket's client has none.
fn client(session: &Session) -> Option<IpAddr> {
    match session.client_addr()? {
        SocketAddr::Inet(address) => Some(address.ip().to_canonical()),
        SocketAddr::Unix(_) => None,
    }
}

/// HTTP/2 names the host in the request's target rather than in a header.
fn authority(session: &Session) -> Option<HeaderValue> {
    HeaderValue::from_str(session.req_header().uri.authority()?.as_str()).ok()
}

/// 64 random bits as hexadecimal digits.
fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random: u64 = rand::random();
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[usize::from(random.to_le_bytes()[place / 2] >> (4 * (place % 2)) & 0xf)];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
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
        for id in ["", "a b", "\"", "x;y", &"a".repeat(129)] {
            assert_eq!(log::request_id(id.as_bytes()), None, "{id:?}");
        }
        assert!(log::request_id(b"3f2a-B.c_1").is_some());
    }
}
