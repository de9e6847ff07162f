//! A child process with its output in files. Dropping the value ends the process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit};

pub use rustix::process::Signal;

use crate::poll;

/// How long a program may take to print its addresses.
const START: Duration = Duration::from_mins(1);

/// A running program. Dropping it ends it, and prints the end of its output if the test is failing.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    grace: Duration,
}

/// One of a program's two outputs.
#[derive(Clone, Copy, Debug)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident bytes now.
    pub resident: u64,
    /// The peak of resident bytes.
    pub peak: u64,
}

impl Process {
    /// Starts `command` with its output in `logs`, which must outlive the process.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).context("creating a log")?)
            .stderr(File::create(&stderr).context("creating a log")?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
            grace: Duration::ZERO,
        })
    }

    /// On drop, gives the process this long to exit by itself: for programs that have children or
    /// mounts to clean up.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Waits until `parse` returns a value for a line of the output.
    ///
    /// # Errors
    /// If the process exits first, or does not print such a line in time; with its output.
    pub async fn announced<T>(
        &mut self,
        stream: OutputStream,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{} announces {what}", self.name);
        let found = poll::until(&what, START, async || {
            // The state is read before the output, so that the output of an exited process is
            // complete.
            let ended = self.child.try_wait()?;
            let text = self.output(stream)?;
            // The last line may be incomplete.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(value) = whole.lines().find_map(&parse) {
                return Ok(Some(value));
            }
            match ended {
                Some(status) => bail!("the process exited with {status}"),
                None => Ok(None),
            }
        });
        found.await.with_context(|| self.last_words())
    }

    /// Its output on `stream` so far.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn output(&self, stream: OutputStream) -> Result<String> {
        let path = match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        };
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The process's identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(self.pid()?, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Stops it (SIGSTOP), and waits until all of its threads have stopped: until then some may respond.
    ///
    /// # Errors
    /// If it does not stop in time.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let threads = format!("/proc/{}/task", self.pid()?.as_raw_nonzero());
        poll::until("all threads have stopped", START, async || {
            for thread in std::fs::read_dir(&threads)? {
                let state = std::fs::read_to_string(thread?.path().join("stat"))?;
                // The state follows the name, which is in parentheses.
                let state = state.rsplit(") ").next().unwrap_or_default();
                if !state.starts_with('T') {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for the process to exit by itself.
    ///
    /// # Errors
    /// If it does not within `deadline`.
    pub async fn exited(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        poll::until(&what, deadline, async || Ok(self.child.try_wait()?)).await
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its memory, from `/proc/PID/status`.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).context(path)?;
        let kilobytes = |field: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(field)?
                        .trim()
                        .strip_suffix(" kB")?
                        .parse()
                        .ok()
                })
                .map(|kilobytes: u64| kilobytes * 1024)
                .with_context(|| format!("no {field} in the status of {}", self.name))
        };
        Ok(Memory {
            resident: kilobytes("VmRSS:")?,
            peak: kilobytes("VmHWM:")?,
        })
    }

    /// How many file descriptors it has open.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.id());
        Ok(std::fs::read_dir(&path).context(path)?.count())
    }

    /// Sets its limit of file descriptors: no new one may have the number `limit` or above. Open
    /// ones stay open.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn limit_descriptors(&self, limit: u64) -> Result<()> {
        let pid = Some(self.pid()?);
        let now = rustix::process::prlimit(
            pid,
            Resource::Nofile,
            Rlimit {
                current: Some(limit),
                maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
            },
        );
        now.with_context(|| format!("limiting the descriptors of {}", self.name))?;
        Ok(())
    }

    /// The processor time of it and its exited children, from `/proc/PID/stat`.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = std::fs::read_to_string(&path).context(path)?;
        // The name, in parentheses, may contain anything, so the fields are counted from after it.
        let fields = stat
            .rsplit_once(") ")
            .context("a strange /proc/PID/stat")?
            .1;
        let ticks: u64 = fields
            .split_ascii_whitespace()
            .skip(11)
            .take(4)
            .map(|ticks| ticks.parse::<u64>().unwrap_or_default())
            .sum();
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// The end of both outputs, for an error message.
    pub fn last_words(&self) -> String {
        let tail = |stream| {
            let text = self.output(stream).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        let (stdout, stderr) = (tail(OutputStream::Stdout), tail(OutputStream::Stderr));
        format!(
            "--- {0}, stdout\n{stdout}\n--- {0}, stderr\n{stderr}\n---",
            self.name
        )
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no such process id")
    }

    /// Sends SIGTERM and waits for the exit, without an asynchronous runtime.
    fn end_gracefully(&self) -> Result<()> {
        let pid = self.pid()?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        wait_for_exit(pid, self.grace)
    }
}

/// Waits until a process, which need not be a child, has ended, or for this time. Needs no asynchronous runtime.
///
/// # Errors
/// If it is gone already.
pub(crate) fn wait_for_exit(pid: Pid, at_most: Duration) -> Result<()> {
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(at_most)?;
    rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout))?;
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Only a failing test prints this, so a passing one stays silent.
            let words = self.last_words();
            std::io::Write::write_all(&mut std::io::stderr(), words.as_bytes()).ok();
        }
        if !self.grace.is_zero() && matches!(self.child.try_wait(), Ok(None)) {
            self.end_gracefully().ok();
        }
        self.kill().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, logs: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, logs).unwrap()
    }

    #[tokio::test]
    async fn an_announcement_is_found_once_its_line_is_whole() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = shell("echo one; echo port 42; exec sleep 60", logs.path());
        let port = process.announced(OutputStream::Stdout, "a port", |line| {
            line.strip_prefix("port ")?.parse::<u16>().ok()
        });
        assert_eq!(port.await.unwrap(), 42);
        let memory = process.memory().unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert!(process.processor_time().unwrap() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_program_that_exits_early_is_reported_with_its_output() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = shell("echo sorry >&2; exit 3", logs.path());
        let error = process
            .announced(OutputStream::Stdout, "a port", |_| None::<()>)
            .await
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sorry") && text.contains('3'), "{text}");
    }

    #[tokio::test]
    async fn dropping_a_process_ends_it() {
        let logs = tempfile::tempdir().unwrap();
        let process = shell(
            "trap 'exit 0' TERM; while :; do sleep 0.05; done",
            logs.path(),
        );
        let id = process.id();
        drop(process.with_grace(Duration::from_secs(10)));
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
