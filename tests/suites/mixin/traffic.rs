//! What the dashboards show: two processes under traffic of every kind, with trouble of every kind.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use harness::certificate::Certificate;
use harness::client::{Client, INDEX, MANIFEST, descriptor};
use harness::content;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::scripted::{Caller, Scripted};
use harness::source::Source;
use harness::wire::{self, Wire};
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const ZOT: &str = include_str!("zot.txt");
const HARBOR: &str = include_str!("harbor.txt");

/// The sources that the proxy merges, beside the registry that is embedded in the other process.
pub(super) const SOURCES: [&str; 3] = ["distribution", "harbor", "zot"];

/// Larger than all socket buffers on its way.
const LARGE: u64 = 12 << 20;

/// The all-in-one with a certificate, and a proxy in front of docker-registry, of a registry that redirects and
/// limits, and of one that is gone.
pub(super) struct TrafficScene {
    pub(super) embedded: Server,
    pub(super) proxy: Server,
    configuration: String,
    round: u64,
    _registry: ForeignRegistry,
    _hub: Scripted,
    _sources: Vec<Source>,
    _certificate: Certificate,
}

impl TrafficScene {
    pub(super) async fn start() -> Result<Self> {
        let certificate = Certificate::new()?;
        let configuration = format!(
            "listen: [{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', tls: {}}}]\n\
             metrics: {{listen: '127.0.0.1:0', repositories: {{limit: 2}}}}\n\
             registry: {{scrub: {{schedule: 1s}}}}\n",
            certificate.keys()
        );
        let embedded = Launch::all_in_one()
            .configuration(&configuration)
            .listens_as_configured()
            .announces_metrics();
        let debug = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let registry = ForeignRegistry::start_with_metrics(debug).await?;
        let hub = Scripted::start(hub).await?;
        let sources = vec![moving(ZOT).await?, moving(HARBOR).await?];
        let proxy = Launch::configured(&format!(
            "upstreams:\n\
             - {{name: gone, match: {{prefixes: [gone]}}, replicas: ['http://127.0.0.1:1']}}\n\
             - {{name: hub, match: {{prefixes: [hub]}}, replicas: ['{}']}}\n\
             - name: main\n  replicas: ['{}']\n  metrics:\n\
             \x20 - {{source: distribution, url: 'http://{debug}/metrics'}}\n\
             \x20 - {{source: zot, url: '{}'}}\n\
             \x20 - {{source: harbor, url: '{}'}}\n",
            hub.url(),
            registry.url(),
            sources[0].url(),
            sources[1].url()
        ));
        Ok(Self {
            embedded: embedded.start().await?,
            proxy: proxy.start().await?,
            configuration,
            round: 0,
            _registry: registry,
            _hub: hub,
            _sources: sources,
            _certificate: certificate,
        })
    }

    /// Everything that the panels show, once.
    pub(super) async fn traffic(&mut self) -> Result<()> {
        self.round += 1;
        for server in [&self.embedded, &self.proxy] {
            let client = Client::new(&server.url(""))?;
            images(&client, self.round).await?;
            uploads(&client, server, self.round).await?;
            large(&client, server, self.round).await?;
        }
        self.trouble().await?;
        // Applied, and then refused, which is an alert.
        self.embedded.configure(&self.configuration)?;
        ensure!(self.embedded.reload().await?, "the reload is refused");
        self.embedded.configure("unknown: 1\n")?;
        ensure!(!self.embedded.reload().await?, "the reload is applied");
        Ok(())
    }

    /// An upstream that is gone, one that redirects, refuses credentials and breaks off.
    async fn trouble(&self) -> Result<()> {
        let client = Client::new(&self.proxy.url(""))?;
        let response = client.get("/v2/gone/app/manifests/1").await?;
        assert_eq!(response.status(), 502);
        let blob = format!("/v2/hub/app/blobs/{}", content::digest(b"elsewhere"));
        assert_eq!(client.get(&blob).await?.status(), 307);
        let path = "/v2/hub/app/manifests/1";
        let guess = [("Authorization", "Basic YTpi")];
        let refused = client.send(Method::GET, path, &guess, "").await?;
        assert_eq!(refused.status(), 401);
        // The scripted registry closes in the middle of the body.
        let cut = client.get("/v2/hub/app/tags/list").await?;
        ensure!(
            cut.bytes().await.is_err(),
            "a response that was cut is whole"
        );
        Ok(())
    }
}

/// An exposition whose counters have moved each time that it is read.
async fn moving(exposition: &'static str) -> Result<Source> {
    let times = Arc::new(AtomicUsize::new(0));
    Source::scripted(move |mut stream| {
        let times = times.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let mut body = String::new();
            for line in exposition.lines() {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                let suffixes = ["_total", "_bucket", "_sum", "_count"];
                let moves = suffixes.iter().any(|suffix| name.ends_with(suffix));
                match line.rsplit_once(' ') {
                    Some((series, value)) if moves && !line.starts_with('#') => {
                        let value: f64 = value.parse()?;
                        let times = u32::try_from(times)?;
                        writeln!(body, "{series} {}", value * f64::from(times))?;
                    }
                    _ => writeln!(body, "{line}")?,
                }
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            stream.write_all((head + &body).as_bytes()).await.ok();
            stream.shutdown().await.ok();
            Ok(())
        }
    })
    .await
}

/// A hosted registry: it limits, redirects blobs, refuses credentials, and breaks off.
async fn hub(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        let (status, more) = if head.contains("/blobs/") {
            (
                "307 Temporary Redirect",
                "Location: http://127.0.0.1:1/x\r\n",
            )
        } else if head.to_ascii_lowercase().contains("\r\nauthorization:") {
            (
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"hub\"\r\n",
            )
        } else {
            let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
            return caller.send(cut).await;
        };
        let limit = "RateLimit-Remaining: 76;w=21600\r\nContent-Length: 0\r\n\r\n";
        caller
            .send(format!("HTTP/1.1 {status}\r\n{more}{limit}"))
            .await?;
    }
}

/// Pushes, pulls, an index, a tag that moves, and what is not there.
async fn images(client: &Client, round: u64) -> Result<()> {
    let seeds = [round * 10, round * 10 + 1];
    for repository in ["team/app", "team/web", "team/third"] {
        let pushed = client.push_image(repository, "1", &seeds).await?;
        let mut entry = descriptor(MANIFEST, pushed.manifest.as_bytes());
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
        client
            .push_manifest(repository, "all", INDEX, &index.to_string())
            .await?;
        for _ in 0..3 {
            client.pull_image(repository, "1").await?;
            client
                .read(&format!("/v2/{repository}/manifests/all"))
                .await?;
        }
        let path = format!("/v2/{repository}/manifests/1");
        client
            .send(Method::HEAD, &path, &[("Accept", MANIFEST)], "")
            .await?;
        assert_eq!(
            client
                .get(&format!("/v2/{repository}/manifests/nope"))
                .await?
                .status(),
            404
        );
        let missing = content::digest(b"missing");
        let missing = client
            .get(&format!("/v2/{repository}/blobs/{missing}"))
            .await?;
        assert_eq!(missing.status(), 404);
        client.read(&format!("/v2/{repository}/tags/list")).await?;
        let mount = format!(
            "/v2/{repository}/blobs/uploads/?mount={}&from=team/app",
            pushed.layers[0]
        );
        client.send(Method::POST, &mount, &[], "").await?;
    }
    let agent = [("User-Agent", "containerd/2.1.4")];
    client.send(Method::GET, "/v2/", &agent, "").await?;
    Ok(())
}

/// Uploads that stay open, are cancelled, or end with another digest than promised.
async fn uploads(client: &Client, server: &Server, round: u64) -> Result<()> {
    let location = client.open_upload("team/app").await?;
    let octets = [("Content-Type", "application/octet-stream")];
    let chunk = client
        .send(Method::PATCH, &location, &octets, vec![1; 1024])
        .await?;
    assert_eq!(chunk.status(), 202);
    let cancelled = client.open_upload("team/app").await?;
    client.send(Method::DELETE, &cancelled, &[], "").await?;
    let wrong = client.open_upload("team/app").await?;
    let joint = if wrong.contains('?') { '&' } else { '?' };
    let wrong = format!(
        "{wrong}{joint}digest={}",
        content::digest(b"something else")
    );
    let refused = client
        .send(Method::PUT, &wrong, &octets, vec![2; 1024])
        .await?;
    ensure!(refused.status().is_client_error(), "{}", refused.status());
    // A client that leaves while it sends.
    let location = client.open_upload("team/app").await?;
    let path = location.strip_prefix(&server.url("")).unwrap_or(&location);
    let mut leaving = Wire::connect(server.address()).await?;
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n{round}",
        server.host()
    );
    leaving.send(head.as_bytes()).await?;
    Ok(())
}

/// A blob whose speed counts, and a client that leaves while it reads it.
async fn large(client: &Client, server: &Server, round: u64) -> Result<()> {
    let bytes = content::bytes(1000 + round, LARGE);
    let digest = client.push_blob("team/app", &bytes).await?;
    let path = format!("/v2/team/app/blobs/{digest}");
    let read = client.read(&path).await?;
    ensure!(read.len() == bytes.len(), "{} bytes", read.len());
    let mut leaving = Wire::connect(server.address()).await?;
    leaving.send(&wire::request("GET", &path, &[], b"")).await?;
    let head = leaving.head().await.context("no head")?;
    assert_eq!(head.status, 200);
    Ok(())
}
