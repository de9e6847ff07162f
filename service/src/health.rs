//! Asking a running server whether it is ready: a container's health check.
//!
//! Deliberately not here: TLS. A probe is for those on the same machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::listen::ListenAddr;

/// Within this time a healthy server answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// The path that tells whether a server is ready.
pub const READY: &str = "/readyz";

/// What to ask: an `http://` URL, or `unix:` and the path of a socket, which is asked for
/// [`READY`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    place: Place,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A text that is no [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a probe such as http://127.0.0.1:5001/readyz or unix:/run/metrics.sock")]
pub struct ProbeError(String);

/// A server that is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It could not be reached.
    #[error("cannot connect")]
    Connect(#[from] std::io::Error),
    /// It did not speak HTTP.
    #[error("no answer in HTTP")]
    Http(#[from] hyper::Error),
    /// The probe's path or host can't be asked for.
    #[error("the probe can't be asked")]
    Request(#[from] http::Error),
    /// It took too long.
    #[error("no answer within {PATIENCE:?}")]
    Slow,
    /// It says no.
    #[error("answered {0}")]
    Unready(StatusCode),
}

impl Probe {
    /// A path on a server that listens at an address.
    pub fn new(address: &ListenAddr, path: &str) -> Self {
        let place = match address {
            ListenAddr::Tcp(address) => Place::Tcp {
                host: reachable(*address).to_string(),
                port: address.port(),
            },
            ListenAddr::Unix(path) => Place::Unix(path.clone()),
        };
        Self {
            place,
            path: path.to_owned(),
        }
    }

    /// A path on a server by its host's name or address, an IPv6 address without its brackets.
    pub fn of_host(host: &str, port: u16, path: &str) -> Self {
        let host = match host.parse() {
            Ok(ip) => Host(ip).to_string(),
            Err(_) => host.to_owned(),
        };
        Self {
            place: Place::Tcp { host, port },
            path: path.to_owned(),
        }
    }

    /// Asks; `Ok` if the answer is a success.
    pub async fn check(&self) -> Result<(), HealthError> {
        let asked = async {
            let status = match &self.place {
                Place::Tcp { host, port } => {
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    self.ask(TcpStream::connect((host, *port)).await?).await?
                }
                Place::Unix(path) => self.ask(UnixStream::connect(path).await?).await?,
            };
            if status.is_success() {
                Ok(())
            } else {
                Err(HealthError::Unready(status))
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        answer.unwrap_or(Err(HealthError::Slow))
    }

    async fn ask<T>(&self, stream: T) -> Result<StatusCode, HealthError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(&self.path)
            .header(HOST, self.host())
            .body(Empty::<Bytes>::new())?;
        let mut answer = pin!(sender.send_request(request));
        tokio::select! {
            answer = &mut answer => Ok(answer?.status()),
            ended = connection => {
                ended?;
                // A server may answer and close at once.
                Ok(answer.await?.status())
            }
        }
    }

    fn host(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let refused = || ProbeError(text.to_owned());
        if text.starts_with("unix:") {
            let address = text.parse().map_err(|_| refused())?;
            return Ok(Self::new(&address, READY));
        }
        let url: Uri = text.parse().map_err(|_| refused())?;
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err(refused());
        }
        Ok(Self {
            place: Place::Tcp {
                host: url.host().ok_or_else(refused)?.to_owned(),
                port: url.port_u16().unwrap_or(80),
            },
            path: url
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => write!(f, "http://{}{}", self.host(), self.path),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where to reach a server that listens everywhere: on this machine.
fn reachable(address: SocketAddr) -> Host {
    Host(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    })
}

/// An IP address as it stands in a URL.
struct Host(IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_printed_as_it_is_read() {
        for text in [
            "http://127.0.0.1:5001/readyz",
            "http://[::1]:5001/readyz",
            "http://registry:80/v2/?x",
            "unix:/run/metrics.sock",
        ] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
        for text in ["", "127.0.0.1:5001", "https://127.0.0.1/", "/readyz"] {
            assert!(text.parse::<Probe>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_asked_by_its_name_or_address() {
        for (host, url) in [
            ("registry", "http://registry:5000/v2/"),
            ("192.0.2.7", "http://192.0.2.7:5000/v2/"),
            ("::1", "http://[::1]:5000/v2/"),
        ] {
            assert_eq!(Probe::of_host(host, 5000, "/v2/").to_string(), url);
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_this_machine() {
        for (address, url) in [
            ("0.0.0.0:1", "http://127.0.0.1:1/readyz"),
            ("[::]:1", "http://[::1]:1/readyz"),
            ("192.0.2.7:1", "http://192.0.2.7:1/readyz"),
        ] {
            let probe = Probe::new(&address.parse().unwrap(), READY);
            assert_eq!(probe.to_string(), url);
        }
    }
}
