//! Malformed names, tags, digests, paths, lengths, sessions, methods and bodies: each gets the
//! specification's error, leaves nothing in the data directory, and creates no label value.
//!
//! Each case is sent byte for byte, to the registry alone and through the proxy.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::{Client, MANIFEST, descriptor};
use harness::content;
use harness::octoserve::{Launch, Server};
use harness::scrape::Scrape;
use harness::wire::{self, Response};
use harness::{tree, tree::Tree};
use serde_json::json;

/// A digest without content.
const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

const DEADLINE: Duration = Duration::from_secs(20);

const ENDPOINTS: &[&str] = &[
    "base",
    "catalog",
    "tags",
    "manifest",
    "blob",
    "upload_start",
    "upload_session",
    "referrers",
    "token",
    "extension",
    "other",
];

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER",
];

/// The statuses of requests, and the outcomes of storage operations, whose label has the same name.
const STATUSES: &[&str] = &[
    "200", "201", "202", "204", "206", "301", "302", "303", "304", "307", "308", "400", "401",
    "403", "404", "405", "406", "408", "412", "413", "416", "429", "499", "500", "502", "503",
    "504", "507", "508", "other", "success", "error",
];

/// The expected status and error code; a HEAD has only the status.
type Refusal = (u16, &'static str);

const NAME: Refusal = (400, "NAME_INVALID");
const DIGEST: Refusal = (400, "DIGEST_INVALID");
const MANIFEST_INVALID: Refusal = (400, "MANIFEST_INVALID");
const MANIFEST_UNKNOWN: Refusal = (404, "MANIFEST_UNKNOWN");
const BLOB_UNKNOWN: Refusal = (404, "BLOB_UNKNOWN");
const NAME_UNKNOWN: Refusal = (404, "NAME_UNKNOWN");
const NO_ENDPOINT: Refusal = (404, "UNSUPPORTED");
const METHOD: Refusal = (405, "UNSUPPORTED");
const SESSION: Refusal = (404, "BLOB_UPLOAD_UNKNOWN");
const OUT_OF_ORDER: Refusal = (416, "BLOB_UPLOAD_INVALID");
const CHUNK: Refusal = (400, "BLOB_UPLOAD_INVALID");
const SIZE: Refusal = (400, "SIZE_INVALID");

#[tokio::test]
async fn the_registry_refuses_malformed_requests() -> Result<()> {
    everything_malformed(Launch::registry().start().await?).await
}

#[tokio::test]
async fn the_all_in_one_refuses_malformed_requests() -> Result<()> {
    everything_malformed(Launch::all_in_one().start().await?).await
}

async fn everything_malformed(server: Server) -> Result<()> {
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    let table = Table {
        before: tree::list(server.data())?,
        server,
        wrong: RefCell::default(),
    };
    table.names_and_paths().await?;
    table.references().await?;
    table.methods().await?;
    table.manifests().await?;
    table.sessions(&client).await?;
    table.requests_that_are_not_http().await?;
    table.cut_bodies(&client).await?;
    let wrong = table.wrong.take();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The registry still works.
    client.pull_image("team/app", "1").await?;
    Ok(())
}

struct Table {
    server: Server,
    before: Tree,
    /// The failures, collected so that one run shows all of them.
    wrong: RefCell<Vec<String>>,
}

impl Table {
    async fn names_and_paths(&self) -> Result<()> {
        let long = format!("/v2/{}/tags/list", "a/".repeat(128) + "a");
        for path in [
            "/v2/UPPER/tags/list",
            "/v2/-team/tags/list",
            "/v2/team-/tags/list",
            "/v2/team..app/tags/list",
            "/v2/team___app/tags/list",
            "/v2/../tags/list",
            "/v2/../../etc/tags/list",
            "/v2/team/../../../etc/tags/list",
            "/v2/team/./app/tags/list",
            "/v2/%2e%2e/%2e%2e/etc/tags/list",
            "/v2/..%2f..%2fetc/tags/list",
            "/v2/..%252f..%252fetc/tags/list",
            "/v2/..%5c..%5cetc/tags/list",
            "/v2/%c0%ae%c0%ae/tags/list",
            "/v2/team%2fapp/tags/list",
            "/v2/team%00app/tags/list",
            "/v2/team%0aapp/tags/list",
            "/v2/team app/tags/list".replace(' ', "%20").as_str(),
            &long,
        ] {
            self.refused("GET", path, &[], b"", NAME).await?;
        }
        for path in [
            "/v2/UPPER/manifests/1",
            "/v2/../x/manifests/1",
            "/v2/a%2fb/manifests/1",
        ] {
            self.refused("GET", path, &[], b"", NAME).await?;
            self.refused("PUT", path, &[("Content-Type", MANIFEST)], b"{}", NAME)
                .await?;
            self.refused("DELETE", path, &[], b"", NAME).await?;
        }
        // A GET would be redirected.
        for method in ["PUT", "DELETE"] {
            let path = "/v2/team//app/manifests/1";
            self.refused(method, path, &[], b"", NAME).await?;
        }
        for path in ["/v2/UPPER/blobs/uploads/", "/v2/../../tmp/x/blobs/uploads/"] {
            self.refused("POST", path, &[], b"", NAME).await?;
        }
        for path in [
            "/etc/passwd",
            "/v2/../../etc/passwd",
            "/v2/%2e%2e/%2e%2e/etc/passwd",
            "/v2/x",
            "/v2/team/app/blobs/sha256:../../x",
        ] {
            self.refused("GET", path, &[], b"", NO_ENDPOINT).await?;
        }
        self.refused("GET", "/v2/team/none/tags/list", &[], b"", NAME_UNKNOWN)
            .await
    }

    async fn references(&self) -> Result<()> {
        let upper = format!("sha256:{}", "A".repeat(64));
        let short = format!("sha256:{}", "a".repeat(63));
        let long = format!("sha256:{}", "a".repeat(65));
        let short512 = format!("sha512:{}", "a".repeat(64));
        let foreign = format!("md5:{}", "a".repeat(32));
        for digest in [&upper, &short, &long, &short512, &foreign, "sha256:"] {
            let blob = format!("/v2/team/app/blobs/{digest}");
            self.refused("GET", &blob, &[], b"", DIGEST).await?;
            self.refused("DELETE", &blob, &[], b"", DIGEST).await?;
        }
        for digest in [&upper, &short, &long, &short512] {
            let manifest = format!("/v2/team/app/manifests/{digest}");
            self.refused("GET", &manifest, &[], b"", DIGEST).await?;
        }
        for tag in [
            ".hidden",
            "-x",
            "a%2fb",
            "..",
            "%2e%2e",
            "a:b:c",
            &"t".repeat(129),
        ] {
            let manifest = format!("/v2/team/app/manifests/{tag}");
            let response = self.send("GET", &manifest, &[], b"").await?;
            ensure!(
                matches!(response.head.status, 400 | 404),
                "{tag}: {}",
                response.head.status
            );
            ensure!(response.error_code().is_some(), "{tag}: no error body");
        }
        let unknown = format!("/v2/team/app/manifests/{NOTHING}");
        self.refused("GET", &unknown, &[], b"", MANIFEST_UNKNOWN)
            .await?;
        self.refused("DELETE", &unknown, &[], b"", MANIFEST_UNKNOWN)
            .await?;
        self.refused(
            "GET",
            "/v2/team/app/manifests/nope",
            &[],
            b"",
            MANIFEST_UNKNOWN,
        )
        .await?;
        self.refused("HEAD", "/v2/team/app/manifests/nope", &[], b"", (404, ""))
            .await?;
        let blob = format!("/v2/team/app/blobs/{NOTHING}");
        self.refused("GET", &blob, &[], b"", BLOB_UNKNOWN).await?;
        self.refused("HEAD", &blob, &[], b"", (404, "")).await?;
        self.refused("DELETE", &blob, &[], b"", BLOB_UNKNOWN).await
    }

    async fn methods(&self) -> Result<()> {
        let blob = format!("/v2/team/app/blobs/{NOTHING}");
        for (method, path) in [
            ("POST", "/v2/team/app/manifests/1"),
            ("PATCH", "/v2/team/app/manifests/1"),
            ("PUT", "/v2/team/app/tags/list"),
            ("DELETE", "/v2/team/app/tags/list"),
            ("PUT", blob.as_str()),
            ("PATCH", blob.as_str()),
            ("DELETE", "/v2/"),
            ("POST", "/v2/_catalog"),
            ("GET", "/v2/team/app/blobs/uploads/"),
            ("BREW", "/v2/"),
        ] {
            let response = self.refused(method, path, &[], b"", METHOD).await;
            response.with_context(|| "and with Allow")?;
            let response = self.send(method, path, &[], b"").await?;
            ensure!(
                response.head.header("allow").is_some(),
                "{method} {path}: no Allow"
            );
        }
        Ok(())
    }

    async fn manifests(&self) -> Result<()> {
        let deep = "[".repeat(100_000);
        let blob = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": NOTHING, "size": 2},
        });
        let wrong_type =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": 1, "layers": {}});
        let index = "application/vnd.oci.image.index.v1+json";
        let path = "/v2/team/app/manifests/bad";
        for (media_type, body) in [
            (MANIFEST, String::new()),
            (MANIFEST, "not json".to_owned()),
            (MANIFEST, "[]".to_owned()),
            (MANIFEST, "{}".to_owned()),
            (MANIFEST, deep),
            (
                MANIFEST,
                "{\"schemaVersion\":2,\"schemaVersion\":2}".to_owned(),
            ),
            (MANIFEST, wrong_type.to_string()),
            (index, blob.to_string()),
            ("no media type", blob.to_string()),
        ] {
            let headers = [("Content-Type", media_type)];
            let refused = self.refused("PUT", path, &headers, body.as_bytes(), MANIFEST_INVALID);
            refused
                .await
                .with_context(|| body.chars().take(60).collect::<String>())?;
        }
        let json = [("Content-Type", MANIFEST)];
        let body = blob.to_string();
        let unknown = (404, "MANIFEST_BLOB_UNKNOWN");
        self.refused("PUT", path, &json, body.as_bytes(), unknown)
            .await?;
        let other = format!("/v2/team/app/manifests/{NOTHING}");
        let whole = self
            .send("GET", "/v2/team/app/manifests/1", &[], b"")
            .await?
            .body;
        self.refused("PUT", &other, &json, &whole, DIGEST).await?;
        let tag = "/v2/team/app/manifests/.hidden";
        self.refused("PUT", tag, &json, &whole, MANIFEST_INVALID)
            .await?;
        let huge = vec![b' '; (4 << 20) + 1];
        self.refused("PUT", path, &json, &huge, (413, "MANIFEST_INVALID"))
            .await
    }

    async fn sessions(&self, client: &Client) -> Result<()> {
        for session in [
            "00000000-0000-0000-0000-000000000000",
            "no-such-session",
            "..%2f..%2f..%2fetc",
            "%2e%2e",
            "a/b/c",
            "x%00y",
        ] {
            let path = format!("/v2/team/app/blobs/uploads/{session}");
            for method in ["GET", "PATCH", "DELETE"] {
                self.refused(method, &path, &[], b"", SESSION).await?;
            }
            let put = format!("{path}?digest={NOTHING}");
            self.refused("PUT", &put, &[], b"abc", SESSION).await?;
        }
        let post = format!("/v2/team/app/blobs/uploads/?digest={NOTHING}");
        self.refused("POST", &post, &[], b"abc", DIGEST).await?;
        let post = "/v2/team/app/blobs/uploads/?digest=sha256:xyz";
        self.refused("POST", post, &[], b"abc", DIGEST).await?;

        let location = client.open_upload("team/app").await?;
        let first = [("Content-Range", "0-2")];
        let taken = self.send("PATCH", &location, &first, b"abc").await?;
        ensure!(taken.head.status == 202, "PATCH: {}", taken.head.status);
        let next = taken
            .head
            .header("location")
            .context("no Location")?
            .to_owned();
        for (range, refusal) in [
            ("0-2", OUT_OF_ORDER),
            ("7-9", OUT_OF_ORDER),
            ("2-4", OUT_OF_ORDER),
            ("3-9", SIZE),
            ("5-3", CHUNK),
            ("x-y", CHUNK),
            ("-", CHUNK),
        ] {
            let headers = [("Content-Range", range)];
            let response = self.send("PATCH", &next, &headers, b"def").await?;
            self.expect(
                &format!("Content-Range {range}"),
                &response,
                "PATCH",
                refusal,
            );
        }
        let state = self.send("GET", &next, &[], b"").await?;
        ensure!(
            state.head.header("range") == Some("0-2"),
            "{:?}",
            state.head
        );
        // A session belongs to one repository.
        let elsewhere = next.replace("/team/app/", "/team/other/");
        let response = self.send("PATCH", &elsewhere, &[], b"def").await?;
        self.expect("another repository's session", &response, "PATCH", SESSION);
        let joint = if next.contains('?') { '&' } else { '?' };
        for query in ["", "digest=sha256:xyz", &format!("digest={NOTHING}")] {
            let response = self
                .send("PUT", &format!("{next}{joint}{query}"), &[], b"")
                .await?;
            self.expect(
                &format!("a commit with {query:?}"),
                &response,
                "PUT",
                DIGEST,
            );
        }
        // The specification leaves open whether a failed commit ends the session.
        let gone = self.send("DELETE", &next, &[], b"").await?;
        ensure!(
            matches!(gone.head.status, 204 | 404),
            "cancel: {}",
            gone.head.status
        );
        self.nothing_changed("sessions").await
    }

    /// Requests that the HTTP layer refuses, with or without an OCI error body, but never with a
    /// success. The server keeps serving.
    async fn requests_that_are_not_http(&self) -> Result<()> {
        let huge = format!(
            "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(2 << 20)
        );
        let many =
            "GET /v2/ HTTP/1.1\r\nHost: a\r\n".to_owned() + &"X: y\r\n".repeat(5000) + "\r\n";
        for request in [
            "\r\n\r\nnonsense\r\n\r\n",
            "GET\r\n\r\n",
            "GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
            "GET /v2/team\u{0}/tags/list HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /v2/ HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
            "GET /v2/ HTTP/1.1\r\nHost : a\r\n\r\n",
            "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
             Content-Length: 2\r\n\r\nab",
            "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            &huge,
            &many,
        ] {
            let mut wire = wire::Wire::connect(self.server.address()).await?;
            // The server may close before it has read everything.
            wire.send(request.as_bytes()).await.ok();
            if let Ok(head) = wire.head().await {
                let shown: String = request.chars().take(60).collect();
                ensure!(
                    (400..500).contains(&head.status),
                    "{shown:?}: {}",
                    head.status
                );
            }
        }
        let alive = self.send("GET", "/v2/", &[], b"").await?;
        ensure!(alive.head.status == 200, "{}", alive.head.status);
        self.nothing_changed("requests that are not HTTP").await
    }

    async fn cut_bodies(&self, client: &Client) -> Result<()> {
        let bytes = content::bytes(9, 1000);
        let digest = content::digest(&bytes);
        let location = client.open_upload("team/app").await?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let put = format!("{location}{joint}digest={digest}");
        let whole = wire::request("PUT", &put, &[], &bytes);
        let mut wire = wire::Wire::connect(self.server.address()).await?;
        wire.send(&whole[..whole.len() - 500]).await?;
        drop(wire);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": []});
        let manifest = manifest.to_string();
        let put = "/v2/team/app/manifests/cut";
        let whole = wire::request(
            "PUT",
            put,
            &[("Content-Type", MANIFEST)],
            manifest.as_bytes(),
        );
        let mut wire = wire::Wire::connect(self.server.address()).await?;
        wire.send(&whole[..whole.len() - 5]).await?;
        drop(wire);
        for path in [format!("/v2/team/app/blobs/{digest}"), put.to_owned()] {
            let response = client.get(&path).await?;
            ensure!(
                response.status() == 404,
                "{path} is there: {}",
                response.status()
            );
        }
        let cancelled = harness::poll::until("the session is released", DEADLINE, async || {
            let response = self.send("DELETE", &location, &[], b"").await?;
            Ok(matches!(response.head.status, 204 | 404).then_some(()))
        });
        cancelled.await?;
        self.nothing_changed("cut bodies").await
    }

    /// Sends a request that must be refused like this and leave nothing behind.
    async fn refused(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        (status, code): Refusal,
    ) -> Result<()> {
        let response = self.send(method, path, headers, body).await?;
        let case = format!("{method} {path}");
        self.expect(&case, &response, method, (status, code));
        self.nothing_changed(&case).await
    }

    fn expect(&self, case: &str, response: &Response, method: &str, (status, code): Refusal) {
        let found = (
            response.head.status,
            response.error_code().unwrap_or_default(),
        );
        if found != (status, code.to_owned()) {
            self.wrong
                .borrow_mut()
                .push(format!("{case}: {found:?}, not {status} {code}"));
        }
        let media_type = response.head.header("content-type");
        if method != "HEAD" && media_type != Some("application/json") {
            self.wrong
                .borrow_mut()
                .push(format!("{case}: an error of type {media_type:?}"));
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let request = wire::request(method, path, headers, body);
        let response = wire::exchange(self.server.address(), method, &request).await;
        response.with_context(|| format!("{method} {path}"))
    }

    async fn nothing_changed(&self, case: &str) -> Result<()> {
        let after = tree::list(self.server.data())?;
        if after != self.before {
            let new: Vec<_> = after
                .keys()
                .filter(|path| !self.before.contains_key(*path))
                .collect();
            self.wrong
                .borrow_mut()
                .push(format!("{case} changed the directory: new {new:?}"));
        }
        let strange = strange_labels(&self.server.scrape().await?);
        if !strange.is_empty() {
            self.wrong
                .borrow_mut()
                .push(format!("{case} made label values: {strange:?}"));
        }
        Ok(())
    }
}

/// Label values outside of the closed sets, or with text from a client.
fn strange_labels(scrape: &Scrape) -> Vec<String> {
    let strange = scrape
        .label_values()
        .into_iter()
        .flat_map(|(label, values)| {
            let closed: Option<&[&str]> = match label.as_str() {
                "endpoint" => Some(ENDPOINTS),
                "method" => Some(METHODS),
                "status" => Some(STATUSES),
                _ => None,
            };
            let is_strange = move |value: &String| match closed {
                Some(known) => !known.contains(&value.as_str()),
                None => value != "team/app" && value.contains(['/', '%', ':', '\0', '\\']),
            };
            values
                .into_iter()
                .filter(is_strange)
                .map(move |value| format!("{label}={value:?}"))
        });
    strange.collect()
}
