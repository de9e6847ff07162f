//! The registry's API over a store in memory, served within the test's process. Only the store
//! differs from the programs.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use registry::config::{RegistryConfig, StorageFields};
use registry::metrics::storage::Backend;
use registry::server;
use registry::store::MemoryStore;
use service::control::ControlFields;
use service::limits::Limits;
use service::listen::ListenAddr;
use service::log::LogConfig;
use service::program::Server as _;
use service::shutdown::{Shutdown, Trigger};
use tokio::sync::oneshot;

/// A running registry without a directory. Dropping it stops it.
pub struct MemoryRegistry {
    address: SocketAddr,
    /// Both are taken when the registry stops.
    running: Option<(Trigger, JoinHandle<()>)>,
}

impl MemoryRegistry {
    /// Starts one on a free port, in a thread with its own runtime, so that it outlives the runtime
    /// of the test that started it.
    ///
    /// # Errors
    /// If it cannot be bound.
    pub async fn start() -> Result<Self> {
        let (trigger, shutdown) = Shutdown::new();
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::spawn(move || runtime.block_on(serve(sender, shutdown)));
        let address = receiver
            .await
            .context("the registry ended before it was bound")??;
        Ok(Self {
            address,
            running: Some((trigger, thread)),
        })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MemoryRegistry {
    fn drop(&mut self) {
        if let Some((trigger, thread)) = self.running.take() {
            trigger.trigger();
            // A thread that panicked has already printed the reason.
            thread.join().ok();
        }
    }
}

async fn serve(bound: oneshot::Sender<Result<SocketAddr>>, shutdown: Shutdown) {
    let registry = match server::bind_store(config(), MemoryStore::default(), Backend::Memory).await
    {
        Ok(registry) => registry,
        Err(error) => {
            bound.send(Err(error.into())).ok();
            return;
        }
    };
    let address = match registry.addresses() {
        [ListenAddr::Tcp(address)] => Ok(*address),
        other => Err(anyhow!("bound to {other:?}")),
    };
    if bound.send(address).is_ok() {
        // Requests cut off here belong to tests that have ended.
        registry.serve(shutdown).await;
    }
}

fn config() -> RegistryConfig {
    const TIMEOUT: Duration = Duration::from_mins(1);
    RegistryConfig {
        listen: vec![ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        storage: StorageFields::default(),
        metrics: None,
        process_metrics: false,
        logs_requests: false,
        limits: Limits {
            connections: 1000,
            streams: 10,
            header_timeout: TIMEOUT,
            idle_timeout: TIMEOUT,
            body_stall: TIMEOUT,
            drain: Duration::from_millis(100),
        },
        logging: LogConfig::default(),
        control: ControlFields::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[tokio::test]
    async fn an_image_that_was_pushed_can_be_pulled() {
        let registry = MemoryRegistry::start().await.unwrap();
        let client = Client::new(&format!("http://{}", registry.address())).unwrap();
        client.push_image("team/app", "1", &[1, 2]).await.unwrap();
        assert_eq!(client.pull_image("team/app", "1").await.unwrap(), 3);
    }
}
