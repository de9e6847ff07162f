//! docker-compose.yml as a user runs it: built, healthy, used for a push and a pull, scraped by its
//! Prometheus, stopped during a transfer, and started again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::compose::{Compose, PROXY, REVISION, SERVICES, loopback};
use harness::{content, poll, wire};

/// The image that the README pushes.
const IMAGE: &str = "127.0.0.1:5000/team/app/web:1";

/// More than all socket buffers between client and upstream hold.
const LENGTH: u64 = 64 << 20;

/// More than they hold at once. Bytes in a container's socket buffers are lost when it exits.
const IN_SOCKETS: usize = 16 << 20;

/// Longer than Prometheus's scrape interval.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn images_pushed_to_the_compose_services_are_kept_and_counted() -> Result<()> {
    let compose = Compose::built().await?;
    compose
        .run(&[&["up", "--detach"], &SERVICES[..]].concat())
        .await?;
    compose.healthy().await?;
    no_container_is_root(&compose).await?;
    images_say_what_they_are(&compose).await?;

    let docker = compose.docker();
    docker.image(IMAGE, None, 1).await?;
    let id = docker.id(IMAGE).await?;
    docker.run(&["push", IMAGE]).await?;
    docker.forget(&[IMAGE]).await?;
    docker.run(&["pull", IMAGE]).await?;
    assert_eq!(docker.id(IMAGE).await?, id);
    prometheus_sees(&compose).await?;
    operators_reach_the_programs(&compose).await?;
    // Clients that push and pull cannot read the metrics.
    let exposition = wire::request("GET", "/metrics", &[], b"");
    let response = compose.exchange(PROXY, "GET", &exposition).await?;
    assert_eq!(response.head.status, 404);

    stops_when_its_client_is_served(&compose).await?;
    compose.run(&[&["start"], &SERVICES[..]].concat()).await?;
    compose.healthy().await?;
    docker.forget(&[IMAGE]).await?;
    docker.run(&["pull", IMAGE]).await?;
    assert_eq!(docker.id(IMAGE).await?, id);
    compose.run(&["down", "--volumes"]).await?;
    Ok(())
}

/// The containers do not run as root, neither by the image's user nor by the process's user id.
async fn no_container_is_root(compose: &Compose) -> Result<()> {
    for service in SERVICES {
        let container = compose.inspect(service).await?;
        let process = container["State"]["Pid"].as_u64().context("no process")?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
                .with_context(|| format!("{service}: no {name}"))
        };
        let users = field("Uid:")?;
        ensure!(
            !users.split_whitespace().any(|user| user == "0"),
            "{service}: {users}"
        );
        // They cannot gain privileges either.
        assert_eq!(field("CapPrm:")?.trim_matches('0'), "", "{service}");
        assert_eq!(field("NoNewPrivs:")?, "1", "{service}");
        ensure!(
            container["HostConfig"]["ReadonlyRootfs"] == true,
            "{service}"
        );
        let published = container["HostConfig"]["PortBindings"].as_object();
        for binding in published
            .into_iter()
            .flatten()
            .filter_map(|(_, to)| to.as_array())
            .flatten()
        {
            ensure!(binding["HostIp"] == "127.0.0.1", "{service}: {binding}");
        }
    }
    Ok(())
}

/// The labels of our images, and the revision in the program.
async fn images_say_what_they_are(compose: &Compose) -> Result<()> {
    for (service, title) in [("registry", "octoserve-registry"), ("proxy", "octoserve")] {
        let labels = compose.inspect(service).await?["Config"]["Labels"].take();
        for (label, value) in [
            ("title", title),
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", REVISION),
            ("licenses", "Apache-2.0"),
        ] {
            let label = format!("org.opencontainers.image.{label}");
            assert_eq!(labels[&label], value, "{service}: {label}");
        }
        let description = &labels["org.opencontainers.image.description"];
        ensure!(description.is_string(), "{service}: {labels}");
    }
    let program = format!("octoserve_build_info{{revision='{REVISION}',source=''}} == 1");
    poll::until(&program, DEADLINE, async || {
        let found = compose.query(&program).await?;
        Ok((found.len() == 1).then_some(()))
    })
    .await
}

/// The push and the pull in the metrics of the proxy and of the registry.
async fn prometheus_sees(compose: &Compose) -> Result<()> {
    for expression in [
        "octoserve_http_requests_total{endpoint='manifest',method='PUT',status='201',source=''} == 1",
        "octoserve_registry_http_requests_total{endpoint='manifest',method='PUT',source='registry'} == 1",
        "octoserve_tags{source='registry'} == 1",
        "octoserve_aggregate_up{source='registry'} == 1",
        // Its rules are loaded.
        "job:octoserve_http_requests:rate5m >= 0",
    ] {
        poll::until(expression, DEADLINE, async || {
            let found = compose.query(expression).await?;
            Ok((found.len() == 1).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Each program in its container, over the control socket.
async fn operators_reach_the_programs(compose: &Compose) -> Result<()> {
    for (words, says) in [
        ("registry octoserve-registry gc --dry-run", "would remove 0"),
        (
            "registry octoserve-registry ctl status",
            "program      octoserve-registry ",
        ),
        ("proxy octoserve ctl status", "program      octoserve "),
    ] {
        let words: Vec<_> = ["exec", "-T"].into_iter().chain(words.split(' ')).collect();
        let said = compose.run(&words).await?;
        ensure!(said.starts_with(says), "{words:?}: {said}");
    }
    Ok(())
}

/// A slow client receives its whole response before the containers stop.
async fn stops_when_its_client_is_served(compose: &Compose) -> Result<()> {
    let bytes = content::bytes(2, LENGTH);
    let digest = content::digest(&bytes);
    let upload = format!("/v2/team/app/web/blobs/uploads/?digest={digest}");
    let upload = wire::request("POST", &upload, &[], &bytes);
    let response = compose.exchange(PROXY, "POST", &upload).await?;
    assert_eq!(response.head.status, 201);

    let mut client = compose.docker().connect(loopback(PROXY)).await?;
    let blob = format!("/v2/team/app/web/blobs/{digest}");
    client.send(&wire::request("GET", &blob, &[], b"")).await?;
    assert_eq!(client.head().await?.status, 200);
    let read = async {
        poll::until("the proxy drains", DEADLINE, async || {
            let log = compose.run(&["logs", "--no-color", "proxy"]).await?;
            Ok(log.contains("draining").then_some(()))
        })
        .await?;
        let received = client.exactly(bytes.len() - IN_SOCKETS).await?;
        // How much of this arrives depends on the network.
        drop(client.rest().await);
        anyhow::Ok(received)
    };
    let (received, stopped) = tokio::join!(read, compose.run(&["stop"]));
    stopped?;
    ensure!(
        bytes.starts_with(&received?),
        "other bytes than were pushed"
    );
    for service in SERVICES {
        let state = &compose.inspect(service).await?["State"];
        ensure!(
            state["Status"] == "exited" && state["ExitCode"] == 0,
            "{service}: {state}"
        );
    }
    Ok(())
}
