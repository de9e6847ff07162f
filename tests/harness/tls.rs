//! Clients inside TLS: which versions and protocols they offer, which certificates they trust, have and
//! get.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring,
};
pub use tokio_rustls::rustls::{HandshakeKind, version};

use crate::certificate::Certificate;

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client. Its connections resume each other's sessions, if the server lets them.
#[derive(Clone)]
pub struct SecureClient {
    config: Arc<ClientConfig>,
}

/// What a client offers and has.
pub struct TlsOffer<'a> {
    /// The certificates that it trusts.
    pub trusted: &'a [&'a Certificate],
    /// The protocols that it offers, best first (ALPN).
    pub protocols: &'a [&'a str],
    /// Its own certificate.
    pub own: Option<&'a Certificate>,
    /// The versions that it speaks.
    pub versions: &'a [&'static SupportedProtocolVersion],
}

impl Default for TlsOffer<'_> {
    fn default() -> Self {
        Self {
            trusted: &[],
            protocols: &["http/1.1"],
            own: None,
            versions: ALL_VERSIONS,
        }
    }
}

impl SecureClient {
    /// A client that trusts this certificate and offers HTTP/1.1.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub fn trusting(certificate: &Certificate) -> Result<Self> {
        Self::offering(&TlsOffer {
            trusted: &[certificate],
            ..TlsOffer::default()
        })
    }

    /// A client that trusts the certificate or the authority in this file, and offers HTTP/1.1.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn trusting_file(path: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(read(path)?)?;
        Self::with(roots, &TlsOffer::default())
    }

    /// A client that trusts the authority in this file, and offers these protocols.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn trusting_authority(path: &Path, protocols: &[&str]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(read(path)?)?;
        let offer = TlsOffer {
            protocols,
            ..TlsOffer::default()
        };
        Self::with(roots, &offer)
    }

    /// A client that offers this.
    ///
    /// # Errors
    /// If a certificate cannot be read.
    pub fn offering(offer: &TlsOffer<'_>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for trusted in offer.trusted {
            roots.add(read(&trusted.path())?)?;
        }
        Self::with(roots, offer)
    }

    fn with(roots: RootCertStore, offer: &TlsOffer<'_>) -> Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(offer.versions)?
            .with_root_certificates(roots);
        let mut config = match offer.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_file(own.key())?;
                builder.with_client_auth_cert(vec![read(&own.path())?], key)?
            }
        };
        let protocols = offer.protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Connects to `localhost` at this address.
    ///
    /// # Errors
    /// If the connection or the handshake fails.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.shake(stream, "localhost").await
    }

    /// Asks for a server of this name over an open connection.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn shake(&self, stream: TcpStream, name: &str) -> Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let name = ServerName::try_from(name.to_owned())?;
        let shaken = timeout(DEADLINE, connector.connect(name, stream)).await;
        shaken
            .context("no handshake in time")?
            .context("the handshake")
    }
}

/// The certificate in a file.
///
/// # Errors
/// If there is none.
pub fn read(path: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).with_context(|| path.display().to_string())
}

/// The certificate that the server has shown.
///
/// # Errors
/// If it has shown none.
pub fn shown(stream: &TlsStream<TcpStream>) -> Result<CertificateDer<'static>> {
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(|certificates| certificates.first());
    Ok(first.context("no certificate")?.clone().into_owned())
}
