//! Memory that does not grow with what clients do at the same time.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::wire::Wire;

const DEADLINE: Duration = Duration::from_mins(1);

/// Clients in the midst of an upload.
const UPLOADS: u64 = 200;
/// What each of them has sent: more than two large buffers hold.
const SENT: u64 = 600 << 10;
/// What the registry has written of it, at least, while it waits for more.
const WRITTEN: u64 = 512 << 10;
/// How much more memory than at idle they may take together; two large buffers for each would be 100
/// MiB.
const MARGIN: u64 = 72 << 20;

/// Waits until the open uploads hold so many bytes.
async fn received(server: &Server, bytes: u64) -> Result<()> {
    let received = poll::until("the uploads have arrived", DEADLINE, async || {
        let page = server.scrape().await?;
        let held = page.sum(&metric("octoserve_registry_upload_bytes"));
        Ok(held.filter(|held| *held >= bytes as f64).map(drop))
    });
    received.await
}

#[tokio::test]
async fn uploads_in_their_midst_and_those_that_break_off_take_a_bounded_memory() -> Result<()> {
    let launch = Launch::registry().environment("OCTOSERVE_DURABILITY", "relaxed");
    let mut server = launch.start().await?;
    let client = Client::new(&server.url(""))?;
    let idle = server.process().memory()?.resident;
    let part = content::bytes(1, SENT);
    let mut open = Vec::new();
    for _ in 0..UPLOADS {
        let location = client.open_upload("team/app").await?;
        let mut wire = Wire::connect(server.address()).await?;
        let head =
            format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        wire.send(head.as_bytes()).await?;
        wire.send(&part).await?;
        open.push(wire);
    }
    received(&server, UPLOADS * WRITTEN).await?;
    // They all break off, and what they have sent is written behind them.
    drop(open);
    received(&server, UPLOADS * SENT).await?;
    let peak = server.process().memory()?.peak;
    ensure!(
        peak.saturating_sub(idle) <= MARGIN,
        "idle {idle}, peak {peak}"
    );
    Ok(())
}
