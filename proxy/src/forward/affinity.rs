//! Keeps an upload session at the replica that opened it, where there are several: the session's
//! Location gets a tag, and the request for it goes where the tag says.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::Url;

use super::client_view::ClientView;
use super::framing::RequestHead;
use crate::error::Refusal;
use crate::upstream::{SessionTags, Upstream, split_session_tag};

/// Takes the tag out of a request. The replica that it must reach; `None` for any.
pub(super) fn take(
    request: &mut RequestHead,
    upstream: &Upstream,
) -> Result<Option<usize>, Refusal> {
    let Some(tags) = tags(upstream) else {
        return Ok(None);
    };
    let Some((target, tag)) = split_session_tag(request.target.as_str()) else {
        return Ok(None);
    };
    let replica = tags.replica(tag, request.target.path());
    // Also of a request that is refused: no log and no table ever sees a tag.
    request.target = target.try_into().map_err(|_| Refusal::Target)?;
    replica.map(Some).ok_or(Refusal::UnknownSession)
}

/// Tags the Location of a session, in a response of this replica to this request.
pub(super) fn tag(
    view: ClientView<'_>,
    status: StatusCode,
    headers: &mut HeaderMap,
    upstream: &Upstream,
) {
    let Some(asked) = view.asked else {
        return;
    };
    let names_session = match status {
        StatusCode::ACCEPTED | StatusCode::NO_CONTENT => true,
        // What else may say where a session continues that the request was for.
        StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT
        | StatusCode::RANGE_NOT_SATISFIABLE => asked.has_session,
        _ => false,
    };
    if names_session
        && let Some(tags) = tags(upstream)
        && let Some(location) = headers.get_mut(header::LOCATION)
        && let Ok(text) = location.to_str()
        && let Some(path) = local_path(text, view)
        && let Some(tagged) = tags.add(asked.index, text, &path)
        && let Ok(tagged) = HeaderValue::try_from(tagged)
    {
        *location = tagged;
    }
}

fn tags(upstream: &Upstream) -> Option<&SessionTags> {
    upstream.replicas()?.tags()
}

/// The path that a client asks the proxy for who follows a Location; `None` if it is elsewhere.
fn local_path(location: &str, view: ClientView<'_>) -> Option<String> {
    let host = view.host().and_then(|host| host.to_str().ok());
    let mut base = Url::parse(&format!("{}://{}", view.scheme(), host.unwrap_or("-"))).ok()?;
    base.set_path(view.request.target.path());
    let url = base.join(location).ok()?;
    // The scheme may be another one: a proxy in front may speak TLS and not tell.
    let is_local = matches!(url.scheme(), "http" | "https")
        && url.host() == base.host()
        && url.port() == base.port();
    is_local.then(|| url.path().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, Version};

    use super::*;
    use crate::forward::client_view::AskedReplica;
    use crate::forward::framing::BodyLength;
    use crate::upstream::{ReplicaRules, ReplicaSettings, Timeouts};

    fn request(host: Option<&'static str>, target: &str) -> RequestHead {
        RequestHead {
            method: Method::POST,
            target: target.parse().unwrap(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            host: host.map(HeaderValue::from_static),
            body: BodyLength::None,
            keep_alive: true,
        }
    }

    #[test]
    fn a_location_is_local_if_a_client_reaches_the_proxy_by_it() {
        let path = |host, location: &str| {
            let request = request(host, "/v2/a/blobs/uploads/");
            let view = ClientView {
                request: &request,
                claims: None,
                is_tls: false,
                cors: None,
                asked: None,
            };
            local_path(location, view)
        };
        let us = Some("us:5000");
        for (host, location, local) in [
            (us, "/u/1?x#y", Some("/u/1")),
            (us, "1", Some("/v2/a/blobs/uploads/1")),
            (us, "?x", Some("/v2/a/blobs/uploads/")),
            (us, "http://us:5000/u/1", Some("/u/1")),
            (us, "https://US:5000/u/1", Some("/u/1")),
            (us, "//us:5000/u/1", Some("/u/1")),
            (us, "http://us/u/1", None),
            (us, "http://us:5001/u/1", None),
            (us, "http://else:5000/u/1", None),
            (us, "//else/u/1", None),
            (us, "ftp://us:5000/u/1", None),
            (us, "http://[", None),
            (Some("us"), "https://us:443/u/1", Some("/u/1")),
            (Some("[::1]:5000"), "http://[0::1]:5000/u/1", Some("/u/1")),
            (None, "/u/1", Some("/u/1")),
            (None, "http://us/u/1", None),
        ] {
            assert_eq!(path(host, location).as_deref(), local, "{location}");
        }
    }

    fn upstream(replicas: &[&str]) -> Upstream {
        let replicas = replicas.iter().map(|url| ReplicaSettings {
            name: (*url).to_owned(),
            target: url.parse().unwrap(),
            is_draining: false,
        });
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        let rules = ReplicaRules::default();
        Upstream::new("main".to_owned(), replicas.collect(), rules, timeouts)
    }

    /// The Location after a response of the second replica.
    fn tagged(
        upstream: &Upstream,
        status: u16,
        has_session: bool,
        location: &'static str,
    ) -> String {
        let request = request(Some("us"), "/v2/a/blobs/uploads/");
        let view = ClientView {
            request: &request,
            claims: None,
            is_tls: false,
            cors: None,
            asked: Some(AskedReplica {
                index: 1,
                has_session,
            }),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static(location));
        tag(
            view,
            StatusCode::from_u16(status).unwrap(),
            &mut headers,
            upstream,
        );
        headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn only_a_location_where_a_session_continues_is_tagged() {
        let upstream = upstream(&["http://a", "http://b"]);
        for (status, has_session, is_tagged) in [
            (202, false, true),
            (202, true, true),
            (204, false, true),
            (204, true, true),
            (201, true, false),
            (200, true, false),
            (301, true, false),
            (307, true, true),
            (307, false, false),
            (308, true, true),
            (416, true, true),
            (416, false, false),
            (404, true, false),
        ] {
            let seen = tagged(&upstream, status, has_session, "/u/1");
            assert_eq!(seen != "/u/1", is_tagged, "{status} {has_session} {seen}");
        }
        assert_eq!(
            tagged(&upstream, 202, true, "http://else/u"),
            "http://else/u"
        );
    }

    #[test]
    fn a_request_gets_its_target_and_its_replica_back_or_is_refused_without_a_tag() {
        let both = upstream(&["http://a", "http://b"]);
        let location = tagged(&both, 202, false, "/u/1?_state=%2f");
        let mut asked = request(Some("us"), &format!("{location}&digest=x"));
        assert_eq!(take(&mut asked, &both), Ok(Some(1)));
        assert_eq!(asked.target.as_str(), "/u/1?_state=%2f&digest=x");
        assert_eq!(take(&mut asked, &both), Ok(None));
        let moved = location.replace("/u/1", "/u/2");
        let mut asked = request(Some("us"), &moved);
        assert_eq!(take(&mut asked, &both), Err(Refusal::UnknownSession));
        assert_eq!(asked.target.as_str(), "/u/2?_state=%2f");
        let mut asked = request(Some("us"), &location);
        assert_eq!(take(&mut asked, &upstream(&["http://b"])), Ok(None));
        assert_eq!(asked.target.as_str(), location);
    }
}
