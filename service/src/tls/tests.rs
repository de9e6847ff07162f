//! Certificates that are loaded, changed and wrong.

use std::fs;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::listen::{ListenAddr, Listener};

/// Files of a certificate, and what is in them.
struct Files {
    directory: TempDir,
    fields: TlsFields,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fields = TlsFields {
            certificate: directory.path().join("tls.crt"),
            key: directory.path().join("tls.key"),
        };
        Self { directory, fields }
    }

    /// Makes a certificate, and returns it as a client would have to trust it.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        self.replace(&self.fields.certificate, &made.cert.pem());
        self.replace(&self.fields.key, &made.signing_key.serialize_pem());
        made.cert.der().clone()
    }

    fn replace(&self, path: &Path, text: &str) {
        let beside = self.directory.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }
}

/// Whether a client that trusts only this certificate gets a response.
async fn is_trusted(tls: &Tls, certificate: &CertificateDer<'static>) -> bool {
    let address = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
    let mut listener = Listener::bind(&address).await.unwrap();
    let ListenAddr::Tcp(address) = *listener.address() else {
        panic!("not TCP")
    };
    let serve = async {
        let (stream, _) = listener.accept().await;
        if let Ok(mut stream) = tls.accept(stream).await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    };
    let ask = async {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.ok()?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.ok()?;
        Some(heard)
    };
    let ((), heard) = tokio::join!(serve, ask);
    heard.as_deref() == Some("hello")
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_gets_in() {
    let files = Files::new();
    let certificate = files.renew();
    let tls = Tls::load(&files.fields).unwrap();
    assert!(is_trusted(&tls, &certificate).await);
    let other = Files::new().renew();
    assert!(!is_trusted(&tls, &other).await);
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let files = Files::new();
    let first = files.renew();
    let tls = Tls::load(&files.fields).unwrap();
    let (stop, shutdown) = Shutdown::new();
    let watching = tokio::spawn(tls.clone().watch(shutdown));
    // Which of the two that there may be a handshake gets.
    let second = files.renew();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_trusted(&tls, &second).await {
        assert!(tokio::time::Instant::now() < deadline, "never loaded");
        tokio::task::yield_now().await;
    }
    assert!(!is_trusted(&tls, &first).await);
    stop.trigger();
    watching.await.unwrap();

    files.replace(&files.fields.key, "no key at all\n");
    tls.reload().await;
    assert!(is_trusted(&tls, &second).await);
    files.renew();
    let other = Files::new();
    other.renew();
    let key = fs::read_to_string(&other.fields.key).unwrap();
    files.replace(&files.fields.key, &key);
    tls.reload().await;
    assert!(is_trusted(&tls, &second).await);
}

#[test]
fn what_is_wrong_names_its_file() {
    let files = Files::new();
    let load_error = || {
        let error = Tls::load(&files.fields).unwrap_err();
        (error.key(), error.to_string())
    };
    let (key, text) = load_error();
    assert_eq!(key, "certificate");
    assert!(text.contains("tls.crt"), "{text}");
    files.renew();
    files.replace(&files.fields.certificate, "nothing\n");
    let (key, text) = load_error();
    assert_eq!(key, "certificate");
    assert!(text.contains("there is none in it"), "{text}");
    files.renew();
    fs::remove_file(&files.fields.key).unwrap();
    let (key, text) = load_error();
    assert_eq!(key, "key");
    assert!(text.contains("tls.key"), "{text}");
    let other = Files::new();
    other.renew();
    files.renew();
    fs::copy(&other.fields.key, &files.fields.key).unwrap();
    assert_eq!(load_error().0, "key");
}
