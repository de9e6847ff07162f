//! Certificates that are loaded, changed and wrong.

use std::fs;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig};

use super::*;
use crate::listen::{ListenAddr, Listener};

const HTTP1: &[&[u8]] = &[b"http/1.1"];

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
            certificates: Vec::new(),
            client_ca: None,
            client_certificates: None,
            min_version: TlsVersion::Tls12,
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
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
    assert!(is_trusted(&tls, &certificate).await);
    let other = Files::new().renew();
    assert!(!is_trusted(&tls, &other).await);
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let files = Files::new();
    let first = files.renew();
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
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

#[tokio::test]
async fn another_ones_files_are_used_and_watched_once_they_replace_its_own() {
    let (before, after) = (Files::new(), Files::new());
    let first = before.renew();
    let tls = Tls::load(&before.fields, HTTP1).unwrap();
    let (stop, shutdown) = Shutdown::new();
    let watching = tokio::spawn(tls.clone().watch(shutdown));
    let second = after.renew();
    tls.replace(&Tls::load(&after.fields, HTTP1).unwrap());
    assert!(is_trusted(&tls, &second).await);
    assert!(!is_trusted(&tls, &first).await);
    assert_eq!(tls.expiries()[0].file, after.fields.certificate);
    before.renew();
    let third = after.renew();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_trusted(&tls, &third).await {
        assert!(tokio::time::Instant::now() < deadline, "never loaded");
        tokio::task::yield_now().await;
    }
    stop.trigger();
    watching.await.unwrap();
}

/// What both ends of a handshake say of it.
async fn shake(
    tls: &Tls,
    client: ClientConfig,
    name: &'static str,
) -> (Result<CertificateDer<'static>, String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from(name).unwrap();
    let acceptor = TlsAcceptor::from(tls.config());
    let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let near = near.map(|stream| {
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        certificates[0].clone()
    });
    let words = |error: io::Error| match error.downcast() {
        Ok(error) => client_failure(&codec::HandshakeError::Refused(error)),
        Err(error) => error.to_string(),
    };
    (near.map_err(words), far.map(|_| ()).map_err(words))
}

/// A client that trusts these, and has this certificate.
fn client(
    trusted: &[&CertificateDer<'static>],
    own: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = own.signing_key.serialize_der().try_into().unwrap();
            let chain = vec![own.cert.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

fn made(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap()
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let mut files = Files::new();
    let first = files.renew();
    let others = ["a.example", "*.b.example"].map(made);
    for (at, other) in others.iter().enumerate() {
        let path = |kind: &str| files.directory.path().join(format!("{at}.{kind}"));
        fs::write(path("crt"), other.cert.pem()).unwrap();
        fs::write(path("key"), other.signing_key.serialize_pem()).unwrap();
        files.fields.certificates.push(CertificateFields {
            certificate: path("crt"),
            key: path("key"),
        });
    }
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
    assert_eq!(tls.expiries().len(), 3);
    let trusted = [&first, others[0].cert.der(), others[1].cert.der()];
    for (name, expected) in [
        ("localhost", Some(&first)),
        ("a.example", Some(trusted[1])),
        ("A.Example", Some(trusted[1])),
        ("x.b.example", Some(trusted[2])),
        // They get the first, which is not theirs.
        ("b.example", None),
        ("x.y.b.example", None),
        ("127.0.0.1", None),
    ] {
        let (got, _) = shake(&tls, client(&trusted, None, rustls::ALL_VERSIONS), name).await;
        assert_eq!(got.as_ref().ok(), expected, "{name}: {got:?}");
    }
}

#[tokio::test]
async fn a_client_has_a_certificate_where_one_is_required() {
    let mut files = Files::new();
    let server = files.renew();
    let (known, unknown) = (made("client"), made("other"));
    let ca = files.directory.path().join("ca.crt");
    fs::write(&ca, known.cert.pem()).unwrap();
    files.fields.client_ca = Some(ca);
    let required = Tls::load(&files.fields, HTTP1).unwrap();
    assert!(required.requires_client_certificates());
    files.fields.client_certificates = Some(ClientCertificates::Optional);
    let optional = Tls::load(&files.fields, HTTP1).unwrap();
    assert!(!optional.requires_client_certificates());
    for (tls, own, refused) in [
        (&required, Some(&known), None),
        (&required, None, Some("has no certificate")),
        (
            &required,
            Some(&unknown),
            Some("no authority in tls.client_ca"),
        ),
        (&optional, Some(&known), None),
        (&optional, None, None),
        (
            &optional,
            Some(&unknown),
            Some("no authority in tls.client_ca"),
        ),
    ] {
        let client = client(&[&server], own, rustls::ALL_VERSIONS);
        let (_, accepted) = shake(tls, client, "localhost").await;
        match (accepted, refused) {
            (Ok(()), None) => {}
            (Err(error), Some(refused)) => assert!(error.contains(refused), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn client_certificates_need_an_authority() {
    let mut files = Files::new();
    files.renew();
    for kind in [ClientCertificates::Required, ClientCertificates::Optional] {
        files.fields.client_certificates = Some(kind);
        let error = Tls::load(&files.fields, HTTP1).unwrap_err();
        assert_eq!(error.key, "client_certificates");
    }
}

#[tokio::test]
async fn an_older_version_than_the_minimum_is_refused() {
    let mut files = Files::new();
    let server = files.renew();
    let old = || client(&[&server], None, &[&rustls::version::TLS12]);
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
    assert_eq!(shake(&tls, old(), "localhost").await.1, Ok(()));
    files.fields.min_version = TlsVersion::Tls13;
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
    let refused = shake(&tls, old(), "localhost").await.1.unwrap_err();
    assert!(refused.contains("nothing in common"), "{refused}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_known_by_its_alert() {
    let files = Files::new();
    files.renew();
    let tls = Tls::load(&files.fields, HTTP1).unwrap();
    let refused = shake(&tls, client(&[], None, rustls::ALL_VERSIONS), "localhost").await;
    let refused = refused.1.unwrap_err();
    assert!(refused.contains("does not trust"), "{refused}");
}

#[tokio::test]
async fn a_listeners_own_client_trusts_it_and_nobody_else() {
    let (ours, theirs) = (Files::new(), Files::new());
    ours.renew();
    theirs.renew();
    let ours = Tls::load(&ours.fields, HTTP1).unwrap();
    let theirs = Tls::load(&theirs.fields, HTTP1).unwrap();
    let client = ours.client().unwrap();
    for (server, trusts) in [(&ours, true), (&theirs, false)] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let acceptor = TlsAcceptor::from(server.config());
        let (near, _far) = tokio::join!(client.connect("any.host", near), acceptor.accept(far));
        assert_eq!(near.is_ok(), trusts);
    }
}

#[test]
fn what_is_wrong_names_its_file() {
    let files = Files::new();
    let load_error = || {
        let error = Tls::load(&files.fields, HTTP1).unwrap_err();
        (error.key.clone(), error.to_string())
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
    files.replace(
        &files.fields.key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let (key, text) = load_error();
    assert_eq!(key, "key");
    assert!(text.contains("passphrase"), "{text}");
    fs::remove_file(&files.fields.key).unwrap();
    fs::create_dir(&files.fields.key).unwrap();
    let (_, text) = load_error();
    assert!(text.contains("not a regular file"), "{text}");
    fs::remove_dir(&files.fields.key).unwrap();
    let (key, text) = load_error();
    assert_eq!(key, "key");
    assert!(text.contains("tls.key"), "{text}");
    let other = Files::new();
    other.renew();
    files.renew();
    fs::copy(&other.fields.key, &files.fields.key).unwrap();
    assert_eq!(load_error().0, "key");
}
