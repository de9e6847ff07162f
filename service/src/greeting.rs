//! What a person at a terminal sees beside the log: a greeting at the start, and why an end takes long.
//!
//! Deliberately not here: what programs read. They find the addresses on stdout.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::listen::ListenAddr;
use super::net::{HttpUrl, ServerAddress};
use super::operate::{Operate, ServerStatus};
use super::shutdown::Shutdown;
use super::terminal::TerminalStyle;

/// An end that takes longer than this is explained.
const LONG: Duration = Duration::from_secs(1);

/// What a server tells a person: its URLs, and what to try.
#[derive(Clone, Debug, Default)]
pub struct Greeting(Vec<(String, String)>);

impl Greeting {
    /// Adds a URL, at which `what` is found.
    #[must_use]
    pub fn url(self, what: &str, address: &ListenAddr, is_secured: bool, path: &str) -> Self {
        self.text(what, &url(address, is_secured, path))
    }

    /// Adds a line of text, under a word that may be empty.
    #[must_use]
    pub fn text(mut self, what: &str, text: &str) -> Self {
        self.0.push((what.to_owned(), text.to_owned()));
        self
    }

    /// Adds the commands by which docker pushes an image to a registry and pulls it again, as `team/app/web`.
    #[must_use]
    pub fn round_trip(self, host: &str) -> Self {
        let image = format!("{host}/team/app/web:1");
        self.text(
            "try",
            &format!("docker pull busybox && docker tag busybox {image}"),
        )
        .text("", &format!("docker push {image} && docker rmi {image}"))
        .text("", &format!("docker pull {image}"))
    }

    /// The greeting of the program of this name and version.
    fn render(&self, name: &str, version: &str, style: TerminalStyle) -> String {
        let mut text = style.bold(&format!("{name} {version} is ready"));
        text.push('\n');
        let width = self.0.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        for (what, line) in &self.0 {
            let padded = format!("{what:width$}");
            // To write to a String never fails.
            let _ = writeln!(text, "  {}  {line}", style.faint(&padded));
        }
        text
    }

    /// Writes it to stderr, if that is a terminal. Whether it is.
    pub fn show(&self, name: &str, version: &str) -> bool {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return false;
        }
        let text = self.render(name, version, TerminalStyle::of_stderr());
        // The terminal may be gone, which is no reason not to serve.
        let _ = stderr.lock().write_all(text.as_bytes());
        true
    }
}

/// The URL of a path at a listener, as a client on this machine writes it.
pub fn url(address: &ListenAddr, is_secured: bool, path: &str) -> String {
    let url = HttpUrl::new(ServerAddress::of_listener(address), path);
    let url = if is_secured { url.inside_tls() } else { url };
    url.to_string()
}

/// Says at a terminal what a shutdown waits for, once that takes long. Ends with the process.
pub async fn explain_drain(operator: impl Operate, deadline: Duration, shutdown: Shutdown) {
    if !io::stderr().is_terminal() {
        return;
    }
    shutdown.insisted().await;
    tokio::time::sleep(LONG).await;
    let text = waiting(&operator.status(), deadline);
    // A terminal may be stopped, and then takes nothing.
    let written = spawn_blocking(move || {
        let text = TerminalStyle::of_stderr().bold(&text);
        let _ = writeln!(io::stderr(), "{text}");
    });
    let _ = written.await;
}

fn waiting(status: &ServerStatus, deadline: Duration) -> String {
    let number = |count: u64, one: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    };
    let for_what = match (status.requests, status.connections) {
        (Some(count), _) => number(count, "request"),
        (None, Some(count)) => number(count, "connection"),
        (None, None) => "requests".to_owned(),
    };
    let deadline = super::config::Duration::from(deadline);
    format!("waiting for {for_what} in flight, {deadline} at most; Ctrl-C again ends it at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_has_aligned_lines_and_colours_only_where_they_are_wanted() {
        let address: ListenAddr = "0.0.0.0:5000".parse().unwrap();
        let greeting = Greeting::default()
            .url("registry", &address, true, "")
            .text("try", "docker pull")
            .text("", "curl");
        let render =
            |has_colours| greeting.render("octoserve", "1.0", TerminalStyle::with(has_colours));
        assert_eq!(
            render(false),
            "octoserve 1.0 is ready\n  registry  https://127.0.0.1:5000\n  try       docker pull\n            curl\n"
        );
        let coloured = render(true);
        assert!(coloured.starts_with("\u{1b}[1;32moctoserve 1.0 is ready\u{1b}[0m\n"));
        assert_eq!(coloured.matches("\u{1b}[0m").count(), 4);
    }

    #[test]
    fn a_long_end_says_what_it_waits_for() {
        let status = ServerStatus {
            requests: Some(1),
            connections: Some(3),
            ..ServerStatus::default()
        };
        assert_eq!(
            waiting(&status, Duration::from_secs(30)),
            "waiting for 1 request in flight, 30s at most; Ctrl-C again ends it at once"
        );
        let registry = ServerStatus {
            connections: Some(2),
            ..ServerStatus::default()
        };
        let text = waiting(&registry, Duration::from_secs(30));
        assert!(
            text.starts_with("waiting for 2 connections in flight"),
            "{text}"
        );
    }
}
