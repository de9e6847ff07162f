//! One event for each request.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;

/// The target of access events.
pub const ACCESS: &str = "access";

/// What the access log tells of a request. Every text must be one that anybody may read: no header
/// value, no query string, no address.
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
    /// The status that was answered.
    pub status: u16,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the request's headers to the last byte of the answer, in milliseconds.
    pub duration_ms: f64,
    /// From the request's headers to the answer's, in milliseconds; none if there was none.
    pub ttfb_ms: Option<f64>,
    /// The family of the client.
    pub client: &'a str,
    /// The request's own identifier.
    pub request_id: Option<&'a str>,
    /// The identifier of the trace it is part of.
    pub trace_id: Option<&'a str>,
}

impl AccessEvent<'_> {
    /// Logs the request, if it is among those that are.
    pub fn emit(&self) {
        info!(
            target: ACCESS,
            endpoint = self.endpoint,
            repository = self.repository,
            reference = self.reference,
            method = self.method,
            status = self.status,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = self.duration_ms,
            ttfb_ms = self.ttfb_ms,
            client = self.client,
            request_id = self.request_id,
            trace_id = self.trace_id,
        );
    }
}

/// Takes an even part of what comes along.
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
        let before = self.seen.fetch_add(self.part, Ordering::Relaxed);
        (before.wrapping_add(self.part) >> 32) != (before >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
