//! end-8, end-12 and the catalog.

use super::harness::{Running, TestResponse};
use crate::oci::{Algorithm, Digest};

/// Follows `Link` to the last page, and returns the entries under `key` of each page.
async fn pages(registry: &Running, first: &str, key: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(target) = next {
        let response = registry.get(&target).await.expect(200);
        let entries = response.json()[key].as_array().unwrap().clone();
        pages.push(
            entries
                .iter()
                .map(|e| e.as_str().unwrap().to_owned())
                .collect(),
        );
        next = link(&response);
    }
    pages
}

fn link(response: &TestResponse) -> Option<String> {
    let target = response
        .header("link")
        .strip_prefix('<')?
        .strip_suffix(">; rel=\"next\"")?;
    Some(target.to_owned())
}

#[tokio::test]
async fn tags_are_listed_in_order_and_paginated() {
    let registry = Running::start().await;
    let (_, manifest) = registry.push_image("a/b", "b").await;
    for tag in ["a", "B", "1.10", "1.9", "_x"] {
        let target = format!("/v2/a/b/manifests/{tag}");
        registry
            .ask("PUT", &target, &[], &manifest)
            .await
            .expect(201);
    }
    let all = ["1.10", "1.9", "B", "_x", "a", "b"];
    let response = registry.get("/v2/a/b/tags/list").await.expect(200);
    assert_eq!(response.json()["name"], "a/b");
    assert_eq!(response.header("link"), "");
    assert_eq!(pages(&registry, "/v2/a/b/tags/list", "tags").await, [all]);
    let of_four = pages(&registry, "/v2/a/b/tags/list?n=4", "tags").await;
    assert_eq!(of_four, [&all[..4], &all[4..]]);
    let of_three = pages(&registry, "/v2/a/b/tags/list?n=3", "tags").await;
    assert_eq!(
        of_three,
        [&all[..3], &all[3..]],
        "a full last page has no link"
    );
    for (query, expected) in [
        ("last=B", &all[3..]),
        ("last=C", &all[3..]),
        ("n=1&last=a", &all[5..]),
        ("last=b", &all[6..]),
        ("n=99999999999999999999", &all[..]),
    ] {
        let target = format!("/v2/a/b/tags/list?{query}");
        assert_eq!(
            pages(&registry, &target, "tags").await,
            [expected],
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_page_of_zero_entries_is_empty_and_has_no_link() {
    let registry = Running::start().await;
    registry.push_image("a", "1").await;
    let response = registry.get("/v2/a/tags/list?n=0").await.expect(200);
    assert_eq!(response.text(), r#"{"name":"a","tags":[]}"#);
    assert_eq!(response.header("link"), "");
    let response = registry.get("/v2/_catalog?n=0").await.expect(200);
    assert_eq!(response.text(), r#"{"repositories":[]}"#);
    assert_eq!(response.header("link"), "");
    registry
        .get("/v2/unknown/tags/list?n=0")
        .await
        .rejected(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn the_page_size_must_be_a_number() {
    let registry = Running::start().await;
    registry.push_image("a", "1").await;
    for n in ["-1", "x", "1.5", "%00"] {
        for target in ["/v2/a/tags/list", "/v2/_catalog"] {
            registry
                .get(&format!("{target}?n={n}"))
                .await
                .rejected(400, "PAGINATION_NUMBER_INVALID");
        }
    }
    // An empty number is treated as a missing one.
    registry.get("/v2/a/tags/list?n=").await.expect(200);
    registry.get("/v2/_catalog?n").await.expect(200);
}

#[tokio::test]
async fn repositories_are_listed_in_order_and_paginated() {
    let registry = Running::start().await;
    for name in ["b", "a/b/c", "a-b", "a", "a/b"] {
        registry.push_blob(name, b"content").await;
    }
    let all = ["a", "a-b", "a/b", "a/b/c", "b"];
    assert_eq!(
        pages(&registry, "/v2/_catalog", "repositories").await,
        [all]
    );
    let of_two = pages(&registry, "/v2/_catalog?n=2", "repositories").await;
    assert_eq!(of_two, [&all[..2], &all[2..4], &all[4..]]);
    let rest = pages(&registry, "/v2/_catalog?last=a%2Fb", "repositories").await;
    assert_eq!(rest, [&all[3..]]);
}

#[tokio::test]
async fn the_referrers_of_any_digest_are_an_index() {
    let registry = Running::start().await;
    let unknown = Digest::of(Algorithm::Sha512, b"unknown");
    for name in ["a", "never/seen"] {
        let response = registry
            .get(&format!("/v2/{name}/referrers/{unknown}"))
            .await
            .expect(200);
        assert_eq!(
            response.header("content-type"),
            "application/vnd.oci.image.index.v1+json"
        );
        assert_eq!(response.json()["schemaVersion"], 2);
        assert_eq!(response.json()["manifests"].as_array().unwrap().len(), 0);
    }
    registry
        .get("/v2/a/referrers/sha256:1")
        .await
        .rejected(400, "DIGEST_INVALID");
    registry
        .get("/v2/a/referrers/latest")
        .await
        .rejected(400, "DIGEST_INVALID");
}
