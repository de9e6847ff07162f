//! The framing table: what a message must look like to be forwarded, and how long its body is.
//!
//! What goes on is always one message whose length both sides agree on. A request that the table
//! refuses is answered with 400 and an OCI error, counted, and its connection is closed. A response
//! that the table refuses is the upstream's failure: the client gets 502.
//!
//! | part | rule | source |
//! |---|---|---|
//! | line | ends with CRLF; a bare CR or LF is refused | RFC 9112 §2.2, strictly |
//! | empty line | skipped before a request line | RFC 9112 §2.2 |
//! | request line | `method SP target SP version`, one space each, no control character | RFC 9112 §3 |
//! | target | begins with `/`, and goes on byte for byte; an absolute one goes on as its path; `*` only with OPTIONS; a fragment, a space or a byte outside of ASCII is refused; h2 drops a fragment before it can be seen | RFC 9112 §3.2, RFC 3986 §2 |
//! | CONNECT | 405 | RFC 9110 §9.3.6 |
//! | version | HTTP/1.0 and HTTP/1.1; what goes on is HTTP/1.1 | RFC 9112 §2.3 |
//! | Host | one with a valid host and port; none only in HTTP/1.0; equal to the authority of an absolute target or of `:authority`, without case | RFC 9112 §3.2, RFC 9113 §8.3.1 |
//! | field | a token, a colon without space before it, a value without control characters but tab; no folded line | RFC 9110 §5, RFC 9112 §5 |
//! | number and size | 90 fields and 60 KiB of a request, 128 fields and 64 KiB of a response | |
//! | Content-Length | digits; repeated values must be equal, and go on once | RFC 9110 §8.6 |
//! | Transfer-Encoding | exactly `chunked`, not beside Content-Length, not in HTTP/1.0 | RFC 9112 §6.1, §6.3, strictly |
//! | Connection | it and what it names is removed; a request that names Host, Content-Length or Transfer-Encoding is refused | RFC 9110 §7.6.1 |
//! | hop-by-hop | Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade, HTTP2-Settings, Proxy-Authorization and Proxy-Authenticate are removed | RFC 9110 §7.6.1, §7.8, §11.7 |
//! | Via | a request that carries our own identifier is a loop: 508 | RFC 9110 §7.6.3, RFC 5842 §7.2 |
//! | chunk | hexadecimal digits, at least one; an extension without control characters, dropped; CRLF after the data | RFC 9112 §7.1 |
//! | trailers | read and dropped, at most 16 KiB | RFC 9112 §7.1.2 |
//! | 1xx | goes on to HTTP/1.1 clients only, at most 16 of them; 101 is refused, as no upgrade is ever asked for | RFC 9110 §15.2 |
//! | response to HEAD, 204, 304 | no body, whatever its fields say; Content-Length goes on but with 204 | RFC 9112 §6.3, RFC 9110 §8.6 |
//! | other response | ends by Content-Length, the last chunk or the connection's end | RFC 9112 §6.3 |

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::error::Refusal;

/// The most fields of a request. hyper, and so our own registry, takes a hundred, and the proxy adds
/// some of its own.
const MAX_FIELDS: usize = 90;

/// The most bytes of a request's target and fields, as they are written.
const MAX_BYTES: usize = 60 << 10;

/// What follows the head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// Nothing.
    None,
    /// So many bytes.
    Known(u64),
    /// Chunks (RFC 9112 §7.1).
    Chunked,
    /// Everything until the connection ends. Only a response can have it.
    UntilClose,
}

/// The fields of a message without those that end at this hop, and what these said.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) headers: HeaderMap,
    length: Option<u64>,
    is_chunked: bool,
    close: bool,
    keep_alive: bool,
    hosts: usize,
    /// The names that `Connection` lists, without its options.
    nominated: Vec<HeaderName>,
    size: usize,
    count: usize,
}

/// Why the fields of a message are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldError {
    Length,
    TransferEncoding,
    Header,
}

impl Fields {
    pub(super) fn with_capacity(fields: usize) -> Fields {
        Fields {
            headers: HeaderMap::with_capacity(fields),
            ..Fields::default()
        }
    }

    /// Takes the next field.
    pub(super) fn push(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), FieldError> {
        self.count += 1;
        // With a colon, a space and the end of the line.
        self.size += name.as_str().len() + value.len() + 4;
        if name == CONTENT_LENGTH {
            return self.push_length(value.as_bytes());
        }
        if name == TRANSFER_ENCODING {
            let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !is_chunked || self.is_chunked {
                return Err(FieldError::TransferEncoding);
            }
            self.is_chunked = true;
            return Ok(());
        }
        if name == CONNECTION {
            return self.push_connection(value.as_bytes());
        }
        if is_hop_by_hop(&name) {
            return Ok(());
        }
        self.hosts += usize::from(name == HOST);
        self.headers.append(name, value);
        Ok(())
    }

    fn push_length(&mut self, value: &[u8]) -> Result<(), FieldError> {
        for part in value.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            let length = decimal(part).ok_or(FieldError::Length)?;
            if self.length.is_some_and(|known| known != length) {
                return Err(FieldError::Length);
            }
            if self.length.is_none() {
                self.length = Some(length);
                self.headers.insert(CONTENT_LENGTH, length.into());
            }
        }
        Ok(())
    }

    fn push_connection(&mut self, value: &[u8]) -> Result<(), FieldError> {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.is_empty() {
                continue;
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                let name = HeaderName::from_bytes(option).map_err(|_| FieldError::Header)?;
                self.nominated.push(name);
            }
        }
        Ok(())
    }

    /// Removes what `Connection` lists; `false` if that is a field which must stay.
    fn remove_nominated(&mut self) -> bool {
        let mut is_allowed = true;
        for name in std::mem::take(&mut self.nominated) {
            if matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING) {
                is_allowed = false;
            } else {
                self.headers.remove(name);
            }
        }
        is_allowed
    }
}

/// Digits alone: neither a sign nor a space.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        TE | TRAILER | UPGRADE | PROXY_AUTHORIZATION | PROXY_AUTHENTICATE
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    )
}

/// A request that may go on, or at least be named in the log.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// The target in the form that any server takes: a path and a query.
    pub(crate) target: http::uri::PathAndQuery,
    pub(crate) version: Version,
    /// The client's fields, without those that end at this hop.
    pub(crate) headers: HeaderMap,
    /// The host as the client names it.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) body: BodyLength,
    /// The client's connection may carry another request.
    pub(crate) keep_alive: bool,
}

/// The parts of a request line, or the pseudo-header fields that stand for it in HTTP/2.
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) target: http::uri::PathAndQuery,
    /// The authority of an absolute target, or `:authority`.
    pub(super) authority: Option<HeaderValue>,
    pub(super) version: Version,
}

impl RequestLine {
    /// The request with these fields, and why it is refused, if it is. `Err` where there is no
    /// saying what the request is, or where it ends.
    pub(super) fn with(
        self,
        mut fields: Fields,
    ) -> Result<(RequestHead, Option<Refusal>), Refusal> {
        let is_1_0 = self.version == Version::HTTP_10;
        if fields.hosts > 1 {
            return Err(Refusal::Host);
        }
        // HTTP/2 delimits its bodies itself (RFC 9113 §8.2.2).
        let has_chunks = self.version == Version::HTTP_11;
        if fields.is_chunked && (fields.length.is_some() || !has_chunks) {
            return Err(Refusal::Length);
        }
        let body = match fields.length {
            _ if fields.is_chunked => BodyLength::Chunked,
            Some(length) => BodyLength::Known(length),
            None => BodyLength::None,
        };
        let mut refusal = None;
        let mut refuse = |reason| {
            refusal.get_or_insert(reason);
        };
        let host = fields.headers.remove(HOST);
        let host = match (self.authority, host) {
            (Some(authority), Some(host)) if !same_host(&authority, &host) => {
                return Err(Refusal::Host);
            }
            (authority, host) => host.or(authority),
        };
        match &host {
            None if !is_1_0 => refuse(Refusal::NoHost),
            Some(host) if !is_host(host.as_bytes()) => refuse(Refusal::Host),
            _ => {}
        }
        if self.method == Method::CONNECT {
            refuse(Refusal::Connect);
        }
        if fields.count > MAX_FIELDS || fields.size + self.target.as_str().len() > MAX_BYTES {
            refuse(Refusal::HeadersTooLarge);
        }
        if !fields.remove_nominated() {
            refuse(Refusal::Header);
        }
        let keep_alive = !is_1_0 && !fields.close;
        let head = RequestHead {
            method: self.method,
            target: self.target,
            version: self.version,
            headers: fields.headers,
            host,
            body,
            keep_alive,
        };
        Ok((head, refusal))
    }

    /// The request whose fields are too many or too long to be looked at.
    pub(super) fn too_large(self) -> RequestHead {
        RequestHead {
            method: self.method,
            target: self.target,
            version: self.version,
            headers: HeaderMap::new(),
            host: None,
            body: BodyLength::None,
            keep_alive: false,
        }
    }
}

impl RequestHead {
    /// Whether the request has passed the proxy of this identifier before.
    pub(super) fn has_passed(&self, id: &str) -> bool {
        let mut via = self.headers.get_all(VIA).iter();
        via.any(|via| {
            let entries = via.as_bytes().split(|byte| *byte == b',');
            let mut received_by = entries.filter_map(|entry| {
                let words = entry.split(|byte| matches!(byte, b' ' | b'\t'));
                words.filter(|word| !word.is_empty()).nth(1)
            });
            received_by.any(|name| name == id.as_bytes())
        })
    }
}

/// A response of the upstream, as the client gets it.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// The reason phrase; empty where there is none.
    pub(crate) reason: Bytes,
    /// The upstream's fields, without those that end at this hop.
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyLength,
    /// The upstream's connection may carry another request.
    pub(crate) keep_alive: bool,
}

impl ResponseHead {
    /// The head of a response of the proxy's own.
    pub(super) fn own(status: StatusCode, headers: HeaderMap, body: BodyLength) -> ResponseHead {
        ResponseHead {
            status,
            reason: Bytes::new(),
            headers,
            body,
            keep_alive: true,
        }
    }
}

/// The status line of a response.
pub(super) struct StatusLine {
    pub(super) status: StatusCode,
    pub(super) reason: Bytes,
    pub(super) version: Version,
}

impl StatusLine {
    /// The response with these fields to a request of this method; `None` if it must not go on.
    pub(super) fn with(self, mut fields: Fields, method: &Method) -> Option<ResponseHead> {
        let is_1_0 = self.version == Version::HTTP_10;
        let status = self.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        if fields.is_chunked && (fields.length.is_some() || is_1_0) {
            return None;
        }
        let is_bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        let body = match fields.length {
            _ if is_bodiless => BodyLength::None,
            _ if fields.is_chunked => BodyLength::Chunked,
            Some(length) => BodyLength::Known(length),
            None => BodyLength::UntilClose,
        };
        // What delimits the body is ours to say again, whatever `Connection` lists.
        fields.remove_nominated();
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            fields.headers.remove(CONTENT_LENGTH);
        }
        Some(ResponseHead {
            status,
            reason: self.reason,
            headers: fields.headers,
            body,
            keep_alive: !is_1_0 && !fields.close && body != BodyLength::UntilClose,
        })
    }
}

/// Whether two authorities are one, but for their case (RFC 3986 §3.2.2).
fn same_host(a: &HeaderValue, b: &HeaderValue) -> bool {
    a.as_bytes().eq_ignore_ascii_case(b.as_bytes())
}

/// Whether this is `uri-host [ ":" port ]` with a host (RFC 9110 §7.2, RFC 3986 §3.2.2).
pub(super) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().position(|byte| *byte == b']') {
        Some(end) if text.first() == Some(&b'[') => {
            let address = &text[1..end];
            let is_address = std::str::from_utf8(address)
                .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
            if !is_address {
                return false;
            }
            (&text[..=end], &text[end + 1..])
        }
        // A bracket without the other.
        Some(_) => return false,
        None if text.first() == Some(&b'[') => return false,
        None => {
            let end = text.iter().position(|byte| *byte == b':');
            text.split_at(end.unwrap_or(text.len()))
        }
    };
    // Unreserved, percent-encoded and sub-delims; a bracketed address was checked.
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_host = !host.is_empty() && (host[0] == b'[' || host.iter().all(is_allowed));
    let is_port = match port.split_first() {
        None => true,
        Some((b':', digits)) => {
            digits.is_empty() || decimal(digits).is_some_and(|port| port <= u16::MAX.into())
        }
        Some(_) => false,
    };
    is_host && is_port
}

#[cfg(test)]
mod tests;
