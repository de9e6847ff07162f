//! Every command of a page runs, or docs/reference/commands-not-run.md lists it with the reason.
//!
//! Of our own programs, a start becomes a `--check`, and commands that would change the system of the
//! other snippets are only parsed.

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

/// Our commands that run as they are; of all others but a start, only the words are checked.
const HARMLESS: &[&[&str]] = &[
    &["ctl", "status"],
    &["ctl", "reload"],
    &["ctl", "log-level"],
    &["completions"],
    &["schema"],
];

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

/// What is run for a command of a page.
fn runnable(command: &str) -> String {
    let is_ours = ["octoserve", "octoserve-registry"];
    let end = command.find(['|', '>', ';', '&']).unwrap_or(command.len());
    let (own, rest) = command.split_at(end);
    let words: Vec<_> = own.split_whitespace().collect();
    let Some((program, words)) = words.split_first() else {
        return command.to_owned();
    };
    if !is_ours.contains(program) {
        return command.to_owned();
    }
    let own = own.trim_end();
    let serves = words
        .first()
        .is_none_or(|word| word.starts_with('-') || *word == "serve");
    let has = |word: &&str| words.contains(word);
    if own.contains('…') {
        return format!("{} --help", own.replace(" …", ""));
    }
    if serves {
        let is_over = words
            .iter()
            .any(|word| ["--check", "--print-config", "--version", "--help"].contains(word));
        let check = if is_over { "" } else { " --check" };
        return format!("{own}{check} {rest}");
    }
    if HARMLESS.iter().any(|harmless| harmless.iter().all(has)) {
        return command.to_owned();
    }
    format!("{own} --help")
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
        let script = self.system.placed(&runnable(command));
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
    let (mut wrong, mut run) = (Vec::new(), 0);
    for page in Page::all()? {
        for block in page.blocks() {
            if !["sh", "console", "shell", "bash"].contains(&block.language) {
                continue;
            }
            for command in commands(&block.text) {
                let rows = listed.iter().filter(|row| command.starts_with(*row));
                if let Some(row) = rows.max_by_key(|row| row.len()) {
                    used.insert(row);
                    continue;
                }
                run += 1;
                if let Err(error) = shell.run(&command).await {
                    wrong.push(format!("{}: {error:#}", block.place()));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(run > 30, "only {run} commands");
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
    assert_eq!(
        runnable("octoserve --listen a"),
        "octoserve --listen a --check "
    );
    assert_eq!(
        runnable("octoserve ctl … drain"),
        "octoserve ctl drain --help"
    );
    assert_eq!(
        runnable("octoserve ctl status --json"),
        "octoserve ctl status --json"
    );
    assert_eq!(
        runnable("octoserve health | cat"),
        "octoserve health --help"
    );
    assert_eq!(runnable("ls | wc"), "ls | wc");
}

#[tokio::test]
async fn a_command_that_fails_is_found() -> Result<()> {
    let shell = Shell::start().await?;
    for wrong in [
        "false",
        "octoserve --no-such-flag",
        "octoserve ctl … no-such-command --x",
    ] {
        ensure!(shell.run(wrong).await.is_err(), "{wrong}");
    }
    ensure!(shell.run("octoserve ctl … drain").await.is_ok());
    Ok(())
}
