//! Strangers, garbage, and clients that take what they can.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use harness::octoserve::Program;
use harness::tools;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::{SOCKET, logged, output, programs, refusal, status};
use crate::scene::DEADLINE;

/// Calls `ctl status` as the user nobody.
pub(super) async fn as_nobody(program: Program, directory: &Path) -> Result<Output> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    // The tests' own directory may be closed to others, and this one is open.
    let copy = directory.join("program");
    if !copy.exists() {
        // By another process: one that a test beside this one starts would inherit the file while this one
        // writes it, and a file that is being written cannot be run.
        let [from, to] = [&program.path()?, &copy].map(|path| path.display().to_string());
        tools::run("install", &["-m", "755", &from, &to]).await?;
    }
    command
        .arg(copy)
        .args(["ctl", "--socket", SOCKET, "status"]);
    output(command, directory).await
}

/// Sends bytes, and returns the answer.
async fn answer(directory: &Path, bytes: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(directory.join(SOCKET)).await?;
    // A server that refuses does not read to the end.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut text = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut text));
    // A reset comes after the answer, which counts.
    let _ = read.await.context("no end")?;
    Ok(String::from_utf8(text)?)
}

#[tokio::test]
async fn another_user_is_refused_whatever_the_mode_of_the_file() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        let directory = server.working_directory().to_owned();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        let socket = directory.join(SOCKET);
        std::fs::set_permissions(socket, Permissions::from_mode(0o666))?;
        let (code, error) = refusal(&as_nobody(program, &directory).await?);
        assert_eq!(code, Some(1), "{error}");
        ensure!(
            error.contains("only the user that octoserve runs as, and root, may ask"),
            "{error}"
        );
        logged(&mut server, "\"uid\":65534").await?;
        status(program, &server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_one_line() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let directory = server.working_directory();
        let mut huge = vec![b'x'; 1 << 20];
        huge.push(b'\n');
        let mut largest = b"{\"version\":1,\"command\":\"status\"}".to_vec();
        largest.resize((4 << 10) - 1, b' ');
        largest.push(b'\n');
        for (bytes, said) in [
            (
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                "the request is no JSON object",
            ),
            (b"\n", "the request is no JSON object"),
            (b"\xff\xfe\0\n", "the request is no JSON object"),
            (b"{\"version\":9,\"command\":\"status\"}\n", "version 1"),
            (
                b"{\"version\":1,\"command\":\"gc\"}\n",
                "cannot be followed",
            ),
            (&huge, "the request is too long"),
            (&largest, "\"ok\":true"),
        ] {
            let text = answer(directory, bytes).await?;
            ensure!(text.contains(said) && text.ends_with('\n'), "{text:?}");
            assert_eq!(text.lines().count(), 1);
            let reply: Value = serde_json::from_str(&text)?;
            assert_eq!(reply["version"], 1);
        }
        // Half a request of a client that leaves is nothing.
        assert_eq!(answer(directory, b"{\"version\":1,\"comm").await?, "");
        status(program, &server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn clients_that_stay_take_eight_connections_and_no_more() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let socket = server.working_directory().join(SOCKET);
        let mut silent = Vec::new();
        let mut refused = 0;
        for _ in 0..100 {
            let mut stream = UnixStream::connect(&socket).await?;
            let asked = stream.write_all(b"{\"version\":1,").await;
            silent.push((stream, asked.is_ok()));
        }
        for (mut stream, _) in silent.drain(8..) {
            let mut text = Vec::new();
            let _ = timeout(DEADLINE, stream.read_to_end(&mut text))
                .await
                .context("no end")?;
            let text = String::from_utf8(text)?;
            ensure!(text.contains("too many control connections"), "{text:?}");
            refused += 1;
        }
        assert_eq!(refused, 92);
        // Those that stay are served once they ask, and leave room for others once they are gone.
        let (mut first, _) = silent.remove(0);
        first.write_all(b"\"command\":\"status\"}\n").await?;
        let mut text = String::new();
        timeout(DEADLINE, first.read_to_string(&mut text)).await??;
        ensure!(text.contains("\"ok\":true"), "{text}");
        drop(silent);
        harness::poll::until("there is room again", DEADLINE, async || {
            Ok(status(program, &server).await.ok().map(drop))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let mut deaf = UnixStream::connect(server.working_directory().join(SOCKET)).await?;
        deaf.write_all(b"{\"version\":1,\"command\":\"status\"}\n")
            .await?;
        for _ in 0..10 {
            status(program, &server).await?;
        }
        drop(deaf);
    }
    Ok(())
}
