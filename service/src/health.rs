//! Probing a server: is it healthy, is it ready? For a container's health check, and for upstreams.
//!
//! A server of this machine is trusted by its certificate, which is read from the server's own
//! configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;

use super::listen::ListenAddr;
use super::net::{ClientError, GetRequest, HttpUrl, Scheme, ServerAddress};
use super::printable::printable;
use super::tls::Tls;

/// Within this time a healthy server responds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The path of the readiness probe.
pub const READY: &str = "/readyz";

/// What to probe: an `http://` URL, or `unix:` and the path of a socket, whose [`READY`] is probed.
#[derive(Clone, Debug)]
pub struct Probe(GetRequest);

/// A text that is not a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a probe such as http://127.0.0.1:5001/readyz or unix:/run/metrics.sock",
    printable(.0)
)]
pub struct ProbeError(String);

/// Why a server is not known to be healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It took too long.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// Its response is not a success.
    #[error("the response is {0}")]
    Status(StatusCode),
}

impl Probe {
    /// A path on a server of this machine that listens at an address.
    pub fn of_listener(address: &ListenAddr, path: &str) -> Self {
        Self::new(ServerAddress::of_listener(address), path)
    }

    /// The same of a server that speaks TLS there. It fails where clients must have certificates.
    pub fn of_secured_listener(address: &ListenAddr, tls: &Tls, path: &str) -> Self {
        let url = HttpUrl::new(ServerAddress::of_listener(address), path).inside_tls();
        Self(GetRequest::from(url).with_tls(tls.client()))
    }

    /// A path on a server.
    pub fn new(address: ServerAddress, path: &str) -> Self {
        Self(HttpUrl::new(address, path).into())
    }

    /// This request.
    pub fn of(request: GetRequest) -> Self {
        Self(request)
    }

    /// A request for another path of the server that is probed.
    pub fn request_for(&self, path: &str) -> GetRequest {
        self.0.clone().with_path(path)
    }

    /// Probes the server: `Ok` if the response is a success.
    pub async fn check(&self) -> Result<(), HealthError> {
        self.check_within(TIMEOUT).await
    }

    /// Probes the server, which has so much time.
    pub async fn check_within(&self, timeout: Duration) -> Result<(), HealthError> {
        let response = tokio::time::timeout(timeout, self.0.send()).await;
        let status = response
            .map_err(|_| HealthError::Timeout(timeout))??
            .status();
        if status.is_success() {
            Ok(())
        } else {
            Err(HealthError::Status(status))
        }
    }
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let refused = || ProbeError(text.to_owned());
        let url: HttpUrl = text.parse().map_err(|_| refused())?;
        match url.scheme() {
            Scheme::Http => Ok(Self(url.with_default_path("/").into())),
            Scheme::Unix => Ok(Self(url.with_default_path(READY).into())),
            Scheme::Https => Err(refused()),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.url().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_an_http_url_or_a_socket() {
        for text in [
            "http://127.0.0.1:5001/readyz",
            "http://[::1]:5001/readyz",
            "http://registry:80/v2/?x",
            "unix:/run/metrics.sock",
        ] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:5001",
            "https://127.0.0.1/",
            "/readyz",
            "http://127.0.0.1:99999/readyz",
        ] {
            assert!(text.parse::<Probe>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_probed_on_this_machine() {
        for (address, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1/readyz"),
            ("[::]:1", "http://[::1]:1/readyz"),
            ("192.0.2.7:1", "http://192.0.2.7:1/readyz"),
        ] {
            let probe = Probe::of_listener(&address.parse().unwrap(), READY);
            assert_eq!(probe.to_string(), url);
        }
    }
}
