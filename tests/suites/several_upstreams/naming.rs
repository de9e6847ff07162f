//! What an upstream hears of a request, and what a client sees of its response, where their names differ.

use anyhow::{Result, ensure};

use super::{ask, by_name, proxy, responding};

const STRIPPED: &str = "match: {prefixes: [team], strip_prefix: true}";

#[tokio::test]
async fn an_upstream_hears_its_own_names_and_everything_else_byte_for_byte() -> Result<()> {
    let (team, rest) = (by_name("team").await?, by_name("rest").await?);
    for (prefix, url) in [("", team.url()), ("/docker", team.url() + "/docker")] {
        let server = proxy(&[("team", &url, STRIPPED), ("rest", &rest.url(), "")]).await?;
        for (method, asked, heard) in [
            (
                "GET",
                "/v2/team/app/tags/list?n=1&last=a%2f",
                "/v2/app/tags/list?n=1&last=a%2f",
            ),
            (
                "GET",
                "/v2/t%65am/a%2Bb/manifests/x",
                "/v2/a%2Bb/manifests/x",
            ),
            ("GET", "/v2/team/team/manifests/x", "/v2/team/manifests/x"),
            (
                "PATCH",
                "/v2/team/app/blobs/uploads/1?_state=%2f+",
                "/v2/app/blobs/uploads/1?_state=%2f+",
            ),
            ("GET", "/v2/team/app/_oci/ext?", "/v2/app/_oci/ext?"),
            (
                "POST",
                "/v2/team/app/blobs/uploads/?mount=sha256:0&from=team%2Fa",
                "/v2/app/blobs/uploads/?mount=sha256:0&from=a",
            ),
            (
                "POST",
                "/v2/team/app/blobs/uploads/?mount=sha256:0&from=other/a&x=%20",
                "/v2/app/blobs/uploads/?x=%20",
            ),
            (
                "GET",
                "/v2/team/app/tags/list?from=other/a",
                "/v2/app/tags/list?from=other/a",
            ),
            (
                "GET",
                "/token?service=a%20b&scope=repository:team/app:pull",
                "/token?service=a%20b&scope=repository%3Aapp%3Apull",
            ),
        ] {
            ask(&server, method, "us", asked).await?;
            let line = format!("{method} {prefix}{heard} HTTP/1.1\r\n");
            let requests = team.heard().concat();
            assert_eq!(requests.matches(&line).count(), 1, "{asked}: {requests}");
        }
    }
    ensure!(rest.heard().is_empty());
    Ok(())
}

/// What clients see of a header of an upstream with these keys, to a request for this target.
async fn seen(keys: &str, asked: &str, name: &str, value: &str) -> Result<Option<String>> {
    let upstream = responding(format!("401 Unauthorized\r\n{name}: {value}")).await?;
    let server = proxy(&[("team", &upstream.url(), keys), ("rest", super::NOBODY, "")]).await?;
    let response = ask(&server, "GET", "us:5000", asked).await?;
    assert_eq!(response.head.status, 401);
    Ok(response.head.header(name).map(str::to_owned))
}

#[tokio::test]
async fn a_response_names_repositories_as_clients_do() -> Result<()> {
    let app = "/v2/team/app/tags/list";
    for (name, value, expected) in [
        (
            "location",
            "/v2/app/blobs/uploads/1?a=%2f#f",
            "/v2/team/app/blobs/uploads/1?a=%2f#f",
        ),
        (
            "location",
            "http://us:5000/v2/app/blobs/uploads/1",
            "http://us:5000/v2/team/app/blobs/uploads/1",
        ),
        (
            "location",
            "https://US:5000/v2/app/blobs/x",
            "https://US:5000/v2/team/app/blobs/x",
        ),
        (
            "location",
            "//us:5000/v2/app/blobs/x",
            "//us:5000/v2/team/app/blobs/x",
        ),
        (
            "location",
            "https://cdn.example/v2/app/blobs/x",
            "https://cdn.example/v2/app/blobs/x",
        ),
        (
            "location",
            "http://us/v2/app/blobs/x",
            "http://us/v2/app/blobs/x",
        ),
        (
            "location",
            "http://UPSTREAM/v2/app/blobs/x",
            "http://us:5000/v2/team/app/blobs/x",
        ),
        ("location", "list2", "list2"),
        ("location", "/u/1", "/u/1"),
        ("location", "/v2/_uploads/1", "/v2/_uploads/1"),
        (
            "link",
            "</v2/app/tags/list?last=b&n=1>; rel=\"next\"",
            "</v2/team/app/tags/list?last=b&n=1>; rel=\"next\"",
        ),
        (
            "link",
            "<http://us:5000/v2/app/tags/list?n=1>; rel=\"next\", <https://else/v2/app/tags/list>",
            "<http://us:5000/v2/team/app/tags/list?n=1>; rel=\"next\", <https://else/v2/app/tags/list>",
        ),
        (
            "www-authenticate",
            "Bearer realm=\"http://us:5000/token\",service=\"s\",scope=\"repository:app:pull,push\"",
            "Bearer realm=\"http://us:5000/token\",service=\"s\",scope=\"repository:team/app:pull,push\"",
        ),
        (
            "www-authenticate",
            "Bearer realm=\"https://auth.example/token\",scope=\"repository:app:pull\"",
            "Bearer realm=\"https://auth.example/token\",scope=\"repository:app:pull\"",
        ),
        (
            "www-authenticate",
            "Basic realm=\"/v2/app/x\"",
            "Basic realm=\"/v2/app/x\"",
        ),
        ("docker-content-digest", "sha256:0", "sha256:0"),
        ("oci-subject", "/v2/app/x", "/v2/app/x"),
    ] {
        let found = seen(STRIPPED, app, name, value).await?;
        assert_eq!(found.as_deref(), Some(expected), "{value}");
    }
    Ok(())
}

#[tokio::test]
async fn a_kept_prefix_leaves_every_response_as_it_is() -> Result<()> {
    for (name, value) in [
        ("location", "/v2/app/blobs/uploads/1"),
        ("link", "</v2/team/app/tags/list?n=1>; rel=\"next\""),
        (
            "www-authenticate",
            "Bearer realm=\"http://us:5000/token\",scope=\"repository:app:pull\"",
        ),
    ] {
        let keys = "match: {prefixes: [team]}";
        let found = seen(keys, "/v2/team/app/tags/list", name, value).await?;
        assert_eq!(found.as_deref(), Some(value));
    }
    Ok(())
}

#[tokio::test]
async fn what_a_client_follows_names_the_registry_again() -> Result<()> {
    let asked = "/v2/app/tags/list?n=1&ns=Hub.example";
    for (name, value, expected) in [
        ("location", "/v2/app/x?a#f", "/v2/app/x?a&ns=Hub.example#f"),
        (
            "location",
            "http://us:5000/u",
            "http://us:5000/u?ns=Hub.example",
        ),
        ("location", "/v2/app/x?ns=else", "/v2/app/x?ns=else"),
        ("location", "https://cdn.example/x", "https://cdn.example/x"),
        (
            "link",
            "</v2/app/tags/list?last=a>; rel=\"next\"",
            "</v2/app/tags/list?last=a&ns=Hub.example>; rel=\"next\"",
        ),
        (
            "www-authenticate",
            "Bearer realm=\"http://us:5000/token\",scope=\"repository:app:pull\"",
            "Bearer realm=\"http://us:5000/token?ns=Hub.example\",scope=\"repository:app:pull\"",
        ),
        (
            "www-authenticate",
            "Bearer realm=\"https://auth.example/token\"",
            "Bearer realm=\"https://auth.example/token\"",
        ),
        (
            "www-authenticate",
            "Basic realm=\"Registry\"",
            "Basic realm=\"Registry\"",
        ),
    ] {
        let found = seen("match: {ns: [hub.example]}", asked, name, value).await?;
        assert_eq!(found.as_deref(), Some(expected), "{value}");
    }
    Ok(())
}
