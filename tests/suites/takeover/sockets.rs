//! Which sockets are handed over, and what becomes of their files.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Result, ensure};
use harness::octoserve::{Launch, Program};
use harness::poll;
use harness::process::OutputStream;
use harness::tools;
use harness::wire::{self, Wire};
use tokio::net::{TcpStream, UnixStream};

use super::{DEADLINE, Generations, ended, last_response, ready, said, secure_address, serves};

#[tokio::test]
async fn all_listeners_are_handed_over_and_their_files_go_with_the_last_process() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut old = generations.first().await?;
    let (main, metrics) = (old.address(), old.metrics_address());
    let secure = secure_address(&mut old)?;
    let sockets =
        ["main.sock", "take-over.sock", "control.sock"].map(|name| generations.path(name));
    let files = || -> Result<Vec<(u64, u32)>> {
        let metadata = sockets.iter().map(|path| path.metadata());
        let files = metadata.map(|file| file.map(|file| (file.ino(), file.permissions().mode())));
        Ok(files.collect::<Result<_, _>>()?)
    };
    let before = files()?;
    assert_eq!(before[1].1 & 0o777, 0o600);

    let mut new = generations.next(&mut old).await?;
    ended(old).await?;
    assert_eq!(new.address(), main);
    assert_eq!(new.metrics_address(), metrics);
    assert_eq!(secure_address(&mut new)?, secure);
    // The same files: a client that connects just now finds one.
    assert_eq!(files()?, before);
    let mut unix = Wire::inside(UnixStream::connect(&sockets[0]).await?);
    unix.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    assert_eq!(unix.response("GET").await?.head.status, 200);
    serves(&new).await?;
    // The new process alone is asked by an operator.
    let program = Program::Octoserve.path()?;
    let socket = sockets[2].to_string_lossy();
    let words = ["ctl", "--socket", &socket, "status", "--json"];
    for _ in 0..5 {
        let status = tools::run(&program.to_string_lossy(), &words).await?;
        let pid = format!("{}", new.process().id());
        ensure!(status.contains(&pid), "{status}");
    }
    ensure!(new.terminate(DEADLINE).await?.success());
    for socket in &sockets {
        ensure!(!socket.exists(), "{} is left", socket.display());
    }
    ensure!(TcpStream::connect(main).await.is_err());
    Ok(())
}

#[tokio::test]
async fn the_new_configuration_says_which_sockets_there_are() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut old = generations.first().await?;
    let (main, secure) = (old.address(), secure_address(&mut old)?);
    let gone = old.metrics_address();
    let path = generations.directory.path().display();
    // The metrics are where TLS was, one Unix socket is gone, and one is new.
    let configuration = format!(
        "listen: ['{main}', 'unix:{path}/other.sock']\n\
         metrics: {{listen: '{secure}'}}\n\
         control: {{take_over_socket: {path}/take-over.sock}}\n\
         upstreams: [{{name: main, replicas: ['{}']}}]\n",
        generations.registries[0].url("")
    );
    let mut new = Launch::configured(&configuration)
        .listens_as_configured()
        .announces_metrics()
        .argument("--take-over")
        .start()
        .await?;
    said(&mut old, "another process has taken over").await?;
    ended(old).await?;
    assert_eq!((new.address(), new.metrics_address()), (main, secure));
    ensure!(generations.path("other.sock").exists());
    ensure!(
        !generations.path("main.sock").exists(),
        "its file is left behind"
    );
    ensure!(
        TcpStream::connect(gone).await.is_err(),
        "nobody accepts there"
    );
    let log = new.process().output(OutputStream::Stderr)?;
    let lines = log.lines();
    let closed: Vec<_> = lines
        .filter(|line| line.contains("not configured any more"))
        .collect();
    let all = closed.join("\n");
    assert_eq!(closed.len(), 3, "{all}");
    ensure!(
        all.contains(&gone.to_string()) && all.contains("main.sock"),
        "{all}"
    );
    serves(&new).await
}

#[tokio::test]
async fn the_old_process_is_not_ready_any_more_while_it_drains() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut old = generations.first().await?;
    // An open connection to each listener that serves probes.
    let mut probes = Vec::new();
    for address in [old.address(), old.metrics_address()] {
        let mut wire = Wire::connect(address).await?;
        wire.send(b"GET /readyz HTTP/1.1\r\nHost: registry\r\n\r\n")
            .await?;
        assert_eq!(wire.response("GET").await?.head.status, 200);
        probes.push(wire);
    }
    // Keeps the old process alive meanwhile.
    let mut held = Wire::connect(old.address()).await?;
    held.send(b"PUT /v2/a/manifests/t HTTP/1.1\r\nHost: registry\r\nContent-Length: 9\r\n\r\n")
        .await?;
    let in_flight =
        harness::scrape::metric("octoserve_http_requests_in_flight").label("endpoint", "manifest");
    poll::until("it is in flight", DEADLINE, async || {
        Ok((old.scrape().await?.sum(&in_flight) == Some(1.0)).then_some(()))
    })
    .await?;
    let new = generations.next(&mut old).await?;
    for wire in &mut probes {
        let request = b"GET /readyz HTTP/1.1\r\nHost: registry\r\n\r\n";
        assert_eq!(last_response(wire, request).await?.head.status, 503);
    }
    // Who connects now finds the new one.
    for address in [new.address(), new.metrics_address()] {
        assert_eq!(ready(address).await?, 200);
    }
    drop(held);
    ended(old).await
}
