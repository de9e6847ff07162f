//! HTTP/2 stream by stream, plain or inside TLS, for clients that stall, disconnect or never read.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::Duplex;

/// How long a response may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One connection. Dropping it closes it, whatever the state of its streams.
pub struct H2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

/// One request and its response.
pub struct H2Stream {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

/// The head of a response, and its body.
pub struct H2Response {
    /// The status code.
    pub status: u16,
    /// Its fields.
    pub headers: http::HeaderMap,
    /// Its body, limited by flow control to what is read.
    pub body: RecvStream,
}

impl H2 {
    /// Connects. With `reset`, dropping the connection resets it.
    ///
    /// # Errors
    /// If the connection or the HTTP/2 handshake fails.
    pub async fn connect(address: SocketAddr, reset: bool) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        if reset {
            stream.set_zero_linger()?;
        }
        Self::inside(stream).await
    }

    /// Speaks HTTP/2 over this, such as a connection inside TLS.
    ///
    /// # Errors
    /// If the HTTP/2 handshake fails.
    pub async fn inside(stream: impl Duplex + 'static) -> Result<Self> {
        let (requests, connection) = timeout(DEADLINE, h2::client::handshake(stream)).await??;
        let connection = tokio::spawn(async move {
            // The streams report the end of the connection.
            connection.await.ok();
        });
        Ok(Self {
            requests,
            connection,
        })
    }

    /// Sends a request's headers; `whole` says that no body follows.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        whole: bool,
    ) -> Result<H2Stream> {
        let uri = format!("http://registry{path}");
        self.send_to(&uri, method, headers, whole).await
    }

    /// Like [`H2::send`], with the `:authority` of this URI, or none if it is a path.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send_to(
        &mut self,
        uri: &str,
        method: &str,
        headers: &[(&str, &str)],
        whole: bool,
    ) -> Result<H2Stream> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = timeout(DEADLINE, self.requests.clone().ready()).await??;
        let (response, body) = requests.send_request(request.body(())?, whole)?;
        Ok(H2Stream { response, body })
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl H2Stream {
    /// Sends a piece of the request's body.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn push(&mut self, bytes: &'static [u8], last: bool) -> Result<()> {
        Ok(self.body.send_data(Bytes::from_static(bytes), last)?)
    }

    /// Sends a piece that the test has made.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn push_bytes(&mut self, bytes: Bytes, last: bool) -> Result<()> {
        Ok(self.body.send_data(bytes, last)?)
    }

    /// Ends the request with a trailer.
    ///
    /// # Errors
    /// If the stream is gone.
    pub fn trail(&mut self, name: &'static str, value: &'static str) -> Result<()> {
        let mut trailers = http::HeaderMap::new();
        trailers.insert(name, http::HeaderValue::from_static(value));
        Ok(self.body.send_trailers(trailers)?)
    }

    /// Resets the stream.
    pub fn cancel(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    /// Waits for the response's head.
    ///
    /// # Errors
    /// If the stream is reset, or nothing arrives in time.
    pub async fn response(self) -> Result<H2Response> {
        let response = timeout(DEADLINE, self.response).await;
        let response = response.context("no response in time")??;
        let (head, body) = response.into_parts();
        Ok(H2Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }
}

impl H2Response {
    /// Reads the next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// If it is cut, or nothing comes in time.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = timeout(DEADLINE, self.body.data()).await? else {
            return Ok(None);
        };
        let piece = piece?;
        self.body.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// If it is cut or does not end in time.
    pub async fn read(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = timeout(DEADLINE, self.body.data()).await? {
            let bytes = bytes?;
            self.body.flow_control().release_capacity(bytes.len())?;
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}
