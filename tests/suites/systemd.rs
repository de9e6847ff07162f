//! Under systemd: sockets that it has bound, and what it is told. A small script stands in for it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::poll;
use harness::process::{OutputStream, Signal};
use harness::{tools, wire};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixDatagram, UnixStream};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// Binds the addresses of its first argument, and runs the rest as systemd does.
const ACTIVATE: &str = "\
import os, socket, sys
sockets = []
for address in sys.argv[1].split(','):
    if address.startswith('/'):
        s = socket.socket(socket.AF_UNIX); s.bind(address)
    elif address.startswith('udp:'):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
    else:
        host, port = address.rsplit(':', 1)
        s = socket.socket(socket.AF_INET); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, int(port)))
    if s.type == socket.SOCK_STREAM: s.listen(128)
    sockets.append(os.dup(s.fileno()) + 0)
for number in range(len(sockets)): sockets[number] = os.dup2(sockets[number], 100 + number)
for number, fd in enumerate(sockets): os.dup2(fd, 3 + number)
os.closerange(3 + len(sockets), 200)
os.environ['LISTEN_FDS'] = str(len(sockets)); os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
";

fn activated(addresses: &[String]) -> Vec<OsString> {
    let addresses = addresses.join(",");
    ["/usr/bin/python3", "-c", ACTIVATE, &addresses]
        .map(OsString::from)
        .to_vec()
}

/// A port that is free.
async fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

async fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let request = wire::request("GET", path, &[], b"");
    Ok(wire::exchange(address, "GET", &request).await?.head.status)
}

#[tokio::test]
async fn both_programs_serve_on_sockets_that_systemd_has_bound() -> Result<()> {
    for is_registry in [false, true] {
        let directory = tempfile::tempdir()?;
        let (main, metrics) = (free().await?, free().await?);
        let unix = directory.path().join("main.sock");
        let sockets = [
            main.to_string(),
            unix.display().to_string(),
            metrics.to_string(),
        ];
        let launch = if is_registry {
            Launch::registry()
        } else {
            Launch::all_in_one()
        };
        let configuration = format!(
            "listen: ['{main}', 'unix:{}']\nmetrics: {{listen: '{metrics}'}}\n",
            unix.display()
        );
        let mut server = launch
            .configuration(&configuration)
            .listens_as_configured()
            .announces_metrics()
            .under(activated(&sockets))
            .start()
            .await?;
        assert_eq!(
            (server.address(), server.metrics_address()),
            (main, metrics)
        );
        let mode = unix.metadata()?.permissions().mode();
        assert_eq!(status(main, "/v2/").await?, 200);
        assert_eq!(status(metrics, "/metrics").await?, 200);
        UnixStream::connect(&unix).await?;
        ensure!(server.terminate(DEADLINE).await?.success());
        // systemd made the file, and keeps it, with the mode that the unit says.
        assert_eq!(unix.metadata()?.permissions().mode(), mode);
        ensure!(
            TcpStream::connect(main).await.is_err(),
            "a copy was left open"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_name_is_refused() -> Result<()> {
    let (named, other) = (free().await?, free().await?);
    for (sockets, reason) in [
        (
            vec![named.to_string(), other.to_string()],
            format!("systemd passed a socket at {other}, which the configuration does not name"),
        ),
        (
            vec![format!("0.0.0.0:{}", named.port())],
            format!("systemd passed a socket at 0.0.0.0:{}", named.port()),
        ),
        (
            vec!["udp:".to_owned()],
            "the socket that systemd passed as descriptor 3 cannot be used: it is no listening stream socket".to_owned(),
        ),
    ] {
        let launch = Launch::registry().listen(named).under(activated(&sockets));
        let error = launch.start().await.err().context("it started")?;
        let said = format!("{error:#}");
        ensure!(said.contains(&reason), "{said} lacks {reason}");
        ensure!(said.contains("exited with exit status: 1"), "{said}");
    }
    Ok(())
}

/// What stands where systemd listens.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(directory.path().join("notify"))?;
        Ok(Self { directory, socket })
    }

    fn path(&self) -> String {
        self.directory.path().join("notify").display().to_string()
    }

    /// The next message that is none of the watchdog's, as its lines.
    async fn hear(&self) -> Result<Vec<String>> {
        loop {
            let mut buffer = [0; 4096];
            let length = timeout(DEADLINE, self.socket.recv(&mut buffer)).await??;
            let text = std::str::from_utf8(&buffer[..length])?;
            if text != "WATCHDOG=1" {
                return Ok(text.lines().map(str::to_owned).collect());
            }
        }
    }

    async fn hear_watchdog(&self) -> Result<()> {
        let mut buffer = [0; 4096];
        let length = timeout(DEADLINE, self.socket.recv(&mut buffer)).await??;
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
        Ok(())
    }
}

fn has(message: &[String], line: &str) -> Result<()> {
    ensure!(
        message.iter().any(|one| one == line),
        "{message:?} lacks {line}"
    );
    Ok(())
}

#[tokio::test]
async fn the_service_manager_is_told_of_the_start_of_reloads_and_of_the_end() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let manager = Manager::new()?;
        let mut server = launch
            .environment("NOTIFY_SOCKET", &manager.path())
            .environment("WATCHDOG_USEC", "100000")
            .start()
            .await?;
        let pid = server.process().id();
        let ready = manager.hear().await?;
        has(&ready, "READY=1")?;
        has(&ready, &format!("MAINPID={pid}"))?;
        // Again and again, and not only once.
        for _ in 0..3 {
            manager.hear_watchdog().await?;
        }
        server.process().signal(Signal::HUP)?;
        let reloading = manager.hear().await?;
        has(&reloading, "RELOADING=1")?;
        let now = reloading
            .iter()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        ensure!(now.context("no time")?.parse::<u64>()? > 0);
        has(&manager.hear().await?, "READY=1")?;
        let status = server.terminate(DEADLINE).await?;
        ensure!(status.success(), "{status}");
        has(&manager.hear().await?, "STOPPING=1")?;
    }
    Ok(())
}

/// The proxy's configuration, in front of a registry.
fn proxy(registry: &Server, directory: &TempDir, listen: &str) -> Launch {
    let path = directory.path().display();
    Launch::configured(&format!(
        "listen: '{listen}'\n\
         metrics: {{listen: '127.0.0.1:0'}}\n\
         control: {{take_over_socket: {path}/take-over.sock}}\n\
         upstreams: [{{name: main, replicas: ['{}']}}]\n",
        registry.url("")
    ))
    .listens_as_configured()
    .announces_metrics()
}

#[tokio::test]
async fn after_a_takeover_the_new_process_is_the_service() -> Result<()> {
    let manager = Manager::new()?;
    let registry = Launch::registry().start().await?;
    let directory = tempfile::tempdir()?;
    let address = free().await?;
    let listen = address.to_string();
    let mut old = proxy(&registry, &directory, &listen)
        .environment("NOTIFY_SOCKET", &manager.path())
        .environment("WATCHDOG_USEC", "100000")
        .under(activated(std::slice::from_ref(&listen)))
        .start()
        .await?;
    has(&manager.hear().await?, "READY=1")?;
    // Started by whomever, without the variables of the service.
    let mut new = proxy(&registry, &directory, &listen)
        .argument("--take-over")
        .start()
        .await?;
    let pid = new.process().id();
    // From the old one, which the manager believes; then from the new one. The old one says no more.
    has(&manager.hear().await?, &format!("MAINPID={pid}"))?;
    let ready = manager.hear().await?;
    has(&ready, "READY=1")?;
    has(&ready, &format!("MAINPID={pid}"))?;
    ensure!(old.process().exited(DEADLINE).await?.success());
    manager.hear_watchdog().await?;
    assert_eq!(status(address, "/v2/").await?, 200);
    ensure!(new.terminate(DEADLINE).await?.success());
    has(&manager.hear().await?, "STOPPING=1")?;
    // The old one has said nothing meanwhile.
    let mut rest = [0; 100];
    while let Ok(length) = manager.socket.try_recv(&mut rest) {
        assert_eq!(&rest[..length], b"WATCHDOG=1");
    }
    Ok(())
}

#[tokio::test]
async fn a_service_manager_that_is_gone_is_no_reason_to_fail() -> Result<()> {
    let mut server = Launch::registry()
        .environment("NOTIFY_SOCKET", "/nowhere/notify")
        .start()
        .await?;
    let process = server.process();
    let logged = |line: &str| {
        line.contains("cannot tell the service manager")
            .then_some(())
    };
    process
        .announced(OutputStream::Stderr, "the failure", logged)
        .await?;
    assert_eq!(status(server.address(), "/v2/").await?, 200);
    ensure!(server.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_check_leaves_the_sockets_of_systemd_alone() -> Result<()> {
    // As `ExecReload=` runs it, which gets no sockets; even with some, nothing is served.
    let program = Program::Registry.path()?;
    let address = free().await?;
    let mut words = activated(&[address.to_string()]);
    words.extend([program.into(), "--check".into()]);
    let python = words.remove(0);
    let output = tools::attempt(&python.to_string_lossy(), &words).await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    poll::until("the socket is closed", DEADLINE, async || {
        Ok(TcpStream::connect(address).await.is_err().then_some(()))
    })
    .await
}
