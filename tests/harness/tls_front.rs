//! TLS in front of a server that speaks plain HTTP: what it sends passes byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{HandshakeKind, RootCertStore, ServerConfig};

use crate::authority::{Authority, SignedCertificate};

/// TLS in front of a server. Dropping it closes its connections.
pub struct TlsFront {
    address: SocketAddr,
    resumed: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    /// Starts it with a certificate. Clients must have one of `clients`, if that is given.
    ///
    /// # Errors
    /// If a file cannot be read, or there is no port.
    pub async fn start(
        server: SocketAddr,
        certificate: &SignedCertificate,
        clients: Option<&Authority>,
    ) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(clients.path())?)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let chain = CertificateDer::from_pem_file(&certificate.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
        let config = builder.with_single_cert(vec![chain], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let resumed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&resumed);
        let accepting = tokio::spawn(async move {
            // The connections end with the task that accepts them.
            let mut serving = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(_) => return,
                    },
                    Some(_) = serving.join_next() => continue,
                };
                serving.spawn(pass(acceptor.clone(), stream, server, Arc::clone(&count)));
            }
        });
        Ok(Self {
            address,
            resumed,
            accepting,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many handshakes resumed an earlier session.
    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::Relaxed)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    server: SocketAddr,
    resumed: Arc<AtomicUsize>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut inside = acceptor.accept(stream).await?;
    if inside.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
        resumed.fetch_add(1, Ordering::Relaxed);
    }
    let mut plain = TcpStream::connect(server).await.context("no server")?;
    plain.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut inside, &mut plain).await?;
    Ok(())
}
