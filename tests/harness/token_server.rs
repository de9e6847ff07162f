//! A server of tokens as registries trust one: it checks a password, and signs tokens (JWT, ES256).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// For whom the tokens are.
const SERVICE: &str = "octoserve-tests";

/// Who issues them.
const ISSUER: &str = "octoserve-tests-tokens";

/// The longest request head.
const MAX_HEAD: usize = 64 << 10;

/// A server of tokens. Dropping it stops it.
pub struct TokenServer {
    address: SocketAddr,
    directory: TempDir,
    issued: Arc<Mutex<Vec<IssuedToken>>>,
    accepting: JoinHandle<()>,
}

/// A token that was issued.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The target of the request.
    pub target: String,
    /// The token.
    pub token: String,
}

/// What signs tokens.
struct Signer {
    key: KeyPair,
    /// The certificate of the key, in base64.
    certificate: String,
    /// What a request must have.
    authorization: &'static str,
    lifetime: u64,
}

impl TokenServer {
    /// Starts one for clients that send this `Authorization`. Its tokens are valid for so many seconds.
    ///
    /// # Errors
    /// If there is no port, or the certificate cannot be written.
    pub async fn start(authorization: &'static str, lifetime: u64) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-tokens-")?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["tokens.example".to_owned()])?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(directory.path().join("tokens.crt"), certificate.pem())?;
        let signer = Arc::new(Signer {
            key,
            certificate: STANDARD.encode(certificate.der()),
            authorization,
            lifetime,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let issued = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&issued);
        let accepting = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, Arc::clone(&signer), Arc::clone(&log)));
            }
        });
        Ok(Self {
            address,
            directory,
            issued,
            accepting,
        })
    }

    /// Where tokens are issued.
    pub fn realm(&self) -> String {
        format!("http://{}/auth/token", self.address)
    }

    /// The certificate that a registry has to trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("tokens.crt")
    }

    /// The part of docker-registry's configuration that trusts it.
    pub fn configuration(&self) -> String {
        format!(
            "auth: {{token: {{realm: '{}', service: '{SERVICE}', issuer: '{ISSUER}', \
             rootcertbundle: '{}'}}}}\n",
            self.realm(),
            self.certificate().display()
        )
    }

    /// The tokens that were issued so far.
    pub fn issued(&self) -> Vec<IssuedToken> {
        let issued = self.issued.lock();
        issued.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    signer: Arc<Signer>,
    log: Arc<Mutex<Vec<IssuedToken>>>,
) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the head has no end");
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.split(' ').nth(1).context("no target")?.to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    let (status, body) = if authorization == Some(signer.authorization) {
        let token = signer.token(&target)?;
        let body = json!({"token": token, "expires_in": signer.lifetime});
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(IssuedToken { target, token });
        ("200 OK", body.to_string())
    } else {
        ("401 Unauthorized", String::new())
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    Ok(stream.write_all(response.as_bytes()).await?)
}

impl Signer {
    /// A token for all that the target's query asks for.
    fn token(&self, target: &str) -> Result<String> {
        let url = reqwest::Url::parse(&format!("http://tokens{target}"))?;
        let scopes = url.query_pairs().filter(|(name, _)| name == "scope");
        let access: Vec<Value> = scopes
            .filter_map(|(_, scope)| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(json!({"type": kind, "name": name, "actions": actions}))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": "tester", "aud": SERVICE, "jti": "1", "iat": now,
            "nbf": now - 10, "exp": now + self.lifetime + 60, "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = fixed(&self.key.sign(signed.as_bytes())?)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// An ECDSA signature as JWT has it (RFC 7518 §3.4): two numbers of 32 bytes, which DER writes as integers.
fn fixed(der: &[u8]) -> Result<Vec<u8>> {
    let mut rest = der.get(2..).context("no sequence")?;
    let mut signature = Vec::with_capacity(64);
    for _ in 0..2 {
        let length = usize::from(*rest.get(1).context("no integer")?);
        let number = rest.get(2..2 + length).context("a short integer")?;
        // DER puts a zero before a number that would be negative, and leaves leading zeros out.
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        ensure!(number.len() <= 32, "too long a number");
        signature.extend(std::iter::repeat_n(0, 32 - number.len()));
        signature.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    Ok(signature)
}
