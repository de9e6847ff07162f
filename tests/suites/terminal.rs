//! A person at a terminal: the greeting, colours, what an end waits for, and passwords that are typed.
//! Output that goes to a pipe has none of it.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::docker::Docker;
use harness::octoserve::{Launch, Program};
use harness::process::{OutputStream, Signal};
use harness::terminal::Terminal;
use harness::wire::{self, Wire};
use harness::{poll, tools};
use tempfile::TempDir;

const ESCAPE: char = '\u{1b}';

/// A program of ours with these words, in a directory of its own.
fn command(program: Program, words: &[&str], directory: &TempDir) -> Result<Command> {
    let mut command = Command::new(program.path()?);
    command
        .args(words)
        .current_dir(directory.path())
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    Ok(command)
}

const SERVE: &[&str] = &["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

/// The URL of the first line that has a word and a URL.
fn url<'s>(shown: &'s str, word: &str) -> Result<&'s str> {
    let line = shown
        .lines()
        .find(|line| line.contains(word) && line.contains("http://"));
    let line = line.with_context(|| format!("no line with {word}: {shown}"))?;
    let start = line.find("http://").with_context(|| line.to_owned())?;
    Ok(line[start..].trim())
}

#[tokio::test]
async fn a_start_at_a_terminal_says_what_listens_and_what_to_try() -> Result<()> {
    for program in [Program::Octoserve, Program::Registry] {
        let directory = TempDir::new()?;
        let mut terminal = Terminal::start(command(program, SERVE, &directory)?, None)?;
        let shown = terminal.wait_for("docker push").await?;
        ensure!(shown.contains(&format!("{} ", program.name())), "{shown}");
        ensure!(
            shown.contains("is ready") && shown.contains(ESCAPE),
            "{shown}"
        );
        // Said once, in a person's words.
        ensure!(!shown.contains("listening on "), "{shown}");
        let registry = url(&shown, "registry")?;
        let metrics = url(&shown, "metrics")?;
        ensure!(metrics.ends_with("/metrics"), "{metrics}");
        for (url, path) in [(registry, "/v2/"), (metrics, "/metrics")] {
            let host = url
                .trim_start_matches("http://")
                .trim_end_matches("/metrics");
            let request = wire::request("GET", path, &[], b"");
            let response = wire::exchange(host.parse().context(host.to_owned())?, "GET", &request);
            assert_eq!(response.await?.head.status, 200);
        }
    }
    Ok(())
}

/// What is typed as it is shown leads to the pull in the metrics.
#[tokio::test]
async fn what_to_try_works_as_it_is_shown() -> Result<()> {
    let (directory, docker) = (TempDir::new()?, Docker::shared().await?);
    let mut plain = command(Program::Octoserve, SERVE, &directory)?;
    plain.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(plain, None)?;
    let shown = terminal.wait_for("{.*team/app/web'").await?;
    let (_, list) = shown.split_once("  try ").context("no list")?;
    let list: Vec<_> = list.lines().map(str::trim).take(4).collect();
    // The image is not downloaded: the test has one of this name.
    let (pull, tag) = list[0].split_once(" && ").context("no download")?;
    assert_eq!(pull, "docker pull busybox");
    docker.image("busybox", None, 1650).await?;
    let script = [&[tag], &list[1..]].concat().join("\n");
    let host = format!("DOCKER_HOST={}", docker.host());
    let config = format!(
        "DOCKER_CONFIG={}",
        directory.path().join("docker").display()
    );
    let printed = tools::run("env", &[&host, &config, "sh", "-euc", &script]).await?;
    for operation in ["pull", "push"] {
        let counted = |line: &str| {
            line.contains(&format!("operation=\"{operation}\"")) && line.ends_with(" 1")
        };
        ensure!(printed.lines().any(counted), "{operation}: {printed}");
    }
    Ok(())
}

#[tokio::test]
async fn no_color_and_a_dumb_terminal_get_plain_text() -> Result<()> {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let directory = TempDir::new()?;
        let mut command = command(Program::Octoserve, SERVE, &directory)?;
        command.env(name, value);
        let mut terminal = Terminal::start(command, None)?;
        terminal.wait_for("docker push").await?;
        terminal.signal(Signal::INT)?;
        let status = terminal.exited().await?;
        ensure!(status.success(), "{status}");
        // The log, too.
        let shown = terminal.wait_for("shutting down").await?;
        ensure!(!shown.contains(ESCAPE), "{name}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn the_addresses_on_a_piped_stdout_stay_as_they_are() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("stdout");
    let command = command(Program::Octoserve, SERVE, &directory)?;
    let mut terminal = Terminal::start(command, Some(File::create(&path)?))?;
    let shown = terminal.wait_for("docker push").await?;
    let host = url(&shown, "registry")?.trim_start_matches("http://");
    let metrics = url(&shown, "metrics")?.trim_start_matches("http://");
    let metrics = metrics.trim_end_matches("/metrics");
    let expected = format!("listening on {host}\nmetrics on {metrics}\n");
    poll::until(
        "stdout has the addresses",
        Duration::from_secs(30),
        async || Ok((std::fs::read_to_string(&path)? == expected).then_some(())),
    )
    .await
}

#[tokio::test]
async fn a_pipe_gets_no_greeting_and_no_colours() -> Result<()> {
    let mut server = Launch::all_in_one().metrics_listener().start().await?;
    let (address, metrics) = (server.address(), server.metrics_address());
    let process = server.process();
    assert_eq!(
        process.output(OutputStream::Stdout)?,
        format!("listening on {address}\nmetrics on {metrics}\n")
    );
    let log = process.output(OutputStream::Stderr)?;
    ensure!(!log.contains("is ready") && !log.contains(ESCAPE), "{log}");
    Ok(())
}

#[tokio::test]
async fn an_end_that_takes_long_says_what_it_waits_for() -> Result<()> {
    let directory = TempDir::new()?;
    let mut terminal = Terminal::start(command(Program::Octoserve, SERVE, &directory)?, None)?;
    let shown = terminal.wait_for("docker push").await?;
    let host = url(&shown, "registry")?.trim_start_matches("http://");
    let mut wire = Wire::connect(host.parse()?).await?;
    // A body of which the half never comes.
    let request = wire::request("PUT", "/v2/a/manifests/b", &[], &[b'x'; 100]);
    wire.send(&request[..request.len() - 50]).await?;
    let metrics = url(&shown, "metrics")?.trim_start_matches("http://");
    let metrics = metrics.trim_end_matches("/metrics").parse()?;
    poll::until(
        "the request is in flight",
        Duration::from_secs(30),
        async || {
            let scrape = wire::request("GET", "/metrics", &[], b"");
            let page = wire::exchange(metrics, "GET", &scrape).await?.body;
            let page = String::from_utf8(page)?;
            let in_flight = "octoserve_http_requests_in_flight{endpoint=\"manifest\"} 1\n";
            Ok(page.contains(in_flight).then_some(()))
        },
    )
    .await?;
    terminal.signal(Signal::INT)?;
    let shown = terminal.wait_for("Ctrl-C again").await?;
    ensure!(
        shown.contains("waiting for 1 request in flight, 30s at most"),
        "{shown}"
    );
    terminal.signal(Signal::INT)?;
    terminal.exited().await?;
    Ok(())
}

#[tokio::test]
async fn an_error_names_file_line_and_key_in_colour() -> Result<()> {
    let directory = TempDir::new()?;
    std::fs::write(directory.path().join("x.yaml"), "limits:\n  drian: 1s\n")?;
    let words = ["--config", "x.yaml"];
    let mut terminal = Terminal::start(command(Program::Octoserve, &words, &directory)?, None)?;
    assert_eq!(terminal.exited().await?.code(), Some(64));
    let shown = terminal.wait_for("limits.drian").await?;
    let expected =
        "\u{1b}[1;31moctoserve:\u{1b}[0m x.yaml:2: limits.drian: unknown key, did you mean drain?";
    ensure!(shown.contains(expected), "{shown}");
    Ok(())
}

/// Types a password twice. The exit code, and what is shown.
async fn typed(first: &str, second: &str) -> Result<(Option<i32>, String)> {
    let directory = TempDir::new()?;
    let words = ["hash-password", "--cost", "4"];
    let mut terminal = Terminal::start(command(Program::Registry, &words, &directory)?, None)?;
    terminal.wait_for("Password: ").await?;
    ensure!(!terminal.echoes()?, "the echo is on");
    terminal.keys(first.as_bytes())?;
    if !second.is_empty() {
        terminal.wait_for("Once more: ").await?;
        terminal.keys(second.as_bytes())?;
    }
    let code = terminal.exited().await?.code();
    ensure!(terminal.echoes()?, "the echo is still off");
    Ok((code, terminal.shown()?))
}

#[tokio::test]
async fn a_password_is_typed_twice_and_never_shown() -> Result<()> {
    let (code, shown) = typed("hunterx\u{7f}2\r", "hunter2\r").await?;
    assert_eq!(code, Some(0), "{shown}");
    ensure!(
        shown.contains("$2b$04$") && !shown.contains("hunter"),
        "{shown}"
    );
    for (first, second, code, said) in [
        ("hunter2\r", "hunter3\r", 64, "the passwords differ"),
        ("\r", "", 64, "the password is empty"),
        ("hun\u{3}", "", 1, "interrupted"),
    ] {
        let (ended, shown) = typed(first, second).await?;
        assert_eq!(ended, Some(code), "{shown}");
        ensure!(shown.contains(said) && !shown.contains("$2b$"), "{shown}");
        ensure!(!shown.contains("hun"), "{shown}");
    }
    Ok(())
}

/// Pipes a password into a program, by a shell that prints it.
async fn piped(printf: &str) -> Result<(Option<i32>, String, String)> {
    let program = Program::Octoserve.path()?;
    let script = format!("{printf} | \"$0\" hash-password --cost 4");
    let words = ["-c", &script, &program.to_string_lossy()];
    let output = tools::attempt("sh", &words).await?;
    Ok((
        output.status.code(),
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    ))
}

#[tokio::test]
async fn a_piped_password_opens_the_metrics() -> Result<()> {
    let (code, hash, errors) = piped("echo hunter2").await?;
    ensure!(code == Some(0) && errors.is_empty(), "{errors}");
    let auth = format!(
        "metrics: {{basic_auth: {{username: me, password_hash: '{}'}}}}\n",
        hash.trim()
    );
    let server = Launch::all_in_one().configuration(&auth).start().await?;
    for (password, status) in [("hunter2", 200), ("hunter3", 401)] {
        let value = format!("Basic {}", STANDARD.encode(format!("me:{password}")));
        let request = wire::request("GET", "/metrics", &[("Authorization", &value)], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(response.head.status, status, "{password}");
    }
    Ok(())
}

#[tokio::test]
async fn a_password_that_cannot_be_used_is_exit_code_64() -> Result<()> {
    for (printf, said) in [
        ("true", "the password is empty"),
        ("printf 'a\\000b'", "control character"),
        ("printf 'a\\377'", "not UTF-8"),
        ("printf '%073d' 0", "more than 72 bytes"),
        ("head -c 1000000 /dev/zero", "more than 72 bytes"),
    ] {
        let (code, hash, error) = piped(printf).await?;
        assert_eq!((code, hash.as_str()), (Some(64), ""), "{printf}: {error}");
        ensure!(error.contains(said), "{printf}: {error}");
        ensure!(error.trim_end().lines().count() == 1, "{error}");
    }
    Ok(())
}

/// Runs a shell script in which $0 is the program. Its exit code, and what it said on stderr.
async fn shell(program: Program, script: &str) -> Result<(Option<i32>, String)> {
    let path = program.path()?;
    let words = ["-c", script, path.to_str().context("a path of UTF-8")?];
    let output = tools::attempt("sh", &words).await?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[tokio::test]
async fn output_that_cannot_be_written_is_said_and_has_an_exit_code_of_its_own() -> Result<()> {
    for program in [Program::Octoserve, Program::Registry] {
        for words in [
            "schema",
            "--print-config",
            "completions bash",
            "--version",
            "--help",
            "doctor --listen 127.0.0.1:0",
            "hash-password --cost 4",
            "top --once --url http://127.0.0.1:1",
        ] {
            let script = format!("echo secret | \"$0\" {words} >/dev/full");
            let (code, said) = shell(program, &script).await?;
            assert_eq!(code, Some(74), "{words}: {said}");
            let prefix = format!("{}: cannot write the output: ", program.name());
            ensure!(said.starts_with(&prefix), "{words}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let (_, said) = shell(program, "\"$0\" schema | head -c 1 >/dev/null").await?;
        assert_eq!(said, "");
    }
    Ok(())
}

#[tokio::test]
async fn an_error_repeats_nothing_that_a_terminal_would_obey() -> Result<()> {
    for words in [
        "--config",
        "--metrics-listen",
        "health --url",
        "top --url",
        "--",
    ] {
        let script = format!("\"$0\" {words} \"$(printf '/a\\033[31mb')\"");
        let (code, said) = shell(Program::Octoserve, &script).await?;
        assert_eq!(code, Some(64), "{words}: {said}");
        ensure!(said.contains("\\u{1b}[31mb"), "{words}: {said:?}");
        ensure!(!said.contains(ESCAPE), "{words}: {said:?}");
    }
    Ok(())
}
