//! A registry for one test, and a client that sends exactly the given bytes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::RegistryConfig;
use crate::metrics::storage::Backend;
use crate::oci::{Algorithm, Digest};
use crate::server::{self, BoundRegistry};
use crate::store::Store;
use crate::store::fs::Durability;
use service::config::{ByteSize, Flag, Sources};
use service::listen::ListenAddr;
use service::program::Server as _;
use service::program_config::Configuration as _;
use service::shutdown::{Shutdown, Trigger};

/// The deadline of everything that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The media type of an image manifest.
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that serves until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    data: TempDir,
    stop: Trigger,
    served: JoinHandle<bool>,
}

/// A connection to a registry.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    /// Starts a registry with a changed configuration.
    pub(crate) async fn configured(change: impl FnOnce(&mut RegistryConfig)) -> Self {
        let (mut config, data) = configuration();
        change(&mut config);
        Self::serve(server::bind(config).await.unwrap(), data)
    }

    /// Starts a registry over the given store, which the metrics call `memory`.
    pub(crate) async fn over(store: impl Store) -> Self {
        let (config, data) = configuration();
        let bound = server::bind_store(config, store, Backend::Memory).await;
        Self::serve(bound.unwrap(), data)
    }

    fn serve<S: Store>(bound: BoundRegistry<S>, data: TempDir) -> Self {
        let (stop, shutdown) = Shutdown::new();
        Self {
            address: tcp(&bound.addresses()[0]),
            metrics: tcp(bound.metrics_address().unwrap()),
            data,
            stop,
            served: tokio::spawn(bound.serve(shutdown)),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends one request on a new connection.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> TestResponse {
        self.client().await.ask(method, target, headers, body).await
    }

    pub(crate) async fn get(&self, target: &str) -> TestResponse {
        self.ask("GET", target, &[], b"").await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.ask("POST", &target, &[], content).await.expect(201);
        digest
    }

    /// Opens an upload session, and returns its location.
    pub(crate) async fn open(&self, name: &str) -> String {
        let target = format!("/v2/{name}/blobs/uploads/");
        let response = self.ask("POST", &target, &[], b"").await.expect(202);
        response.header("location").to_owned()
    }

    /// Pushes an image and its blobs by tag.
    pub(crate) async fn push_image(&self, name: &str, tag: &str) -> (Digest, Vec<u8>) {
        let manifest = self.image(name, "").await;
        let target = format!("/v2/{name}/manifests/{tag}");
        let headers = [("content-type", IMAGE)];
        self.ask("PUT", &target, &headers, &manifest)
            .await
            .expect(201);
        (Digest::of(Algorithm::Sha256, &manifest), manifest)
    }

    /// Pushes the blobs of an image, and returns its manifest, with more fields.
    pub(crate) async fn image(&self, name: &str, fields: &str) -> Vec<u8> {
        let config = self.push_blob(name, b"{}").await;
        let layer = self.push_blob(name, b"layer").await;
        image(&config, &layer, fields)
    }

    /// Every file of the store except its lock.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        list(&self.directory(), &mut files);
        files.retain(|file| !file.ends_with("lock"));
        files
    }

    /// The store's directory.
    pub(crate) fn directory(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// The number of series of requests and of store operations in the exposition.
    pub(crate) async fn series(&self) -> usize {
        let exposition = Client::connect(self.metrics)
            .await
            .ask("GET", "/metrics", &[], b"")
            .await;
        let labels = ["endpoint=", "operation="];
        let is_counted = |line: &&str| labels.iter().any(|label| line.contains(label));
        exposition.text().lines().filter(is_counted).count()
    }

    /// A request in flight: five of ten bytes are sent to a session.
    pub(crate) async fn half_sent(&self, location: &str) -> Client {
        let mut client = self.client().await;
        client
            .send(format!(
                "PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
                 expect: 100-continue\r\n\r\n"
            ))
            .await;
        client.response().await.expect(100);
        client.send("01234").await;
        client
    }

    /// Starts the shutdown.
    pub(crate) fn stop(&self) {
        self.stop.trigger();
    }

    /// Waits until the registry has stopped. Returns whether every request could end.
    pub(crate) async fn stopped(self) -> bool {
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .unwrap()
            .unwrap()
    }

    /// The value of a sample of the exposition.
    pub(crate) async fn sample(&self, series: &str) -> Option<f64> {
        let exposition = Client::connect(self.metrics)
            .await
            .ask("GET", "/metrics", &[], b"")
            .await;
        let exposition = String::from_utf8(exposition.body).unwrap();
        let line = exposition
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// Waits until a sample has a value: a request is counted only after its response is read.
    pub(crate) async fn wait_for(&self, series: &str, value: f64) {
        let reached = async {
            while self.sample(series).await != Some(value) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        assert!(reached.is_ok(), "{series} never became {value}");
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request, and returns the response. Adds a `Content-Length` if there is no framing.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> TestResponse {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: registry\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        let framing = ["content-length", "transfer-encoding"];
        let framed = headers.iter().any(|(name, _)| framing.contains(name));
        if !framed && (!body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method)) {
            write!(request, "content-length: {}\r\n", body.len()).unwrap();
        }
        request += "\r\n";
        self.send([request.as_bytes(), body].concat()).await;
        self.response_to(method).await
    }

    pub(crate) async fn response(&mut self) -> TestResponse {
        self.response_to("GET").await
    }

    async fn response_to(&mut self, method: &str) -> TestResponse {
        let end = loop {
            if let Some(end) = self
                .read
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end;
            }
            assert!(
                self.more().await,
                "closed without a response: {:?}",
                self.text()
            );
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status: u16 = lines.next().unwrap()[9..12].parse().unwrap();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let headers: HeaderMap = fields
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let length = headers
            .get("content-length")
            .map_or("0", |length| length.to_str().unwrap());
        let length: usize = match (method, status) {
            ("HEAD", _) | (_, 100 | 204 | 304) => 0,
            _ => length.parse().unwrap(),
        };
        while self.read.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        TestResponse {
            status,
            headers,
            body: self.read.drain(..length).collect(),
        }
    }

    /// Whether the registry closes the connection without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    /// Reads more bytes. Returns false at the end of the connection.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read);
        matches!(tokio::time::timeout(DEADLINE, read).await.unwrap(), Ok(1..))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

impl TestResponse {
    /// Checks the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Checks the status and the error's code.
    #[track_caller]
    pub(crate) fn rejected(self, status: u16, code: &str) -> Self {
        assert!(
            self.text().contains(&format!("\"code\":\"{code}\"")),
            "{}",
            self.text()
        );
        self.expect(status)
    }

    /// A header's value; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A configuration with ports of the kernel's choice, and its data directory.
fn configuration() -> (RegistryConfig, TempDir) {
    let data = tempfile::tempdir().unwrap();
    let flags = ["listen", "metrics.listen"].map(|key| Flag::new(key, key, "127.0.0.1:0"));
    let sources = Sources {
        flags: flags.into(),
        ..Sources::default()
    };
    let (mut config, _) = RegistryConfig::load(sources).unwrap();
    config.storage.data = data.path().join("data");
    config.storage.durability = Durability::Relaxed;
    // The tests must pass on an almost full disk.
    config.storage.reserve = ByteSize::bytes(0);
    (config, data)
}

/// An image manifest, with more fields (each beginning with a comma).
pub(crate) fn image(config: &Digest, layer: &Digest, fields: &str) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":5}}]
        {fields}}}"#
    )
    .into_bytes()
}

fn tcp(address: &ListenAddr) -> SocketAddr {
    match address {
        ListenAddr::Tcp(address) => *address,
        ListenAddr::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}
