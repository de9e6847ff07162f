//! Every command of a page runs, or docs/reference/commands-not-run.md lists it with the reason.
//!
//! Commands of our own programs get what lets them end by themselves (see [`runnable`]); those that are listed
//! are parsed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use harness::docker::Docker;
use harness::octoserve::Program;
use harness::skopeo::Skopeo;
use harness::tools;

use super::pages::{self, Page};
use super::places::System;

/// The page with the list.
const LIST: &str = "docs/reference/commands-not-run.md";

/// Our programs.
const OURS: &[&str] = &["octoserve", "octoserve-registry"];

/// The commands of a block: lines, where a `\` at the end continues one, without comments.
pub(super) fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(|line| {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let end = line.match_indices('#').find(|&(at, _)| {
            let before = &line[..at];
            let is_quoted = before.matches('\'').count() % 2 == 1;
            !is_quoted && (before.is_empty() || before.ends_with(' '))
        });
        line[..end.map_or(line.len(), |(at, _)| at)].trim()
    });
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A command of ours on a page: what it is with its flags, and what a shell does with its output.
struct Own<'c> {
    text: &'c str,
    words: Vec<&'c str>,
    rest: &'c str,
}

impl<'c> Own<'c> {
    /// `None` if it is another program's.
    fn of(command: &'c str) -> Option<Self> {
        let end = command.find(['|', '>', ';', '&']).unwrap_or(command.len());
        let (text, rest) = command.split_at(end);
        let mut words = text.split_whitespace();
        let is_ours = OURS.contains(&words.next()?);
        is_ours.then(|| Self {
            text: text.trim_end(),
            words: words.collect(),
            rest,
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    /// The same with more flags.
    fn with(&self, flags: &str) -> String {
        format!("{} {flags} {}", self.text, self.rest)
    }
}

/// A command as a reader types it: `…` stands for what the page said before, and the tutorial has the program
/// where cargo left it.
fn whole(command: &str) -> String {
    let config = "octoserve ctl --config /etc/octoserve/octoserve.yaml";
    let command = command.replace("octoserve ctl …", config);
    match command.strip_prefix("target/try/") {
        Some(command) => command.to_owned(),
        None => command,
    }
}

/// What is run for a command of a page: other programs' as it is, and ours with what lets it end by itself and
/// leave alone what is not the test's.
fn runnable(command: &str) -> String {
    let command = whole(command);
    let Some(own) = Own::of(&command) else {
        return command;
    };
    match own.words.first().copied().unwrap_or("serve") {
        "top" => {
            let once = if own.has("--once") { "" } else { "--once" };
            let command = own.with(once);
            if own.has("--url") {
                return command;
            }
            format!("OCTOSERVE_METRICS_LISTEN=127.0.0.1:5001 {command}")
        }
        "doctor" => {
            let is_placed = own.has("--config") || own.has("--listen");
            let free = "--listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0";
            let command = own.with(if is_placed { "" } else { free });
            let command = command.replace("https://registry.example", "http://127.0.0.1:5000");
            // A machine may have little free space, which is a warning.
            let warns = if own.has("--strict") {
                "|| [ $? = 2 ]"
            } else {
                ""
            };
            command + warns
        }
        "hash-password" => format!("echo secret | {command}"),
        "ctl" if own.has("upstream") => command.replace("octoserve.yaml", "proxy.yaml"),
        word if word == "serve" || word.starts_with('-') => {
            let ends = ["--check", "--print-config", "--version", "--help"];
            let check = if ends.iter().any(|flag| own.has(flag)) {
                ""
            } else {
                "--check"
            };
            own.with(check)
        }
        _ => command,
    }
}

/// What is run for a command that is listed; `None` if it is another program's.
fn parsed(command: &str) -> Option<String> {
    let command = whole(command);
    Own::of(&command).map(|own| format!("{} --help", own.text))
}

/// The commands that are listed, by how they begin.
fn listed() -> Result<Vec<String>> {
    let page = Page::read(LIST)?;
    let rows = page
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let prefixes = rows.map(|row| row.split('`').next().unwrap_or_default().to_owned());
    Ok(prefixes.collect())
}

/// A directory to run commands in, and a docker for them.
pub(super) struct Shell {
    system: System,
    docker: Arc<Docker>,
    directory: PathBuf,
    path: String,
}

impl Shell {
    pub(super) async fn start() -> Result<Self> {
        let system = System::start().await?;
        let docker = Docker::shared().await?;
        docker.image("busybox", None, 1601).await?;
        let directory = system.files.root().join("shell");
        std::fs::create_dir(&directory)?;
        for name in ["examples", "docker-compose.yml"] {
            std::os::unix::fs::symlink(
                pages::root().canonicalize()?.join(name),
                directory.join(name),
            )?;
        }
        std::os::unix::fs::symlink(system.server().data(), directory.join("data"))?;
        let programs = Program::Octoserve.path()?.canonicalize()?;
        let programs = programs.parent().context("a program without a directory")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", programs.display());
        Ok(Self {
            system,
            docker,
            directory,
            path,
        })
    }

    /// Runs a command of a page, and returns what it printed.
    pub(super) async fn run(&self, command: &str) -> Result<String> {
        self.run_script(&runnable(command)).await
    }

    /// The same of a command that is listed: it is parsed, if it is ours.
    async fn parse(&self, command: &str) -> Result<()> {
        match parsed(command) {
            Some(script) => self.run_script(&script).await.map(drop),
            None => Ok(()),
        }
    }

    async fn run_script(&self, script: &str) -> Result<String> {
        let script = self.system.placed(script);
        let directory = format!("--chdir={}", self.directory.display());
        let path = format!("PATH={}", self.path);
        let host = format!("DOCKER_HOST={}", self.docker.host());
        let config = format!("DOCKER_CONFIG={}", self.system.files.path("docker"));
        let words: [&str; 7] = [&directory, &path, &host, &config, "sh", "-euc", &script];
        let output = tools::attempt("env", &words).await?;
        let (printed, said) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        if !output.status.success() {
            bail!("{script}: {}\n{printed}{said}", output.status);
        }
        Ok(printed)
    }
}

#[tokio::test]
async fn every_command_runs_or_is_listed() -> Result<()> {
    let listed = listed()?;
    let shell = Shell::start().await?;
    // What the pages look at: an image with two tags, and a manifest to push.
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("app", &[1602])?;
    let repository = format!("docker://{}/team/app/web", shell.system.server().host());
    for tag in ["latest", "1"] {
        skopeo
            .copy(&layout, &format!("{repository}:{tag}"), &[])
            .await?;
    }
    let manifest = skopeo.manifest(&format!("{repository}:1")).await?;
    std::fs::write(shell.directory.join("manifest.json"), manifest)?;

    let mut used = BTreeSet::new();
    let (mut wrong, mut run, mut own) = (Vec::new(), 0, 0);
    for page in Page::all()? {
        for block in page.blocks() {
            if !["sh", "console", "shell", "bash"].contains(&block.language) {
                continue;
            }
            for command in commands(&block.text) {
                let rows = listed.iter().filter(|row| command.starts_with(*row));
                let ended = if let Some(row) = rows.max_by_key(|row| row.len()) {
                    used.insert(row);
                    shell.parse(&command).await
                } else {
                    run += 1;
                    own += usize::from(Own::of(&whole(&command)).is_some());
                    shell.run(&command).await.map(drop)
                };
                if let Err(error) = ended {
                    wrong.push(format!("{}: {error:#}", block.place()));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(
        run > 30 && own > 30,
        "only {run} commands, {own} of them ours"
    );
    let unused: Vec<_> = listed.iter().filter(|row| !used.contains(row)).collect();
    ensure!(
        unused.is_empty(),
        "{LIST} lists what no page has: {unused:?}"
    );
    Ok(())
}

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let block = "curl a \\\n  -H 'b: #1'   # why\n\n# none\n$ ls\n";
    assert_eq!(commands(block), ["curl a    -H 'b: #1'", "ls"]);
    let config = "octoserve ctl --config /etc/octoserve/octoserve.yaml";
    for (command, run) in [
        ("octoserve --listen a", "octoserve --listen a --check"),
        ("octoserve --check | cat", "octoserve --check  | cat"),
        (
            "octoserve ctl … status --json",
            &format!("{config} status --json"),
        ),
        ("octoserve health | cat", "octoserve health | cat"),
        (
            "target/try/octoserve top --url a",
            "octoserve top --url a --once",
        ),
        (
            "octoserve hash-password",
            "echo secret | octoserve hash-password",
        ),
        (
            "octoserve-registry gc --data a",
            "octoserve-registry gc --data a",
        ),
        ("ls | wc", "ls | wc"),
    ] {
        assert_eq!(runnable(command).trim_end(), run);
    }
    let drain = parsed("octoserve ctl … drain");
    assert_eq!(drain, Some(format!("{config} drain --help")));
    assert_eq!(parsed("make docs"), None);
}

#[tokio::test]
async fn a_command_that_fails_is_found() -> Result<()> {
    let shell = Shell::start().await?;
    for wrong in [
        "false",
        "octoserve --no-such-flag",
        "octoserve ctl … no-such-command --x",
        "octoserve ctl … upstream main/http://nowhere:5000 drain",
        "octoserve-registry gc --data /var/lib/octoserve/none",
        "octoserve top --url http://127.0.0.1:1",
    ] {
        ensure!(shell.run(wrong).await.is_err(), "{wrong}");
    }
    ensure!(
        shell
            .parse("octoserve ctl … no-such-command")
            .await
            .is_err()
    );
    ensure!(
        shell
            .parse("octoserve ctl … drain --no-such-flag")
            .await
            .is_err()
    );
    shell.parse("octoserve ctl … drain").await?;
    shell.run("octoserve ctl … status").await.map(drop)
}
