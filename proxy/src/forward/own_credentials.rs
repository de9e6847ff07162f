//! The proxy's own credentials for one request, where the client sends none.

use http::{HeaderValue, header};

use super::framing::RequestHead;
use super::upstream_side::UpstreamSide;
use crate::upstream::{AccessScope, Replica, Upstream, UpstreamCredentials};

/// Headers by which some frameworks take a request for one of another method or path.
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// The proxy's own credentials for one request.
pub(super) struct OwnCredentials<'u> {
    credentials: &'u UpstreamCredentials,
    scope: AccessScope,
}

impl<'u> OwnCredentials<'u> {
    /// Those for a request; `None` where there are none, or it is none that they are for.
    pub(super) fn of(upstream: &'u Upstream, request: &RequestHead) -> Option<OwnCredentials<'u>> {
        let credentials = upstream.credentials()?;
        // The client's own always count.
        if request.headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        // Such a request may be another one to the upstream than it looks.
        if OVERRIDES
            .iter()
            .any(|name| request.headers.contains_key(*name))
        {
            return None;
        }
        let may_push = credentials.allow_push();
        let scope = AccessScope::of(&request.method, &request.target, may_push)?;
        Some(OwnCredentials { credentials, scope })
    }

    /// The value of `Authorization`, which this replica is asked about if need be. To wait for a token
    /// takes seconds at most.
    pub(super) async fn authorization(&self, replica: &Replica) -> Option<HeaderValue> {
        self.credentials.authorization(replica, &self.scope).await
    }

    /// The upstream has responded, or failed.
    pub(super) fn responded(&self, side: &UpstreamSide, was_sent: bool) {
        if let Some(is_unauthorized) = side.is_unauthorized() {
            self.credentials
                .responded(&self.scope, is_unauthorized, was_sent);
        }
    }
}
