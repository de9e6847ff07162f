//! What the proxy adds to the headers it passes on, and the head of an answer of its own.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use service::log;

use crate::downstream;
use crate::upstream::Upstream;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many headers are added.
const ADDED: usize = 5;

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

/// Adds what the upstream should know of the client. What a client claims of others is replaced:
/// nobody's `X-Forwarded-*` is believed.
pub(super) fn add_headers(
    session: &Session,
    request: &mut RequestHeader,
    id: Option<&HeaderValue>,
) {
    // As plain parts: pingora's own methods would look at each name byte by byte.
    let (nothing, ()) = http::Request::default().into_parts();
    let mut parts: Parts = std::mem::replace(request, nothing.into()).into();
    let headers = &mut parts.headers;
    headers.reserve(ADDED);
    match downstream::client().or_else(|| client(session)) {
        Some(client) => headers.insert(X_FORWARDED_FOR, client),
        None => headers.remove(X_FORWARDED_FOR),
    };
    match host(session) {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(SCHEME));
    let via = match session.req_header().version {
        Version::HTTP_2 => HeaderValue::from_static("2 octoserve"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 octoserve"),
        _ => HeaderValue::from_static("1.1 octoserve"),
    };
    headers.append(header::VIA, via);
    // pingora has seen to it that they are the same; only one may be passed on (RFC 9110 §8.6).
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next(), lengths.next()) {
        let length = length.clone();
        headers.insert(header::CONTENT_LENGTH, length);
    }
    if let Some(id) = id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    *request = parts.into();
}

/// Names a host where HTTP/1.0 named none, and pingora would pass on HTTP/1.1, which must (RFC 9112
/// §3.2).
pub(super) fn add_host(request: &mut RequestHeader, upstream: &Upstream) -> Result<()> {
    if request.headers.contains_key(header::HOST) || request.uri.authority().is_some() {
        return Ok(());
    }
    request.insert_header(header::HOST, upstream.authority().clone())
}

/// Lets a `Location` that names the upstream by its own address name the proxy instead, as the
/// client does: the client may not know that address, and would pass the proxy by. Any other stays
/// byte for byte.
pub(super) fn localize(
    session: &Session,
    response: &mut ResponseHeader,
    upstream: &Upstream,
) -> Result<()> {
    let Some(location) = response.headers.get(header::LOCATION) else {
        return Ok(());
    };
    let Some(path) = location.to_str().ok().and_then(|url| upstream.within(url)) else {
        return Ok(());
    };
    let host = host(session);
    let own = match host.as_ref().and_then(|host| host.to_str().ok()) {
        Some(host) => format!("{SCHEME}://{host}{path}"),
        // HTTP/1.0 need not name a host; a path alone is relative to whatever was asked.
        None if path.starts_with('/') => path.to_owned(),
        None => format!("/{path}"),
    };
    response.insert_header(header::LOCATION, own)
}

/// Takes the chunks off an answer to a client of before HTTP/1.1, which knows none (RFC 9112 §6.1): its
/// body ends with the connection.
pub(super) fn unchunk(session: &Session, response: &mut ResponseHeader) {
    if session.req_header().version < Version::HTTP_11 {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
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

/// The address of an HTTP/2 stream's client; a Unix socket's client has none.
fn client(session: &Session) -> Option<HeaderValue> {
    match session.client_addr()? {
        SocketAddr::Inet(address) => address.ip().to_canonical().to_string().try_into().ok(),
        SocketAddr::Unix(_) => None,
    }
}

/// The host as the client names it.
fn host(session: &Session) -> Option<HeaderValue> {
    let named = session.req_header().headers.get(header::HOST);
    named.cloned().or_else(|| authority(session))
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
