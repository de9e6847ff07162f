//! A metrics source that sends exactly the bytes that a test wants, valid HTTP or not.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running source. Dropping it stops it.
pub struct Source {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Source {
    /// Runs `script` for each request after its head has been read; the connection ends with the
    /// script.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn scripted<S, F>(script: S) -> Result<Self>
    where
        S: Fn(TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        Self::with_heads(move |_, stream| script(stream)).await
    }

    /// Serves several expositions, each with its media type at a path of its own.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn expositions(
        expositions: HashMap<String, (&'static str, Vec<u8>)>,
    ) -> Result<Self> {
        let expositions = Arc::new(expositions);
        Self::with_heads(move |head: String, mut stream| {
            let expositions = Arc::clone(&expositions);
            async move {
                let path = head.split(' ').nth(1).unwrap_or_default();
                let bytes = match expositions.get(path) {
                    Some((media_type, exposition)) => response(media_type, exposition),
                    None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                };
                stream.write_all(&bytes).await.ok();
                stream.shutdown().await.ok();
                Ok(())
            }
        })
        .await
    }

    /// Runs `script` for each request with its head.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn with_heads<S, F>(script: S) -> Result<Self>
    where
        S: Fn(String, TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = Result<()>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await? > 0 {}
                    let head = String::from_utf8_lossy(&head).into_owned();
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(head.clone());
                    script(head, stream).await
                });
            }
        });
        Ok(Self {
            address,
            asked,
            accepting,
        })
    }

    /// Sends exactly these bytes for every request.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn responding(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = Arc::new(bytes.into());
        Self::scripted(move |mut stream| {
            let bytes = Arc::clone(&bytes);
            async move {
                // A client that has read enough closes the connection.
                stream.write_all(&bytes).await.ok();
                stream.shutdown().await.ok();
                Ok(())
            }
        })
        .await
    }

    /// Serves an exposition of this media type as valid HTTP.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn exposition(media_type: &str, exposition: impl AsRef<[u8]>) -> Result<Self> {
        Self::responding(response(media_type, exposition.as_ref())).await
    }

    /// The URL of its exposition.
    pub fn url(&self) -> String {
        self.url_of("/metrics")
    }

    /// The URL of a path.
    pub fn url_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of the requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn response(media_type: &str, exposition: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        exposition.len()
    );
    [head.as_bytes(), exposition].concat()
}

impl Drop for Source {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[tokio::test]
    async fn an_exposition_is_served_and_its_requests_are_kept() {
        let source = Source::exposition("text/plain", "x 1\n").await.unwrap();
        let request = wire::request("GET", "/metrics", &[("Accept", "x")], b"");
        let response = wire::exchange(source.address, "GET", &request).await;
        assert_eq!(response.unwrap().body, b"x 1\n");
        assert_eq!(source.asked(), [String::from_utf8(request).unwrap()]);
    }
}
