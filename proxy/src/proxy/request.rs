//! What a request must be before it is passed on.

use http::request::Parts;
use http::{HeaderMap, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::downstream::is_clean;
use crate::error::Refusal;

/// The most headers that are passed on: hyper, and so our own registry, takes a hundred, and the
/// proxy adds some of its own.
const MAX_HEADERS: usize = 90;

/// The most bytes of a request's target and headers. Servers draw the line at different lengths,
/// and most without a word of why.
const MAX_BYTES: usize = 60 << 10;

/// Refuses a request that no upstream would understand, with a reason.
pub(super) fn check(head: &RequestHeader) -> Result<()> {
    // RFC 9112 §3.2; pingora lets it pass.
    if head.version == Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
        return Refusal::NoHost.error();
    }
    // pingora escapes them; nobody who means well sends them.
    if !is_clean() {
        return Refusal::ControlCharacters.error();
    }
    if head.headers.len() > MAX_HEADERS || size(head) > MAX_BYTES {
        return Refusal::HeadersTooLarge.error();
    }
    Ok(())
}

/// Forgets how the names of headers were spelt, which means nothing (RFC 9110 §5.1): pingora would
/// carry it along in a map beside the headers, and each change would be made twice.
pub(super) fn forget_case(session: &mut Session) {
    let head = session.as_downstream_mut().req_header_mut();
    if head.has_case() {
        let (nothing, ()) = http::Request::default().into_parts();
        let parts: Parts = std::mem::replace(head, nothing.into()).into();
        *head = parts.into();
    }
}

/// Gives a target that names scheme and host (RFC 9112 §3.2.2) the form that any server takes.
/// pingora has seen to it that the host is the one of the `Host` header.
pub(super) fn to_origin_form(session: &mut Session) -> Result<()> {
    let head = session.as_downstream_mut().req_header_mut();
    if head.version == Version::HTTP_2 || head.raw_path().starts_with(b"/") {
        return Ok(());
    }
    if head.raw_path() == b"*" {
        return Ok(());
    }
    let scheme = head.raw_path().get(..7);
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://")) {
        return Refusal::Target.error();
    }
    let uri = head.uri.clone();
    head.set_uri(uri);
    Ok(())
}

fn size(head: &RequestHeader) -> usize {
    head.raw_path().len() + headers_size(&head.headers)
}

/// As they are sent: with a colon, a space and the end of the line.
fn headers_size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str, headers: usize, value: &str) -> RequestHeader {
        let mut head = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
        head.set_version(Version::HTTP_11);
        head.insert_header(header::HOST, "a").unwrap();
        for number in 1..headers {
            head.insert_header(format!("x-{number}"), value).unwrap();
        }
        head
    }

    #[test]
    fn headers_are_bounded_in_number_and_in_bytes() {
        assert!(check(&head("/v2/", MAX_HEADERS, "")).is_ok());
        assert!(check(&head("/v2/", MAX_HEADERS + 1, "")).is_err());
        assert!(check(&head("/v2/", 2, &"x".repeat(MAX_BYTES - 100))).is_ok());
        assert!(check(&head("/v2/", 2, &"x".repeat(MAX_BYTES))).is_err());
        assert!(check(&head(&format!("/{}", "x".repeat(MAX_BYTES)), 1, "")).is_err());
    }

    #[test]
    fn a_request_of_http_1_1_names_its_host() {
        let mut head = head("/v2/", 1, "");
        head.remove_header(&header::HOST);
        assert!(check(&head).is_err());
        head.set_version(Version::HTTP_10);
        assert!(check(&head).is_ok());
    }
}
