//! A terminal that a test can see and type into: tmux, with a server of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{poll, tools};

/// How long something may take to be seen.
const DEADLINE: Duration = Duration::from_mins(1);

/// A terminal in which a shell script runs. Dropping it ends both.
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Runs a shell script in a terminal of this size.
    ///
    /// # Errors
    /// If tmux is missing or does not start.
    pub async fn start(width: u16, height: u16, script: &str) -> Result<Self> {
        let tmux = Self {
            directory: TempDir::with_prefix("octoserve-tmux-")?,
        };
        let (width, height) = (width.to_string(), height.to_string());
        // Without the user's own configuration.
        let options = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            &height,
            script,
        ];
        tmux.run(&options).await?;
        Ok(tmux)
    }

    /// The text on the screen.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"]).await
    }

    /// Waits until the screen has what is `wanted`, and returns its text.
    ///
    /// # Errors
    /// If it does not in time, with the screen.
    pub async fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let found = poll::until(what, DEADLINE, async || {
            last = self.screen().await?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        let found = found.await;
        found.with_context(|| format!("the screen:\n{last}"))
    }

    /// Types a key, by tmux's name of it.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn press(&self, key: &str) -> Result<()> {
        self.run(&["send-keys", key]).await.map(drop)
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-x", &width, "-y", &height])
            .await
            .map(drop)
    }

    /// What tmux says of the terminal, in its language of formats.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn tell(&self, format: &str) -> Result<String> {
        let said = self.run(&["display-message", "-p", format]).await?;
        Ok(said.trim().to_owned())
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket();
        let mut words = vec!["-S".to_owned(), socket.to_string_lossy().into_owned()];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        tools::run("tmux", &words).await
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Its own server alone: there is one for each socket.
        let mut tmux = std::process::Command::new("tmux");
        tmux.arg("-S").arg(self.socket()).arg("kill-server");
        tmux.stderr(std::process::Stdio::null());
        tmux.status().ok();
    }
}
