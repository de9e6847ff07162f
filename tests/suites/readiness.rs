//! `/readyz`, and `octoserve health`, which requests it: whether the upstream is healthy.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::poll;
use harness::scripted::{Caller, Scripted};
use harness::tools;
use harness::wire;

/// Longer than the proxy's probe interval.
const DEADLINE: Duration = Duration::from_secs(30);

const NOBODY: &str = "http://127.0.0.1:9";

async fn becomes(server: &Server, status: u16) -> Result<()> {
    let what = format!("/readyz becomes {status}");
    poll::until(&what, DEADLINE, async || {
        let request = wire::request("GET", "/readyz", &[], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        Ok((response.head.status == status).then_some(()))
    })
    .await
}

async fn health(url: &str) -> Result<Option<i32>> {
    let program = Program::Octoserve.path()?;
    let asked = tools::attempt(&program.to_string_lossy(), &["health", "--url", url]).await?;
    Ok(asked.status.code())
}

#[tokio::test]
async fn readiness_requires_an_upstream_that_responds() -> Result<()> {
    let server = Launch::in_front_of(NOBODY).start().await?;
    becomes(&server, 503).await?;
    assert_eq!(health(&server.url("/readyz")).await?, Some(1));
    assert_eq!(health(&server.url("/livez")).await?, Some(0));
    let upstream = Scripted::start(|_: Caller| async { Ok(()) }).await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    becomes(&server, 200).await?;
    assert_eq!(health(&server.url("/readyz")).await?, Some(0));
    drop(upstream);
    becomes(&server, 503).await?;
    ensure!(
        health(NOBODY).await? == Some(1),
        "an address without a listener is healthy"
    );
    Ok(())
}

#[tokio::test]
async fn readiness_requires_the_embedded_registrys_data_directory() -> Result<()> {
    let parent = tempfile::tempdir()?;
    let (data, aside) = (parent.path().join("data"), parent.path().join("aside"));
    let server = Launch::all_in_one().data(&data).start().await?;
    becomes(&server, 200).await?;
    std::fs::rename(&data, &aside)?;
    becomes(&server, 503).await?;
    std::fs::rename(&aside, &data)?;
    becomes(&server, 200).await
}

#[tokio::test]
async fn a_balancer_that_can_probe_only_the_root_gets_200_and_a_browser_what_is_there() -> Result<()>
{
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let page = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
            caller.send(page).await?;
        }
    });
    let upstream = upstream.await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let get = async |method, accept: &[(&str, &str)]| {
        let request = wire::request(method, "/", accept, b"");
        let response = wire::exchange(server.address(), method, &request).await?;
        anyhow::Ok((response.head.status, String::from_utf8(response.body)?))
    };
    for accept in [
        &[][..],
        &[("Accept", "*/*")],
        &[("Accept", "application/json")],
    ] {
        assert_eq!(get("GET", accept).await?, (200, "ok\n".to_owned()));
        assert_eq!(get("HEAD", accept).await?.0, 200);
    }
    ensure!(
        upstream
            .heard()
            .iter()
            .all(|heard| !heard.contains("GET / "))
    );
    let browser = [("Accept", "application/xhtml+xml,Text/HTML;q=0.9")];
    assert_eq!(get("GET", &browser).await?, (200, "page".to_owned()));
    // Only a probe is one of ours.
    assert_eq!(get("POST", &[]).await?, (200, "page".to_owned()));
    Ok(())
}
