//! The proxy's own credentials for one request, where the client sends none.

use http::uri::PathAndQuery;
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
    /// Those for a request with this target; `None` where there are none, or it is none that they are
    /// for.
    pub(super) fn of(
        upstream: &'u Upstream,
        request: &RequestHead,
        target: &PathAndQuery,
        client_may_push: bool,
    ) -> Option<OwnCredentials<'u>> {
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
        let may_push = client_may_push && credentials.allow_push();
        let scope = AccessScope::of(&request.method, target, may_push)?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, Method, Version};
    use service::config::Secret;

    use super::*;
    use crate::forward::framing::BodyLength;
    use crate::upstream::{CredentialsConfig, Timeouts};

    #[test]
    fn a_request_that_may_be_another_one_to_the_upstream_gets_none() {
        let config = || CredentialsConfig {
            username: "user".to_owned(),
            password: Secret::new("hunter2"),
            realm: None,
            allow_push: false,
            tls: None,
        };
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        let upstream = Upstream::at(&[], timeouts).with_credentials(Some(config()));
        let request = |header: Option<&'static str>| {
            let headers = header.map(|name| {
                let value = HeaderValue::from_static("x");
                (HeaderName::from_static(name), value)
            });
            RequestHead {
                method: Method::GET,
                target: "/v2/a/tags/list".parse().unwrap(),
                version: Version::HTTP_11,
                headers: HeaderMap::from_iter(headers),
                host: None,
                body: BodyLength::None,
                keep_alive: true,
            }
        };
        let gets_some = |header: Option<&'static str>| {
            let request = request(header);
            OwnCredentials::of(&upstream, &request, &request.target, true).is_some()
        };
        assert!(gets_some(None));
        assert!(gets_some(Some("x-meta")));
        let push = |allowed, client_may| {
            let config = CredentialsConfig {
                allow_push: allowed,
                ..config()
            };
            let upstream = Upstream::at(&[], timeouts).with_credentials(Some(config));
            let request = RequestHead {
                method: Method::POST,
                ..request(None)
            };
            let target = "/v2/a/blobs/uploads/".parse().unwrap();
            OwnCredentials::of(&upstream, &request, &target, client_may).is_some()
        };
        assert!(push(true, true));
        assert!(!push(true, false) && !push(false, true));
        for name in OVERRIDES.into_iter().chain(["authorization"]) {
            assert!(!gets_some(Some(name)), "{name}");
        }
    }
}
