//! A program at a terminal: a pseudo terminal of the kernel, whose other end the test reads and types at.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::poll;

/// How long a program may take to show something, or to end.
const DEADLINE: Duration = Duration::from_mins(1);

/// A running program and its terminal. Dropping it kills the program.
pub struct Terminal {
    child: Child,
    /// The end at which the test reads and types.
    controller: File,
    /// The program's end, kept open: without it what was shown last could be lost.
    program_end: File,
    shown: Vec<u8>,
}

impl Terminal {
    /// Starts a program at a terminal; its standard output goes to a file instead, if there is one.
    ///
    /// # Errors
    /// If there is no terminal, or the program cannot be started.
    pub fn start(mut command: Command, stdout: Option<File>) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("openpt")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let name = ptsname(&controller, Vec::new())?;
        let program_end = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        fcntl_setfl(&controller, OFlags::NONBLOCK)?;
        let program_end = File::from(program_end);
        let stdout = match stdout {
            Some(file) => file,
            None => program_end.try_clone()?,
        };
        let child = command
            .stdin(program_end.try_clone()?)
            .stdout(stdout)
            .stderr(program_end.try_clone()?)
            .spawn()
            .context("starting a program at a terminal")?;
        Ok(Self {
            child,
            controller: File::from(controller),
            program_end,
            shown: Vec::new(),
        })
    }

    /// Types keys.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn keys(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.controller.write_all(keys)?)
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// Everything that was shown so far.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub fn shown(&mut self) -> Result<String> {
        let mut bytes = [0; 4096];
        loop {
            match self.controller.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.shown.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading the terminal"),
            }
        }
        Ok(String::from_utf8_lossy(&self.shown).into_owned())
    }

    /// Waits until a text is shown, and returns everything that was shown so far.
    ///
    /// # Errors
    /// If it is not shown in time; with what was.
    pub async fn wait_for(&mut self, text: &str) -> Result<String> {
        let what = format!("the terminal shows {text:?}");
        let found = poll::until(&what, DEADLINE, async || {
            let shown = self.shown()?;
            Ok(shown.contains(text).then_some(shown))
        });
        let found = found.await;
        found.with_context(|| String::from_utf8_lossy(&self.shown).into_owned())
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn exited(&mut self) -> Result<ExitStatus> {
        poll::until("the program ends", DEADLINE, async || {
            Ok(self.child.try_wait()?)
        })
        .await
    }

    /// Whether the terminal shows what is typed.
    ///
    /// # Errors
    /// If it is gone.
    pub fn echoes(&self) -> Result<bool> {
        let modes = tcgetattr(&self.program_end)?.local_modes;
        Ok(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
