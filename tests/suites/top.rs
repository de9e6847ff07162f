//! `top` in a real terminal, over a real program with traffic, and over pages that are none.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::authority::Authority;
use harness::client::Client;
use harness::octoserve::{Launch, Program, Server};
use harness::poll;
use harness::process::Signal;
use harness::scrape::metric;
use harness::source::Source;
use harness::tls_front::TlsFront;
use harness::tmux::Tmux;
use harness::tools;
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::serving::BASIC_AUTH;

/// A page of ours with names that a terminal must not obey.
const HOSTILE: &str = "octoserve_build_info{version=\"0.1.0\\n\x1b[31m\"} 1\n\
    octoserve_repository_operations_total{repository=\"a\x1b[2J\x1b]0;owned\x07b\",operation=\"pull\"} 3\n\
    octoserve_repository_operations_total{repository=\"\u{202e}txt\",operation=\"pull\"} 2\n\
    octoserve_upstream_replicas{upstream=\"\x1b[999;999H\"} 2\n\
    octoserve_upstream_replicas_healthy{upstream=\"\x1b[999;999H\"} 0\n\
    octoserve_http_requests_total{status=\"200\"} NaN\n";

/// Runs the command to its end; whether it succeeded, and what it printed.
async fn top(arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut words = vec!["top"];
    words.extend(arguments);
    let path = Program::Octoserve.path()?;
    let output = tools::attempt(&path.to_string_lossy(), &words).await?;
    let text = |bytes| String::from_utf8(bytes).context("no text");
    Ok((
        output.status.code(),
        text(output.stdout)?,
        text(output.stderr)?,
    ))
}

/// A terminal in which `top` runs, and tells how it ended.
async fn terminal(size: (u16, u16), arguments: &str, directory: &Path) -> Result<Tmux> {
    let program = Program::Octoserve.path()?;
    let (program, pid) = (program.display(), directory.join("pid"));
    let inner = format!(
        "echo \\$\\$ >{}; exec {program} top {arguments}",
        pid.display()
    );
    let script = format!("sh -c \"{inner}\"; echo \"ended with $?\"; stty -a; exec cat");
    Tmux::start(size.0, size.1, &script).await
}

async fn traffic(server: &Server, rounds: usize) -> Result<()> {
    let client = Client::new(&server.url(""))?;
    for _ in 0..rounds {
        client.push_image("team/app", "1", &[1, 2]).await?;
        client.pull_image("team/app", "1").await?;
    }
    // One that is counted as an error of the protocol.
    let missing = client.get("/v2/team/app/manifests/none").await?;
    ensure!(missing.status() == 404);
    Ok(())
}

/// The last figure of the row of a table that begins so.
fn figure(screen: &str, name: &str) -> Option<String> {
    let line = screen.lines().find_map(|line| {
        let at = line.find(name)?;
        line.get(at..)
    })?;
    line.split_whitespace().nth(2).map(str::to_owned)
}

/// When a page was asked for.
fn seen(times: &Mutex<Vec<Instant>>) -> Vec<Instant> {
    times.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn operations(server: &Server) -> Result<f64> {
    let all = metric("octoserve_repository_operations_total").label("repository", "team/app");
    server.scrape().await?.sum(&all).context("no operations")
}

#[tokio::test]
async fn one_screen_is_printed_with_the_values_of_the_metrics() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    traffic(&server, 3).await?;
    let url = server.url("/metrics");
    let (code, text, _) = top(&["--url", &url, "--once"]).await?;
    assert_eq!(code, Some(0), "{text}");
    let all = operations(&server).await?;
    assert_eq!(figure(&text, "team/app"), Some(all.to_string()), "{text}");
    let unknown = metric("octoserve_oci_errors_total").label("code", "MANIFEST_UNKNOWN");
    let unknown = server.scrape().await?.sum(&unknown).context("no errors")?;
    assert_eq!(
        figure(&text, "MANIFEST_UNKN"),
        Some(unknown.to_string()),
        "{text}"
    );
    for part in [&*url, "0.1.0", "requests", "storage", "registry"] {
        ensure!(text.contains(part), "{part} is not in\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "{text}");
    // The registry alone has a page, too.
    let registry = Launch::registry().start().await?;
    let url = format!("http://{}", registry.metrics_address());
    let (code, text, _) = top(&["--url", &url, "--once"]).await?;
    assert_eq!(code, Some(0), "{text}");
    ensure!(text.contains("storage"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_terminal_shows_what_happens_and_is_given_back() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    traffic(&server, 1).await?;
    let directory = TempDir::new()?;
    let url = format!("--url {}", server.url("/metrics"));
    let screen = terminal((80, 24), &url, directory.path()).await?;
    let before = operations(&server).await?.to_string();
    let shows = |count: String| {
        move |text: &str| figure(text, "team/app").is_some_and(|shown| shown == count)
    };
    let text = screen.until("the first figures", shows(before)).await?;
    assert_eq!(text.lines().count(), 24, "{text}");
    ensure!(text.contains("q quit"), "{text}");
    assert_eq!(screen.tell("#{alternate_on}").await?, "1");
    traffic(&server, 2).await?;
    let after = operations(&server).await?.to_string();
    screen.until("the new figures", shows(after)).await?;
    screen
        .until("rates", |text| {
            text.contains("in flight 0") && !text.contains("requests    -")
        })
        .await?;
    // Keys, and another size.
    screen.press("s").await?;
    screen
        .until("another order", |text| text.contains("sort: total"))
        .await?;
    screen.press("?").await?;
    screen
        .until("the help", |text| text.contains("Ctrl-C"))
        .await?;
    screen.press("?").await?;
    screen.press("p").await?;
    screen
        .until("the pause", |text| text.contains("PAUSED"))
        .await?;
    screen.press("p").await?;
    screen.resize(120, 40).await?;
    let wide = |text: &str| {
        text.lines().count() == 40
            && text
                .lines()
                .last()
                .is_some_and(|last| last.contains("q quit"))
    };
    screen.until("the new size", wide).await?;
    screen.resize(60, 10).await?;
    let small = |text: &str| {
        let (first, last) = (text.lines().next(), text.lines().last());
        // All of it is drawn anew, and not only cut off.
        text.lines().count() == 10
            && first.is_some_and(|first| first.starts_with("octoserve 0.1.0"))
            && last.is_some_and(|last| last.contains("q quit"))
    };
    screen.until("a small size", small).await?;
    screen.press("PageDown").await?;
    screen
        .until("the end of the lines", |text| text.contains("REPOSI"))
        .await?;
    // Large enough for what the shell prints then.
    screen.resize(100, 30).await?;
    screen.press("q").await?;
    given_back(&screen, "ended with 0").await
}

/// The terminal is as it was: the first screen, a cursor, lines and echo.
async fn given_back(screen: &Tmux, ended: &str) -> Result<()> {
    let done = |text: &str| text.contains(ended) && text.contains("icanon");
    let text = screen.until("the shell again", done).await?;
    for mode in [" icanon", " isig", " echo "] {
        ensure!(
            text.replace('\n', " ").contains(mode),
            "{mode} is not in\n{text}"
        );
    }
    assert_eq!(screen.tell("#{alternate_on} #{cursor_flag}").await?, "0 1");
    Ok(())
}

#[tokio::test]
async fn a_signal_ends_it_and_the_terminal_is_given_back() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let directory = TempDir::new()?;
        let url = format!("--url {}", server.url("/metrics"));
        let screen = terminal((80, 24), &url, directory.path()).await?;
        screen
            .until("figures", |text| text.contains("requests"))
            .await?;
        let pid = std::fs::read_to_string(directory.path().join("pid"))?;
        let pid = Pid::from_raw(pid.trim().parse()?).context("no process")?;
        rustix::process::kill_process(pid, signal)?;
        given_back(&screen, "ended with 0").await?;
    }
    Ok(())
}

#[tokio::test]
async fn names_of_a_page_never_reach_the_terminal_as_they_are() -> Result<()> {
    let page = Source::exposition("text/plain", HOSTILE).await?;
    let (code, text, _) = top(&["--url", &page.url(), "--once"]).await?;
    assert_eq!(code, Some(0), "{text}");
    let is_plain = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    ensure!(text.chars().all(is_plain), "{text:?}");
    ensure!(text.contains("a\\u{1b}[2J"), "{text}");
    ensure!(
        text.contains("upstream \\u{1b}[999;999H: every replica is down"),
        "{text}"
    );
    let directory = TempDir::new()?;
    let screen = terminal(
        (120, 24),
        &format!("--url {}", page.url()),
        directory.path(),
    )
    .await?;
    let title = screen.tell("#{pane_title}").await?;
    let shown = screen
        .until("the names", |text| text.contains("a\\u{1b}[2J"))
        .await?;
    ensure!(
        shown.contains("every replica is down") && shown.contains("q quit"),
        "{shown}"
    );
    assert_eq!(screen.tell("#{pane_title}").await?, title);
    screen.press("q").await?;
    given_back(&screen, "ended with 0").await
}

#[tokio::test]
async fn a_page_that_cannot_be_read_is_said_to_be_so() -> Result<()> {
    let huge = "octoserve_tags 1 \n".repeat(1 << 20);
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let unauthorized = "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n";
    let slow = Source::scripted(|stream| async move {
        // Held open until the other side has had enough.
        stream.readable().await?;
        Ok(())
    });
    for (page, said) in [
        (
            Source::exposition("text/html", "<html></html>").await?,
            "no metrics page of octoserve",
        ),
        (
            Source::exposition("text/plain", "go_threads 1\n").await?,
            "no metrics page of octoserve",
        ),
        (
            Source::exposition("text/plain", &huge).await?,
            "larger than 16 MiB",
        ),
        (Source::responding(not_found).await?, "the response is 404"),
        (
            Source::responding(unauthorized).await?,
            "give --user and --password-file",
        ),
        (
            Source::responding("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\noct").await?,
            "the connection failed",
        ),
        (Source::responding("\x1b[2J\r\n").await?, "not valid HTTP"),
        (slow.await?, "no page within 5 s"),
    ] {
        let (code, text, _) = top(&["--url", &page.url(), "--once"]).await?;
        assert_eq!(code, Some(1), "{text}");
        ensure!(
            text.contains(said) && !text.contains('\u{1b}'),
            "{said}: {text:?}"
        );
    }
    let (code, text, _) = top(&["--url", "http://127.0.0.1:1", "--once"]).await?;
    assert_eq!(code, Some(1));
    ensure!(text.contains("cannot connect"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_page_that_fails_for_a_while_is_shown_again() -> Result<()> {
    let is_broken = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (broken, times) = (Arc::clone(&is_broken), Arc::clone(&asked));
    let page = Source::scripted(move |mut stream| {
        let is_broken = broken.load(Ordering::Relaxed);
        let at = {
            let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(Instant::now());
            times.len()
        };
        async move {
            let body = format!("octoserve_tags {at}\noctoserve_connections_active {at}\n");
            let (status, body) = if is_broken {
                ("500 Broken", String::new())
            } else {
                ("200 OK", body)
            };
            let length = body.len();
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await?;
            Ok(())
        }
    })
    .await?;
    let directory = TempDir::new()?;
    let screen = terminal((80, 24), &format!("--url {}", page.url()), directory.path()).await?;
    screen
        .until("figures", |text| text.contains("connections "))
        .await?;
    is_broken.store(true, Ordering::Relaxed);
    let failing =
        |text: &str| text.contains("!! the response is 500") && text.contains("connections ");
    screen
        .until("the failure above the old figures", failing)
        .await?;
    is_broken.store(false, Ordering::Relaxed);
    screen
        .until("the end of it", |text| !text.contains("!!"))
        .await?;
    // It asks all the time, and never more than once a second: however late a request came, the next one begins
    // a second after the response to it.
    let before = seen(&asked).len();
    poll::until("it goes on", Duration::from_secs(30), async || {
        Ok((seen(&asked).len() > before + 1).then_some(()))
    })
    .await?;
    let gaps: Vec<_> = seen(&asked)
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    ensure!(
        gaps.iter().all(|gap| *gap >= Duration::from_secs(1)),
        "{gaps:?}"
    );
    screen.press("C-c").await?;
    given_back(&screen, "ended with 0").await
}

#[tokio::test]
async fn a_page_behind_tls_and_a_password_is_read_and_neither_is_shown() -> Result<()> {
    let directory = TempDir::new()?;
    let password = directory.path().join("password");
    std::fs::write(&password, "a secret\n")?;
    let auth = format!("metrics: {{{BASIC_AUTH}}}\n");
    let server = Launch::all_in_one().configuration(&auth).start().await?;
    let authority = Authority::new("the authority")?;
    let front = TlsFront::start(server.address(), &authority.sign(&["localhost"])?, None).await?;
    let (ca, file) = (authority.path(), password.to_string_lossy().into_owned());
    let ca = ca.to_string_lossy().into_owned();
    let url = format!("https://localhost:{}", front.port());
    let with_user = format!(
        "https://prometheus:a%20secret@localhost:{}/metrics",
        front.port()
    );
    for arguments in [
        vec![
            "--url",
            &url,
            "--user",
            "prometheus",
            "--password-file",
            &file,
            "--ca",
            &ca,
        ],
        vec!["--url", &with_user, "--ca", &ca],
    ] {
        let (code, text, errors) = top(&[&arguments[..], &["--once"]].concat()).await?;
        assert_eq!(code, Some(0), "{text}{errors}");
        ensure!(
            text.contains("METRICS OF") && !text.contains("secret"),
            "{text}"
        );
    }
    let (code, text, _) = top(&["--url", &url, "--ca", &ca, "--once"]).await?;
    ensure!(code == Some(1) && text.contains("give --user"), "{text}");
    let wrong = with_user.replace("secret", "guess");
    let (code, text, _) = top(&["--url", &wrong, "--ca", &ca, "--once"]).await?;
    ensure!(
        code == Some(1) && text.contains("does not accept"),
        "{text}"
    );
    let stranger = Authority::new("a stranger")?
        .path()
        .to_string_lossy()
        .into_owned();
    let (code, _, _) = top(&["--url", &url, "--ca", &stranger, "--once"]).await?;
    ensure!(code != Some(0));
    Ok(())
}

#[tokio::test]
async fn a_wrong_usage_is_told_and_without_a_terminal_too() -> Result<()> {
    for (arguments, code, said) in [
        (&["--url", "nowhere"][..], 64, "is not a URL"),
        (&["--url", "http://h", "--user", "a"], 64, "--password-file"),
        (&["--url", "http://h", "--config", "x"], 64, "--config"),
        (&["--url", "http://127.0.0.1:1"], 1, "use --once"),
    ] {
        let (ended, _, errors) = top(arguments).await?;
        assert_eq!(ended, Some(code), "{errors}");
        ensure!(errors.contains(said), "{said}: {errors}");
    }
    Ok(())
}
