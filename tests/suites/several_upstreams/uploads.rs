//! Upload sessions whose Locations do not lead back to their upstream by themselves.

use anyhow::{Context, Result, ensure};
use harness::octoserve::Server;
use harness::scripted::{Caller, Scripted};
use harness::wire::Response;
use tempfile::TempDir;

use super::{ask, proxy};

/// A registry that opens upload sessions at this Location, and says where they continue.
async fn opening(location: &'static str) -> Result<Scripted> {
    Scripted::start(move |mut caller: Caller| async move {
        loop {
            let head = caller.head().await?;
            let status = if head.starts_with("PUT ") {
                "201 Created\r\nLocation: /v2/app/blobs/x".to_owned()
            } else {
                format!("202 Accepted\r\nLocation: {location}")
            };
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            caller.send(response).await?;
        }
    })
    .await
}

fn location(response: &Response) -> Result<String> {
    Ok(response
        .head
        .header("location")
        .context("no Location")?
        .to_owned())
}

/// Two proxies with one key in front of the same upstreams, written in another order.
async fn two(team: &Scripted, rest: &Scripted, directory: &TempDir) -> Result<[Server; 2]> {
    let path = directory.path().join("key");
    std::fs::write(&path, "k".repeat(32))?;
    let key = format!("session_key_file: {}", path.display());
    let stripped = format!("match: {{prefixes: [team], strip_prefix: true}}, {key}");
    let other = format!("match: {{prefixes: [other]}}, {key}");
    let (team, rest) = (team.url(), rest.url());
    let first = proxy(&[("team", &team, &stripped), ("rest", &rest, &key)]).await?;
    let second = proxy(&[
        ("other", &rest, &other),
        ("team", &team, &stripped),
        ("rest", &rest, &key),
    ])
    .await?;
    Ok([first, second])
}

#[tokio::test]
async fn an_opaque_location_leads_back_to_its_upstream_at_every_proxy_with_the_key() -> Result<()> {
    let (team, rest) = (
        opening("/u/1?_state=%2f").await?,
        opening("/u/1?_state=%2f").await?,
    );
    let directory = TempDir::new()?;
    let proxies = two(&team, &rest, &directory).await?;
    for (repository, of, other) in [("team/app", &team, &rest), ("app", &rest, &team)] {
        let before = other.heard().len();
        let path = format!("/v2/{repository}/blobs/uploads/");
        let mut next = location(&ask(&proxies[0], "POST", "us", &path).await?)?;
        for proxy in proxies.iter().rev().chain(&proxies) {
            ensure!(next.starts_with("/u/1?_state=%2f&_octoserve="), "{next}");
            next = location(&ask(proxy, "PATCH", "us", &next).await?)?;
        }
        let put = format!("{next}&digest=sha256:0");
        let stored = ask(&proxies[1], "PUT", "us", &put).await?;
        assert_eq!(stored.head.status, 201);
        let blob = if repository == "app" {
            "/v2/app/blobs/x"
        } else {
            "/v2/team/app/blobs/x"
        };
        assert_eq!(location(&stored)?, blob);
        let heard = of.heard().concat();
        assert_eq!(
            heard.matches("PATCH /u/1?_state=%2f HTTP/1.1\r\n").count(),
            4,
            "{heard}"
        );
        ensure!(
            heard.contains("PUT /u/1?_state=%2f&digest=sha256:0 HTTP/1.1\r\n"),
            "{heard}"
        );
        ensure!(!heard.contains("_octoserve"), "{heard}");
        assert_eq!(
            other.heard().len(),
            before,
            "the other one hears nothing of it"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_location_that_leads_back_by_itself_has_no_tag() -> Result<()> {
    let session = "/v2/app/blobs/uploads/1?_state=a";
    let (team, rest) = (opening(session).await?, opening(session).await?);
    let directory = TempDir::new()?;
    let [server, _] = two(&team, &rest, &directory).await?;
    for (repository, expected) in [
        ("team/app", "/v2/team/app/blobs/uploads/1?_state=a"),
        ("app", "/v2/app/blobs/uploads/1?_state=a"),
    ] {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let opened = location(&ask(&server, "POST", "us", &path).await?)?;
        assert_eq!(opened, expected);
    }
    // Another proxy behind this one may have a tag of its own, which stays.
    let theirs = format!("/v2/team/app/blobs/uploads/1?_octoserve={}", "0".repeat(40));
    assert_eq!(ask(&server, "PATCH", "us", &theirs).await?.head.status, 202);
    let heard = team.heard().concat();
    let kept = theirs.replace("/team/", "/");
    ensure!(
        heard.contains(&format!("PATCH {kept} HTTP/1.1\r\n")),
        "{heard}"
    );
    Ok(())
}

#[tokio::test]
async fn a_tag_that_fits_no_upstream_is_an_unknown_session() -> Result<()> {
    let (team, rest) = (opening("/u/1").await?, opening("/u/1").await?);
    let directory = TempDir::new()?;
    let [server, _] = two(&team, &rest, &directory).await?;
    let opened = location(&ask(&server, "POST", "us", "/v2/team/app/blobs/uploads/").await?)?;
    let before = team.heard().concat();
    for target in [
        opened.replace("/u/1", "/u/2"),
        format!("/u/1?_octoserve={}", "0".repeat(40)),
        "/u/1?_octoserve=".to_owned(),
        "/v2/?_octoserve".to_owned(),
    ] {
        let response = ask(&server, "PATCH", "us", &target).await?;
        assert_eq!(response.head.status, 404, "{target}");
        assert_eq!(
            response.error_code().as_deref(),
            Some("BLOB_UPLOAD_UNKNOWN")
        );
    }
    ensure!(rest.heard().is_empty());
    assert_eq!(team.heard().concat(), before);
    // Without its tag it is anybody's.
    assert_eq!(ask(&server, "PATCH", "us", "/u/1").await?.head.status, 202);
    ensure!(rest.heard().concat().contains("PATCH /u/1 HTTP/1.1\r\n"));
    Ok(())
}

#[tokio::test]
async fn sessions_by_host_and_by_ns_stay_without_a_tag() -> Result<()> {
    let (host, ns, rest) = (
        opening("/u/1").await?,
        opening("/u/1").await?,
        opening("/u/1").await?,
    );
    let server = proxy(&[
        ("host", &host.url(), "match: {hosts: [a]}"),
        ("ns", &ns.url(), "match: {ns: [hub]}"),
        ("rest", &rest.url(), ""),
    ])
    .await?;
    for (asked, query, location_after, of) in [
        ("a", "", "/u/1", &host),
        ("b", "?ns=hub", "/u/1?ns=hub", &ns),
        ("b", "", "/u/1", &rest),
    ] {
        let path = format!("/v2/app/blobs/uploads/{query}");
        let opened = location(&ask(&server, "POST", asked, &path).await?)?;
        assert_eq!(opened, location_after);
        let next = location(&ask(&server, "PATCH", asked, &opened).await?)?;
        assert_eq!(next, location_after);
        let heard = of.heard().concat();
        assert_eq!(heard.matches("PATCH /u/1").count(), 1, "{heard}");
    }
    Ok(())
}
