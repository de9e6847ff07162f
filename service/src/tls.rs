//! TLS: for a listener, with certificates that are loaded again when their files change, and towards a
//! server ([`TlsClient`]).
//!
//! The cryptography is ring's, as in pingora. Deliberately not here: what is spoken inside.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::listen::stream::ClientStream;
use super::shutdown::Shutdown;

mod certificate;
mod client;
pub mod codec;
mod error;
mod failure;
mod fields;
mod own;
mod raw_stream;
mod resolver;
mod validity;

use self::certificate::{Certificate, certificates, plainly};
pub use self::client::{TlsClient, TlsClientFields};
pub use self::error::{TlsError, client_failure};
pub use self::failure::TlsFailure;
use self::fields::MOST_CERTIFICATES;
pub use self::fields::{CertificateFields, ClientCertificates, TlsFields, TlsVersion};
use self::own::OwnCertificates;
pub use self::raw_stream::{RawStream, Unseen};
use self::resolver::CertificateResolver;
pub use self::validity::Validity;

/// How often the files are checked. A change is loaded once it is unchanged for one interval, so
/// that a half-written file is not.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take to shake hands.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long before its end a certificate is worth a warning.
pub(crate) const SOON: i64 = 14 * 24 * 3600;

/// The TLS of a listener. Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    protocols: &'static [&'static [u8]],
    current: watch::Sender<LoadedTls>,
}

/// What the next handshake gets.
#[derive(Clone)]
struct LoadedTls {
    files: Arc<TlsFields>,
    /// The files as they were before they were loaded.
    versions: FileVersions,
    config: Arc<ServerConfig>,
    /// The certificates without those that lead to their authorities.
    own: Arc<[CertificateDer<'static>]>,
    expiries: Arc<[CertificateExpiry]>,
}

/// When a certificate ends to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// Its file.
    pub file: PathBuf,
    /// In seconds since 1970.
    pub at: i64,
    /// When it begins to be valid, in seconds since 1970.
    from: i64,
}

impl CertificateExpiry {
    /// When it is valid.
    pub fn validity(&self) -> Validity {
        Validity {
            from: self.from,
            until: self.at,
        }
    }
}

/// Distinguishes one state of some files from another.
type FileVersions = Vec<Option<(u64, u64, i64, i64)>>;

impl Tls {
    /// Loads all certificates and keys. `protocols` may be spoken inside, best first.
    pub fn load(files: &TlsFields, protocols: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        let loaded = LoadedTls::read(files, protocols)?;
        Ok(Self {
            protocols,
            current: watch::Sender::new(loaded),
        })
    }

    /// Handshakes from now on are made with what another one has loaded, whose files are watched from
    /// now on.
    pub fn replace(&self, with: &Tls) {
        self.current.send_replace(with.current.borrow().clone());
    }

    /// What the next handshake is made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.borrow().config)
    }

    /// When each certificate that is loaded ends to be valid.
    pub fn expiries(&self) -> Arc<[CertificateExpiry]> {
        Arc::clone(&self.current.borrow().expiries)
    }

    /// Whether every client must have a certificate.
    pub fn requires_client_certificates(&self) -> bool {
        self.current.borrow().files.asks_for() == Some(ClientCertificates::Required)
    }

    /// TLS towards this listener, for this program's own health check.
    pub fn client(&self) -> Option<TlsClient> {
        let own = self.current.borrow().own.to_vec();
        OwnCertificates::client(own).ok().map(TlsClient::of_own)
    }

    /// Shakes hands. Fails if the client does not, or takes too long.
    pub async fn accept(&self, stream: ClientStream) -> io::Result<Secured> {
        let acceptor = TlsAcceptor::from(self.config());
        let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
        // Boxed: otherwise each plain connection would be as large as one inside TLS.
        Ok(Either::Right(Box::new(shaken??)))
    }

    /// Logs the certificates that are not valid, or not for long.
    pub fn warn_of_expiry(&self) {
        for CertificateExpiry { file, at, .. } in self.expiries().iter() {
            let certificate = file.display();
            match at - now() {
                left if left <= 0 => {
                    tracing::error!(%certificate, "certificate has expired: clients refuse it");
                }
                left if left < SOON => {
                    let days = left / (24 * 3600);
                    tracing::warn!(%certificate, days, "certificate expires soon");
                }
                _ => {}
            }
        }
    }

    /// Calls `loaded` now and after each reload, until the shutdown.
    pub async fn follow(self, shutdown: Shutdown, loaded: impl Fn(&[CertificateExpiry])) {
        let mut current = self.current.subscribe();
        loop {
            loaded(&current.borrow_and_update().expiries);
            tokio::select! {
                Ok(()) = current.changed() => {}
                () = shutdown.recv() => return,
            }
        }
    }

    /// Loads everything again whenever a file changes, until the shutdown. If the new files cannot
    /// be used, that is logged and the old ones stay.
    pub async fn watch(self, shutdown: Shutdown) {
        let mut noted = self.current.borrow().versions.clone();
        let mut loaded = noted.clone();
        let mut last = loaded.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = shutdown.recv() => return,
            }
            let files = {
                let current = self.current.borrow();
                if current.versions != loaded {
                    loaded.clone_from(&current.versions);
                    noted.clone_from(&loaded);
                }
                Arc::clone(&current.files)
            };
            let now = tokio::task::spawn_blocking(move || file_versions(&files)).await;
            let now = now.unwrap_or_default();
            let stands = now == last;
            last.clone_from(&now);
            if stands && now != noted {
                // Noted even if the reload fails: a bad file is logged once, not every second.
                noted = now;
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let (files, protocols) = (Arc::clone(&self.current.borrow().files), self.protocols);
        let certificate = files.certificate.display().to_string();
        // On a blocking thread: a slow disk, such as a network mount, must not stop a worker.
        let reading = Arc::clone(&files);
        let read = tokio::task::spawn_blocking(move || LoadedTls::read(&reading, protocols));
        match read.await {
            Ok(Ok(loaded)) => {
                // What was replaced meanwhile, with other files, must stay so.
                let is_current = self.current.send_if_modified(|current| {
                    let is_current = Arc::ptr_eq(&current.files, &files);
                    if is_current {
                        *current = loaded;
                    }
                    is_current
                });
                if is_current {
                    tracing::info!(certificate, "certificate reloaded");
                    self.warn_of_expiry();
                }
            }
            Ok(Err(error)) => {
                tracing::error!(certificate, %error, "certificate reload failed");
            }
            // Only a panic, which the panic hook has logged.
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = Arc::clone(&self.current.borrow().files);
        f.debug_tuple("Tls").field(&files).finish()
    }
}

impl LoadedTls {
    fn read(files: &TlsFields, protocols: &[&[u8]]) -> Result<LoadedTls, TlsError> {
        // Before the files are read: a change in between is then seen as one, and loaded again.
        let versions = file_versions(files);
        if files.certificates.len() > MOST_CERTIFICATES {
            let reason = format!("more than {MOST_CERTIFICATES} entries");
            return Err(TlsError::new("certificates", &reason));
        }
        // Refused and not ignored: the operator would believe that clients have certificates.
        if files.client_certificates.is_some() && files.client_ca.is_none() {
            let reason = "there is no client_ca that signs clients' certificates";
            return Err(TlsError::new("client_certificates", &reason));
        }
        let read = files
            .all()
            .map(|(at, files)| Certificate::read(&at, &files));
        let certificates = read.collect::<Result<Vec<_>, _>>()?;
        let Some((first, others)) = certificates.split_first() else {
            return Err(TlsError::new("certificate", &"there is none"));
        };
        // Named here: rustls panics over its default once another crate enables a second provider.
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(files.min_version.and_newer())
            .map_err(|error| TlsError::new("min_version", &error))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match files.asks_for() {
                    Some(ClientCertificates::Optional) => verifier.allow_unauthenticated(),
                    Some(ClientCertificates::Required) | None => verifier,
                };
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| TlsError::verifier(&error))?,
                )
            }
        };
        let resolver = CertificateResolver::new(first, others);
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Tickets of before a reload are of no use after it: the authorities may be other ones.
        config.ticketer =
            ring::Ticketer::new().map_err(|error| TlsError::new("certificate", &error))?;
        let expiries = certificates.iter().map(|certificate| CertificateExpiry {
            file: certificate.file.clone(),
            at: certificate.valid.1,
            from: certificate.valid.0,
        });
        let own = certificates.iter().filter_map(|certificate| {
            let first = certificate.key.cert.first()?;
            Some(first.clone())
        });
        Ok(LoadedTls {
            files: Arc::new(files.clone()),
            versions,
            own: own.collect(),
            expiries: expiries.collect(),
            config: Arc::new(config),
        })
    }
}

/// The authorities in a PEM file.
fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |reason: &str| {
        let reason = format!("cannot read certificates from {}: {reason}", path.display());
        TlsError::new("client_ca", &reason)
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).map_err(|error| wrong(&plainly(&error)))? {
        let added = roots.add(certificate);
        added.map_err(|error| wrong(&error.to_string()))?;
    }
    Ok(roots)
}

/// The time in seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn file_versions(files: &TlsFields) -> FileVersions {
    let pairs = files.all().map(|(_, files)| [files.certificate, files.key]);
    let all = pairs.flatten().chain(files.client_ca.clone());
    let version = |path: PathBuf| {
        // Follows symbolic links: certbot and Kubernetes replace the link, and not the file.
        let metadata = std::fs::metadata(path).ok()?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        // With the inode: a file that is moved into place may have the old one's size and time.
        Some((metadata.ino(), metadata.len(), changed.0, changed.1))
    };
    all.map(version).collect()
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
