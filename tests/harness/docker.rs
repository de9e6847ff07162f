//! Docker: a daemon of our own, separate from the machine's, and its client.
//!
//! Each daemon has its own socket, directories and containerd, but no bridge and no packet filter
//! rules: it changes nothing outside its directory. The daemon that the client tests share never
//! runs a container; a daemon that does has a network namespace of its own. Images come from
//! `docker import`, so no test needs a public registry.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::process::{Process, Signal};
use crate::wire::Wire;
use crate::{content, poll, tools};

/// How long the daemon may take to respond and to exit.
const DEADLINE: Duration = Duration::from_mins(1);

/// The address of `registry.example` (RFC 5737).
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A running docker daemon. Dropping it stops it and removes its directory.
pub struct Docker {
    // Fields are dropped in this order: the daemon must stop before its directory is removed.
    process: Process,
    socket: PathBuf,
    directory: TempDir,
}

impl Docker {
    /// The daemon that all running tests share; it stops with the last of them.
    ///
    /// # Errors
    /// If docker is not installed, or the daemon does not start, for instance without root.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Docker>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(docker) = shared.upgrade() {
            return Ok(docker);
        }
        // vfs works on any file system, also within a container.
        let docker = Arc::new(Self::start(&[], &["--storage-driver=vfs"]).await?);
        *shared = Arc::downgrade(&docker);
        Ok(docker)
    }

    /// A daemon in a network namespace of its own, which has only a loopback interface at first.
    /// Ports that it or its containers publish are reachable only by [`Docker::connect`], and
    /// nothing outside is reachable from within.
    ///
    /// # Errors
    /// If docker is not installed, or the daemon does not start, for instance without root.
    pub async fn isolated() -> Result<Self> {
        let ip = tools::find("ip")?;
        let inside = format!("{} link set lo up && exec \"$@\"", ip.display());
        // The daemon chooses the storage driver: images of gigabytes need a fast one.
        Self::start(&["unshare", "--net", "sh", "-c", &inside, "sh"], &[]).await
    }

    /// A daemon in a network namespace of its own, and with a copy of /etc, in which `registry.example` is a
    /// server elsewhere: its address is none of the loopback network, with which docker is less strict.
    ///
    /// # Errors
    /// If docker is not installed, or the daemon does not start, for instance without root.
    pub async fn elsewhere(etc: &Path) -> Result<Self> {
        let copy = ["--archive", "/etc/.", &etc.display().to_string()];
        tools::run("cp", &copy).await?;
        std::fs::create_dir_all(etc.join("docker/certs.d"))?;
        std::fs::write(etc.join("hosts"), format!("{ELSEWHERE} registry.example\n"))?;
        let inside = format!(
            "{ip} link set lo up && {ip} address add {ELSEWHERE}/32 dev lo && mount --bind '{}' /etc && exec \"$@\"",
            etc.display(),
            ip = tools::find("ip")?.display()
        );
        let wrapper = ["unshare", "--net", "--mount", "sh", "-c", &inside, "sh"];
        Self::start(&wrapper, &["--storage-driver=vfs"]).await
    }

    /// The words by which a program runs in the daemon's network.
    ///
    /// # Errors
    /// If nsenter is missing.
    pub fn beside(&self) -> Result<Vec<OsString>> {
        let network = format!("--net=/proc/{}/ns/net", self.process.id());
        Ok(vec![tools::find("nsenter")?.into(), network.into()])
    }

    /// Gives the daemon another daemon.json, which it reads on a signal.
    ///
    /// # Errors
    /// If it cannot be written, or the daemon is gone.
    pub fn configure(&self, text: &str) -> Result<()> {
        std::fs::write(self.directory.path().join("daemon.json"), text)?;
        self.process.signal(Signal::HUP)
    }

    /// Runs the client with these arguments against the daemon.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        // The configuration of the user who runs the tests may name proxies or credentials.
        let config = self.directory.path().join("client");
        self.run_with(&config, arguments).await
    }

    /// Runs the client with a configuration of its own: a login writes to it, and two at once lose one.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub async fn run_with(&self, config: &Path, arguments: &[&str]) -> Result<String> {
        let (host, config) = (self.host(), config.display().to_string());
        let own = ["--config", &config, "--host", &host];
        tools::run("docker", &[&own[..], arguments].concat()).await
    }

    /// The daemon's address, for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Connects within the daemon's network, which may differ from this process's.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(&self, address: SocketAddr) -> Result<Wire> {
        let network = File::open(format!("/proc/{}/ns/net", self.process.id()))?;
        // A thread enters a network namespace for good, so this one is used once; the socket stays
        // in there.
        let connect = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpStream::connect(address)
        };
        let connect = tokio::task::spawn_blocking(move || std::thread::spawn(connect).join());
        let stream = match connect.await? {
            Ok(stream) => stream.with_context(|| address.to_string())?,
            Err(_) => bail!("connecting to {address} panicked"),
        };
        stream.set_nonblocking(true)?;
        Wire::over(tokio::net::TcpStream::from_std(stream)?)
    }

    /// Makes the image `name`: one layer, a file of 64 KiB that depends on `seed`, above the layers
    /// of the image `below`, or above none.
    ///
    /// # Errors
    /// If docker refuses a step.
    pub async fn image(&self, name: &str, below: Option<&str>, seed: u64) -> Result<()> {
        let work = TempDir::new_in(self.directory.path())?;
        let tree = work.path().join("tree");
        std::fs::create_dir_all(tree.join("bin"))?;
        std::fs::write(
            tree.join(format!("file-{seed}")),
            content::bytes(seed, 65536),
        )?;
        let tree = tree.display().to_string();
        let Some(below) = below else {
            std::fs::copy(tools::find("busybox")?, format!("{tree}/bin/sh"))?;
            let tar = work.path().join("layer.tar").display().to_string();
            tools::run("tar", &["-C", &tree, "-cf", &tar, "."]).await?;
            self.run(&["import", "--change", "CMD [\"/bin/sh\"]", &tar, name])
                .await?;
            return Ok(());
        };
        // A container that never runs receives the files.
        let container = self.run(&["create", "--network", "none", below]).await?;
        let container = container.trim();
        self.run(&["cp", &format!("{tree}/."), &format!("{container}:/")])
            .await?;
        self.run(&["commit", container, name]).await?;
        self.run(&["rm", container]).await?;
        Ok(())
    }

    /// Removes images, so that a pull has to fetch them again.
    ///
    /// # Errors
    /// If one does not exist.
    pub async fn forget(&self, names: &[&str]) -> Result<()> {
        self.run(&[&["rmi", "--force"], names].concat()).await?;
        Ok(())
    }

    /// The digest by which the registry at `host` knows the image that was pushed as `name`.
    ///
    /// # Errors
    /// If it has not been pushed or pulled.
    pub async fn digest(&self, name: &str) -> Result<String> {
        let format = "{{range .RepoDigests}}{{println .}}{{end}}";
        let digests = self
            .run(&["image", "inspect", "--format", format, name])
            .await?;
        let repository = name
            .rsplit_once(':')
            .map_or(name, |(repository, _)| repository);
        digests
            .lines()
            .find_map(|line| line.strip_prefix(repository)?.strip_prefix('@'))
            .map(ToOwned::to_owned)
            .with_context(|| format!("no digest of {name} in {digests:?}"))
    }

    /// The identifier of an image, which is the digest of its configuration.
    ///
    /// # Errors
    /// If there is no such image.
    pub async fn id(&self, name: &str) -> Result<String> {
        let id = self
            .run(&["image", "inspect", "--format", "{{.Id}}", name])
            .await?;
        Ok(id.trim().to_owned())
    }

    /// Starts a daemon with these flags, through `wrapper` unless that is empty: a command that
    /// executes the one appended to it.
    async fn start(wrapper: &[&str], flags: &[&str]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the docker daemon needs root: run the tests as root, or leave the docker suite out"
        );
        // A short path, because the kernel limits a socket's path to 107 bytes and containerd adds
        // its part.
        let directory = TempDir::with_prefix("octo-docker-")?;
        let path = |name: &str| directory.path().join(name);
        let socket = path("docker.sock");
        // An empty configuration, so that the machine's own does not apply.
        std::fs::write(path("daemon.json"), "{}")?;
        let dockerd = tools::find("dockerd")?;
        let mut command = match wrapper {
            [] => Command::new(dockerd),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(tools::find(wrapper)?);
                command.args(arguments).arg(dockerd);
                command
            }
        };
        command
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(flags)
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--data-root={}", path("data").display()))
            .arg(format!("--exec-root={}", path("exec").display()))
            .arg(format!("--pidfile={}", path("docker.pid").display()))
            .arg(format!("--config-file={}", path("daemon.json").display()));
        let process = Process::start("dockerd", command, directory.path())?.with_grace(DEADLINE);
        let mut docker = Self {
            process,
            socket,
            directory,
        };
        let response = poll::until("docker responds", DEADLINE, async || {
            ensure!(docker.process.is_running()?, "the daemon has ended");
            Ok(docker.run(&["version"]).await.ok())
        });
        response
            .await
            .with_context(|| docker.process.last_words())?;
        Ok(docker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn images_that_begin_alike_share_their_layers() {
        let docker = Docker::shared().await.unwrap();
        let layers = async |name: &str| {
            let format = "{{range .RootFS.Layers}}{{println .}}{{end}}";
            let text = docker
                .run(&["image", "inspect", "--format", format, name])
                .await
                .unwrap();
            text.split_whitespace()
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
        };
        docker.image("base:1", None, 1).await.unwrap();
        docker.image("one:1", Some("base:1"), 2).await.unwrap();
        docker.image("two:1", Some("base:1"), 3).await.unwrap();
        let (one, two) = (layers("one:1").await, layers("two:1").await);
        assert_eq!((one.len(), two.len()), (2, 2));
        assert_eq!(one[0], two[0]);
        assert_ne!(one[1], two[1]);
    }
}
