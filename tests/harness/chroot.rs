//! A small Debian of its own, to install packages in: no systemd and no network, but for a loopback device.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::tools;

/// What tests/setup/install.sh made with debootstrap.
const DEBIAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/debian");

/// A copy of it, which is removed on drop.
pub struct Chroot {
    directory: TempDir,
}

impl Chroot {
    /// Copies it.
    ///
    /// # Errors
    /// If it is missing: only root can make it.
    pub async fn new() -> Result<Self> {
        let path = Path::new(DEBIAN);
        ensure!(
            path.is_dir(),
            "target/tools/debian is missing: `make test` (tests/setup/install.sh) makes it as root"
        );
        let directory = TempDir::with_prefix("octoserve-debian-")?;
        let chroot = Self { directory };
        let target = chroot.path("/");
        let target = target.to_str().context("a path of UTF-8")?;
        tools::run("cp", &["-a", &format!("{DEBIAN}/."), target]).await?;
        Ok(chroot)
    }

    /// Where one of its files is.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = self.directory.path().join("root");
        root.join(path.trim_start_matches('/'))
    }

    /// Runs a shell script in it as root, in a network of its own, and returns what it printed.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn run(&self, script: &str) -> Result<String> {
        let output = self.attempt(script).await?;
        let [stdout, stderr] = [output.stdout, output.stderr]
            .map(|stream| String::from_utf8_lossy(&stream).into_owned());
        if !output.status.success() {
            bail!("{script}: {}\n{stdout}{stderr}", output.status);
        }
        Ok(stdout)
    }

    /// Runs a shell script in it, whether it succeeds or not.
    ///
    /// # Errors
    /// If it cannot be started, or does not end in time.
    pub async fn attempt(&self, script: &str) -> Result<Output> {
        // `ip` is this machine's; $0 is the root.
        let outer = "ip link set lo up && exec chroot \"$0\" /usr/bin/env -i \
                     PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
                     sh -euc \"$1\"";
        let root = self.path("/");
        let root = root.to_str().context("a path of UTF-8")?;
        // The network goes with its last process, and so do processes that the script has left: they are in
        // a PID namespace whose first process ends.
        let words = [
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            outer,
            root,
            script,
        ];
        tools::attempt("unshare", &words).await
    }
}
