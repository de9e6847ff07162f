//! The proxy in front of a scripted upstream, with short limits, and checks that a fault leaves
//! nothing behind.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::Wire;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// More than all socket buffers between client and upstream hold.
pub(crate) const LENGTH: usize = 64 << 20;

pub(crate) const BLOB: &str =
    "/v2/team/app/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000";
pub(crate) const SESSION: &str = "/v2/team/app/blobs/uploads/1";

/// How much the memory may have grown when all faults are over: the allocator keeps some for reuse.
const MARGIN: u64 = 32 << 20;

/// The proxy in front of a scripted upstream.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) upstream: Scripted,
}

/// The memory and file descriptors of a process before the faults.
#[derive(Debug)]
pub(crate) struct Holdings {
    descriptors: usize,
    resident: u64,
}

impl Scene {
    pub(crate) async fn of<S, F>(script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        Self::before(Scripted::start(script).await?, "1s").await
    }

    /// In front of this upstream, with this limit for bodies that stall.
    pub(crate) async fn before(upstream: Scripted, body_stall: &str) -> Result<Self> {
        let server = Launch::in_front_of(&upstream.url())
            .environment("OCTOSERVE_LIMITS_BODY_STALL", body_stall)
            .environment("OCTOSERVE_LIMITS_DRAIN", "1s")
            .start()
            .await?;
        Ok(Self { server, upstream })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) async fn client(&self) -> Result<Wire> {
        Wire::connect(self.address()).await
    }

    /// A plain TCP connection, for operations that `Wire` lacks.
    pub(crate) async fn raw(&self, request: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address()).await?;
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }

    /// Waits until the upstream has received this text.
    pub(crate) async fn heard(&self, text: &str) -> Result<()> {
        poll::until("the upstream receives it", DEADLINE, async || {
            let heard = self.upstream.heard();
            Ok(heard.iter().any(|heard| heard.contains(text)).then_some(()))
        })
        .await
    }

    /// Waits until one request has ended, with this status, and none is in flight.
    pub(crate) async fn counted(&self, endpoint: &str, status: &str) -> Result<()> {
        let requests = metric("octoserve_http_requests_total").label("endpoint", endpoint);
        let requests = requests.label("status", status);
        requests.value(1).assert_in(&self.server).await?;
        self.nothing_in_flight().await?;
        let all = metric("octoserve_http_requests_total");
        all.value(1).assert(&self.server.scrape().await?)
    }

    pub(crate) async fn nothing_in_flight(&self) -> Result<()> {
        let in_flight = metric("octoserve_http_requests_in_flight");
        in_flight.value(0).assert_in(&self.server).await
    }

    /// How many requests have ended so far, with this status or with any.
    pub(crate) async fn ended(&self, status: Option<&str>) -> Result<f64> {
        let mut all = metric("octoserve_http_requests_total");
        if let Some(status) = status {
            all = all.label("status", status);
        }
        Ok(self.server.scrape().await?.sum(&all).unwrap_or_default())
    }

    /// The current memory and file descriptors.
    pub(crate) fn holdings(&mut self) -> Result<Holdings> {
        Holdings::of(&mut self.server)
    }
}

impl Holdings {
    pub(crate) fn of(server: &mut Server) -> Result<Self> {
        let process = server.process();
        Ok(Self {
            descriptors: process.descriptors()?,
            resident: process.memory()?.resident,
        })
    }

    /// Waits until the process holds no more than before. Requests keep all threads busy meanwhile:
    /// memory that one thread frees for another returns only when the other one runs.
    pub(crate) async fn regained(&self, server: &mut Server) -> Result<()> {
        let mut now = None;
        let regained = poll::until(
            "the process holds no more than before",
            DEADLINE,
            async || {
                let holdings = Self::of(server)?;
                let back = holdings.descriptors <= self.descriptors
                    && holdings.resident <= self.resident + MARGIN;
                now = Some(holdings);
                if back {
                    return Ok(Some(()));
                }
                // Enough concurrent requests for every thread.
                let address = server.address();
                let clients = (0..16).map(async |_| {
                    let mut client = Wire::connect(address).await?;
                    for _ in 0..20 {
                        client.send(get("/livez").as_bytes()).await?;
                        ensure!(client.response("GET").await?.head.status == 200);
                    }
                    anyhow::Ok(())
                });
                try_join_all(clients).await?;
                Ok(None)
            },
        );
        let regained = regained.await;
        regained.with_context(|| format!("{now:?}, {self:?} before"))
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

pub(crate) fn upload(length: usize, body: &str) -> String {
    format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(crate) fn response(status: &str, length: usize, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Sends a large download until the proxy stops reading.
pub(crate) async fn pour(mut caller: Caller) -> Result<()> {
    caller.head().await?;
    caller.send(response("200 OK", LENGTH, "")).await?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..LENGTH / piece.len() {
        caller.send(&piece).await?;
    }
    caller.closed().await
}

/// Reads a request and never responds.
pub(crate) async fn sulk(mut caller: Caller) -> Result<()> {
    caller.head().await?;
    caller.closed().await
}
