//! To choose an upstream for a request allocates nothing, whatever the request is.

#[path = "../../service/tests/counting/mod.rs"]
mod counting;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use counting::allocations;
use proxy::upstream::{
    ReplicaRules, ReplicaSettings, RequestMatch, Requested, StrippedPrefix, Timeouts, Upstream,
    Upstreams,
};

#[expect(clippy::unwrap_used, reason = "constants of this test")]
fn upstream(hosts: &[&str], prefixes: &[&str], ns: &[&str]) -> Arc<Upstream> {
    let name = "http://registry:5000".to_owned();
    let replica = ReplicaSettings {
        target: name.parse().unwrap(),
        name,
        is_draining: false,
    };
    let timeouts = Timeouts::with_stall(Duration::from_mins(1));
    let rules = ReplicaRules::default();
    let upstream = Upstream::new("main".to_owned(), vec![replica], rules, timeouts);
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Arc::new(upstream.for_requests(RequestMatch {
        hosts: patterns(hosts),
        prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
        ns: patterns(ns),
        stripped: prefixes.first().map(|prefix| StrippedPrefix::new(prefix)),
    }))
}

#[test]
fn choosing_an_upstream_allocates_nothing() {
    let others = vec![
        upstream(&["a.example"], &["team-a"], &[]),
        upstream(&[], &[], &["docker.io"]),
    ];
    let upstreams = Upstreams::new(upstream(&["b.example:5000"], &[], &[]), others);
    let mut found = (0, 0);
    let counted = allocations(|| {
        for path in [
            "/",
            "*",
            "/v2/",
            "/v2/_catalog",
            "/token",
            "/v2/team-a/app/manifests/1",
            "/v2/team%2Da/app/blobs/uploads/x",
            "/v2/x/%2e%2e/team-a",
            "/u;1\\%5c",
        ] {
            for query in [
                None,
                Some(""),
                Some("ns=docker.io"),
                Some("n%73=Docker%2Eio&ns=quay.io"),
                Some("scope=registry:catalog:*%20repository%3Ateam-a%2Fapp:pull"),
            ] {
                for host in [
                    None,
                    Some(&b"B.Example:5000"[..]),
                    Some(b"a.example"),
                    Some(b""),
                ] {
                    let requested = Requested { host, path, query };
                    match black_box(upstreams.choose(&requested)) {
                        Ok(_) => found.0 += 1,
                        Err(_) => found.1 += 1,
                    }
                }
            }
        }
    });
    assert_eq!(counted, 0);
    assert!(found.0 > 20 && found.1 > 20, "{found:?}");
}
