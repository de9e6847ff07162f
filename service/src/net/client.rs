//! One GET on a connection of its own, over TCP, TLS or a Unix socket.
//!
//! Probes and scrapes happen once in many seconds: a connection that is kept would mostly be one
//! that the server has closed.

use std::io;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::address::ServerAddress;
use super::url::{HttpUrl, Scheme};
use crate::tls::{TlsClient, TlsFailure, Validity};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed, or the server refused our side of it afterwards.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The URL is `https`, and nobody has said whom to trust.
    #[error("no TLS is configured for an https URL")]
    NoTls,
    /// The connection failed, or the response is not valid HTTP.
    #[error("the connection failed or the response is not valid HTTP")]
    Http(#[source] hyper::Error),
    /// The URL's path or host cannot be sent.
    #[error("the URL cannot be requested")]
    Request(#[from] http::Error),
    /// The body is larger than the caller allows.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

/// A response whose headers have arrived. Its connection ends when it is dropped.
pub struct Response {
    head: http::response::Parts,
    body: Incoming,
    /// The server's certificate, where it has shown one.
    certificate: Option<CertificateDer<'static>>,
    /// Drives the connection while the body is read. Dropping it ends the connection.
    _connection: JoinSet<hyper::Result<()>>,
}

/// A GET to send.
#[derive(Clone, Debug)]
pub struct GetRequest {
    url: HttpUrl,
    headers: HeaderMap,
    tls: Option<TlsClient>,
}

impl From<HttpUrl> for GetRequest {
    fn from(url: HttpUrl) -> Self {
        Self {
            url,
            headers: HeaderMap::new(),
            tls: None,
        }
    }
}

impl GetRequest {
    /// What is asked for.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// The same with a header, in place of another of its name. A secret one must be marked so.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Whether it has a header.
    pub fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    /// The same for another path of the server.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        self.url = self.url.with_path(path);
        self
    }

    /// The same, over TLS where the URL is `https`.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsClient>) -> Self {
        self.tls = tls;
        self
    }

    /// Sends it, and waits for the headers of the response. The caller sets the deadline.
    pub async fn send(&self) -> Result<Response, ClientError> {
        // A request's target has at least a `/` (RFC 9112, section 3.2.1).
        let mut request =
            Request::get(self.url.path().unwrap_or("/")).body(Empty::<Bytes>::new())?;
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(self.url.authority()).map_err(http::Error::from)?;
        headers.insert(HOST, host);
        headers.extend(self.headers.clone());
        match self.url.address() {
            ServerAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(ClientError::Connect)?;
                if self.url.scheme() != Scheme::Https {
                    return send(stream, request, None).await;
                }
                let tls = self.tls.as_ref().ok_or(ClientError::NoTls)?;
                let stream = tls.connect(host, stream).await;
                let failed = |error| ClientError::Tls(TlsFailure::during(&error));
                let stream = stream.map_err(failed)?;
                let shown = stream.get_ref().1.peer_certificates();
                let shown = shown.and_then(|shown| shown.first().cloned());
                send(stream, request, shown.map(CertificateDer::into_owned)).await
            }
            ServerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                send(stream.map_err(ClientError::Connect)?, request, None).await
            }
        }
    }
}

async fn send<T>(
    stream: T,
    request: Request<Empty<Bytes>>,
    certificate: Option<CertificateDer<'static>>,
) -> Result<Response, ClientError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A task of its own, which ends with the set however this future or the response ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response {
        head,
        body,
        certificate,
        _connection: driver,
    })
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        // A server that wants a client certificate says so only after the handshake (RFC 8446).
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let below = cause.downcast_ref().and_then(TlsFailure::of);
            if let Some(refused) = below {
                return Self::Tls(refused);
            }
            source = cause.source();
        }
        Self::Http(error)
    }
}

impl Response {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// When the server's certificate is valid, where it has shown one.
    pub fn certificate_validity(&self) -> Option<Validity> {
        self.certificate.as_ref().and_then(Validity::of)
    }

    /// Reads the body into one piece of memory of at most `limit` bytes.
    pub async fn read(mut self, limit: usize) -> Result<Vec<u8>, ClientError> {
        // A length that the server promises reserves no more than the limit.
        let promised = self.body.size_hint().lower().min(limit as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(promised).unwrap_or_default());
        while let Some(frame) = self.body.frame().await {
            // Trailers: they are no part of the body.
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if data.len() > limit - bytes.len() {
                return Err(ClientError::TooLarge(limit));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}
