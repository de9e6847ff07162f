//! The programs connect to what their configuration names, and to nothing else. strace sees every
//! address, from the start to the exit.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::skopeo::Skopeo;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_mins(1);

/// Calls that send something to an address.
const CALLS: &str = "trace=connect,sendto,sendmsg,sendmmsg";

/// The words that run a program under strace, which writes the calls to this file.
fn traced(calls: &Path) -> Vec<OsString> {
    // With -D, strace is not the parent of the program, so signals reach the program.
    let mut words = ["strace", "-D", "-f", "-q", "-e", CALLS, "-o"]
        .map(OsString::from)
        .to_vec();
    words.push(calls.into());
    words
}

/// The addresses in the calls, as strace writes them: those of the internet, and paths of sockets.
fn addresses(calls: &str) -> Vec<String> {
    let lines = calls.lines().filter(|line| line.contains("sa_family="));
    lines
        .map(|line| {
            let value = |start: &str| {
                let rest = line.split_once(start)?.1;
                rest.split(['"', ')']).next()
            };
            let ip = value("inet_addr(\"").or_else(|| value("inet_pton(AF_INET6, \""));
            match (value("port=htons("), ip, value("sun_path=\"")) {
                (Some(port), Some(ip), _) => format!("{ip}:{port}"),
                (_, _, Some(path)) => path.to_owned(),
                // What this cannot read must not be taken for nothing.
                _ => line.to_owned(),
            }
        })
        .collect()
}

/// Pushes, pulls and scrapes, ends the program, and returns the addresses that it called.
async fn called(mut server: Server, calls: &Path) -> Result<Vec<String>> {
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[1620])?;
    let image = format!("docker://{}/team/app:1", server.host());
    skopeo.copy(&layout, &image, &[]).await?;
    let back = format!("dir:{}", skopeo.directory().join("back").display());
    skopeo.copy(&image, &back, &[]).await?;
    server.scrape().await?;
    let id = format!("{} ", server.process().id());
    let status = server.terminate(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    // strace outlives the program by a moment. Of its threads the first one ends last.
    let is_end = |line: &str| line.starts_with(&id) && line.contains("+++ exited with 0 +++");
    let text = poll::until("strace has written", DEADLINE, async || {
        let text = std::fs::read_to_string(calls).unwrap_or_default();
        Ok(text.lines().any(is_end).then_some(text))
    })
    .await?;
    Ok(addresses(&text))
}

#[tokio::test]
async fn the_registry_and_the_all_in_one_connect_to_nothing() -> Result<()> {
    for launch in [Launch::registry(), Launch::all_in_one()] {
        let directory = TempDir::new()?;
        let calls = directory.path().join("calls");
        let server = launch.under(traced(&calls)).start().await?;
        assert_eq!(called(server, &calls).await?, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn the_proxy_connects_to_its_upstream_and_its_source_alone() -> Result<()> {
    let registry = Launch::registry().start().await?;
    let directory = TempDir::new()?;
    let calls = directory.path().join("calls");
    let source = registry.metrics_address();
    let server = Launch::configured(&format!(
        "upstreams:\n- replicas: ['{}']\n  metrics: [{{source: a, url: 'http://{source}/metrics'}}]\n",
        registry.url("")
    ));
    let server = server.under(traced(&calls)).start().await?;
    let called = called(server, &calls).await?;
    let upstream = registry.address().to_string();
    for one in [&upstream, &source.to_string()] {
        ensure!(called.contains(one), "{one} was not called: {called:?}");
    }
    let others: Vec<_> = called
        .iter()
        .filter(|one| **one != upstream && **one != source.to_string())
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

#[test]
fn addresses_are_read_from_the_calls() -> Result<()> {
    let calls = "\
        1 connect(9, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr(\"10.0.0.2\")}, 16) = 0\n\
        1 connect(9, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), \
        inet_pton(AF_INET6, \"::1\", &sin6_addr), sin6_scope_id=0}, 28) = 0\n\
        2 connect(9, {sa_family=AF_UNIX, sun_path=\"/run/a\"}, 9) = 0\n\
        2 sendto(9, \"a\", 1, MSG_NOSIGNAL, NULL, 0) = 1\n";
    assert_eq!(addresses(calls), ["10.0.0.2:53", "::1:80", "/run/a"]);
    let unknown = addresses("3 connect(9, {sa_family=AF_VSOCK, x}, 9) = 0");
    let unknown = unknown.first().context("nothing")?;
    ensure!(unknown.contains("AF_VSOCK"));
    Ok(())
}
