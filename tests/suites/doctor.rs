//! `doctor`: each check failing and succeeding, what it prints, its exit codes, and that it changes
//! nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::scripted::{Caller, Scripted};
use harness::tmux::Tmux;
use harness::tools;
use serde_json::Value;
use tempfile::TempDir;

mod certificates;
mod data;
mod sources;
mod upstreams;

const DEADLINE: Duration = Duration::from_mins(1);

/// Longer than a label of a name may be: no server of names is asked for it.
const NO_NAME: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.example";

/// `tester:hunter2`, as a registry and a server of tokens get it.
const BASIC: &str = "Basic dGVzdGVyOmh1bnRlcjI=";

/// Where the messages begin in the report that is compared.
const FIGURES: usize = "  ok    token realm  ".len();

/// The end of each response of a scripted server.
const CLOSE: &str = "Connection: close\r\nContent-Length: 0\r\n\r\n";

/// The report as JSON, by subject and check, and the exit code.
struct Report {
    code: Option<i32>,
    checks: BTreeMap<(String, String), (String, String)>,
    text: String,
}

impl Report {
    fn of(output: &Output) -> Result<Self> {
        let text = String::from_utf8(output.stdout.clone())?;
        let json: Value = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let checks = json["checks"].as_array().context("no checks")?;
        let word = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let checks = checks.iter().map(|check| {
            let key = (word(check, "subject"), word(check, "check"));
            let said = format!("{} | {}", word(check, "message"), word(check, "mend"));
            (key, (word(check, "result"), said))
        });
        Ok(Self {
            code: output.status.code(),
            checks: checks.collect(),
            text,
        })
    }

    /// The result of a check of the first subject that begins so, and what was said.
    fn check(&self, subject: &str, check: &str) -> Result<(&str, &str)> {
        let mut all = self.checks.iter();
        let found = all.find(|((of, name), _)| of.starts_with(subject) && name == check);
        let (_, (result, said)) =
            found.with_context(|| format!("{subject} {check}: {}", self.text))?;
        Ok((result, said))
    }

    fn expect(&self, subject: &str, check: &str, result: &str, said: &str) -> Result<()> {
        let found = self.check(subject, check)?;
        ensure!(
            found.0 == result && found.1.contains(said),
            "{subject}, {check}: {found:?} and not {result}, {said}"
        );
        Ok(())
    }
}

/// Runs the command in a directory, with a configuration if there is one.
async fn run(
    program: Program,
    directory: &Path,
    configuration: Option<&str>,
    arguments: &[&str],
) -> Result<Output> {
    let path = program.path()?.to_string_lossy().into_owned();
    let mut words = vec!["-C".to_owned(), directory.to_string_lossy().into_owned()];
    words.extend([path, "doctor".to_owned()]);
    if let Some(text) = configuration {
        let file = directory.join("doctor.yaml");
        std::fs::write(&file, text)?;
        words.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
    }
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    tools::attempt("env", &words).await
}

/// The report on the proxy with this configuration.
async fn report(configuration: &str) -> Result<Report> {
    let directory = TempDir::new()?;
    let output = run(
        Program::Octoserve,
        directory.path(),
        Some(configuration),
        &["--json"],
    )
    .await?;
    Report::of(&output)
}

/// The report on the proxy in front of this upstream; `more` are keys of the upstream.
async fn report_of(url: &str, more: &str) -> Result<Report> {
    report(&format!(
        "listen: 127.0.0.1:0\nupstreams: [{{replicas: ['{url}']{more}}}]\n"
    ))
    .await
}

/// A server whose response to each request depends on its head.
async fn server(
    respond: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
) -> Result<Scripted> {
    Scripted::start_beside(move |mut caller: Caller| {
        let respond = respond.clone();
        async move {
            let head = caller.head().await?;
            caller.send(respond(&head)).await
        }
    })
    .await
}

async fn responding(status: &str, headers: &str) -> Result<Scripted> {
    let response = format!("HTTP/1.1 {status}\r\n{headers}{CLOSE}");
    server(move |_| response.clone()).await
}

/// The header of a server whose clock is so many seconds ahead.
fn date(ahead: u64) -> String {
    let now = SystemTime::now();
    let shift = Duration::from_secs(ahead);
    format!("Date: {}\r\n", httpdate::fmt_http_date(now + shift))
}

#[tokio::test]
async fn the_default_configuration_is_fine_and_nothing_is_written() -> Result<()> {
    let directory = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let output = run(program, directory.path(), None, &free).await?;
        let text = String::from_utf8(output.stdout)?;
        // A test machine's disk may be nearly full, which is a warning.
        ensure!(output.status.code() == Some(0), "{text}");
        for line in [
            "process\n  ",
            "  open files ",
            "listen[0] 127.0.0.1:0\n  ok    address",
            "metrics.listen 127.0.0.1:0\n  ok    address",
            "it is made at the first start\n",
            ", 0 failed\n",
        ] {
            ensure!(text.contains(line), "{line:?} is not in\n{text}");
        }
        ensure!(text.contains("data directory ./data\n"), "{text}");
        let columns = text.lines().map(|line| line.chars().count());
        ensure!(columns.max() <= Some(120), "{text}");
    }
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_running_process_is_no_trouble_and_a_foreign_one_is() -> Result<()> {
    for (program, launch) in [
        (Program::Octoserve, Launch::all_in_one()),
        (Program::Registry, Launch::registry()),
    ] {
        let is_registry = program == Program::Registry;
        let control = "control: {socket: control.sock}\n";
        let server = launch.configuration(control).start().await?;
        let text = configuration_of(&server, is_registry);
        let output = run(
            program,
            server.working_directory(),
            Some(&text),
            &["--json"],
        )
        .await?;
        let report = Report::of(&output)?;
        report.expect(
            "listen[0]",
            "address",
            "ok",
            "a running octoserve serves it",
        )?;
        report.expect("process", "control socket", "ok", "runs as process")?;
        report.expect(
            "data directory",
            "lock",
            "ok",
            "a running registry holds it",
        )?;
        assert_eq!(report.code, Some(0), "{}", report.text);
        // The process goes on.
        server.scrape().await?;
    }
    let foreign = responding("404 Not Found", "Server: other\r\n").await?;
    let report = report(&format!("listen: '{}'\n", foreign.address())).await?;
    report.expect("listen[0]", "address", "fail", "another program has it")?;
    assert_eq!(report.code, Some(1));
    Ok(())
}

/// The configuration of a server that runs.
fn configuration_of(server: &Server, is_registry: bool) -> String {
    let (address, data) = (server.address(), server.data().display());
    let control = "control: {socket: control.sock}\n";
    if is_registry {
        let metrics = server.metrics_address();
        format!(
            "listen: '{address}'\ndata: '{data}'\nmetrics: {{listen: '{metrics}'}}\nreserve: 0B\n{control}"
        )
    } else {
        format!("listen: '{address}'\nregistry: {{data: '{data}', reserve: 0B}}\n{control}")
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_an_error_of_usage() -> Result<()> {
    let directory = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let output = run(program, directory.path(), Some("listn: x\n"), &[]).await?;
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains(":1: ") && said.contains("listn"), "{said}");
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_report_for_a_person_is_as_the_documentation_shows() -> Result<()> {
    let upstream = responding(
        "401 Unauthorized",
        "Docker-Distribution-Api-Version: registry/2.0\r\n\
         WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\",service=\"registry\"\r\n",
    )
    .await?;
    let text = format!(
        "listen: 127.0.0.1:0\nlimits: {{connections: 10, streams: 10}}\n\
         upstreams: [{{replicas: ['{}']}}]\n",
        upstream.url()
    );
    let directory = TempDir::new()?;
    let output = run(Program::Octoserve, directory.path(), Some(&text), &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    // What differs from machine to machine, and from run to run.
    let port = upstream.address().port().to_string();
    let lines = text.lines().map(|line| match line {
        line if line.contains("open files") => line[..FIGURES].to_owned() + "LIMIT",
        line if line.contains("answers") => line[..FIGURES].to_owned() + "401 to /v2/ in TIME",
        line => line.replace(&port, "PORT"),
    });
    let lines: Vec<_> = lines.collect();
    insta::assert_snapshot!(lines.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_terminal_shows_what_is_waited_for() -> Result<()> {
    let silent = Scripted::start_beside(|mut caller: Caller| async move {
        caller.head().await?;
        caller.closed().await
    })
    .await?;
    let program = Program::Octoserve.path()?;
    let script = format!(
        "{} doctor --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --upstream {}; \
         echo \"ended with $?\"; exec cat",
        program.display(),
        silent.url()
    );
    for width in [100, 50] {
        let screen = Tmux::start(width, 40, &script).await?;
        let waits = |text: &str| text.contains("doctor upstream main, ") && text.contains("[==");
        let shown = screen.until("the bar", waits).await?;
        // One line, however narrow the terminal is; and no report yet.
        assert_eq!(shown.trim_end().lines().count(), 1, "{shown}");
        let ended = |text: &str| text.contains("ended with 1");
        let shown = screen.until("the report", ended).await?;
        ensure!(
            shown.contains("1 failed") && !shown.contains("[=="),
            "{shown}"
        );
        ensure!(shown.starts_with("process\n"), "{shown}");
    }
    Ok(())
}

/// The registry alone on a port that the all-in-one has: both respond to `/v2/` as a registry does.
#[tokio::test]
async fn the_other_program_is_told_from_ones_own() -> Result<()> {
    let (all_in_one, registry) = (
        Launch::all_in_one().start().await?,
        Launch::registry().start().await?,
    );
    let directory = TempDir::new()?;
    for (program, address, said) in [
        (
            Program::Registry,
            all_in_one.address(),
            "another program has it: octoserve",
        ),
        (
            Program::Octoserve,
            registry.address(),
            "another program has it",
        ),
    ] {
        let address = address.to_string();
        let words = [
            "--json",
            "--listen",
            &address,
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        let report = Report::of(&run(program, directory.path(), None, &words).await?)?;
        report.expect("listen[0]", "address", "fail", said)?;
        assert_eq!(report.code, Some(1));
    }
    Ok(())
}
