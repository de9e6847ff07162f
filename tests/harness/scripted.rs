//! An upstream that follows a script of the test, which decides when to respond, stall or cut. It
//! keeps every byte that it receives.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::poll;

/// How long a script waits for the proxy.
const DEADLINE: Duration = Duration::from_secs(30);

/// An upstream. Dropping it closes it and its connections.
pub struct Scripted {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

/// A connection from the proxy.
pub struct Caller {
    stream: TcpStream,
    unread: Vec<u8>,
    /// How many of the unread bytes `heard` already contains.
    kept: usize,
    number: usize,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Scripted {
    /// Listens on 127.0.0.1 and runs `script` for each connection that carries a client's request.
    /// A script that fails closes its connection. Health probes of the proxy succeed, and are not
    /// kept.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start<S, F>(script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await?, script)
    }

    /// Starts one at this address, as soon as an earlier one has freed it.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn listening<S, F>(address: &str, script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        let listener = poll::until("the port is free", DEADLINE, async || {
            Ok(TcpListener::bind(address).await.ok())
        });
        Self::start_on(listener.await?, script)
    }

    /// Starts a server that clients reach directly, without the proxy.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start_beside<S, F>(script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        Self::serve(TcpListener::bind("127.0.0.1:0").await?, false, script)
    }

    /// Starts one on the test's socket, such as one with small buffers.
    ///
    /// # Errors
    /// If the socket has no address.
    pub fn start_on<S, F>(listener: TcpListener, script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        Self::serve(listener, true, script)
    }

    /// With `behind`, the proxy's health probes get a response.
    fn serve<S, F>(listener: TcpListener, behind: bool, script: S) -> Result<Self>
    where
        S: Fn(Caller) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        let address = listener.local_addr()?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        let accepting = tokio::spawn(async move {
            // The connections end with the task that accepts them.
            let mut serving = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(_) => return,
                    },
                    Some(_) = serving.join_next() => continue,
                };
                let (script, log) = (script.clone(), Arc::clone(&log));
                serving.spawn(async move {
                    if let Some(caller) = Caller::welcome(stream, behind, log).await? {
                        script(caller).await?;
                    }
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self {
            address,
            heard,
            accepting,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes received so far, by connection.
    pub fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Caller {
    async fn welcome(
        stream: TcpStream,
        behind: bool,
        log: Arc<Mutex<Vec<Vec<u8>>>>,
    ) -> Result<Option<Self>> {
        stream.set_nodelay(true)?;
        let mut caller = Self {
            stream,
            unread: Vec::new(),
            kept: 0,
            number: usize::MAX,
            heard: log,
        };
        // Forwarded requests have this header; health probes do not.
        let request = caller.peek_head().await?.to_ascii_lowercase();
        if behind && !request.contains("\r\nvia: ") {
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await?;
            return Ok(None);
        }
        let mut heard = caller.heard.lock().unwrap_or_else(PoisonError::into_inner);
        caller.number = heard.len();
        heard.push(caller.unread.clone());
        drop(heard);
        caller.kept = caller.unread.len();
        Ok(Some(caller))
    }

    /// The upstream's own address.
    ///
    /// # Errors
    /// If the connection has none.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// How many connections came before this one.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Reads the head of the next request, with the empty line that ends it.
    ///
    /// # Errors
    /// If the connection ends first.
    pub async fn head(&mut self) -> Result<String> {
        let head = self.peek_head().await?;
        self.take(head.len());
        Ok(head)
    }

    /// Reads up to and including `end`, and returns all of it.
    ///
    /// # Errors
    /// If the connection ends first.
    pub async fn until(&mut self, end: &str) -> Result<String> {
        loop {
            let found = self
                .unread
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(start) = found {
                let taken = self.take(start + end.len());
                return Ok(String::from_utf8_lossy(&taken).into_owned());
            }
            ensure!(self.fill().await? > 0, "the proxy closed before {end:?}");
        }
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// If the connection ends first.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            ensure!(self.fill().await? > 0, "the proxy closed");
        }
        Ok(self.take(length))
    }

    /// Waits until the proxy closes, and discards what it sends before.
    ///
    /// # Errors
    /// If it doesn't in time.
    pub async fn closed(&mut self) -> Result<()> {
        loop {
            // A reset also ends the connection.
            let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread)).await?;
            if !matches!(read, Ok(1..)) {
                return Ok(());
            }
            self.keep();
        }
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// If the proxy has closed, or does not read.
    pub async fn send(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        Ok(timeout(DEADLINE, self.stream.write_all(text.as_ref())).await??)
    }

    /// Resets the connection.
    ///
    /// # Errors
    /// If the socket option cannot be set.
    pub fn reset(self) -> Result<()> {
        Ok(self.stream.set_zero_linger()?)
    }

    async fn peek_head(&mut self) -> Result<String> {
        loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                return Ok(String::from_utf8(self.unread[..end + 4].to_vec())?);
            }
            ensure!(self.fill().await? > 0, "the proxy closed before a request");
        }
    }

    async fn fill(&mut self) -> Result<usize> {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread)).await;
        let read = read.context("nothing from the proxy in time")??;
        self.keep();
        Ok(read)
    }

    /// Appends bytes to `heard` that it lacks.
    fn keep(&mut self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(heard) = heard.get_mut(self.number) {
            heard.extend_from_slice(&self.unread[self.kept..]);
            self.kept = self.unread.len();
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.kept -= length;
        self.unread.drain(..length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Wire};

    #[tokio::test]
    async fn a_script_responds_and_its_requests_are_kept() {
        let upstream = Scripted::start(|mut caller: Caller| async move {
            caller.head().await?;
            caller.exactly(3).await?;
            caller.send("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n").await
        });
        let upstream = upstream.await.unwrap();
        let request = wire::request("PUT", "/x", &[("Via", "a test")], b"abc");
        let mut wire = Wire::connect(upstream.address()).await.unwrap();
        wire.send(&request).await.unwrap();
        let response = wire.response("PUT").await.unwrap();
        assert_eq!(response.head.status, 204);
        let request = String::from_utf8(request).unwrap();
        assert_eq!(upstream.heard(), [request]);
    }

    #[tokio::test]
    async fn a_probe_of_the_proxy_gets_200_and_is_not_kept() {
        let script = |_: Caller| async { anyhow::bail!("no request reaches the script") };
        let upstream = Scripted::start(script).await.unwrap();
        let request = wire::request("GET", "/v2/", &[], b"");
        let response = wire::exchange(upstream.address(), "GET", &request).await;
        assert_eq!(response.unwrap().head.status, 200);
        assert!(upstream.heard().is_empty());
    }
}
