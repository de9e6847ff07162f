//! Finds the upstream of a request, and keeps an upload session where it was opened: the session's
//! Location gets a tag where it does not lead there by itself, and the request for it goes where the tag
//! says.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::client_view::ClientView;
use super::framing::RequestHead;
use super::local_url;
use crate::error::Refusal;
use crate::upstream::{
    NoUpstream, ReplicaSet, Requested, SessionTags, Upstream, Upstreams, split_session_tag,
};

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination<U> {
    pub(super) upstream: U,
    /// The replica that it must reach; `None` for any.
    pub(super) replica: Option<usize>,
}

/// Takes the tag out of a request, and finds the upstream that it is for. `claimed` is the client's host
/// as a trusted peer gives it. A request that is refused may be for an upstream all the same.
pub(super) fn take<'u>(
    request: &mut RequestHead,
    claimed: Option<&HeaderValue>,
    upstreams: &'u Upstreams,
) -> Result<Destination<&'u Upstream>, (Refusal, Option<&'u Upstream>)> {
    let host = claimed.or(request.host.as_ref());
    let requested = Requested {
        host: host.map(HeaderValue::as_bytes),
        path: request.target.path(),
        query: request.target.query(),
    };
    let chosen = upstreams.choose(&requested);
    let is_open = upstreams.is_open(&requested);
    let found = if upstreams.is_single() {
        None
    } else {
        split_session_tag(request.target.as_str())
    };
    let Some((target, tag)) = found else {
        return match chosen {
            Ok(upstream) => Ok(Destination {
                upstream,
                replica: None,
            }),
            Err(reason) => Err((reason.into(), None)),
        };
    };
    let path = request.target.path();
    let mut all = upstreams.all();
    let tagged = all.find_map(|upstream| {
        let replica = tags(upstream)?.replica(tag, path)?;
        Some(Destination {
            upstream: &**upstream,
            replica: Some(replica),
        })
    });
    if let (None, Ok(upstream)) = (&tagged, &chosen)
        && upstream.replicas().is_some_and(ReplicaSet::is_single)
        && !is_open
    {
        // It needs no tag of ours, so that is one of another proxy behind this one.
        return Ok(Destination {
            upstream,
            replica: None,
        });
    }
    // Also of a request that is refused: no log and no table ever sees a tag.
    let chosen = chosen.ok().map(|upstream| &**upstream);
    request.target = target.try_into().map_err(|_| (Refusal::Target, chosen))?;
    tagged.ok_or((Refusal::UnknownSession, chosen))
}

/// Tags the Location of a session, in a response of this upstream to this request.
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
        && !asked.among.is_single()
        && let Some(tags) = tags(upstream)
        && let Some(location) = headers.get_mut(header::LOCATION)
        && let Ok(text) = location.to_str()
        && let Some((path, query)) =
            local_url::local_target(text, view.request.target.path(), view.origin())
        && !leads_to(upstream, (&path, query.as_deref()), view, asked.among)
        && let Some(tagged) = tags.add(asked.index, text, &path)
        && let Ok(tagged) = HeaderValue::try_from(tagged)
    {
        *location = tagged;
    }
}

/// Whether a target leads to the one replica of this upstream by itself.
fn leads_to(
    upstream: &Upstream,
    (path, query): (&str, Option<&str>),
    view: ClientView<'_>,
    upstreams: &Upstreams,
) -> bool {
    let requested = Requested {
        host: view.host().map(HeaderValue::as_bytes),
        path,
        query,
    };
    let chosen = upstreams.choose(&requested);
    upstream.replicas().is_none_or(ReplicaSet::is_single)
        && !upstreams.is_open(&requested)
        && chosen.is_ok_and(|chosen| std::ptr::eq(&raw const **chosen, upstream))
}

fn tags(upstream: &Upstream) -> Option<&SessionTags> {
    Some(upstream.replicas()?.tags())
}

impl From<NoUpstream> for Refusal {
    fn from(reason: NoUpstream) -> Refusal {
        match reason {
            NoUpstream::Unmatched => Refusal::NoUpstream,
            NoUpstream::UnknownNs => Refusal::UnknownNs,
            NoUpstream::Catalog => Refusal::NoCatalog,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{Method, Version};

    use super::*;
    use crate::forward::client_view::AskedReplica;
    use crate::forward::framing::BodyLength;
    use crate::upstream::{ReplicaRules, ReplicaSettings, RequestMatch, Timeouts};

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
            local_url::local_target(location, request.target.path(), view.origin())
                .map(|(path, _)| path)
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

    /// An upstream for requests of this prefix, or for all.
    fn upstream(name: &str, replicas: &[&str], prefix: Option<&str>) -> Arc<Upstream> {
        let replicas = replicas.iter().map(|url| ReplicaSettings {
            name: (*url).to_owned(),
            target: url.parse().unwrap(),
            is_draining: false,
        });
        let timeouts = Timeouts::with_stall(Duration::from_mins(1));
        let rules = ReplicaRules::default();
        let matching = RequestMatch {
            prefixes: prefix.map(str::to_owned).into_iter().collect(),
            ..RequestMatch::default()
        };
        let upstream = Upstream::new(name.to_owned(), replicas.collect(), rules, timeouts);
        Arc::new(upstream.for_requests(matching))
    }

    fn single(replicas: &[&str]) -> Upstreams {
        Upstreams::new(upstream("main", replicas, None), Vec::new())
    }

    /// The Location after a response of a replica.
    fn tagged(
        (upstreams, upstream): (&Upstreams, &Upstream),
        index: usize,
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
                among: upstreams,
                index,
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
        let upstreams = single(&["http://a", "http://b"]);
        let both = (&upstreams, &**upstreams.all().next().unwrap());
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
            let seen = tagged(both, 1, status, has_session, "/u/1");
            assert_eq!(seen != "/u/1", is_tagged, "{status} {has_session} {seen}");
        }
        assert_eq!(tagged(both, 1, 202, true, "http://else/u"), "http://else/u");
    }

    /// Where a request goes, and its target without the tag.
    fn taken(
        upstreams: &Upstreams,
        target: &str,
    ) -> (Result<(String, Option<usize>), Refusal>, String) {
        let mut asked = request(Some("us"), target);
        let destination = take(&mut asked, None, upstreams);
        let destination = destination.map(|to| (to.upstream.name().to_owned(), to.replica));
        let target = asked.target.as_str().to_owned();
        (destination.map_err(|(refusal, _)| refusal), target)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside errors")]
    fn main(replica: Option<usize>) -> Result<(String, Option<usize>), Refusal> {
        Ok(("main".to_owned(), replica))
    }

    #[test]
    fn a_request_gets_its_target_and_its_replica_back_or_is_refused_without_a_tag() {
        let upstreams = single(&["http://a", "http://b"]);
        let both = (&upstreams, &**upstreams.all().next().unwrap());
        let location = tagged(both, 1, 202, false, "/u/1?_state=%2f");
        let plain = "/u/1?_state=%2f&digest=x".to_owned();
        let seen = taken(&upstreams, &format!("{location}&digest=x"));
        assert_eq!(seen, (main(Some(1)), plain.clone()));
        assert_eq!(taken(&upstreams, &plain), (main(None), plain));
        let moved = location.replace("/u/1", "/u/2");
        let refused = (Err(Refusal::UnknownSession), "/u/2?_state=%2f".to_owned());
        assert_eq!(taken(&upstreams, &moved), refused);
        let alone = single(&["http://b"]);
        assert_eq!(taken(&alone, &location), (main(None), location));
    }

    /// Two upstreams with one key, whose replicas have the same URLs.
    fn several() -> Upstreams {
        let team = upstream("team", &["http://r"], Some("team"));
        Upstreams::new(team, vec![upstream("main", &["http://r"], None)])
    }

    #[test]
    fn only_a_location_that_leads_elsewhere_by_itself_is_tagged_with_its_upstream() {
        let upstreams = several();
        let all: Vec<_> = upstreams.all().collect();
        for (of, location, is_tagged) in [
            (0, "/v2/team/app/blobs/uploads/1?a", false),
            // Relative to the request, which is not of the team.
            (0, "1", true),
            (0, "/v2/app/blobs/uploads/1", true),
            (0, "/v2/team/../x/blobs/uploads/1", true),
            // Where the name does not say it, another start of the proxy must not guess.
            (0, "/u/1?a#f", true),
            (1, "/u/1", true),
            (1, "/v2/a/blobs/uploads/1", false),
            (1, "/v2/team/blobs/uploads/1", true),
            (1, "http://else/u/1", false),
        ] {
            let seen = tagged((&upstreams, all[of]), 0, 202, false, location);
            assert_eq!(seen != location, is_tagged, "{of} {location}");
            if is_tagged && !location.contains("..") {
                let target = seen.split('#').next().unwrap();
                let target = if target.starts_with('/') {
                    target.to_owned()
                } else {
                    format!("/v2/a/blobs/uploads/{target}")
                };
                let (to, rest) = taken(&upstreams, &target);
                assert_eq!(to, Ok((all[of].name().to_owned(), Some(0))), "{target}");
                assert!(!rest.contains("_octoserve"), "{rest}");
            }
        }
    }

    #[test]
    fn a_tag_that_fits_no_upstream_is_refused_unless_the_path_says_enough() {
        let upstreams = several();
        let zeros = "0".repeat(40);
        for path in ["/u/1", "/v2/", "/v2/team/../a/tags/list"] {
            let (to, target) = taken(&upstreams, &format!("{path}?_octoserve={zeros}"));
            assert_eq!((to, &*target), (Err(Refusal::UnknownSession), path));
        }
        // A proxy behind this one has made it.
        let target = format!("/v2/team/app/blobs/uploads/1?a&_octoserve={zeros}");
        let team = Ok(("team".to_owned(), None));
        assert_eq!(taken(&upstreams, &target), (team, target));
    }
}
