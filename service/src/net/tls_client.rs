//! TLS towards a server: whom we trust, and who we are to it.
//!
//! Deliberately not here: certificates of our own listeners ([`crate::tls`]), and what is spoken
//! inside.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};

/// The keys of TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsClientFields {
    /// A PEM file: the authorities that may have signed the server's certificate, in place of those
    /// that the system trusts.
    pub ca: Option<PathBuf>,
    /// A PEM file: our own certificate, for a server that asks for one.
    pub certificate: Option<PathBuf>,
    /// A PEM file: its private key.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have, where that is not the host of its URL.
    pub server_name: Option<String>,
}

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsClientError {
    /// The authorities' file cannot be read, or holds none.
    #[error("cannot read a certificate from {}: {}", path.display(), plainly(source))]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A certificate in the authorities' file is no authority's.
    #[error("a certificate in {} cannot be used as an authority's: {error}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
    /// The system trusts nobody.
    #[error(
        "this system has no certificates of authorities: install its package ca-certificates, or set \
         this key to a file with the one that signed the server's certificate"
    )]
    NoRoots,
    /// A certificate without its key, or the other way round.
    #[error("the key {0} is missing: a client certificate needs both")]
    Half(&'static str),
    /// Our own certificate's file cannot be read, or holds none.
    #[error("cannot read a certificate from {}: {}", path.display(), plainly(source))]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The key's file cannot be read, or holds none.
    #[error("cannot read a private key from {}: {}", path.display(), plainly(source))]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// They do not go together, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(rustls::Error),
    /// The name is none.
    #[error("`{0}` is not a name that a certificate can have")]
    ServerName(String),
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

impl TlsClientError {
    /// Which of the [`TlsClientFields`] is wrong; empty for all of them.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Ca { .. } | Self::Root { .. } | Self::NoRoots => "ca",
            Self::Certificate { .. } => "certificate",
            Self::Key { .. } | Self::Pair(_) => "key",
            Self::ServerName(_) => "server_name",
            Self::Half(_) | Self::Setup(_) => "",
        }
    }
}

/// TLS towards servers. Clones share the sessions that can be resumed.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl TlsClientFields {
    /// Reads the files. Also returns the client for other servers, which trusts the same authorities,
    /// but shows them no certificate and takes them at their own names.
    pub fn load(&self) -> Result<(TlsClient, TlsClient), TlsClientError> {
        let roots = Arc::new(self.roots()?);
        let builder = || {
            // Named here: rustls panics over its default once another crate enables a second provider.
            let provider = Arc::new(ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(TlsClientError::Setup)?;
            Ok(builder.with_root_certificates(Arc::clone(&roots)))
        };
        let own = match (&self.certificate, &self.key) {
            (None, None) => builder()?.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate, |path, source| {
                    TlsClientError::Certificate { path, source }
                })?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|source| {
                    let path = key.clone();
                    TlsClientError::Key { path, source }
                })?;
                builder()?
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsClientError::Pair)?
            }
            (Some(_), None) => return Err(TlsClientError::Half("key")),
            (None, Some(_)) => return Err(TlsClientError::Half("certificate")),
        };
        let name = |name: &String| {
            let refused = |_| TlsClientError::ServerName(name.clone());
            ServerName::try_from(name.clone()).map_err(refused)
        };
        let server_name = self.server_name.as_ref().map(name).transpose()?;
        let others = builder()?.with_no_client_auth();
        Ok((
            TlsClient::new(own, server_name),
            TlsClient::new(others, None),
        ))
    }

    fn roots(&self) -> Result<RootCertStore, TlsClientError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            // One that cannot be read is no reason to trust none: the others may do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsClientError::NoRoots);
            }
            return Ok(roots);
        };
        for certificate in certificates(path, |path, source| TlsClientError::Ca { path, source })? {
            let added = roots.add(certificate);
            added.map_err(|error| TlsClientError::Root {
                path: path.clone(),
                error,
            })?;
        }
        Ok(roots)
    }
}

impl TlsClient {
    fn new(mut config: ClientConfig, server_name: Option<ServerName<'static>>) -> Self {
        // The only protocol that is spoken to servers.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            server_name,
        }
    }

    /// What a handshake needs.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that the certificate of a server on this host must have.
    pub fn server_name(&self, host: &str) -> io::Result<ServerName<'static>> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error)),
        }
    }

    /// Shakes hands with the server on a host. The caller sets the deadline.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.server_name(host)?;
        TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsClient").field(&self.server_name).finish()
    }
}

fn certificates(
    path: &Path,
    wrong: fn(PathBuf, pem::Error) -> TlsClientError,
) -> Result<Vec<CertificateDer<'static>>, TlsClientError> {
    let wrong = |source| wrong(path.to_owned(), source);
    let chain = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if chain.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn plainly(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
