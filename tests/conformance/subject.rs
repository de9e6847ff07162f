//! What the clauses are checked at, started once for all that run at a time.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use tokio::sync::Mutex;

use super::check::Check;

/// A place where clients meet a registry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    /// The registry alone.
    Registry,
    /// The proxy with the registry in it.
    Embedded,
    /// The proxy in front of the registry.
    Remote,
    /// docker-registry, and the proxy in front of another one.
    Foreign,
}

/// A subject at work. It ends with the last clause that uses it.
struct Running {
    address: SocketAddr,
    /// docker-registry without a proxy, to compare with.
    direct: Option<SocketAddr>,
    _servers: Vec<Server>,
    _foreign: Vec<ForeignRegistry>,
}

impl Subject {
    /// Checks a clause here.
    pub(super) async fn judge(
        self,
        name: &str,
        clause: impl AsyncFn(&Check) -> Result<()>,
    ) -> Result<()> {
        let running = self.running().await?;
        let check = Check::new(running.address, name);
        let Some(direct) = running.direct else {
            return clause(&check).await;
        };
        let beside = Check::new(direct, name);
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
        static SHARED: [Mutex<Weak<Running>>; 4] = [const { Mutex::const_new(Weak::new()) }; 4];
        let mut shared = SHARED[self as usize].lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let running = Arc::new(self.start().await?);
        *shared = Arc::downgrade(&running);
        Ok(running)
    }

    async fn start(self) -> Result<Running> {
        let (servers, foreign) = match self {
            Self::Registry => (vec![Launch::registry().start().await?], Vec::new()),
            Self::Embedded => (vec![Launch::all_in_one().start().await?], Vec::new()),
            Self::Remote => {
                let registry = Launch::registry().start().await?;
                let proxy = Launch::in_front_of(&registry.url("")).start().await?;
                (vec![proxy, registry], Vec::new())
            }
            Self::Foreign => {
                let (behind, beside) =
                    tokio::try_join!(ForeignRegistry::start(), ForeignRegistry::start())?;
                let proxy = Launch::in_front_of(&behind.url()).start().await?;
                (vec![proxy], vec![behind, beside])
            }
        };
        Ok(Running {
            address: servers.first().context("no server")?.address(),
            direct: foreign.get(1).map(ForeignRegistry::address),
            _servers: servers,
            _foreign: foreign,
        })
    }
}
