//! Listeners at their connection limit: on every listener of both programs, an idle connection is
//! closed for a new one, and a connection with a request in flight is not.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::certificate::Certificate;
use harness::client::Client;
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use harness::wire::Wire;
use harness::{tools, wire};
use tokio::time::timeout;

use crate::scene::get;

/// The connection limit of the main listeners in these tests.
const CAP: usize = 8;
/// The connection limit of a metrics listener.
const METRICS_CAP: usize = 64;
/// Far less than the timeouts below, which would close silent connections in any case.
const SOON: Duration = Duration::from_secs(10);

/// Long timeouts, so that none closes a connection.
fn patient(launch: Launch) -> Launch {
    launch
        .environment("OCTOSERVE_LIMITS_CONNECTIONS", &CAP.to_string())
        .environment("OCTOSERVE_LIMITS_HEADER_TIMEOUT", "5m")
        .environment("OCTOSERVE_LIMITS_IDLE_TIMEOUT", "5m")
}

/// Silent connections without a request in flight, of each kind in turn.
async fn silent(address: SocketAddr, count: usize) -> Result<Vec<Wire>> {
    let mut silent = Vec::new();
    for number in 0..count {
        let mut wire = Wire::connect(address).await?;
        match number % 4 {
            0 => {}
            1 => wire.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ").await?,
            // HTTP/2: the preface, and empty settings.
            2 => {
                wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                    .await?;
                wire.exactly(9).await?;
            }
            _ => {
                wire.send(get("/livez").as_bytes()).await?;
                wire.response("GET").await?;
            }
        }
        silent.push(wire);
    }
    Ok(silent)
}

async fn gets_200(address: SocketAddr, path: &str) -> Result<()> {
    let request = wire::request("GET", path, &[], b"");
    let response = timeout(SOON, wire::exchange(address, "GET", &request)).await??;
    assert_eq!(response.head.status, 200, "{path}");
    Ok(())
}

async fn gets_200_over_http2(address: SocketAddr, path: &str) -> Result<()> {
    let asked = async {
        let mut client = H2::connect(address, false).await?;
        client.send("GET", path, &[], true).await?.response().await
    };
    let response = timeout(SOON, asked).await??;
    assert_eq!(response.status, 200, "{path}");
    Ok(())
}

#[tokio::test]
async fn silent_connections_to_a_metrics_listener_delay_neither_scrapes_nor_probes() -> Result<()> {
    for launch in [Launch::all_in_one().metrics_listener(), Launch::registry()] {
        let server = patient(launch).start().await?;
        let address = server.metrics_address();
        let mut silent = silent(address, METRICS_CAP).await?;
        for path in ["/metrics", "/livez", "/readyz"] {
            gets_200(address, path).await?;
            gets_200_over_http2(address, path).await?;
        }
        // No more connections than necessary are closed: the last one still works.
        let last = silent.last_mut().expect("there are some");
        last.send(get("/livez").as_bytes()).await?;
        assert_eq!(last.response("GET").await?.head.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn silent_connections_to_a_tls_metrics_listener_delay_no_scrape() -> Result<()> {
    let certificate = Certificate::new()?;
    let listen = format!("{{address: '127.0.0.1:0', tls: {}}}", certificate.keys());
    let metrics = format!("metrics: {{listen: {listen}}}\n");
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let launch = patient(launch).configuration(&metrics).announces_metrics();
        let server = launch.start().await?;
        let address = server.metrics_address();
        let mut silent = Vec::new();
        for number in 0..METRICS_CAP {
            let mut wire = Wire::connect(address).await?;
            if number % 2 == 0 {
                // The start of the first record of a TLS handshake.
                wire.send(b"\x16\x03\x01\x02").await?;
            }
            silent.push(wire);
        }
        let arguments = [
            "--silent",
            "--show-error",
            "--max-time",
            "8",
            "--cacert",
            &certificate.path().display().to_string(),
            "--resolve",
            &format!("localhost:{}:127.0.0.1", address.port()),
            &format!("https://localhost:{}/metrics", address.port()),
        ]
        .map(str::to_owned);
        let output = tools::attempt("curl", &arguments).await?;
        ensure!(output.status.success(), "{output:?}");
        drop(silent);
    }
    Ok(())
}

#[tokio::test]
async fn silent_connections_to_a_main_listener_are_closed_for_new_ones() -> Result<()> {
    for launch in [Launch::all_in_one().metrics_listener(), Launch::registry()] {
        let server = patient(launch).start().await?;
        let address = server.address();
        let _silent = silent(address, CAP).await?;
        for _ in 0..CAP {
            gets_200(address, "/v2/").await?;
            gets_200_over_http2(address, "/v2/").await?;
        }
    }
    Ok(())
}

/// A PATCH of ten bytes, half of which have been sent.
async fn half_sent(server: &Server) -> Result<Wire> {
    let client = Client::new(&server.url(""))?;
    let location = client.open_upload("team/app").await?;
    let mut wire = Wire::connect(server.address()).await?;
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    wire.send(head.as_bytes()).await?;
    assert_eq!(wire.interim().await?.status, 100);
    wire.send(b"01234").await?;
    Ok(wire)
}

#[tokio::test]
async fn a_request_in_flight_survives_a_flood_of_connections() -> Result<()> {
    for launch in [Launch::all_in_one().metrics_listener(), Launch::registry()] {
        let server = patient(launch).start().await?;
        let address = server.address();
        let mut busy = vec![half_sent(&server).await?, half_sent(&server).await?];
        let client = Client::new(&server.url(""))?;
        let location = client.open_upload("team/app").await?;
        let mut over_http2 = H2::connect(address, false).await?;
        let mut stream = over_http2.send("PATCH", &location, &[], false).await?;
        stream.push(b"01234", false)?;
        let _silent = silent(address, 5 * CAP).await?;
        for wire in &mut busy {
            wire.send(b"56789").await?;
            assert_eq!(wire.response("PATCH").await?.head.status, 202);
        }
        stream.push(b"56789", true)?;
        assert_eq!(stream.response().await?.status, 202);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_closed_for_a_new_one_is_counted_as_rejected() -> Result<()> {
    let launch = patient(Launch::all_in_one().metrics_listener());
    let server = launch.start().await?;
    let silent = silent(server.address(), CAP + 3).await?;
    let rejected = metric("octoserve_connections_rejected_total").label("reason", "limit");
    rejected.value(3).assert_in(&server).await?;
    let active = metric("octoserve_connections_active");
    active.clone().value(8).assert_in(&server).await?;
    drop(silent);
    active.value(0).assert_in(&server).await
}
