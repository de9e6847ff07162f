//! Fetching one metrics page, over TCP or a Unix socket, in bounded memory.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use service::exposition::TEXT_CONTENT_TYPE;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Where a metrics page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `http://HOST[:PORT]/PATH`
    Http {
        /// Host and port, as the Host header has them.
        authority: String,
        /// Host, without the brackets of an IPv6 address.
        host: String,
        /// The port.
        port: u16,
        /// Path and query.
        target: String,
    },
    /// `unix:/PATH`: the page `/metrics` on that socket.
    Unix(PathBuf),
}

/// A text that is not the location of a metrics page.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not the address of a metrics page: expected http://HOST[:PORT]/PATH or unix:/PATH"
)]
pub struct LocationError(String);

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Location, LocationError> {
        // A password must not reach the message.
        let shown = if text.contains('@') {
            "(a URL with a user)"
        } else {
            text
        };
        let wrong = || LocationError(shown.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/');
            return absolute
                .then(|| Location::Unix(path.into()))
                .ok_or_else(wrong);
        }
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(wrong()),
        };
        let target = uri
            .path_and_query()
            .map_or("/metrics", |target| target.as_str());
        Ok(Location::Http {
            authority: authority.as_str().to_owned(),
            host: authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
            target: if target == "/" {
                "/metrics".to_owned()
            } else {
                target.to_owned()
            },
        })
    }
}

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("the exchange failed")]
    Http(#[source] hyper::Error),
    /// It answered, but not with a page.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The page is larger than `metrics.aggregate.max_bytes`.
    #[error("the page is larger than {0} bytes")]
    TooLarge(usize),
    /// It took longer than `metrics.aggregate.timeout` or than the scraper waits.
    #[error("it did not answer in time")]
    Timeout,
    /// What came is not a metrics page.
    #[error("it answered with what is not a metrics page")]
    Unreadable,
}

/// Fetches a page of at most `limit` bytes. The caller sets the deadline.
pub async fn get(location: &Location, limit: usize) -> Result<Vec<u8>, FetchError> {
    match location {
        Location::Http {
            authority,
            host,
            port,
            target,
        } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            exchange(
                stream.map_err(FetchError::Connect)?,
                authority,
                target,
                limit,
            )
            .await
        }
        Location::Unix(path) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(FetchError::Connect)?;
            exchange(stream, "localhost", "/metrics", limit).await
        }
    }
}

async fn exchange<T>(
    stream: T,
    host: &str,
    target: &str,
    limit: usize,
) -> Result<Vec<u8>, FetchError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    // One page a connection: a source is asked once in many seconds. It ends with this function,
    // however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    receive(&mut sender, host, target, limit).await
}

async fn receive(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    host: &str,
    target: &str,
    limit: usize,
) -> Result<Vec<u8>, FetchError> {
    let mut request = Request::new(Empty::new());
    // Both were taken from a URI that parsed.
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(
        header::HOST,
        HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("localhost")),
    );
    // Only this format, whatever our own scraper asked for: two formats can't share a page.
    headers.insert(header::ACCEPT, HeaderValue::from_static(TEXT_CONTENT_TYPE));
    let response = sender
        .send_request(request)
        .await
        .map_err(FetchError::Http)?;
    // We did not ask for one, so it is not a page that anybody could read.
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(FetchError::Unreadable);
    }
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    read(response.into_body(), limit).await
}

/// Reads a body into one piece of memory, which becomes the page's without a copy.
async fn read(mut body: Incoming, limit: usize) -> Result<Vec<u8>, FetchError> {
    let told = body.size_hint().lower().min(limit as u64);
    let mut bytes = Vec::with_capacity(usize::try_from(told).unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(FetchError::Http)?.into_data() else {
            continue;
        };
        if data.len() > limit - bytes.len() {
            return Err(FetchError::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_url_or_a_socket() {
        let Ok(Location::Http {
            authority,
            host,
            port,
            target,
        }) = "http://[::1]:5001".parse()
        else {
            panic!("a URL without a path names the usual page")
        };
        assert_eq!(
            (authority.as_str(), host.as_str(), port, target.as_str()),
            ("[::1]:5001", "::1", 5001, "/metrics")
        );
        assert_eq!(
            "unix:/run/m.sock".parse(),
            Ok(Location::Unix("/run/m.sock".into()))
        );
        for wrong in [
            "",
            "registry:5001",
            "https://registry/metrics",
            "unix:m",
            "http://u:p@h/",
            "http://h:99999/",
        ] {
            assert!(wrong.parse::<Location>().is_err(), "{wrong}");
        }
    }
}
