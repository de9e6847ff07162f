//! The command line and the configuration: errors are reported with file, line and key and exit
//! code 64 before anything starts, and the examples are valid.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::examples::examples;
use harness::octoserve::Program;
use harness::tools;
use tempfile::TempDir;

/// The result of a program that has exited.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(program: Program, arguments: &[&str]) -> Result<Ended> {
    let path = program.path()?;
    let output = tools::attempt(&path.to_string_lossy(), arguments).await?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn file(directory: &TempDir, text: &str) -> Result<String> {
    let path = directory.path().join("octoserve.yaml");
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

#[tokio::test]
async fn an_error_in_the_file_is_reported_with_file_line_and_key() -> Result<()> {
    let directory = TempDir::new()?;
    for (program, text, place, said) in [
        (
            Program::Octoserve,
            "metrics:\n  pubic: true\n",
            ":2: metrics.pubic: unknown key, did you mean public?",
            "pubic",
        ),
        (
            Program::Octoserve,
            "limits:\n  drain: soon\n",
            ":2: limits.drain",
            "soon",
        ),
        (
            Program::Octoserve,
            "listen:\n  - address: nowhere\n",
            ":2: ",
            "nowhere",
        ),
        (
            Program::Octoserve,
            "upstreams:\n  - replicas: ['https://user:secret@registry']\n",
            ":2: ",
            "replicas",
        ),
        (
            Program::Octoserve,
            "limits: {idle_timeout: 500ms}\n",
            ":1: limits.idle_timeout",
            "1s",
        ),
        (
            Program::Octoserve,
            "metrics: {path: /v2/}\n",
            ":1: metrics.path",
            "registry",
        ),
        (
            Program::Octoserve,
            "metrics:\n  basic_auth: {username: a}\n",
            ":2: metrics.basic_auth",
            "password_hash",
        ),
        (
            Program::Registry,
            "metrics:\n  basic_auth: {username: a, password_hash: secret}\n",
            ":2: metrics.basic_auth.password_hash",
            "bcrypt",
        ),
        (
            Program::Octoserve,
            "metrics:\n  listen:\n    address: 127.0.0.1:0\n    tls: {certificate: /no, key: /no}\n",
            ":4: metrics.listen.tls.certificate",
            "/no",
        ),
        (
            Program::Octoserve,
            "metrics:\n  labels:\n    endpoint: x\n",
            ":3: metrics.labels.endpoint",
            "our own",
        ),
        (
            Program::Registry,
            "metrics: {path: /v2/_metrics}\n",
            ":1: metrics.path",
            "registry",
        ),
        (
            Program::Registry,
            "data: ./data\ndurabilty: full\n",
            ":2: durabilty: unknown key, did you mean durability?",
            "durabilty",
        ),
        (
            Program::Octoserve,
            "data: ./data\n",
            ":1: data: unknown key, did you mean registry.data?",
            "data",
        ),
        (
            Program::Octoserve,
            "logging: {format: jsn}\n",
            ":1: logging.format: expected one of auto, text, json, not jsn; did you mean json?",
            "jsn",
        ),
        (
            Program::Registry,
            "manifest_limit: much\n",
            ":1: manifest_limit",
            "much",
        ),
    ] {
        let path = file(&directory, text)?;
        let ended = run(program, &["--config", &path]).await?;
        let error = &ended.stderr;
        ensure!(ended.code == Some(64), "{text}: {:?} {error}", ended.code);
        ensure!(ended.stdout.is_empty(), "{text}: {}", ended.stdout);
        ensure!(error.contains(&format!("{path}{place}")), "{text}: {error}");
        ensure!(error.contains(said), "{text}: {error}");
        ensure!(!error.contains("secret"), "{text}: {error}");
        ensure!(error.trim_end().lines().count() == 1, "{text}: {error}");
    }
    Ok(())
}

/// Sections and lines with a value out of range, and that range, for both programs.
const OUT_OF_RANGE: &[(&str, &str, &str)] = &[
    ("limits", "connections: 0", "1 to 1000000"),
    (
        "limits",
        "connections: 18446744073709551615",
        "1 to 1000000",
    ),
    ("limits", "header_timeout: 999ms", "1s to 1h"),
    ("limits", "header_timeout: 61m", "1s to 1h"),
    ("limits", "idle_timeout: 25h", "1s to 1day"),
    ("limits", "body_stall: 0s", "1s to 1h"),
    ("limits", "drain: 500years", "0s to 1day"),
    ("logging", "sample: -1", "0 to 1"),
    ("logging", "sample: 1.001", "0 to 1"),
    ("logging", "sample: .nan", "0 to 1"),
    ("logging", "sample: .inf", "0 to 1"),
];

const OUT_OF_RANGE_OF_THE_STORE: &[(&str, &str)] = &[
    ("manifest_limit: 100TiB", "1KiB to 32MiB"),
    ("manifest_limit: 0", "1KiB to 32MiB"),
    ("reserve: 1025TiB", "0B to 1024TiB"),
    ("uploads: {expire: 0s}", "1s to 1year"),
    ("uploads: {expire: 2years}", "1s to 1year"),
    ("uploads: {max_sessions: 0}", "1 to 1000000"),
    (
        "uploads: {max_sessions: 18446744073709551615}",
        "1 to 1000000",
    ),
    ("uploads: {max_bytes: 1KiB}", "1MiB to 1024TiB"),
];

const OUT_OF_RANGE_OF_THE_PROXY: &[(&str, &str, &str)] = &[
    ("aggregate", "timeout: 0s", "1s to 5m"),
    ("aggregate", "timeout: 1h", "1s to 5m"),
    ("aggregate", "max_bytes: 0", "1KiB to 1GiB"),
    ("aggregate", "max_bytes: 100GiB", "1KiB to 1GiB"),
    ("aggregate", "max_samples: 0", "1 to 10000000"),
    ("repositories", "limit: 18446744073709551615", "0 to 10000"),
    ("repositories", "idle: 2years", "0s to 1year"),
];

/// A program, a file whose third line is wrong, the key on that line, and its range.
type Wrong = (Program, String, String, String);

fn out_of_range() -> Vec<Wrong> {
    let key = |line: &str| {
        let line = line.replace(": {", ".");
        line.split(':').next().unwrap_or_default().to_owned()
    };
    let mut all = Vec::new();
    for (section, line, range) in OUT_OF_RANGE {
        for program in [Program::Octoserve, Program::Registry] {
            let file = format!("# a\n{section}:\n  {line}\n");
            all.push((
                program,
                file,
                format!("{section}.{}", key(line)),
                (*range).to_owned(),
            ));
        }
    }
    for (line, range) in OUT_OF_RANGE_OF_THE_STORE {
        let alone = format!("# a\n# b\n{line}\n");
        all.push((Program::Registry, alone, key(line), (*range).to_owned()));
        let embedded = format!("# a\nregistry:\n  {line}\n");
        let key = format!("registry.{}", key(line));
        all.push((Program::Octoserve, embedded, key, (*range).to_owned()));
    }
    for (section, line, range) in OUT_OF_RANGE_OF_THE_PROXY {
        let file = format!("metrics:\n  {section}:\n    {line}\n");
        let key = format!("metrics.{section}.{}", key(line));
        all.push((Program::Octoserve, file, key, (*range).to_owned()));
    }
    all
}

#[tokio::test]
async fn check_reports_a_value_out_of_range_with_file_line_and_key() -> Result<()> {
    let directory = TempDir::new()?;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/configuration.md");
    let docs = std::fs::read_to_string(docs)?;
    for (program, text, key, range) in out_of_range() {
        let row = format!("| `{key}` |");
        let rows: Vec<_> = docs.lines().filter(|line| line.starts_with(&row)).collect();
        let has_range = |row: &&str| row.contains(&format!(" From {range}."));
        let is_documented = !rows.is_empty() && rows.iter().all(has_range);
        ensure!(
            is_documented,
            "docs/reference/configuration.md: {key}: {rows:?}"
        );
        let path = file(&directory, &text)?;
        let ended = run(program, &["--check", "--config", &path]).await?;
        let error = &ended.stderr;
        ensure!(ended.code == Some(64), "{text}: {:?} {error}", ended.code);
        let message = format!("{path}:3: {key}: must be from {range}, not ");
        ensure!(error.contains(&message), "{text}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn conflicting_addresses_and_paths_are_refused() -> Result<()> {
    let directory = TempDir::new()?;
    let upstream = "upstreams: [{replicas: ['http://127.0.0.1:9'], metrics: ";
    let own = format!(
        "{upstream}[{{source: a, url: 'http://localhost:5001/x'}}]}}]\nmetrics: {{listen: '127.0.0.1:5001'}}\n"
    );
    for (programs, text, key) in [
        (
            2,
            "metrics: {listen: '127.0.0.1:5000'}\n",
            ":1: metrics.listen",
        ),
        (
            2,
            "metrics: {listen: '0.0.0.0:5000'}\n",
            ":1: metrics.listen",
        ),
        (
            2,
            "listen: unix:/x\nmetrics: {listen: unix:/x}\n",
            ":2: metrics.listen",
        ),
        (2, "listen:\n- 127.0.0.1:5\n- '[::]:5'\n", ":3: listen[1]"),
        (2, "metrics: {path: /token}\n", ":1: metrics.path"),
        (2, "metrics: {path: /service/token}\n", ":1: metrics.path"),
        (2, "metrics: {path: /v2/}\n", ":1: metrics.path"),
        (
            1,
            "upstreams:\n- replicas: ['http://localhost:5000']\n",
            ":2: upstreams[0].replicas[0]",
        ),
        (1, &own, ":1: upstreams[0].metrics[0].url"),
    ] {
        for program in [Program::Octoserve, Program::Registry]
            .into_iter()
            .take(programs)
        {
            let path = file(&directory, text)?;
            let ended = run(program, &["--check", "--config", &path]).await?;
            let error = &ended.stderr;
            ensure!(ended.code == Some(64), "{text}: {:?} {error}", ended.code);
            ensure!(error.contains(&format!("{path}{key}: ")), "{text}: {error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_error_on_the_command_line_is_exit_code_64() -> Result<()> {
    for arguments in [
        &["--listen", "nowhere"][..],
        &["--upstream", "registry:5000", "--check"],
        &["--upstream", "http://a", "--data", "b"],
        &["--no-such-flag"],
        &["--config", "/does/not/exist.yaml"],
    ] {
        let ended = run(Program::Octoserve, arguments).await?;
        ensure!(ended.code == Some(64), "{arguments:?}: {:?}", ended.code);
        ensure!(!ended.stderr.is_empty(), "{arguments:?} prints no error");
    }
    Ok(())
}

#[tokio::test]
async fn the_printed_configuration_loads_again_and_prints_the_same() -> Result<()> {
    let directory = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let listen = ["--listen", "127.0.0.1:0", "--print-config"];
        let printed = run(program, &listen).await?;
        ensure!(printed.code == Some(0), "{}", printed.stderr);
        let path = file(&directory, &printed.stdout)?;
        let again = run(program, &["--config", &path, "--print-config"]).await?;
        assert_eq!(again.stdout, printed.stdout, "{}", again.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_examples_pass_the_check() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (program, path) in examples()? {
        let path = path.to_str().context("a path of UTF-8")?;
        let ended = run(program, &["--check", "--config", path]).await?;
        ensure!(ended.code == Some(0), "{path}: {}", ended.stderr);
    }
    for name in ["prometheus.yml", "compose/prometheus.yml"] {
        let path = directory.join(name);
        let path = path.to_str().context("a path of UTF-8")?;
        tools::run("promtool", &["check", "config", path]).await?;
    }
    Ok(())
}
