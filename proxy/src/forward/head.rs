//! The heads of HTTP/1.1 messages: from bytes to what the framing table looks at.
//!
//! httparse reads lines and tokens. It takes a bare line feed for the end of a line and any byte but a
//! space for a target, so both are checked here, on the bytes that are parsed.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use memchr::memchr;

use super::framing::{FieldError, Fields, RequestHead, RequestLine, ResponseHead, StatusLine};
use crate::error::Refusal;

/// The most bytes of a head.
pub(super) const MAX_HEAD: usize = 64 << 10;

/// The most fields that are parsed.
const MAX_PARSED: usize = 128;

type FieldSlots<'a> = [MaybeUninit<httparse::Header<'a>>; MAX_PARSED];

/// Finds the end of a head as its bytes arrive. It reads each byte once.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Where the head begins: after the empty lines before it.
    start: usize,
    line: usize,
    seen: usize,
}

/// A line ends without a carriage return.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BareLineFeed;

impl HeadEnd {
    /// Where the head begins and ends, once it is whole. `bytes` are all that arrived so far.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, BareLineFeed> {
        while let Some(offset) = memchr(b'\n', &bytes[self.seen..]) {
            let end = self.seen + offset;
            if end == 0 || bytes[end - 1] != b'\r' {
                return Err(BareLineFeed);
            }
            self.seen = end + 1;
            let is_empty = end - 1 == self.line;
            let is_first = self.line == self.start;
            self.line = self.seen;
            match (is_empty, is_first) {
                (true, true) => self.start = self.seen,
                (true, false) => return Ok(Some((self.start, self.seen))),
                (false, _) => {}
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }

    /// Where the first line begins, without the empty lines before it.
    pub(super) fn start(&self) -> usize {
        self.start
    }
}

/// Parses the head of a request, which ends with its empty line. `Err` where it can't be parsed, or
/// the length of its body is in doubt.
pub(super) fn request(head: &Bytes) -> Result<(RequestHead, Option<Refusal>), Refusal> {
    let line = request_line(head)?;
    let mut slots: FieldSlots<'_> = [MaybeUninit::uninit(); MAX_PARSED];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut slots) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Ok((line.too_large(), Some(Refusal::HeadersTooLarge)));
        }
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Refusal::Header);
        }
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::Malformed),
    }
    let fields = fields(head, parsed.headers)?;
    line.with(fields)
}

/// Parses the first line of a request that is too large to be parsed whole.
pub(super) fn too_large(bytes: &Bytes) -> Result<RequestHead, Refusal> {
    let line = request_line(bytes)?;
    Ok(line.too_large())
}

fn request_line(head: &Bytes) -> Result<RequestLine, Refusal> {
    let end = memchr(b'\r', head).ok_or(Refusal::HeadersTooLarge)?;
    let line = &head[..end];
    if line.iter().any(u8::is_ascii_control) {
        return Err(Refusal::ControlCharacters);
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(Refusal::Version),
    };
    let method = Method::from_bytes(method).map_err(|_| Refusal::RequestLine)?;
    let target = head.slice_ref(target);
    if target.first() == Some(&b'/') {
        return Ok(RequestLine {
            method,
            target: path(target)?,
            authority: None,
            version,
        });
    }
    let (target, authority) = other_target(&method, &target)?;
    Ok(RequestLine {
        method,
        target,
        authority,
        version,
    })
}

/// A path and a query, byte for byte.
fn path(target: Bytes) -> Result<PathAndQuery, Refusal> {
    // `PathAndQuery` drops a fragment, which no request has (RFC 9112 §3.2). It accepts bytes outside of
    // ASCII, which no URI has (RFC 3986 §2) and which servers treat differently.
    if memchr(b'#', &target).is_some() || !target.is_ascii() {
        return Err(Refusal::Target);
    }
    PathAndQuery::from_maybe_shared(target).map_err(|_| Refusal::Target)
}

/// The forms of a target that do not begin with a slash (RFC 9112 §3.2.2 to §3.2.4).
fn other_target(
    method: &Method,
    target: &Bytes,
) -> Result<(PathAndQuery, Option<HeaderValue>), Refusal> {
    if *method == Method::CONNECT {
        // Refused later, with a name in the log.
        return Ok((PathAndQuery::from_static("/"), None));
    }
    if &target[..] == b"*" && *method == Method::OPTIONS {
        return Ok((PathAndQuery::from_static("*"), None));
    }
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let rest = target.slice(scheme.ok_or(Refusal::Target)?.len()..);
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, rest) = (
        rest.slice(..end.unwrap_or(rest.len())),
        rest.slice(end.unwrap_or(rest.len())..),
    );
    let authority = HeaderValue::from_maybe_shared(authority).map_err(|_| Refusal::Target)?;
    let target = match rest.first() {
        // RFC 9112 §3.2.4.
        None if *method == Method::OPTIONS => PathAndQuery::from_static("*"),
        None => PathAndQuery::from_static("/"),
        Some(b'/') => path(rest)?,
        // A query without a path: the path is the root (RFC 9112 §3.2.1).
        Some(_) => path([b"/", &rest[..]].concat().into())?,
    };
    Ok((target, Some(authority)))
}

/// Whether these bytes can be the start of a response.
pub(super) fn may_be_response(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(START.len());
    bytes[..known] == START[..known]
}

/// Whether these bytes can be the start of a request: a method, after empty lines.
pub(super) fn may_be_request(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
    first.is_none_or(u8::is_ascii_graphic)
}

/// Parses the head of a response to a request of this method; `None` if it must not go on.
pub(super) fn response(head: &Bytes, method: &Method) -> Option<ResponseHead> {
    let mut slots: FieldSlots<'_> = [MaybeUninit::uninit(); MAX_PARSED];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let whole = config.parse_response_with_uninit_headers(&mut parsed, head, &mut slots);
    if !matches!(whole, Ok(httparse::Status::Complete(_))) {
        return None;
    }
    let line = StatusLine {
        status: StatusCode::from_u16(parsed.code?).ok()?,
        reason: head.slice_ref(parsed.reason.unwrap_or_default().as_bytes()),
        version: match parsed.version {
            Some(1) => Version::HTTP_11,
            _ => Version::HTTP_10,
        },
    };
    let fields = fields(head, parsed.headers).ok()?;
    line.with(fields, method)
}

fn fields(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<Fields, Refusal> {
    let mut fields = Fields::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Refusal::Header);
        };
        fields.push(name, value)?;
    }
    Ok(fields)
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Refusal {
        match error {
            FieldError::Length | FieldError::TransferEncoding => Refusal::Length,
            FieldError::Header => Refusal::Header,
        }
    }
}

#[cfg(test)]
mod tests;
