//! Small file systems in memory, to be filled, and to be made read-only.

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A mounted tmpfs, until it is dropped. Mounting needs root, as does tests/setup/install.sh.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one with options such as `size=8m,nr_inodes=800`.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn mount(options: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-disk-")?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "octoserve-test"])
            .arg(directory.path())
            .status()
            .context("mount")?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Self(directory))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The free inodes.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn files_free(&self) -> Result<u64> {
        Ok(rustix::fs::statvfs(self.path())?.f_ffree)
    }

    /// Makes it read-only for what opens a file from now on: a second mount, in front of the first one.
    /// The system makes none read-only that has a file open to be written, as that of a registry has.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn make_read_only(&self) -> Result<()> {
        for options in [["--bind"].as_slice(), &["-o", "remount,bind,ro"]] {
            let mounted = Command::new("mount")
                .args(options)
                .args([self.path(), self.path()])
                .status()
                .context("mount")?;
            ensure!(mounted.success(), "mount {options:?}: {mounted}");
        }
        Ok(())
    }

    /// Undoes [`make_read_only`](Self::make_read_only).
    ///
    /// # Errors
    /// If it cannot be unmounted.
    pub fn make_writable(&self) -> Result<()> {
        let unmounted = self.unmount()?;
        ensure!(unmounted.success(), "umount: {unmounted}");
        Ok(())
    }

    /// Takes away the mount in front. What is open stays open.
    fn unmount(&self) -> Result<ExitStatus> {
        Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status()
            .context("umount")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") {
            let path = self.path().to_string_lossy();
            let at_path = |line: &&str| line.split(' ').nth(1) == Some(&*path);
            for _ in mounts.lines().filter(at_path) {
                // If this fails, the directory of the mount stays behind and shows it.
                let _ = self.unmount();
            }
        }
    }
}
