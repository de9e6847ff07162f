//! Each command, and the exit codes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use harness::octoserve::{Launch, Program};
use harness::poll;
use harness::scripted::{Caller, Scripted};
use harness::wire;
use tempfile::TempDir;

use super::{CONTROL, SOCKET, ctl, ctl_in, done, logged, programs, refusal, status};
use crate::scene::DEADLINE;
use crate::shutdown::{half_an_upload, refused};

#[tokio::test]
async fn status_tells_a_person_and_a_program() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        let pid = u64::from(server.process().id());
        let text = done(program, &server, "status").await?;
        let address = server.address().to_string();
        for row in [
            format!("program      {} ", program.name()),
            format!("pid          {pid}\n"),
            format!("listeners    {address}\n"),
            "state        serving\n".to_owned(),
            "log level    info\n".to_owned(),
            "last reload  none since the start\n".to_owned(),
        ] {
            ensure!(text.contains(&row), "{row:?} is not in {text}");
        }
        let json = status(program, &server).await?;
        assert_eq!(json["pid"], pid);
        assert_eq!(json["listeners"][0], address);
        assert_eq!(json["draining"], false);
        ensure!(
            json["uptime_seconds"]
                .as_f64()
                .is_some_and(|uptime| uptime > 0.0),
            "{json}"
        );
        // A flag and a variable lead to the socket, too.
        let directory = server.working_directory();
        let with_flag = ctl_in(program, directory, "--socket control.sock status").await?;
        ensure!(with_flag.status.success(), "{with_flag:?}");
    }
    Ok(())
}

#[tokio::test]
async fn drain_answers_and_then_drains_as_sigterm_does() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        let socket = server.working_directory().join(SOCKET);
        let (mut client, rest) = half_an_upload(&server).await?;
        let answer = done(program, &server, "drain").await?;
        assert_eq!(answer, "drains, and ends then\n");
        refused(&server).await?;
        // It can be asked while it drains, and a second drain cuts nothing.
        assert_eq!(status(program, &server).await?["draining"], true);
        assert_eq!(
            done(program, &server, "drain").await?,
            "is draining already\n"
        );
        let reload = refusal(&ctl(program, &server, "reload").await?);
        assert_eq!(reload.0, Some(1));
        ensure!(
            reload.1.contains("the process is shutting down"),
            "{}",
            reload.1
        );
        client.send(&rest).await?;
        assert_eq!(client.response("PATCH").await?.head.status, 202);
        let ended = server.process().exited(DEADLINE).await?;
        assert_eq!(ended.code(), Some(0));
        ensure!(!socket.exists(), "the socket is left behind");
    }
    Ok(())
}

#[tokio::test]
async fn a_log_level_ends_by_itself() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        let answer = done(program, &server, "log-level debug --for 1h").await?;
        assert_eq!(answer, "log level debug for 1h, then info\n");
        assert_eq!(status(program, &server).await?["log_level"], "debug");
        let answer = done(program, &server, "log-level trace").await?;
        assert_eq!(answer, "log level trace for 10m, then info\n");
        done(program, &server, "log-level warn --for 1s").await?;
        poll::until("the configured level is back", DEADLINE, async || {
            Ok((status(program, &server).await?["log_level"] == "info").then_some(()))
        })
        .await?;
        logged(&mut server, "log level set by ctl").await?;
        for wrong in [
            "loud",
            "debug --for 25h",
            "debug --for 1ms",
            "debug --for soon",
        ] {
            let output = ctl(program, &server, &format!("log-level {wrong}")).await?;
            assert_eq!(output.status.code(), Some(64), "{wrong}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_is_unknown_is_refused_and_a_registry_has_none() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let output = ctl(program, &server, "upstream nowhere/replica:1 drain").await?;
        let code = match program {
            Program::Octoserve => 1,
            Program::Registry => 64,
        };
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_with_its_exit_code() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path();
    std::fs::write(path.join("none.yaml"), "listen: 127.0.0.1:0\n")?;
    std::fs::write(path.join("some.yaml"), CONTROL)?;
    std::fs::write(path.join("half.yaml"), "control:\n  socket: [\n")?;
    drop(std::os::unix::net::UnixListener::bind(
        path.join("stale.sock"),
    )?);
    for program in [Program::Octoserve, Program::Registry] {
        for (words, code, said) in [
            (
                "status",
                64,
                "no control socket is configured: set control.socket, or pass --socket",
            ),
            (
                "--config none.yaml status",
                64,
                "no control socket is configured",
            ),
            ("--config half.yaml status", 64, "half.yaml:3: "),
            ("--config absent.yaml status", 64, "absent.yaml: "),
            (
                "--config some.yaml status",
                1,
                "nobody listens on control.sock",
            ),
            (
                "--socket stale.sock status",
                1,
                "nobody listens on stale.sock",
            ),
            ("--socket none.yaml status", 1, "none.yaml"),
            ("", 64, "Usage"),
            ("explode", 64, "explode"),
            ("--socket a --config b status", 64, "cannot be used with"),
        ] {
            let (exit, error) = refusal(&ctl_in(program, path, words).await?);
            assert_eq!(exit, Some(code), "{words}: {error}");
            ensure!(error.contains(said), "{words}: {error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_refused() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        let socket = server.working_directory().join(SOCKET);
        let mode = socket.metadata()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = |launch: Launch| {
            let control = format!("control: {{socket: '{}'}}\n", socket.display());
            launch.configuration(&control)
        };
        let [other, next] = [(); 2].map(|()| match program {
            Program::Octoserve => again(Launch::all_in_one()),
            Program::Registry => again(Launch::registry()),
        });
        let Err(error) = other.start().await else {
            anyhow::bail!("a second process has the socket");
        };
        let error = format!("{error:#}");
        ensure!(error.contains("cannot listen on unix:"), "{error}");
        ensure!(
            status(program, &server).await.is_ok(),
            "the first one is gone"
        );
        server.process().kill()?;
        server.process().exited(DEADLINE).await?;
        ensure!(socket.exists(), "nothing is stale");
        let next = next.start().await.context("with the stale socket")?;
        let asked = ctl_in(
            program,
            next.working_directory(),
            "--config octoserve.yaml status",
        );
        ensure!(asked.await?.status.success(), "it does not answer");
    }
    Ok(())
}

#[tokio::test]
async fn a_socket_that_cannot_be_opened_says_so() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let directory = server.working_directory();
        std::fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        let output = super::clients::as_nobody(program, directory).await?;
        let (code, error) = refusal(&output);
        assert_eq!(code, Some(1), "{error}");
        ensure!(
            error.contains("no permission to connect to control.sock"),
            "{error}"
        );
    }
    Ok(())
}

/// Responds to every request with a text.
async fn named(name: &'static str) -> Result<Scripted> {
    Scripted::start(move |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            caller.send(head).await?;
        }
    })
    .await
}

#[tokio::test]
async fn a_replica_that_is_drained_gets_no_new_requests_until_it_is_ready_again() -> Result<()> {
    let (a, b) = (named("a").await?, named("b").await?);
    let configuration = format!(
        "{CONTROL}upstreams: [{{balance: round_robin, replicas: ['{}', '{}']}}]\n",
        a.url(),
        b.url()
    );
    let server = Launch::configured(&configuration).start().await?;
    let program = Program::Octoserve;
    let asked = async || {
        let request = wire::request("GET", "/v2/", &[], b"");
        wire::exchange(server.address(), "GET", &request).await
    };
    let answers = async || -> Result<String> {
        let mut answers = String::new();
        for _ in 0..6 {
            answers += std::str::from_utf8(&asked().await?.body)?;
        }
        Ok(answers)
    };
    let draining = async || -> Result<Vec<bool>> {
        let status = status(program, &server).await?;
        let replicas = status["upstreams"][0]["replicas"].as_array();
        let replicas = replicas.context("no replicas")?;
        Ok(replicas.iter().map(|one| one["draining"] == true).collect())
    };
    let said = done(
        program,
        &server,
        &format!("upstream main/{} drain", a.url()),
    )
    .await?;
    assert_eq!(said, "1 replica of main is draining\n");
    assert_eq!(draining().await?, [true, false]);
    assert_eq!(answers().await?, "bbbbbb");
    // A reload of the same configuration does not undo it.
    ensure!(server.reload().await?);
    assert_eq!(answers().await?, "bbbbbb");
    let said = done(program, &server, "upstream main drain").await?;
    assert_eq!(said, "2 replicas of main are draining\n");
    let refused = asked().await?;
    assert_eq!(refused.head.status, 503);
    assert_eq!(refused.error_code().as_deref(), Some("UNAVAILABLE"));
    let body = String::from_utf8(refused.body)?;
    ensure!(body.contains("its operator drains it"), "{body}");
    let unknown = ctl(program, &server, "upstream main/http://c drain").await?;
    let (code, error) = refusal(&unknown);
    assert_eq!(code, Some(1));
    ensure!(
        error.contains(&a.url()) && error.contains("no replica"),
        "{error}"
    );
    done(program, &server, "upstream main ready").await?;
    assert_eq!(draining().await?, [false, false]);
    let all = answers().await?;
    ensure!(all.contains('a') && all.contains('b'), "{all}");
    Ok(())
}
