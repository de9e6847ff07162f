//! The way from octoserve to a replica: it can be reset, slowed down, or carry garbage for a while.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It passes everything on.
    Well,
    /// Connections are reset, old and new ones.
    Reset,
    /// Responses come in small pieces.
    Slow,
    /// Responses are no HTTP.
    Garbage,
}

/// How many bytes pass at a time while a link is slow, and how long each such piece takes.
const SLOW: (usize, Duration) = (4 << 10, Duration::from_millis(20));

const GARBAGE: &[u8] = b"\x16\x03\x01garbage\r\n\0\xff\r\n\r\n";

/// A link on a port of its own. Dropping it closes its connections.
pub(crate) struct ReplicaLink {
    address: SocketAddr,
    state: watch::Sender<LinkState>,
    accepting: JoinHandle<()>,
}

impl ReplicaLink {
    /// Starts one to a replica.
    pub(crate) async fn to(replica: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(LinkState::Well);
        let accepting = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((proxy, _)) = accepted else { return };
                        serving.spawn(carry(proxy, replica, watched.clone()));
                    }
                    Some(_) = serving.join_next() => {}
                }
            }
        });
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// Its URL, for the configuration.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }
}

impl Drop for ReplicaLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut proxy: TcpStream, replica: SocketAddr, state: watch::Receiver<LinkState>) {
    let mut until_reset = state.clone();
    let is_reset = async move {
        // An error says that the link is dropped.
        until_reset
            .wait_for(|state| *state == LinkState::Reset)
            .await
            .is_ok()
    };
    let carried = async {
        let mut replica = TcpStream::connect(replica).await?;
        replica.set_nodelay(true)?;
        proxy.set_nodelay(true)?;
        let (from_proxy, to_proxy) = proxy.split();
        let (from_replica, to_replica) = replica.split();
        let requests = pass(from_proxy, to_replica, None);
        let responses = pass(from_replica, to_proxy, Some(state));
        tokio::try_join!(requests, responses)?;
        anyhow::Ok(())
    };
    let is_whole = tokio::select! {
        biased;
        _ = is_reset => false,
        carried = carried => carried.is_ok(),
    };
    if !is_whole {
        // As if the replica itself had refused or reset it.
        proxy.set_zero_linger().ok();
    }
}

/// Passes one direction on to its end.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    state: Option<watch::Receiver<LinkState>>,
) -> Result<()> {
    let state = || {
        let state = state.as_ref();
        state.map_or(LinkState::Well, |state| *state.borrow())
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let most = if state() == LinkState::Slow {
            tokio::time::sleep(SLOW.1).await;
            SLOW.0
        } else {
            buffer.len()
        };
        let read = from.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        // It may have changed while nothing came.
        if state() == LinkState::Garbage {
            to.write_all(GARBAGE).await?;
            return Ok(to.shutdown().await?);
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::ForeignRegistry;
    use crate::wire;

    #[tokio::test]
    async fn a_link_is_well_again_after_each_state() {
        let registry = ForeignRegistry::start().await.unwrap();
        let link = ReplicaLink::to(registry.address()).await.unwrap();
        let address = link.address;
        let ask = async || {
            let request = wire::request("GET", "/v2/", &[], b"");
            wire::exchange(address, "GET", &request).await
        };
        for state in [LinkState::Reset, LinkState::Garbage] {
            link.set(state);
            assert!(ask().await.is_err(), "{state:?}");
            link.set(LinkState::Well);
            assert_eq!(ask().await.unwrap().head.status, 200, "{state:?}");
        }
        link.set(LinkState::Slow);
        assert_eq!(ask().await.unwrap().head.status, 200);
    }
}
