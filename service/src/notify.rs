//! Telling a service manager what the process does (`sd_notify(3)`). Without one, nothing happens.
//!
//! It is written out here and not taken from a crate: after a takeover the service manager listens where the
//! process before this one says, and not where this one's environment does.

use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How long a message may wait for the service manager, which has to read others first.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// Where the service manager listens, and what it expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifySettings {
    /// Its socket: a path, or `@` and an abstract name.
    socket: String,
    /// How long it may hear nothing, in microseconds, before it takes the process for dead.
    watchdog_usec: Option<u64>,
}

/// Tells the service manager. Clones tell the same one.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    settings: Option<NotifySettings>,
    /// Another process speaks for the service now.
    is_muted: AtomicBool,
}

impl NotifySettings {
    /// What the variables of the environment say.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let socket = variable("NOTIFY_SOCKET").filter(|socket| socket.starts_with(['/', '@']))?;
        let watchdog = variable("WATCHDOG_USEC").and_then(|usec| usec.parse().ok());
        // The variables may be those of a parent.
        let is_ours = match variable("WATCHDOG_PID") {
            Some(pid) => pid.parse() == Ok(std::process::id()),
            None => true,
        };
        Some(Self {
            socket,
            watchdog_usec: watchdog.filter(|&usec| is_ours && usec > 0),
        })
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self.socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&self.socket),
        }
    }
}

impl Notifier {
    /// Tells whom the environment names (`NOTIFY_SOCKET`), if it does.
    pub fn from_environment() -> Self {
        let settings = NotifySettings::of(|name| std::env::var(name).ok());
        Self(Arc::new(Told {
            settings,
            is_muted: AtomicBool::new(false),
        }))
    }

    /// Tells this service manager.
    pub fn new(settings: NotifySettings) -> Self {
        Self(Arc::new(Told {
            settings: Some(settings),
            is_muted: AtomicBool::new(false),
        }))
    }

    /// Where it listens, for the process that comes next.
    pub fn settings(&self) -> Option<NotifySettings> {
        self.0.settings.clone()
    }

    /// The process serves, with the configuration that it has read last.
    pub async fn ready(&self) {
        let pid = std::process::id();
        // The status after a reload is this one again.
        self.send(&format!("READY=1\nSTATUS=serving\nMAINPID={pid}"))
            .await;
    }

    /// The process reads its configuration again. [`Notifier::ready`] ends it.
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        let message = format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading");
        self.send(&message).await;
    }

    /// The process serves no new clients, and ends.
    pub async fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining: waiting for requests in flight")
            .await;
    }

    /// Another process serves now.
    pub async fn main_process(&self, pid: i32) {
        self.send(&format!("MAINPID={pid}\nSTATUS=process {pid} serves"))
            .await;
    }

    /// Says nothing any more: another process speaks for the service.
    pub fn mute(&self) {
        self.0.is_muted.store(true, Ordering::Relaxed);
    }

    /// Says in time that the runtime still runs tasks, if that is expected.
    pub async fn keep_alive(&self) -> Infallible {
        let settings = self.0.settings.as_ref();
        let Some(usec) = settings.and_then(|settings| settings.watchdog_usec) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(Duration::from_micros((usec / 2).max(1000)));
        loop {
            ticks.tick().await;
            self.send("WATCHDOG=1").await;
        }
    }

    async fn send(&self, message: &str) {
        let Some(settings) = &self.0.settings else {
            return;
        };
        if self.0.is_muted.load(Ordering::Relaxed) {
            return;
        }
        let sent = tokio::time::timeout(PATIENCE, deliver(settings, message)).await;
        let failed = match sent {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        // Not an error of the service: it serves all the same.
        let said = message.lines().next().unwrap_or_default();
        tracing::warn!(error = %failed, said, "cannot tell the service manager");
    }
}

/// Never blocks: a service manager that does not read is waited for in between.
async fn deliver(settings: &NotifySettings, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = settings.address()?;
    loop {
        match socket.send_to_addr(message.as_bytes(), &address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Option<NotifySettings> {
        NotifySettings::of(|name| {
            let mut found = variables.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let socket = ("NOTIFY_SOCKET", "/run/n");
        let usec = ("WATCHDOG_USEC", "3000");
        let own = std::process::id().to_string();
        let watchdog = |variables: &[_]| settings(variables).unwrap().watchdog_usec;
        assert_eq!(watchdog(&[socket, usec]), Some(3000));
        assert_eq!(
            watchdog(&[socket, usec, ("WATCHDOG_PID", &own)]),
            Some(3000)
        );
        assert_eq!(watchdog(&[socket, usec, ("WATCHDOG_PID", "1")]), None);
        assert_eq!(watchdog(&[socket, ("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[socket, ("WATCHDOG_USEC", "x")]), None);
        for other in ["", "vsock:2:1", "relative"] {
            assert_eq!(settings(&[("NOTIFY_SOCKET", other)]), None);
        }
    }

    #[tokio::test]
    async fn the_service_manager_hears_everything_until_another_process_speaks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = tokio::net::UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "2000")];
        let notifier = Notifier::new(settings(&variables).unwrap());
        let heard = async || {
            let mut buffer = [0; 200];
            let length = manager.recv(&mut buffer).await.unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        notifier.ready().await;
        let pid = std::process::id();
        let ready = format!("READY=1\nSTATUS=serving\nMAINPID={pid}");
        assert_eq!(heard().await, ready);
        notifier.reloading().await;
        assert!(heard().await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
        tokio::select! {
            never = notifier.keep_alive() => match never {},
            said = heard() => assert_eq!(said, "WATCHDOG=1"),
        }
        notifier.main_process(7).await;
        // On a busy machine several of them were sent before the first was heard.
        let mut said = heard().await;
        while said == "WATCHDOG=1" {
            said = heard().await;
        }
        assert!(said.starts_with("MAINPID=7\n"), "{said}");
        notifier.mute();
        notifier.stopping().await;
        let silent = manager.try_recv(&mut [0; 10]).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn an_abstract_socket_is_one_too() {
        let name = format!("octoserve-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let variables = [("NOTIFY_SOCKET", format!("@{name}"))];
        let variables = variables
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        Notifier::new(settings(&variables).unwrap())
            .stopping()
            .await;
        let mut buffer = [0; 200];
        let length = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"STOPPING=1\n"));
    }
}
