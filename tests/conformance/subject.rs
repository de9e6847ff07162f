//! The registries that the clauses check, each started once for all tests that run at the same
//! time.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anyhow::{Result, ensure};
use harness::foreign::{AUTHORIZATION, ForeignRegistry};
use harness::memory::MemoryRegistry;
use harness::octoserve::{Launch, Server};
use tokio::sync::Mutex;

use super::check::Check;

/// No clause takes as long as this grace between a push and what relies on it, and those in `collections` wait for
/// the end of it.
const COLLECTION: &str = "{schedule: 1s, grace: 1m, untagged: 1m}";

/// A way in which clients reach a registry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// The registry's API over a store in memory, in the test's process.
    Memory,
    /// The registry alone. Except for the one in memory, all our registries collect garbage all the time.
    Registry,
    /// The proxy with the embedded registry.
    Embedded,
    /// The proxy in front of such a registry.
    Remote,
    /// One docker-registry, and the proxy in front of another.
    Foreign,
    /// The same with a password.
    Guarded,
}

/// A running subject. It stops with the last clause that uses it.
struct Running {
    address: SocketAddr,
    /// docker-registry without a proxy, for comparison.
    direct: Option<SocketAddr>,
    _parts: Parts,
}

/// The processes of a subject.
#[derive(Default)]
struct Parts {
    memory: Option<MemoryRegistry>,
    servers: Vec<Server>,
    foreign: Vec<ForeignRegistry>,
}

impl Subject {
    /// Checks a clause against this subject.
    pub(super) async fn judge(
        self,
        name: &str,
        clause: impl AsyncFn(&Check) -> Result<()>,
    ) -> Result<()> {
        let running = self.running().await?;
        let authorization = match self {
            Self::Guarded => Some(AUTHORIZATION),
            _ => None,
        };
        let check = Check::new(running.address, name).known_by(authorization);
        let Some(direct) = running.direct else {
            return clause(&check).await;
        };
        let beside = Check::new(direct, name).known_by(authorization);
        let (proxied, direct) = (clause(&check).await, clause(&beside).await);
        let (heard, expected) = (check.heard(), beside.heard());
        ensure!(
            heard == expected,
            "through the proxy\n{heard}\n\ndirectly\n{expected}"
        );
        ensure!(
            proxied.is_ok() == direct.is_ok(),
            "through the proxy {proxied:?}, directly {direct:?}"
        );
        Ok(())
    }

    async fn running(self) -> Result<Arc<Running>> {
        static SHARED: [Mutex<Weak<Running>>; 6] = [const { Mutex::const_new(Weak::new()) }; 6];
        let mut shared = SHARED[self as usize].lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let running = Arc::new(self.start().await?);
        *shared = Arc::downgrade(&running);
        Ok(running)
    }

    async fn start(self) -> Result<Running> {
        let mut parts = Parts::default();
        let mut beside = None;
        let address = match self {
            Self::Memory => {
                let memory = MemoryRegistry::start().await?;
                parts.memory.insert(memory).address()
            }
            Self::Registry => parts.add(collecting()).await?,
            Self::Embedded => {
                let text = format!("registry: {{gc: {COLLECTION}}}\n");
                parts.add(Launch::all_in_one().configuration(&text)).await?
            }
            Self::Remote => {
                let registry = parts.add(collecting()).await?;
                let upstream = format!("http://{registry}");
                parts.add(Launch::in_front_of(&upstream)).await?
            }
            Self::Foreign => {
                let two = tokio::try_join!(ForeignRegistry::start(), ForeignRegistry::start())?;
                let (address, direct) = parts.compare(two).await?;
                beside = Some(direct);
                address
            }
            Self::Guarded => {
                let start = ForeignRegistry::start_with_password;
                let (address, direct) = parts.compare(tokio::try_join!(start(), start())?).await?;
                beside = Some(direct);
                address
            }
        };
        Ok(Running {
            address,
            direct: beside,
            _parts: parts,
        })
    }
}

/// A registry that collects every second what clauses have left some time ago: no clause may notice.
fn collecting() -> Launch {
    Launch::registry().configuration(&format!("gc: {COLLECTION}\n"))
}

impl Parts {
    async fn add(&mut self, launch: Launch) -> Result<SocketAddr> {
        let server = launch.start().await?;
        let address = server.address();
        self.servers.push(server);
        Ok(address)
    }

    /// Starts the proxy in front of the first of two registries, and returns its address and that
    /// of the other.
    async fn compare(
        &mut self,
        (behind, direct): (ForeignRegistry, ForeignRegistry),
    ) -> Result<(SocketAddr, SocketAddr)> {
        let address = self.add(Launch::in_front_of(&behind.url())).await?;
        let beside = direct.address();
        self.foreign.extend([behind, direct]);
        Ok((address, beside))
    }
}
