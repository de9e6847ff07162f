//! Fetching the exposition of one source, over TCP, TLS or a Unix socket, in bounded memory.

use std::io;

use http::{HeaderValue, StatusCode, header};
use service::exposition::{DroppedSamples, Exposition, ParseLimits, TEXT_CONTENT_TYPE};
use service::net::{ClientError, GetRequest};
use service::tls::TlsFailure;

/// Why there is no exposition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection could be made.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(TlsFailure),
    /// The connection failed, or the response is not valid HTTP.
    #[error("the connection failed or the response is not valid HTTP")]
    Http(#[source] ClientError),
    /// The response is not a success.
    #[error("the response is {0}")]
    Status(StatusCode),
    /// The exposition is larger than `metrics.aggregate.max_bytes`.
    #[error("the exposition is larger than {0} bytes")]
    TooLarge(usize),
    /// It took longer than `metrics.aggregate.timeout`.
    #[error("no response in time")]
    Timeout,
    /// The response is not an exposition.
    #[error("the response is not a metrics exposition")]
    Unreadable,
}

/// Fetches an exposition of at most `limit` bytes. The caller sets the deadline.
pub(super) async fn get(request: &GetRequest, limit: usize) -> Result<Vec<u8>, FetchError> {
    // Only this format, whatever our own scraper asked for: two formats cannot share an exposition.
    let accept = HeaderValue::from_static(TEXT_CONTENT_TYPE);
    let request = request.clone().with_header(header::ACCEPT, accept);
    let response = request.send().await?;
    // No encoding was asked for, so this one cannot be read.
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(FetchError::Unreadable);
    }
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    Ok(response.read(limit).await?)
}

/// Reads an exposition, in bounded memory.
pub(super) async fn parse(
    body: Vec<u8>,
    max_bytes: usize,
    max_samples: usize,
) -> Result<(Exposition, DroppedSamples), FetchError> {
    let limits = ParseLimits {
        max_bytes,
        max_samples,
    };
    let parsed = tokio::task::spawn_blocking(move || Exposition::parse(body, &limits)).await;
    // A panic while parsing is a scrape that failed.
    let (exposition, dropped) = parsed.map_err(|_| FetchError::Unreadable)?;
    // Not one line of it has the format: it is HTML, or binary.
    if exposition.sample_count() == 0 && dropped.malformed > 0 {
        return Err(FetchError::Unreadable);
    }
    Ok((exposition, dropped))
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(source) => Self::Connect(source),
            ClientError::TooLarge(limit) => Self::TooLarge(limit),
            ClientError::Tls(source) => Self::Tls(source),
            ClientError::NoTls | ClientError::Http(_) | ClientError::Request(_) => {
                Self::Http(error)
            }
        }
    }
}
