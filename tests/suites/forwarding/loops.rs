//! A request that reaches the proxy again ends with 508, which says why; one that has passed another
//! proxy of the same kind does not.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use harness::scripted::Scripted;
use harness::wire;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{nothing_in_flight, polite};
use crate::scene::BLOB;

/// Addresses that nobody listens on. All are bound before any is freed, so that they differ.
async fn free<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses: Vec<_> = addresses.collect::<std::io::Result<_>>()?;
    addresses
        .try_into()
        .ok()
        .context("another number of addresses")
}

async fn between(address: SocketAddr, upstream: SocketAddr) -> Result<Server> {
    Launch::in_front_of(&format!("http://{upstream}"))
        .listen(address)
        .start()
        .await
}

async fn is_508(server: &Server) -> Result<()> {
    let request = wire::request("GET", BLOB, &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    assert_eq!(response.head.status, 508);
    assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
    let body = String::from_utf8(response.body)?;
    ensure!(body.contains("passed this proxy before"), "{body}");

    let upload = wire::request("POST", "/v2/a/blobs/uploads/", &[], b"some");
    let response = wire::exchange(server.address(), "POST", &upload).await?;
    assert_eq!(response.head.status, 508);

    let mut client = H2::connect(server.address(), false).await?;
    let response = client
        .send("GET", BLOB, &[], true)
        .await?
        .response()
        .await?;
    assert_eq!(response.status, 508);
    let body = String::from_utf8(response.read().await?)?;
    ensure!(body.contains("\"UNSUPPORTED\""), "{body}");
    Ok(())
}

/// Passes connections on to the address that it is told, as a load balancer does. The proxy refuses to
/// start in front of its own address, but cannot know where another one leads.
async fn relay(to: watch::Receiver<Option<SocketAddr>>) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let relaying = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut to = to.clone();
            connections.spawn(async move {
                let to = *to.wait_for(Option::is_some).await?;
                let mut far = TcpStream::connect(to.context("no address")?).await?;
                copy_bidirectional(&mut near, &mut far).await?;
                anyhow::Ok(())
            });
        }
    });
    Ok((address, relaying))
}

#[tokio::test]
async fn a_proxy_that_is_its_own_upstream_responds_508() -> Result<()> {
    let (know, to) = watch::channel(None);
    let (address, relaying) = relay(to).await?;
    let server = Launch::in_front_of(&format!("http://{address}"));
    let server = server.start().await?;
    know.send(Some(server.address()))?;
    is_508(&server).await?;
    // Each of the three requests came twice: from its client, and from the proxy.
    let blobs = metric("octoserve_http_requests_total").label("endpoint", "blob");
    blobs
        .label("status", "508")
        .value(4)
        .assert_in(&server)
        .await?;
    let uploads = metric("octoserve_http_requests_total").label("endpoint", "upload_start");
    uploads
        .label("status", "508")
        .value(2)
        .assert_in(&server)
        .await?;
    nothing_in_flight(&server).await?;
    relaying.abort();
    Ok(())
}

#[tokio::test]
async fn two_proxies_that_are_each_others_upstream_respond_508() -> Result<()> {
    let [first, second] = free().await?;
    let servers = [between(first, second).await?, between(second, first).await?];
    for server in &servers {
        is_508(server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_has_passed_other_proxies_is_forwarded() -> Result<()> {
    let upstream = Scripted::start(polite).await?;
    let inner = Launch::in_front_of(&upstream.url()).start().await?;
    let outer = Launch::in_front_of(&inner.url("")).start().await?;
    let via = [
        ("Via", "1.1 octoserve-0123456789abcdef, 1.0 fred"),
        ("Via", "http/1.1 proxy.example:8080 (octoserve-x)"),
        ("Via", "octoserve, ,"),
    ];
    let request = wire::request("GET", BLOB, &via, b"");
    let response = wire::exchange(outer.address(), "GET", &request).await?;
    assert_eq!(
        (response.head.status, &response.body[..]),
        (200, &b"ok"[..])
    );
    let heard = upstream.heard().concat().to_ascii_lowercase();
    // The outer proxy's health probes are there, too.
    let requests = heard.split_inclusive("\r\n\r\n");
    let mut requests = requests.filter(|request| request.contains(BLOB));
    let heard = requests.next().context("not forwarded")?;
    ensure!(requests.next().is_none(), "forwarded twice");
    for (_, value) in via {
        assert_eq!(heard.matches(value).count(), 1, "{heard}");
    }
    let own = heard.matches("\r\nvia: 1.1 octoserve-").count();
    // One is the client's, and each proxy has its own name.
    assert_eq!(own, 3, "{heard}");
    let names = heard
        .lines()
        .filter_map(|line| line.strip_prefix("via: 1.1 octoserve-"));
    let names: std::collections::BTreeSet<_> = names.collect();
    assert_eq!(names.len(), 3, "{heard}");
    Ok(())
}
