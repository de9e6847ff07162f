//! What the access log says about a request.

use std::time::Duration;

use super::settings::AccessOutcome;

/// The longest repository that is logged whole, in bytes: no name is longer.
pub const MAX_REPOSITORY: usize = 255;
/// The longest reference that is logged whole, in bytes: a sha512 digest; a tag has at most 128.
pub const MAX_REFERENCE: usize = 135;
/// The longest name of a user that is logged whole, in bytes.
pub const MAX_USER: usize = 128;
/// The longest `User-Agent` that is logged whole, in bytes.
pub const MAX_USER_AGENT: usize = 256;
/// What the access log says about a request. docs/reference/access-log.md has the table of its fields.
///
/// Every text must be one that anybody may read: no query string, and no header's value but
/// `User-Agent` and an `X-Request-Id`. Of the credentials, only the user's name is written.
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
    /// The target without its query. Only the Common Log Format has it.
    pub path: &'a str,
    /// The version of HTTP that the client spoke.
    pub protocol: &'a str,
    /// Whether it spoke TLS.
    pub is_tls: bool,
    /// The status of the response.
    pub status: u16,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the request's headers to the last byte of the response.
    pub duration: Duration,
    /// From the request's headers to the response's; none if there was none.
    pub ttfb: Option<Duration>,
    /// How long it waited for a replica, if it had to.
    pub queue: Option<Duration>,
    /// How long it took to make a connection to the upstream, if one was made.
    pub connect: Option<Duration>,
    /// How often it was sent again, or elsewhere.
    pub retries: u32,
    /// The family of the client.
    pub client: &'a str,
    /// What the client says of itself.
    pub user_agent: Option<&'a [u8]>,
    /// The client's address, if it has one.
    pub client_address: Option<&'a str>,
    /// The request's credentials: the value of `Authorization`. Only the user's name is written.
    pub credentials: Option<&'a [u8]>,
    /// Whether they were accepted.
    pub is_authorized: bool,
    /// The upstream, where there is one.
    pub upstream: Option<&'a str>,
    /// The replica of the upstream that was asked last.
    pub replica: Option<&'a str>,
    /// The request's own identifier.
    pub request_id: Option<&'a str>,
    /// The trace that it is part of.
    pub trace_id: Option<&'a str>,
    /// Why it failed, in one word.
    pub failure: Option<&'a str>,
    /// More about why it failed.
    pub reason: Option<&'a str>,
}

impl AccessEvent<'_> {
    pub(super) fn outcome(&self) -> AccessOutcome {
        let is_challenge = self.status == 401 && self.credentials.is_none();
        AccessOutcome {
            status: self.status,
            duration: self.duration,
            is_cut: self.failure.is_some(),
            is_failure: self.failure.is_some() || (self.status >= 400 && !is_challenge),
        }
    }
}
