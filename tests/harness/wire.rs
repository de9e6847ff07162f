//! HTTP/1.1 byte by byte: requests that no client library would send, and their responses. Plain or
//! inside TLS.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a response may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The longest header that is read.
const HEADER_LIMIT: usize = 64 * 1024;

/// What HTTP is spoken over.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection.
pub struct Wire {
    stream: Box<dyn Duplex>,
    unread: Vec<u8>,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body, without the framing.
    pub body: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::over(timeout(DEADLINE, TcpStream::connect(address)).await??)
    }

    /// Wraps an open connection.
    ///
    /// # Errors
    /// If it is closed.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::inside(stream))
    }

    /// Speaks HTTP over this, such as a connection inside TLS.
    pub fn inside(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: Vec::new(),
        }
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// If the other side has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(timeout(DEADLINE, self.stream.write_all(bytes)).await??)
    }

    /// Closes the sending half of the connection.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads the head of the next response, passing over interim ones (1xx).
    ///
    /// # Errors
    /// If the connection ends first, or the bytes are not HTTP.
    pub async fn head(&mut self) -> Result<Head> {
        loop {
            let head = self.any_head().await?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// Reads the head of the next response, which may be an interim one (1xx).
    ///
    /// # Errors
    /// If the connection ends first, or the bytes are not HTTP.
    pub async fn interim(&mut self) -> Result<Head> {
        self.any_head().await
    }

    /// Reads the next response. `method` is the request's: the response to a HEAD has no body.
    ///
    /// # Errors
    /// If it is incomplete, or not HTTP.
    pub async fn response(&mut self, method: &str) -> Result<Response> {
        let head = self.head().await?;
        let bodyless = method == "HEAD" || matches!(head.status, 204 | 304);
        let body = if bodyless {
            Vec::new()
        } else {
            self.body(&head).await?
        };
        Ok(Response { head, body })
    }

    /// Reads `length` bytes of a body.
    ///
    /// # Errors
    /// If the connection ends first.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            ensure!(
                self.fill().await? > 0,
                "cut after {} of {length} bytes",
                self.unread.len()
            );
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Reads some bytes of a body, at most so many; none if the connection has ended.
    ///
    /// # Errors
    /// If the connection was reset, or nothing comes in time.
    pub async fn some(&mut self, most: usize) -> Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.fill().await?;
        }
        let length = most.min(self.unread.len());
        Ok(self.unread.drain(..length).collect())
    }

    /// Reads until the connection ends.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    async fn any_head(&mut self) -> Result<Head> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            ensure!(self.unread.len() < HEADER_LIMIT, "a header without an end");
            ensure!(
                self.fill().await? > 0,
                "the connection ended without a response"
            );
        };
        let bytes: Vec<u8> = self.unread.drain(..end + 4).collect();
        Head::parse(std::str::from_utf8(&bytes[..end])?)
    }

    async fn body(&mut self, head: &Head) -> Result<Vec<u8>> {
        if head
            .header("transfer-encoding")
            .is_some_and(|value| value.contains("chunked"))
        {
            return self.chunks().await;
        }
        match head.header("content-length") {
            Some(length) => self.exactly(length.parse()?).await,
            None => self.rest().await,
        }
    }

    /// Reads the next chunk of a body; an empty one is its end.
    ///
    /// # Errors
    /// If the connection ends first, or the bytes are not a chunk.
    pub async fn chunk(&mut self) -> Result<Vec<u8>> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk without a size")?;
        let chunk = self.exactly(size).await?;
        let end = self.line().await?;
        // Trailers are not parsed: none of our responses has any.
        ensure!(end.is_empty(), "no end of line after a chunk: {end:?}");
        Ok(chunk)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    async fn line(&mut self) -> Result<String> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                break end;
            }
            ensure!(self.fill().await? > 0, "the connection ended within a line");
        };
        let bytes: Vec<u8> = self.unread.drain(..end + 2).collect();
        Ok(String::from_utf8(bytes[..end].to_vec())?)
    }

    async fn fill(&mut self) -> Result<usize> {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread)).await;
        Ok(read.context("no byte within the deadline")??)
    }
}

impl Head {
    /// The value of a header, by its name in lower case; the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every header, in order, the name in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let Some(code) = status
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
        else {
            bail!("not an HTTP/1.1 status line: {status:?}");
        };
        let headers = lines.map(|line| {
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("header {line:?}"))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Self {
            status: code.parse()?,
            headers: headers.collect::<Result<_>>()?,
        })
    }
}

impl Response {
    /// The code of the first OCI error in the body, if it has one.
    pub fn error_code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(
            body.get("errors")?
                .get(0)?
                .get("code")?
                .as_str()?
                .to_owned(),
        )
    }
}

/// Sends these bytes as one request on a new connection and reads the response.
///
/// # Errors
/// If there is no response.
pub async fn exchange(address: SocketAddr, method: &str, request: &[u8]) -> Result<Response> {
    let mut wire = Wire::connect(address).await?;
    wire.send(request).await?;
    wire.response(method).await
}

/// A request with this path, these headers and this body, and besides them only `Host`,
/// `Content-Length` and `Connection: close`.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = start(method, path, headers);
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"Connection: close\r\n\r\n");
    bytes.extend(body);
    bytes
}

/// Like [`request`], with a chunked body.
pub fn chunked(method: &str, path: &str, headers: &[(&str, &str)], chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = start(method, path, headers);
    bytes.extend(b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(*chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// A request's first line and headers, except for the framing of its body.
fn start(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: registry\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn response_from(bytes: &'static [u8], method: &str) -> Result<Response> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = async {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await?;
            anyhow::Ok(())
        };
        let client = exchange(address, method, b"GET / HTTP/1.1\r\n\r\n");
        let (response, ()) = tokio::try_join!(client, server)?;
        Ok(response)
    }

    #[tokio::test]
    async fn bodies_are_read_in_each_framing() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(response_from(chunked, "GET").await.unwrap().body, b"abc");
        let counted = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nabc";
        assert_eq!(response_from(counted, "GET").await.unwrap().body, b"ab");
        let closed = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest";
        assert_eq!(response_from(closed, "GET").await.unwrap().body, b"rest");
        assert_eq!(response_from(counted, "HEAD").await.unwrap().body, b"");
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        assert!(response_from(cut, "GET").await.is_err());
    }
}
