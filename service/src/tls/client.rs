//! TLS towards a server: whom we trust, and who we are to it.
//!
//! Deliberately not here: what is spoken inside.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::certificate::{Certificate, certificates, plainly};
use super::error::TlsError;
use super::fields::CertificateFields;
use super::validity::Validity;

const NO_ROOTS: &str = "this system has no certificates of authorities: install its package \
                        ca-certificates, or set this key to a file with the one that signed the \
                        server's certificate";

/// The keys of TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsClientFields {
    /// A PEM file: the authorities that may have signed the server's certificate; null: those that the
    /// system trusts.
    pub ca: Option<PathBuf>,
    /// A PEM file: octoserve's own certificate, for a server that asks for one.
    pub certificate: Option<PathBuf>,
    /// A PEM file: its private key.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have; null: the host of its URL.
    pub server_name: Option<String>,
}

/// TLS towards servers. Clones share the sessions that can be resumed.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    identity: TlsIdentity,
    /// When our own certificate is valid, if there is one.
    own: Option<Validity>,
}

/// A digest of the authorities that are trusted and of our own certificate.
type TlsIdentity = [u8; 32];

/// Whether they trust the same authorities and show the same certificate: a connection that one of them
/// made does for the other.
impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity && self.server_name == other.server_name
    }
}

impl Eq for TlsClient {}

impl TlsClientFields {
    /// Reads the files. Also returns the client for other servers, which trusts the same authorities,
    /// but shows them no certificate and takes them at their own names.
    pub fn load(&self) -> Result<(TlsClient, TlsClient), TlsError> {
        let roots = Arc::new(self.roots()?);
        let certificate = self.certificate()?;
        let of_others = identity(&roots, None);
        let of_own = identity(&roots, certificate.as_ref());
        let valid = certificate.as_ref().map(|own| Validity {
            from: own.valid.0,
            until: own.valid.1,
        });
        let builder = || {
            // Named here: rustls panics over its default once another crate enables a second provider.
            let provider = Arc::new(ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::new("", &error))?;
            Ok::<_, TlsError>(builder.with_root_certificates(Arc::clone(&roots)))
        };
        let own = match certificate {
            None => builder()?.with_no_client_auth(),
            Some(certificate) => {
                let key = SingleCertAndKey::from(certificate.key);
                builder()?.with_client_cert_resolver(Arc::new(key))
            }
        };
        let name = |name: &String| {
            let reason = format!("`{name}` is not a name that a certificate can have");
            let refused = |_| TlsError::new("server_name", &reason);
            ServerName::try_from(name.clone()).map_err(refused)
        };
        let server_name = self.server_name.as_ref().map(name).transpose()?;
        let others = builder()?.with_no_client_auth();
        Ok((
            TlsClient::new(own, server_name, of_own).with_own(valid),
            TlsClient::new(others, None, of_others),
        ))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            // One that cannot be read is no reason to trust none: the others may do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::new("ca", &NO_ROOTS));
            }
            return Ok(roots);
        };
        let all = certificates(path);
        let path = path.display();
        let all = all.map_err(|error| {
            let reason = plainly(&error);
            let reason = format!("cannot read a certificate from {path}: {reason}");
            TlsError::new("ca", &reason)
        })?;
        for certificate in all {
            roots.add(certificate).map_err(|error| {
                let reason = format!("a certificate in {path} cannot be an authority's: {error}");
                TlsError::new("ca", &reason)
            })?;
        }
        Ok(roots)
    }

    /// Our own certificate, if there is one.
    fn certificate(&self) -> Result<Option<Certificate>, TlsError> {
        let half = |missing: &str| {
            let reason = format!("the key {missing} is missing: a client certificate needs both");
            Err(TlsError::new("", &reason))
        };
        let files = match (&self.certificate, &self.key) {
            (None, None) => return Ok(None),
            (Some(_), None) => return half("key"),
            (None, Some(_)) => return half("certificate"),
            (Some(certificate), Some(key)) => CertificateFields {
                certificate: certificate.clone(),
                key: key.clone(),
            },
        };
        let certificate = Certificate::read("", &files)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        // A warning and no error: the upstream decides, and may be served without it.
        if !(certificate.valid.0..=certificate.valid.1).contains(&now) {
            tracing::warn!(
                certificate = %files.certificate.display(),
                "our client certificate is not valid now: make a new one, or set this machine's clock"
            );
        }
        Ok(Some(certificate))
    }
}

fn identity(roots: &RootCertStore, own: Option<&Certificate>) -> TlsIdentity {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        // With its length, so that two parts do not run into each other.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    for root in &roots.roots {
        add(&root.subject);
        add(&root.subject_public_key_info);
    }
    // The key is the one that the certificate is made for.
    for certificate in own.iter().flat_map(|own| &own.key.cert) {
        add(certificate);
    }
    digest.finalize().into()
}

impl TlsClient {
    fn new(
        mut config: ClientConfig,
        server_name: Option<ServerName<'static>>,
        identity: TlsIdentity,
    ) -> Self {
        // The only protocol that is spoken to servers.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            config: Arc::new(config),
            server_name,
            identity,
            own: None,
        }
    }

    fn with_own(mut self, own: Option<Validity>) -> Self {
        self.own = own;
        self
    }

    /// When our own certificate is valid, if a server can ask for one.
    pub fn own_validity(&self) -> Option<Validity> {
        self.own
    }

    /// For a listener of this program's own, whose certificate is known.
    pub(super) fn of_own(config: ClientConfig) -> Self {
        // It is compared with no other one.
        let identity = TlsIdentity::default();
        Self::new(config, ServerName::try_from("localhost").ok(), identity)
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

#[cfg(test)]
mod tests;
