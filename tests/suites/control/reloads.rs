//! Reloads by `ctl` and by SIGHUP: good files, bad ones, and many at once.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::octoserve::Server;
use harness::poll;
use harness::process::Signal;
use harness::wire;

use super::{CONTROL, counted, ctl, ctl_in, done, logged, programs, refusal, status};
use crate::scene::DEADLINE;

/// Files that cannot be loaded, and what is said of them after the file's name.
const BAD: [(&str, &str); 5] = [
    // Half written: the editor has not got further.
    ("logging:\n  level: [deb", ":4: "),
    (
        "logging: {levle: debug}\n",
        ":2: logging.levle: unknown key",
    ),
    (
        "limits: {idle_timeout: 1ms}\n",
        ":2: limits.idle_timeout: must be from 1s",
    ),
    (
        "metrics:\n  listen:\n    address: 127.0.0.1:0\n    tls: {certificate: no.crt, key: no.key}\n",
        ":5: metrics.listen.tls.certificate: ",
    ),
    (
        "metrics:\n  basic_auth: {username: a, password_file: no.txt}\n",
        ":3: metrics.basic_auth.password_file: ",
    ),
];

fn file(server: &Server) -> PathBuf {
    server.working_directory().join("octoserve.yaml")
}

fn write(server: &Server, more: &str) -> Result<()> {
    Ok(std::fs::write(file(server), format!("{CONTROL}{more}"))?)
}

#[tokio::test]
async fn a_good_file_is_applied_and_a_bad_one_refused_with_file_line_and_key() -> Result<()> {
    for (program, launch) in programs("logging: {level: info}\n") {
        let mut server = launch.start().await?;
        assert_eq!(counted(&server).await?, (0.0, 0.0, 1.0));
        let mut refusals = 0.0;
        for (bad, said) in BAD {
            write(&server, bad)?;
            // With the socket: the file does not tell where it is while it is half written.
            let directory = server.working_directory().to_owned();
            let output = ctl_in(program, &directory, "--socket control.sock reload").await?;
            let (code, error) = refusal(&output);
            assert_eq!(code, Some(1), "{error}");
            let place = format!("octoserve.yaml{said}");
            ensure!(error.contains(&place), "{place} is not in {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            refusals += 1.0;
            assert_eq!(counted(&server).await?, (0.0, refusals, 0.0));
        }
        logged(&mut server, "configuration reload refused").await?;
        write(&server, "logging: {level: debug}\n")?;
        let answer = done(program, &server, "reload").await?;
        assert_eq!(answer, "configuration reloaded\n");
        assert_eq!(counted(&server).await?, (1.0, refusals, 1.0));
        let json = status(program, &server).await?;
        assert_eq!(json["log_level"], "debug");
        assert_eq!(json["last_reload"]["ok"], true);
        logged(&mut server, "\"by\":\"ctl\"").await?;
    }
    Ok(())
}

#[tokio::test]
async fn sighup_does_the_same_and_tells_the_log() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        for (at, (bad, said)) in BAD.into_iter().enumerate() {
            write(&server, bad)?;
            server.process().signal(Signal::HUP)?;
            logged(&mut server, &format!("octoserve.yaml{said}")).await?;
            assert_eq!(counted(&server).await?, (0.0, at as f64 + 1.0, 0.0));
        }
        write(&server, "logging: {level: warn}\n")?;
        server.process().signal(Signal::HUP)?;
        poll::until("the level is applied", DEADLINE, async || {
            Ok((status(program, &server).await?["log_level"] == "warn").then_some(()))
        })
        .await?;
        assert_eq!(counted(&server).await?, (1.0, BAD.len() as f64, 1.0));
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_want_a_restart_are_named_until_they_are_as_before() -> Result<()> {
    for (program, launch) in programs("") {
        let mut server = launch.start().await?;
        write(&server, "metrics: {labels: {region: north}}\n")?;
        // Twice: what was not applied once is not applied the next time, either.
        for _ in 0..2 {
            let answer = done(program, &server, "reload").await?;
            let said = "configuration reloaded; these keys take effect after a restart: ";
            ensure!(answer.starts_with(said), "{answer}");
            ensure!(answer.ends_with("metrics.labels.region\n"), "{answer}");
        }
        logged(&mut server, "\"needs_restart\":\"").await?;
        counted(&server).await?;
        write(&server, "")?;
        assert_eq!(
            done(program, &server, "reload").await?,
            "configuration reloaded\n"
        );
    }
    Ok(())
}

#[tokio::test]
async fn of_reloads_at_once_each_is_done_and_counted() -> Result<()> {
    for (program, launch) in programs("") {
        let server = launch.start().await?;
        let directory = server.working_directory();
        // The eighth connection is left free.
        let asked = (0..7).map(|_| ctl(program, &server, "reload"));
        for output in try_join_all(asked).await? {
            ensure!(output.status.success(), "{output:?}");
        }
        assert_eq!(counted(&server).await?, (7.0, 0.0, 1.0));
        std::fs::remove_file(directory.join("octoserve.yaml"))?;
        let output = ctl_in(program, directory, "--socket control.sock reload").await?;
        ensure!(
            refusal(&output).1.contains("octoserve.yaml: "),
            "{output:?}"
        );
        assert_eq!(counted(&server).await?, (7.0, 1.0, 0.0));
    }
    Ok(())
}

#[tokio::test]
async fn the_registry_applies_what_its_clients_may_do_and_who_may_scrape() -> Result<()> {
    let [_, (program, launch)] = programs("");
    let server = launch.start().await?;
    let delete = async || {
        let path = format!("/v2/team/app/manifests/sha256:{}", "0".repeat(64));
        let request = wire::request("DELETE", &path, &[], b"");
        let response = wire::exchange(server.address(), "DELETE", &request).await?;
        anyhow::Ok(response.head.status)
    };
    let scrape = async |path: &str| {
        let request = wire::request("GET", path, &[], b"");
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        anyhow::Ok(response.head.status)
    };
    assert_eq!((delete().await?, scrape("/metrics").await?), (404, 200));
    let password = server.working_directory().join("password");
    std::fs::write(password, "secret")?;
    let auth = "{username: a, password_file: password}";
    write(
        &server,
        &format!("delete: false\nmetrics: {{path: /other, basic_auth: {auth}}}\n"),
    )?;
    let answer = done(program, &server, "reload").await?;
    assert_eq!(answer, "configuration reloaded\n");
    assert_eq!((delete().await?, scrape("/other").await?), (405, 401));
    assert_eq!(scrape("/metrics").await?, 404);
    write(&server, "")?;
    done(program, &server, "reload").await?;
    assert_eq!((delete().await?, scrape("/metrics").await?), (404, 200));
    Ok(())
}
