//! One scrape: bounded in bytes, samples and time.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::reading::Reading;
use crate::exposition::{Exposition, ParseLimits, TEXT_CONTENT_TYPE};
use crate::net::{ClientError, GetRequest};
use crate::tls::TlsFailure;

/// How long a page may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the page is told of that, in seconds.
pub(super) const WAITS: f64 = 4.0;
const WAITS_TEXT: &str = "4";

/// The header by which Prometheus tells its timeout.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// What of a page is read: of ours it is some hundred KB, with its sources a few MB.
const LIMITS: ParseLimits = ParseLimits {
    max_bytes: 16 << 20,
    max_samples: 200_000,
};

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error(transparent)]
    Tls(TlsFailure),
    #[error("the connection failed or the response is not valid HTTP")]
    Http(#[source] ClientError),
    #[error("no page within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("it asks for a user and a password: give --user and --password-file")]
    Unauthorized,
    #[error("it does not accept the user and the password")]
    Refused,
    #[error("the response is {0}")]
    Status(StatusCode),
    #[error("the page is larger than {} MiB", LIMITS.max_bytes >> 20)]
    TooLarge,
    #[error("this is no metrics page of octoserve")]
    Foreign,
}

/// Reads the page.
pub(super) async fn read(request: &GetRequest, began: Instant) -> Result<Reading, PageError> {
    let body = timeout(TIMEOUT, fetch(request)).await;
    let body = body.map_err(|_| PageError::Timeout)??;
    // Megabytes take a while to parse, and keys must be answered meanwhile.
    let parsed = tokio::task::spawn_blocking(move || {
        let (exposition, _) = Exposition::parse(body, &LIMITS);
        Reading::of(&exposition, began.elapsed())
    });
    parsed.await.ok().flatten().ok_or(PageError::Foreign)
}

async fn fetch(request: &GetRequest) -> Result<Vec<u8>, PageError> {
    let accept = HeaderValue::from_static(TEXT_CONTENT_TYPE);
    // Less than the page may take: one without a slow source is better than none.
    let timeout = HeaderValue::from_static(WAITS_TEXT);
    let request = request
        .clone()
        .with_header(header::ACCEPT, accept)
        .with_header(HeaderName::from_static(SCRAPE_TIMEOUT), timeout);
    let response = request.send().await?;
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(PageError::Foreign);
    }
    match response.status() {
        StatusCode::OK => Ok(response.read(LIMITS.max_bytes).await?),
        StatusCode::UNAUTHORIZED if request.has_header(&header::AUTHORIZATION) => {
            Err(PageError::Refused)
        }
        StatusCode::UNAUTHORIZED => Err(PageError::Unauthorized),
        status => Err(PageError::Status(status)),
    }
}

impl From<ClientError> for PageError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(source) => Self::Connect(source),
            ClientError::TooLarge(_) => Self::TooLarge,
            ClientError::Tls(failure) => Self::Tls(failure),
            other => Self::Http(other),
        }
    }
}
