//! Handshakes that succeed, and the reasons of those that do not.

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::*;
use crate::net::{ClientError, GetRequest, HttpUrl};

/// An authority, and the directory of the files that it writes.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What trusts this authority.
    fn fields(&self) -> TlsClientFields {
        TlsClientFields {
            ca: Some(self.file("ca.crt", &self.issuer.pem())),
            ..TlsClientFields::default()
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// Sends a GET to a server with this certificate, and returns the status or the error.
async fn get(fields: &TlsClientFields, pair: &Pair, clients: Option<&Authority>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let provider = Arc::new(ring::default_provider());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(clients.roots(), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = builder
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let _ = stream.read(&mut [0; 1024]).await;
            let response = b"HTTP/1.1 204 No Content\r\n\r\n";
            let _ = stream.write_all(response).await;
            let _ = stream.shutdown().await;
        }
    };
    let (tls, _) = fields.load().unwrap();
    let url: HttpUrl = format!("https://localhost:{port}/").parse().unwrap();
    let request = GetRequest::from(url).with_tls(Some(tls));
    let ask = async {
        match request.send().await {
            Ok(response) => response.status().to_string(),
            Err(error @ ClientError::Tls(_)) => error.to_string(),
            Err(error) => format!("not of TLS: {error:?}"),
        }
    };
    tokio::join!(serve, ask).1
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_its_name() {
    let authority = Authority::new();
    let fields = authority.fields();
    let localhost = authority.sign("localhost", |_| {});
    assert_eq!(get(&fields, &localhost, None).await, "204 No Content");
    let other = authority.sign("registry.example", |_| {});
    let error = get(&fields, &other, None).await;
    let message = "is for registry.example, and not for localhost; ";
    assert!(error.contains(message), "{error}");
    let named = TlsClientFields {
        server_name: Some("registry.example".to_owned()),
        ..fields
    };
    assert_eq!(get(&named, &other, None).await, "204 No Content");
    let stranger = Authority::new().sign("registry.example", |_| {});
    let error = get(&named, &stranger, None).await;
    assert!(error.contains("known authority; set tls.ca"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_an_authority_are_refused() {
    let authority = Authority::new();
    let fields = authority.fields();
    let expired = authority.sign("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let error = get(&fields, &expired, None).await;
    assert!(error.contains("expired at 2001-01-01T00:00:00Z"), "{error}");
    let later = authority.sign("localhost", |params| {
        params.not_before = (SystemTime::now() + std::time::Duration::from_secs(100_000)).into();
    });
    let error = get(&fields, &later, None).await;
    assert!(error.contains("not valid before 20"), "{error}");
    let wrong = authority.sign("localhost", |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let error = get(&fields, &wrong, None).await;
    assert!(error.contains("CA:TRUE"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let authority = Authority::new();
    let fields = authority.fields();
    let server = authority.sign("localhost", |_| {});
    let error = get(&fields, &server, Some(&authority)).await;
    assert!(error.contains("asks for a client certificate"), "{error}");
    let ours = |signer: &Authority| {
        let pair = signer.sign("proxy", |_| {});
        TlsClientFields {
            certificate: Some(authority.file("own.crt", &pair.certificate)),
            key: Some(authority.file("own.key", &pair.key)),
            ..fields.clone()
        }
    };
    let response = get(&ours(&authority), &server, Some(&authority)).await;
    assert_eq!(response, "204 No Content");
    let error = get(&ours(&Authority::new()), &server, Some(&authority)).await;
    assert!(error.contains("refuses our client certificate"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_known_as_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    };
    let (tls, _) = Authority::new().fields().load().unwrap();
    let url: HttpUrl = format!("https://127.0.0.1:{port}").parse().unwrap();
    let request = GetRequest::from(url).with_tls(Some(tls));
    let ((), response) = tokio::join!(serve, request.send());
    let error = response.err().unwrap().to_string();
    assert!(error.contains("does not speak TLS"), "{error}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_of_the_right_key() {
    let authority = Authority::new();
    let fields = authority.fields();
    let (own, other) = (authority.sign("a", |_| {}), authority.sign("b", |_| {}));
    let certificate = Some(authority.file("own.crt", &own.certificate));
    let key = Some(authority.file("own.key", &own.key));
    let mismatch = Some(authority.file("other.key", &other.key));
    let empty = Some(authority.file("empty", ""));
    let none = Some(PathBuf::from("/no/file"));
    let wrong = |change: &dyn Fn(&mut TlsClientFields)| {
        let mut fields = fields.clone();
        change(&mut fields);
        let error = fields.load().err().unwrap();
        format!("{}: {error}", error.key)
    };
    let pair = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| {
        wrong(&|fields| {
            fields.certificate.clone_from(certificate);
            fields.key.clone_from(key);
        })
    };
    for (error, message) in [
        (
            wrong(&|fields| fields.ca.clone_from(&none)),
            "ca: cannot read a certificate from /no/file",
        ),
        (
            wrong(&|fields| fields.ca.clone_from(&empty)),
            "ca: cannot read a certificate from ",
        ),
        (
            wrong(&|fields| fields.server_name = Some("a b".into())),
            "server_name: `a b` is not",
        ),
        (pair(&certificate, &None), ": the key key is missing"),
        (pair(&None, &key), ": the key certificate is missing"),
        (pair(&empty, &key), "certificate: cannot read a certificate"),
        (pair(&certificate, &empty), "key: cannot read a private key"),
        (pair(&certificate, &mismatch), "key: the key in "),
    ] {
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn two_are_equal_that_trust_the_same_and_are_the_same() {
    let authority = Authority::new();
    let plain = authority.fields();
    let load = |fields: &TlsClientFields| fields.load().unwrap().0;
    let [first, second] = [1, 2].map(|at| {
        let pair = authority.sign("client", |_| {});
        TlsClientFields {
            certificate: Some(authority.file(&format!("{at}.crt"), &pair.certificate)),
            key: Some(authority.file(&format!("{at}.key"), &pair.key)),
            ..plain.clone()
        }
    });
    let named = TlsClientFields {
        server_name: Some("registry.example".to_owned()),
        ..plain.clone()
    };
    let stranger = Authority::new();
    let other = stranger.fields();
    let all = [&plain, &first, &second, &named, &other];
    for (at, fields) in all.iter().enumerate() {
        for (beside, others) in all.iter().enumerate() {
            assert_eq!(load(fields) == load(others), at == beside, "{at} {beside}");
        }
    }
}
