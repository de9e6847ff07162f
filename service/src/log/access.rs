//! One event for each request.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;

use super::bounded::cut;

/// The target of access events.
pub const ACCESS: &str = "access";

/// The longest repository that is logged whole, in bytes: no name is longer.
pub const MAX_REPOSITORY: usize = 255;
/// The longest reference that is logged whole, in bytes: a sha512 digest; a tag has at most 128.
pub const MAX_REFERENCE: usize = 135;
/// The longest identifier of a request that is taken from its headers.
const MAX_REQUEST_ID: usize = 128;

/// What the access log says about a request. Every text must be one that anybody may read: no header
/// value but a [`request_id`], no query string, no address but the client's.
///
/// A repository or reference need not be one: a request that is refused is logged with what it
/// named. What is longer than any name, tag or digest is cut, and ends with `…`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessEvent<'a> {
    /// What kind of path it was.
    pub endpoint: &'a str,
    /// The repository, if the path has one.
    pub repository: Option<&'a str>,
    /// The tag or digest, if the path has one.
    pub reference: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The status of the response.
    pub status: u16,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the request's headers to the last byte of the response, in milliseconds.
    pub duration_ms: f64,
    /// From the request's headers to the response's, in milliseconds; none if there was none.
    pub ttfb_ms: Option<f64>,
    /// The family of the client.
    pub client: &'a str,
    /// The client's address, if it has one.
    pub client_address: Option<&'a str>,
    /// The request's own identifier.
    pub request_id: Option<&'a str>,
}

impl AccessEvent<'_> {
    /// Logs the request, if it is among those that are.
    pub fn emit(&self) {
        info!(
            target: ACCESS,
            endpoint = self.endpoint,
            repository = cut_some(self.repository, MAX_REPOSITORY).as_deref(),
            reference = cut_some(self.reference, MAX_REFERENCE).as_deref(),
            method = self.method,
            status = self.status,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = self.duration_ms,
            ttfb_ms = self.ttfb_ms,
            client = self.client,
            client_address = self.client_address,
            request_id = self.request_id,
        );
    }
}

fn cut_some(text: Option<&str>, most: usize) -> Option<Cow<'_, str>> {
    text.map(|text| cut(text, most))
}

/// The identifier that an `X-Request-Id` header gives a request, if it is one that can be logged
/// and searched for without surprises: up to 128 letters, digits, hyphens, underscores and periods.
pub fn request_id(header: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let id = str::from_utf8(header).ok()?;
    ((1..=MAX_REQUEST_ID).contains(&id.len()) && header.iter().all(plain)).then_some(id)
}

/// Selects an even part of the events. A sum with a fraction needs no random numbers and no crate.
pub(super) struct Sampler {
    /// The part, in 2⁻³².
    part: u64,
    seen: AtomicU64,
}

const WHOLE: f64 = 4_294_967_296.0;
/// Where the sum starts, far from a whole number, so that rounding does not show.
const HALF: u64 = 1 << 31;

impl Sampler {
    pub(super) fn new(part: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2³²"
        )]
        let part = (part.clamp(0.0, 1.0) * WHOLE).round() as u64;
        Self {
            part,
            seen: AtomicU64::new(HALF),
        }
    }

    /// Whether this one is taken: where the running sum passes a whole number.
    pub(super) fn take(&self) -> bool {
        // Relaxed: only the sum counts, in any order.
        let before = self.seen.fetch_add(self.part, Ordering::Relaxed);
        (before.wrapping_add(self.part) >> 32) != (before >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_that_could_forge_a_line_is_none() {
        let longest = "x".repeat(MAX_REQUEST_ID);
        for id in ["a", "0f-9_Z.z", &longest] {
            assert_eq!(request_id(id.as_bytes()), Some(id));
        }
        let longer = "x".repeat(MAX_REQUEST_ID + 1);
        for wrong in ["", "a b", "a\nb", "\"", "a=b", "\u{1b}[31m", "ä", &longer] {
            assert_eq!(request_id(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(request_id(b"\xff"), None);
    }

    #[test]
    fn the_sampler_takes_its_part_evenly() {
        for (part, taken) in [(0.0, 0), (0.001, 1), (0.25, 250), (1.0, 1000), (7.0, 1000)] {
            let sampler = Sampler::new(part);
            assert_eq!(
                (0..1000).filter(|_| sampler.take()).count(),
                taken,
                "{part}"
            );
        }
    }
}
