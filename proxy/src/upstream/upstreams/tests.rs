use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::upstream::{RequestMatch, StrippedPrefix, Timeouts};

fn matching(hosts: &[&str], prefixes: &[&str], ns: &[&str], strips: bool) -> RequestMatch {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    RequestMatch {
        hosts: patterns(hosts),
        prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
        ns: patterns(ns),
        stripped: strips.then(|| StrippedPrefix::new(prefixes[0])),
    }
}

fn upstreams(matches: &[RequestMatch]) -> Upstreams {
    let timeouts = Timeouts::with_stall(Duration::from_mins(1));
    let mut all = matches.iter().enumerate().map(|(at, matching)| {
        let replica = crate::upstream::tests::replica("http://registry");
        let rules = crate::upstream::ReplicaRules::default();
        let upstream = Upstream::new(at.to_string(), vec![replica], rules, timeouts);
        Arc::new(upstream.for_requests(matching.clone()))
    });
    let first = all.next().unwrap();
    Upstreams::new(first, all.collect())
}

/// The name of the upstream that is chosen, or why there is none.
fn chosen(upstreams: &Upstreams, host: Option<&str>, target: &str) -> Result<String, NoUpstream> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let requested = Requested {
        host: host.map(str::as_bytes),
        path,
        query,
    };
    upstreams
        .choose(&requested)
        .map(|upstream| upstream.name().to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside errors")]
fn at(place: usize) -> Result<String, NoUpstream> {
    Ok(place.to_string())
}

const UNMATCHED: Result<String, NoUpstream> = Err(NoUpstream::Unmatched);
const UNKNOWN_NS: Result<String, NoUpstream> = Err(NoUpstream::UnknownNs);

#[test]
fn a_single_upstream_for_all_gets_everything_as_it_is() {
    let only = upstreams(&[RequestMatch::default()]);
    for target in ["*", "/", "/v2/../x", "/v2/a%2fb", "/v2/?ns=docker.io&ns=x"] {
        assert_eq!(chosen(&only, None, target), at(0), "{target}");
    }
    assert!(only.is_single());
}

#[test]
fn a_host_is_compared_without_case_and_with_any_port_if_none_is_said() {
    let all = upstreams(&[
        matching(&["a.example:5000"], &[], &[], false),
        matching(&["a.example", "[::1]"], &[], &[], false),
        matching(&["b"], &[], &[], false),
    ]);
    for (host, place) in [
        ("a.example:5000", at(0)),
        ("A.EXAMPLE:5000", at(0)),
        ("a.example", at(1)),
        ("A.example:443", at(1)),
        ("[::1]", at(1)),
        ("[::1]:80", at(1)),
        ("b", at(2)),
        ("c", UNMATCHED),
        ("a.example.", UNMATCHED),
        ("xa.example", UNMATCHED),
        ("", UNMATCHED),
        (&"b".repeat(60_000), UNMATCHED),
    ] {
        assert_eq!(chosen(&all, Some(host), "/v2/"), place, "{host}");
    }
    assert_eq!(chosen(&all, None, "/v2/"), UNMATCHED);
    assert_eq!(chosen(&all, Some("b"), "/v2/x/../y?ns=x"), at(2));
}

#[test]
fn a_repository_is_for_the_upstream_of_its_first_component() {
    let all = upstreams(&[
        matching(&[], &["team-a", "x"], &[], false),
        matching(&[], &["team-b"], &[], true),
        RequestMatch::default(),
    ]);
    let without = upstreams(&[
        matching(&[], &["team-a", "x"], &[], false),
        matching(&[], &["team-b"], &[], true),
    ]);
    for (target, place) in [
        ("/v2/team-a/app/manifests/1", at(0)),
        ("/v2/x/manifests/1", at(0)),
        (
            "/v2/team-b/app/blobs/uploads/?mount=a&from=team-a/app",
            at(1),
        ),
        ("/v2/team%2Db/app/tags/list", at(1)),
        ("/v2/team-b/unknown", at(1)),
        ("/token?scope=repository:team-b/app:pull", at(1)),
        ("/v2/auth?scope=repository%3Ax%3Apull", at(0)),
    ] {
        assert_eq!(chosen(&all, None, target), place, "{target}");
        assert_eq!(chosen(&without, None, target), place, "{target}");
    }
    for target in [
        "/v2/team-ab/app/tags/list",
        "/v2/team/a/tags/list",
        "/v2/TEAM-A/app/tags/list",
        "/token?scope=repository:other:pull",
    ] {
        assert_eq!(chosen(&all, None, target), at(2), "{target}");
        assert_eq!(chosen(&without, None, target), UNMATCHED, "{target}");
    }
    for target in [
        "/",
        "/v2/",
        "/v2/_catalog",
        "/v2/_oci/ext",
        "/v2/team-b",
        "/token",
        "/u/1",
        "*",
    ] {
        assert_eq!(chosen(&all, None, target), at(2), "{target}");
        assert_eq!(chosen(&without, None, target), at(0), "{target}");
    }
    for target in [
        "/v2/x%2Fy/tags/list",
        "/v2/y/../x/tags/list",
        "/v2//x/tags/list",
        "/%762/x/tags/list",
        "/api/../v2/x/tags/list",
    ] {
        assert_eq!(chosen(&all, None, target), UNMATCHED, "{target}");
    }
    let long = format!("/v2/{}/tags/list", "x".repeat(60_000));
    assert_eq!(chosen(&all, None, &long), at(2));
}

#[test]
fn the_catalog_of_an_upstream_whose_prefix_is_stripped_is_refused() {
    let stripping = [
        matching(&[], &["a"], &[], true),
        matching(&[], &["b"], &[], false),
    ];
    let all = upstreams(&stripping);
    for target in ["/v2/_catalog", "/v2/_catalog?n=1", "/v2/%5fcatalog"] {
        assert_eq!(
            chosen(&all, None, target),
            Err(NoUpstream::Catalog),
            "{target}"
        );
    }
    assert_eq!(chosen(&all, None, "/v2/"), at(0));
    let [first, second] = stripping;
    assert_eq!(
        chosen(&upstreams(&[second, first]), None, "/v2/_catalog"),
        at(0)
    );
}

#[test]
fn a_registry_that_containerd_names_is_for_the_upstream_that_lists_it_or_for_none() {
    let all = upstreams(&[
        RequestMatch::default(),
        matching(&[], &[], &["docker.io", "localhost:5000"], false),
        matching(&[], &[], &["ghcr.io"], false),
    ]);
    for (target, place) in [
        ("/v2/a/manifests/1?ns=docker.io", at(1)),
        ("/v2/a/manifests/1?x&ns=Docker.IO", at(1)),
        ("/v2/?ns=localhost:5000", at(1)),
        ("/v2/?ns=localhost%3A5000", at(1)),
        ("/v2/?%6Es=ghcr.io", at(2)),
        ("/v2/?ns=ghcr.io&ns=ghcr.io", at(2)),
        ("/v2/?ns=localhost", UNKNOWN_NS),
        ("/v2/?ns=docker.io:443", UNKNOWN_NS),
        ("/v2/?ns=quay.io", UNKNOWN_NS),
        ("/v2/?ns=", UNKNOWN_NS),
        ("/v2/?ns", UNKNOWN_NS),
        ("/v2/?ns=ghcr.io&ns=docker.io", UNKNOWN_NS),
        ("/v2/?ns=ghcr.io&ns=x", UNKNOWN_NS),
        ("/v2/?NS=ghcr.io", at(0)),
        ("/v2/?nsx=ghcr.io", at(0)),
        ("/v2/", at(0)),
    ] {
        assert_eq!(chosen(&all, None, target), place, "{target}");
    }
    let hostile = format!("/v2/?ns={}", "a%00".repeat(10_000));
    assert_eq!(chosen(&all, None, &hostile), UNKNOWN_NS);
    let without = upstreams(&[matching(&["a"], &[], &[], false), RequestMatch::default()]);
    assert_eq!(chosen(&without, Some("a"), "/v2/?ns=quay.io"), at(0));
}

#[test]
fn every_list_must_fit_and_the_first_upstream_that_fits_is_chosen() {
    let all = upstreams(&[
        matching(&["a"], &["x"], &[], false),
        matching(&["a"], &[], &[], false),
        matching(&[], &["x"], &[], false),
        matching(&["b"], &[], &["docker.io"], false),
    ]);
    for (host, target, place) in [
        ("a", "/v2/x/y/tags/list", at(0)),
        ("a", "/v2/y/tags/list", at(1)),
        ("a", "/v2/", at(1)),
        ("b", "/v2/x/tags/list", at(2)),
        ("b", "/v2/", at(2)),
        ("b", "/v2/y/tags/list", UNMATCHED),
        ("b", "/v2/y/tags/list?ns=docker.io", at(3)),
        ("a", "/v2/y/tags/list?ns=docker.io", UNMATCHED),
    ] {
        assert_eq!(chosen(&all, Some(host), target), place, "{host} {target}");
    }
}

#[test]
fn the_last_of_64_upstreams_is_chosen_too() {
    let names: Vec<_> = (0..64).map(|at| format!("p{at}")).collect();
    let matches: Vec<_> = names
        .iter()
        .map(|name| matching(&[], &[name], &[], false))
        .collect();
    let all = upstreams(&matches);
    for at in [0, 31, 32, 63] {
        let found = chosen(&all, None, &format!("/v2/p{at}/x/tags/list"));
        assert_eq!(found, Ok(at.to_string()));
    }
}

/// The same choice, told in another way.
fn expected(
    matches: &[RequestMatch],
    host: &str,
    repository: &str,
    ns: Option<&str>,
) -> Option<usize> {
    let names_any = matches.iter().any(|one| !one.ns.is_empty());
    matches.iter().position(|one| {
        let of_host = one.hosts.is_empty()
            || one
                .hosts
                .iter()
                .any(|pattern| pattern.covers(&host.parse().unwrap()));
        let first = repository.split('/').next().unwrap().to_owned();
        let of_prefix = one.prefixes.is_empty() || one.prefixes.contains(&first);
        let of_ns = match ns {
            Some(ns) if names_any => one.ns.iter().any(|name| name.text() == ns),
            _ => one.ns.is_empty(),
        };
        of_host && of_prefix && of_ns
    })
}

proptest! {
    #[test]
    fn the_first_upstream_that_fits_is_chosen_whatever_the_lists_are(
        lists in prop::collection::vec(
            (
                prop::collection::btree_set("(a|b|a:1|b:2)", 0..3),
                prop::collection::btree_set("(x|y|z)", 0..3),
                prop::collection::btree_set("(n|m)", 0..2),
            ),
            1..6,
        ),
        host in "(a|b|c|a:1|a:2|b:2)",
        repository in "(x|y|z|w)(/x)?",
        ns in proptest::option::of("(n|m|o)"),
    ) {
        let matches: Vec<_> = lists
            .iter()
            .map(|(hosts, prefixes, ns)| RequestMatch {
                hosts: hosts.iter().map(|text| text.parse().unwrap()).collect(),
                prefixes: prefixes.iter().cloned().collect(),
                ns: ns.iter().map(|text| text.parse().unwrap()).collect(),
                stripped: None,
            })
            .collect();
        let all = upstreams(&matches);
        let query = ns.as_ref().map_or(String::new(), |ns| format!("?ns={ns}"));
        let target = format!("/v2/{repository}/tags/list{query}");
        let found = chosen(&all, Some(&host), &target).ok();
        let place = expected(&matches, &host, &repository, ns.as_deref());
        prop_assert_eq!(found, place.map(|at| at.to_string()));
    }
}
