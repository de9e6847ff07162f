//! Signals beside SIGTERM and SIGINT: those that others send to daemons out of habit end nothing, and
//! SIGQUIT drains.

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::{OutputStream, Signal};
use harness::scrape::metric;
use harness::wire;

use super::SOON;
use crate::scene::DEADLINE;
use crate::shutdown::{half_an_upload, refused};

/// Both programs, with a limit for requests in flight which no test waits for.
fn programs() -> [Launch; 2] {
    [Launch::all_in_one(), Launch::registry()]
        .map(|launch| launch.environment("OCTOSERVE_LIMITS_DRAIN", "10m"))
}

async fn serves(server: &Server) -> Result<()> {
    let request = wire::request("GET", "/v2/", &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    ensure!(response.head.status == 200, "{}", response.head.status);
    Ok(())
}

async fn logged(server: &mut Server, words: &str) -> Result<()> {
    poll::until(&format!("the log says {words}"), DEADLINE, async || {
        ensure!(server.process().is_running()?, "the process has ended");
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log.contains(words).then_some(()))
    })
    .await
}

#[tokio::test]
async fn sigusr1_and_sigusr2_are_logged_and_ignored() -> Result<()> {
    for launch in programs() {
        let mut server = launch.start().await?;
        for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
            // A second one ends nothing, either.
            for _ in 0..2 {
                server.process().signal(signal)?;
                logged(&mut server, name).await?;
                serves(&server).await.context(name)?;
            }
        }
        let status = server.terminate(SOON).await?;
        assert_eq!(status.code(), Some(0));
    }
    Ok(())
}

#[tokio::test]
async fn sighup_reloads_and_ends_nothing() -> Result<()> {
    for launch in programs() {
        let mut server = launch.start().await?;
        server.process().signal(Signal::HUP)?;
        logged(&mut server, "configuration reloaded").await?;
        serves(&server).await?;
        let reloads = metric("octoserve_config_reloads_total").label("result", "ok");
        reloads.value(1).assert_in(&server).await?;
        let status = server.terminate(SOON).await?;
        assert_eq!(status.code(), Some(0));
    }
    Ok(())
}

#[tokio::test]
async fn sigquit_drains_like_sigterm() -> Result<()> {
    for launch in programs() {
        let mut server = launch.start().await?;
        let (mut client, rest) = half_an_upload(&server).await?;
        server.process().signal(Signal::QUIT)?;
        logged(&mut server, "SIGQUIT").await?;
        refused(&server).await?;
        client.send(&rest).await?;
        assert_eq!(client.response("PATCH").await?.head.status, 202);
        let status = server.process().exited(SOON).await?;
        assert_eq!(status.code(), Some(0));
    }
    Ok(())
}
