//! The metrics add up: they equal what sixteen concurrent clients observed, request by request and
//! byte by byte, whether their transfers ended or not. After a storm of aborts, no request is
//! counted as in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::client::{Client, MANIFEST, descriptor};
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::Wire;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Front;

const DEADLINE: Duration = Duration::from_secs(20);
const CLIENTS: u64 = 16;
const TURNS: usize = 25;
const CONFIG: &[u8] = b"{\"architecture\":\"amd64\",\"os\":\"linux\"}";
/// The digest of a blob that does not exist.
const MISSING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// What the exposition must contain: the sums of series, by family and labels.
#[derive(Default)]
struct ExpectedCounts(BTreeMap<(&'static str, Labels), u64>);

type Labels = Vec<(&'static str, String)>;

impl ExpectedCounts {
    fn add(&mut self, family: &'static str, labels: &[(&'static str, &str)], count: u64) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        *self.0.entry((family, labels.collect())).or_default() += count;
    }

    fn join(&mut self, other: Self) {
        for (series, count) in other.0 {
            *self.0.entry(series).or_default() += count;
        }
    }

    /// Waits until the exposition has the same sums.
    async fn check(&self, server: &Server) -> Result<()> {
        for ((family, labels), count) in &self.0 {
            if *count == 0 {
                continue;
            }
            let mut series = metric(&format!("octoserve_{family}"));
            for (name, value) in labels {
                series = series.label(name, value);
            }
            let count = u32::try_from(*count)?;
            series.value(count).assert_in(server).await?;
        }
        Ok(())
    }
}

/// A client, its random numbers, and the counts that its requests must cause.
struct CountedClient {
    client: Client,
    server: std::net::SocketAddr,
    dice: StdRng,
    name: String,
    seen: ExpectedCounts,
    blobs: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_session_and_mount_of_sixteen_clients_is_counted() -> Result<()> {
    let front = Front::embedded().await?;
    // One task runs all clients concurrently, since they mostly wait for responses.
    let clients = (0..CLIENTS).map(async |number| {
        let mut client = CountedClient {
            client: Client::new(&front.server.url(""))?,
            server: front.server.address(),
            dice: StdRng::seed_from_u64(number),
            name: format!("team/{number}"),
            seen: ExpectedCounts::default(),
            blobs: number << 32,
        };
        for _ in 0..TURNS {
            client.play().await?;
        }
        anyhow::Ok(client.seen)
    });
    let mut all = ExpectedCounts::default();
    for seen in try_join_all(clients).await? {
        all.join(seen);
    }
    all.check(&front.server).await?;
    for gauge in ["http_requests_in_flight", "upload_sessions_active"] {
        let gauge = metric(&format!("octoserve_{gauge}"));
        gauge.value(0).assert_in(&front.server).await?;
    }
    Ok(())
}

impl CountedClient {
    async fn play(&mut self) -> Result<()> {
        match self.dice.random_range(0..9) {
            0 => self.push_whole().await.map(drop),
            1 => self.push_in_parts().await,
            2 => self.push_and_pull_an_image().await,
            3 => self.give_up_an_upload().await,
            4 => self.commit_what_was_not_sent().await,
            5 => self.mount().await,
            6 => self.mount_what_is_missing().await,
            7 => self.leave_in_the_midst_of_an_upload().await,
            _ => self.ask_for_what_is_missing().await,
        }
    }

    async fn push_whole(&mut self) -> Result<(String, Vec<u8>)> {
        let blob = self.blob();
        let digest = content::digest(&blob);
        let location = self.start().await?;
        let commit = format!("{location}?digest={digest}");
        self.send(Method::PUT, &commit, blob.clone(), 201).await?;
        self.blob_operation("push", "ok");
        self.session("completed");
        Ok((digest, blob))
    }

    async fn push_in_parts(&mut self) -> Result<()> {
        let blob = self.blob();
        let location = self.start().await?;
        for part in blob.chunks(blob.len() / 2 + 1) {
            self.send(Method::PATCH, &location, part.to_vec(), 202)
                .await?;
        }
        let commit = format!("{location}?digest={}", content::digest(&blob));
        self.send(Method::PUT, &commit, vec![], 201).await?;
        self.blob_operation("push", "ok");
        self.session("completed");
        Ok(())
    }

    async fn push_and_pull_an_image(&mut self) -> Result<()> {
        let (_, layer) = self.push_whole().await?;
        let location = self.start().await?;
        let commit = format!("{location}?digest={}", content::digest(CONFIG));
        self.send(Method::PUT, &commit, CONFIG.to_vec(), 201)
            .await?;
        self.blob_operation("push", "ok");
        self.session("completed");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", CONFIG),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string();
        let digest = content::digest(manifest.as_bytes());
        let by_tag = format!("/v2/{}/manifests/1", self.name);
        let by_digest = format!("/v2/{}/manifests/{digest}", self.name);
        self.send(Method::PUT, &by_tag, manifest.into_bytes(), 201)
            .await?;
        self.manifest_operation("push", "tag");
        for (path, reference) in [(&by_tag, "tag"), (&by_digest, "digest")] {
            self.send(Method::HEAD, path, vec![], 200).await?;
            self.manifest_operation("resolve", reference);
            self.send(Method::GET, path, vec![], 200).await?;
            self.manifest_operation("pull", reference);
        }
        let blob = format!("/v2/{}/blobs/{}", self.name, content::digest(&layer));
        self.send(Method::HEAD, &blob, vec![], 200).await?;
        self.blob_operation("head", "ok");
        self.send(Method::GET, &blob, vec![], 200).await?;
        self.blob_operation("pull", "ok");
        Ok(())
    }

    async fn give_up_an_upload(&mut self) -> Result<()> {
        let location = self.start().await?;
        let part = self.blob();
        self.send(Method::PATCH, &location, part, 202).await?;
        self.send(Method::GET, &location, vec![], 204).await?;
        self.send(Method::DELETE, &location, vec![], 204).await?;
        self.session("cancelled");
        Ok(())
    }

    async fn commit_what_was_not_sent(&mut self) -> Result<()> {
        let location = self.start().await?;
        let blob = self.blob();
        let commit = format!("{location}?digest={MISSING}");
        self.send(Method::PUT, &commit, blob, 400).await?;
        self.blob_operation("push", "client_error");
        self.error("DIGEST_INVALID");
        self.session("failed");
        Ok(())
    }

    async fn mount(&mut self) -> Result<()> {
        let (digest, _) = self.push_whole().await?;
        let path = format!(
            "/v2/{0}-too/blobs/uploads/?mount={digest}&from={0}",
            self.name
        );
        self.send(Method::POST, &path, vec![], 201).await?;
        self.blob_operation("mount", "ok");
        self.seen
            .add("blob_mounts_total", &[("result", "mounted")], 1);
        Ok(())
    }

    async fn mount_what_is_missing(&mut self) -> Result<()> {
        let path = format!(
            "/v2/{0}-too/blobs/uploads/?mount={MISSING}&from={0}",
            self.name
        );
        let location = self.send(Method::POST, &path, vec![], 202).await?;
        self.session("started");
        self.blob_operation("mount", "not_found");
        let fallback = [("result", "fallback")];
        self.seen.add("blob_mounts_total", &fallback, 1);
        let location = location.context("no Location")?;
        self.send(Method::DELETE, &location, vec![], 204).await?;
        self.session("cancelled");
        Ok(())
    }

    /// The proxy counts the bytes that reached it, and no more.
    async fn leave_in_the_midst_of_an_upload(&mut self) -> Result<()> {
        let location = self.start().await?;
        let part = self.blob();
        let path = location
            .find("/v2/")
            .and_then(|at| location.get(at..))
            .context("a strange Location")?;
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            part.len() + 1
        );
        let mut wire = Wire::connect(self.server).await?;
        wire.send(&[head.as_bytes(), &part].concat()).await?;
        drop(wire);
        self.seen.add(
            "http_requests_total",
            &[("method", "PATCH"), ("status", "499")],
            1,
        );
        let bytes = part.len() as u64;
        self.seen.add(
            "http_request_body_bytes_total",
            &[("endpoint", "upload_session")],
            bytes,
        );
        self.seen.add(
            "transfers_aborted_total",
            &[("endpoint", "upload_session"), ("side", "client")],
            1,
        );
        // The registry may not have noticed yet that its client disconnected.
        let mut received = 0;
        let given_up = poll::until("the session can be cancelled", DEADLINE, async || {
            let response = self.client.send(Method::DELETE, &location, &[], "").await?;
            let status = response.status();
            received += response.bytes().await?.len() as u64;
            Ok((status == 204).then_some(()))
        });
        given_up.await?;
        let labels = [("method", "DELETE"), ("status", "204")];
        self.seen.add("http_requests_total", &labels, 1);
        let at = [("endpoint", "upload_session")];
        self.seen
            .add("http_response_body_bytes_total", &at, received);
        self.session("cancelled");
        Ok(())
    }

    fn session(&mut self, event: &str) {
        let labels = [("event", event)];
        self.seen.add("upload_sessions_total", &labels, 1);
    }

    async fn ask_for_what_is_missing(&mut self) -> Result<()> {
        let manifest = format!("/v2/{}/manifests/never", self.name);
        self.send(Method::GET, &manifest, vec![], 404).await?;
        let labels = [("operation", "pull"), ("result", "not_found")];
        self.seen.add("manifest_operations_total", &labels, 1);
        let blob = format!("/v2/{}/blobs/{MISSING}", self.name);
        self.send(Method::HEAD, &blob, vec![], 404).await?;
        self.blob_operation("head", "not_found");
        self.send(Method::GET, &blob, vec![], 404).await?;
        self.blob_operation("pull", "not_found");
        self.error("BLOB_UNKNOWN");
        Ok(())
    }

    async fn start(&mut self) -> Result<String> {
        let path = format!("/v2/{}/blobs/uploads/", self.name);
        let location = self.send(Method::POST, &path, vec![], 202).await?;
        self.session("started");
        location.context("no Location")
    }

    /// A blob that has never been pushed.
    fn blob(&mut self) -> Vec<u8> {
        self.blobs += 1;
        content::bytes(self.blobs, self.dice.random_range(1..50_000))
    }

    fn blob_operation(&mut self, operation: &str, result: &str) {
        let labels = [("operation", operation), ("result", result)];
        self.seen.add("blob_operations_total", &labels, 1);
    }

    fn manifest_operation(&mut self, operation: &str, reference: &str) {
        let labels = [
            ("operation", operation),
            ("reference", reference),
            ("kind", "image"),
            ("result", "ok"),
        ];
        self.seen.add("manifest_operations_total", &labels, 1);
    }

    fn error(&mut self, code: &str) {
        self.seen.add("oci_errors_total", &[("code", code)], 1);
    }

    /// Sends a request that must get this status, and counts it. Returns the `Location`.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        status: u16,
    ) -> Result<Option<String>> {
        let sent = body.len() as u64;
        let media_type = if path.contains("/manifests/") {
            MANIFEST
        } else {
            "application/octet-stream"
        };
        let headers = [("Content-Type", media_type), ("User-Agent", "skopeo/1.9.3")];
        let response = self.client.send(method.clone(), path, &headers, body);
        let response = response.await.with_context(|| format!("{method} {path}"))?;
        let found = response.status();
        ensure!(found == status, "{method} {path}: {found}, not {status}");
        let location = response.headers().get("location");
        let location = location.map(|to| to.to_str().map(ToOwned::to_owned));
        let location = location.transpose()?;
        let received = response.bytes().await?.len() as u64;
        let labels = [("method", method.as_str()), ("status", found.as_str())];
        self.seen.add("http_requests_total", &labels, 1);
        let endpoint = match path {
            _ if path.contains("/blobs/uploads/?") || path.ends_with("/blobs/uploads/") => {
                "upload_start"
            }
            _ if path.contains("/blobs/uploads/") => "upload_session",
            _ if path.contains("/blobs/") => "blob",
            _ => "manifest",
        };
        let at = [("endpoint", endpoint)];
        self.seen.add("http_request_body_bytes_total", &at, sent);
        self.seen
            .add("http_response_body_bytes_total", &at, received);
        let client = [("client", "containers")];
        self.seen.add("client_requests_total", &client, 1);
        Ok(location)
    }
}

/// What a client of the storm does; a header tells the upstream.
#[derive(Clone, Copy, Debug)]
enum Gust {
    /// It disconnects before the response.
    Wait,
    /// It disconnects when the upstream has received this many bytes of its upload.
    Upload(usize),
    /// It disconnects after this many bytes of its download.
    Download(usize),
    /// The upstream aborts after this many bytes of a download.
    Broken(usize),
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_of_aborts_nothing_is_in_flight_and_every_byte_is_counted() -> Result<()> {
    let upstream = Scripted::start(weather).await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = server.address();
        clients.spawn(async move {
            let mut dice = StdRng::seed_from_u64(number);
            let mut seen = ExpectedCounts::default();
            for _ in 0..TURNS {
                let bytes = dice.random_range(1..30_000);
                let gust = match dice.random_range(0..4) {
                    0 => Gust::Wait,
                    1 => Gust::Upload(bytes),
                    2 => Gust::Download(bytes),
                    _ => Gust::Broken(bytes),
                };
                gust.blow(Wire::connect(address).await?, &mut seen)
                    .await
                    .with_context(|| format!("{gust:?}"))?;
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = ExpectedCounts::default();
    while let Some(seen) = clients.join_next().await {
        all.join(seen??);
    }
    all.add("http_requests_total", &[], CLIENTS * TURNS as u64);
    all.check(&server).await?;
    let in_flight = metric("octoserve_http_requests_in_flight");
    in_flight.value(0).assert_in(&server).await
}

/// The upstream: it sends what the client asks for, and less than its Content-Length promises.
async fn weather(mut caller: Caller) -> Result<()> {
    let head = caller.head().await?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(ToOwned::to_owned)
    };
    let gust = field("x-gust").context("no gust")?;
    let (what, bytes) = gust.split_once(' ').context("no bytes")?;
    let bytes: usize = bytes.trim().parse()?;
    match what {
        "download" | "broken" => {
            let length = bytes + 1000;
            caller
                .send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await?;
            caller.send(vec![b'x'; bytes]).await?;
            if what == "broken" {
                return Ok(());
            }
        }
        "upload" => {
            // The interim response tells the client that everything has arrived.
            caller.exactly(bytes).await?;
            caller.send("HTTP/1.1 103 Early Hints\r\n\r\n").await?;
        }
        _ => caller.send("HTTP/1.1 103 Early Hints\r\n\r\n").await?,
    }
    caller.closed().await
}

impl Gust {
    async fn blow(self, mut wire: Wire, seen: &mut ExpectedCounts) -> Result<()> {
        let blob = format!("/v2/team/storm/blobs/{MISSING}");
        let ask = |what: &str, bytes: usize| {
            format!("GET {blob} HTTP/1.1\r\nHost: a\r\nx-gust: {what} {bytes}\r\n\r\n")
        };
        let at_blob = |side| [("endpoint", "blob"), ("side", side)];
        match self {
            Gust::Wait => {
                wire.send(ask("wait", 0).as_bytes()).await?;
                ensure!(wire.interim().await?.status == 103);
                drop(wire);
                seen.add("blob_operations_total", &[("result", "aborted")], 1);
                seen.add("http_requests_total", &[("status", "499")], 1);
            }
            Gust::Upload(bytes) => {
                let length = bytes + 1000;
                let head = format!(
                    "PATCH /v2/team/storm/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\n\
                     x-gust: upload {bytes}\r\nContent-Length: {length}\r\n\r\n"
                );
                wire.send(head.as_bytes()).await?;
                wire.send(&vec![b'x'; bytes]).await?;
                ensure!(wire.interim().await?.status == 103);
                drop(wire);
                let at = [("endpoint", "upload_session"), ("side", "client")];
                seen.add("transfers_aborted_total", &at, 1);
                seen.add("http_request_body_bytes_total", &at[..1], bytes as u64);
                seen.add("http_requests_total", &[("status", "499")], 1);
            }
            Gust::Download(bytes) | Gust::Broken(bytes) => {
                let is_broken = matches!(self, Gust::Broken(_));
                let what = if is_broken { "broken" } else { "download" };
                wire.send(ask(what, bytes).as_bytes()).await?;
                ensure!(wire.head().await?.status == 200);
                wire.exactly(bytes).await?;
                if is_broken {
                    ensure!(wire.rest().await.is_ok_and(|rest| rest.is_empty()));
                }
                drop(wire);
                let side = if is_broken { "upstream" } else { "client" };
                seen.add("transfers_aborted_total", &at_blob(side), 1);
                seen.add("blob_operations_total", &[("result", "aborted")], 1);
                let at = [("endpoint", "blob")];
                seen.add("http_response_body_bytes_total", &at, bytes as u64);
                seen.add("http_requests_total", &[("status", "200")], 1);
            }
        }
        Ok(())
    }
}
