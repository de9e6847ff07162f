//! The command line and the configuration: what is wrong is told with its place and exit code 64,
//! before anything is started, and the examples are right.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::octoserve::Program;
use harness::tools;
use tempfile::TempDir;

/// Exit code, standard output, standard error.
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

fn file(folder: &TempDir, text: &str) -> Result<String> {
    let path = folder.path().join("octoserve.yaml");
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_mistake_in_a_file_is_told_with_file_line_and_key() -> Result<()> {
    let folder = TempDir::new()?;
    for (program, text, place, said) in [
        (
            Program::Octoserve,
            "metrics:\n  pubic: true\n",
            ":2: ",
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
            ":2: ",
            "durabilty",
        ),
        (
            Program::Registry,
            "manifest_limit: much\n",
            ":1: manifest_limit",
            "much",
        ),
    ] {
        let path = file(&folder, text)?;
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

#[tokio::test]
async fn a_mistake_on_the_command_line_is_exit_code_64() -> Result<()> {
    for arguments in [
        &["--listen", "nowhere"][..],
        &["--upstream", "registry:5000", "--check"],
        &["--upstream", "http://a", "--data", "b"],
        &["--no-such-flag"],
        &["--config", "/does/not/exist.yaml"],
    ] {
        let ended = run(Program::Octoserve, arguments).await?;
        ensure!(ended.code == Some(64), "{arguments:?}: {:?}", ended.code);
        ensure!(!ended.stderr.is_empty(), "{arguments:?} says nothing");
    }
    Ok(())
}

#[tokio::test]
async fn the_printed_configuration_loads_again_and_prints_the_same() -> Result<()> {
    let folder = TempDir::new()?;
    for program in [Program::Octoserve, Program::Registry] {
        let listen = ["--listen", "127.0.0.1:0", "--print-config"];
        let printed = run(program, &listen).await?;
        ensure!(printed.code == Some(0), "{}", printed.stderr);
        let path = file(&folder, &printed.stdout)?;
        let again = run(program, &["--config", &path, "--print-config"]).await?;
        assert_eq!(again.stdout, printed.stdout, "{}", again.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_examples_are_right() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            examples.push(path);
        }
    }
    ensure!(examples.len() >= 4, "{examples:?}");
    for path in examples {
        let program = match path.file_name().and_then(|name| name.to_str()) {
            Some("registry.yaml") => Program::Registry,
            _ => Program::Octoserve,
        };
        let path = path.to_str().context("a path of UTF-8")?;
        let ended = run(program, &["--check", "--config", path]).await?;
        ensure!(ended.code == Some(0), "{path}: {}", ended.stderr);
    }
    for name in ["prometheus.yml", "compose/prometheus.yml"] {
        let path = folder.join(name);
        let path = path.to_str().context("a path of UTF-8")?;
        tools::run("promtool", &["check", "config", path]).await?;
    }
    Ok(())
}
