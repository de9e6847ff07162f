//! TLS for a listener, with a certificate that is loaded again when its files change.
//!
//! The cryptography is ring's, as in pingora. Deliberately not here: client certificates, and what
//! is spoken inside.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::listen::stream::ClientStream;
use super::shutdown::Shutdown;

pub mod codec;

/// How often the files are checked. A change is loaded once it is unchanged for one interval, so
/// that a half-written file is not.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The keys of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFields {
    /// A PEM file: the certificate, and those that lead to the authority that signed it.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
}

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file cannot be read, or holds none.
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
    Mismatch(#[source] rustls::Error),
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// Which of the [`TlsFields`] is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "certificate",
            Self::Key { .. } | Self::Mismatch(_) | Self::Setup(_) => "key",
        }
    }
}

/// A certificate in use. Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFields>,
    current: Arc<CurrentCertificate>,
    acceptor: TlsAcceptor,
    /// The files as they were before they were loaded.
    loaded: FileVersions,
}

/// The certificate that the next handshake gets.
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

/// Distinguishes one state of the two files from another.
type FileVersions = [Option<(u64, u64, i64, i64)>; 2];

impl Tls {
    /// Loads a certificate and its key.
    pub fn load(files: &TlsFields) -> Result<Self, TlsError> {
        // Before the files are read: a change in between is then seen as one, and loaded again.
        let loaded = file_versions(files);
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(read(files)?))));
        let config = current.config(&[b"http/1.1"])?;
        Ok(Self {
            files: Arc::new(files.clone()),
            current,
            acceptor: TlsAcceptor::from(config),
            loaded,
        })
    }

    /// Shakes hands. Fails if the client does not, or takes too long.
    pub async fn accept(&self, stream: ClientStream) -> io::Result<Secured> {
        let shaken = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await;
        // Boxed: otherwise each plain connection would be as large as one inside TLS.
        Ok(Either::Right(Box::new(shaken??)))
    }

    /// Loads the certificate again whenever its files change, until the shutdown. If the new
    /// one cannot be used, that is logged and the old one stays.
    pub async fn watch(self, shutdown: Shutdown) {
        let mut loaded = self.loaded;
        let mut last = loaded;
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = shutdown.recv() => return,
            }
            let now = self.file_versions().await;
            let stands = now == std::mem::replace(&mut last, now);
            if stands && now != loaded {
                // Noted even if the reload fails: a bad file is logged once, not every second.
                loaded = now;
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let (files, current) = (Arc::clone(&self.files), Arc::clone(&self.current));
        let certificate = self.files.certificate.display();
        // On a blocking thread: a slow disk, such as a network mount, must not stop a worker.
        let read = tokio::task::spawn_blocking(move || read(&files));
        match read.await {
            Ok(Ok(key)) => {
                *current.0.write() = Arc::new(key);
                tracing::info!(%certificate, "certificate reloaded");
            }
            Ok(Err(error)) => {
                tracing::error!(%certificate, %error, "certificate reload failed");
            }
            // Only a panic, which the panic hook has logged.
            Err(_) => {}
        }
    }

    async fn file_versions(&self) -> FileVersions {
        let files = Arc::clone(&self.files);
        let looked = tokio::task::spawn_blocking(move || file_versions(&files));
        looked.await.unwrap_or_default()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl CurrentCertificate {
    /// A server's configuration, with the protocols that may be spoken inside.
    fn config(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        // Named here: rustls panics over its default once another crate enables a second provider.
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as _);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for CurrentCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentCertificate")
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

fn file_versions(files: &TlsFields) -> FileVersions {
    [&files.certificate, &files.key].map(|path| {
        // Follows symbolic links: certbot and Kubernetes replace the link, and not the file.
        let metadata = std::fs::metadata(path).ok()?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        // With the inode: a file that is moved into place may have the old one's size and time.
        Some((metadata.ino(), metadata.len(), changed.0, changed.1))
    })
}

fn read(files: &TlsFields) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Key {
        path: files.key.clone(),
        source,
    })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Mismatch)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Certificate {
        path: path.to_owned(),
        source,
    };
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

/// A connection as it came, or inside TLS.
pub type Secured = Either<ClientStream, Box<TlsStream<ClientStream>>>;

/// The connection as the listener wants it: inside TLS if it has a certificate.
pub async fn secure(tls: Option<&Tls>, stream: ClientStream) -> io::Result<Secured> {
    match tls {
        Some(tls) => tls.accept(stream).await,
        None => Ok(Either::Left(stream)),
    }
}

#[cfg(test)]
mod tests;
