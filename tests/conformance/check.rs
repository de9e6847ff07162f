//! A clause checked at one address: its requests, and the expectations of their responses.

use std::cell::RefCell;
use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use harness::wire::{self, Response};
use serde_json::{Value, json};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(super) const OCTETS: &str = "application/octet-stream";

/// A digest without content.
pub(super) const NOTHING: &str =
    "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The Host of the harness's requests, which absolute locations repeat.
const HOST: &str = "http://registry";

/// A clause being checked at one address, in repositories that no other clause uses.
pub(super) struct Check {
    address: SocketAddr,
    repository: String,
    authorization: Option<&'static str>,
    heard: RefCell<Heard>,
}

/// All responses, in a form that is equal for two registries of one kind.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    /// Values that a registry generates, with their replacements.
    made_up: Vec<(String, &'static str)>,
}

/// A response and its request.
pub(super) struct Reply {
    request: String,
    pub(super) response: Response,
}

impl Check {
    pub(super) fn new(address: SocketAddr, clause: &str) -> Self {
        Self {
            address,
            repository: format!("conformance/{clause}"),
            authorization: None,
            heard: RefCell::default(),
        }
    }

    /// Adds this `Authorization` to all requests.
    pub(super) fn known_by(self, authorization: Option<&'static str>) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    /// The registry's address, for a clause that writes its requests byte by byte.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The clause's repository.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Another repository of the clause's.
    pub(super) fn other(&self, component: &str) -> String {
        format!("{}/{component}", self.repository)
    }

    /// A path in the clause's repository, such as `tags/list`.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    /// Bytes that no other clause pushes, determined by the number.
    pub(super) fn bytes(&self, number: u8, length: u64) -> Vec<u8> {
        let name = content::digest(format!("{} {number}", self.repository).as_bytes());
        let seed = name.bytes().rev().take(8);
        content::bytes(
            seed.fold(0, |seed, byte| seed << 8 | u64::from(byte)),
            length,
        )
    }

    /// Sends a request with a body of known length.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply> {
        let request = wire::request(method, path, &self.headers(headers), body);
        self.exchange(method, path, &request).await
    }

    /// Sends a request with a chunked body.
    pub(super) async fn stream(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        chunks: &[&[u8]],
    ) -> Result<Reply> {
        let request = wire::chunked(method, path, &self.headers(headers), chunks);
        self.exchange(method, path, &request).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, &[], b"").await
    }

    pub(super) async fn head(&self, path: &str) -> Result<Reply> {
        self.send("HEAD", path, &[], b"").await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Reply> {
        self.send("DELETE", path, &[], b"").await
    }

    pub(super) async fn post(&self, path: &str) -> Result<Reply> {
        self.send("POST", path, &[], b"").await
    }

    /// Opens an upload session and returns its location.
    pub(super) async fn session(&self) -> Result<String> {
        self.post(&self.path("blobs/uploads/"))
            .await?
            .is(202)?
            .location()
    }

    /// Pushes a blob into a repository and returns its digest.
    pub(super) async fn push_to(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = content::digest(bytes);
        let start = format!("/v2/{repository}/blobs/uploads/");
        let location = self.post(&start).await?.is(202)?.location()?;
        let commit = with(&location, &format!("digest={digest}"));
        let octets = [("Content-Type", OCTETS)];
        self.send("PUT", &commit, &octets, bytes).await?.is(201)?;
        Ok(digest)
    }

    /// Pushes a blob and returns its digest.
    pub(super) async fn push(&self, bytes: &[u8]) -> Result<String> {
        self.push_to(&self.repository, bytes).await
    }

    /// PUTs a manifest; `reference` may have a query.
    pub(super) async fn put(&self, reference: &str, kind: &str, manifest: &str) -> Result<Reply> {
        let path = self.path(&format!("manifests/{reference}"));
        let headers = [("Content-Type", kind)];
        self.send("PUT", &path, &headers, manifest.as_bytes()).await
    }

    /// Pushes the configuration and the layer of an image, determined by `number`, and returns its
    /// manifest.
    pub(super) async fn image(&self, number: u8) -> Result<Value> {
        let config = json!({"architecture": "amd64", "os": "linux", "number": number});
        let config = config.to_string();
        let layer = self.bytes(number, 64);
        self.push(config.as_bytes()).await?;
        self.push(&layer).await?;
        Ok(json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config.as_bytes()),
            "layers": [descriptor(LAYER, &layer)],
        }))
    }

    /// Pushes an image under a tag and returns its manifest.
    pub(super) async fn tagged(&self, tag: &str, number: u8) -> Result<String> {
        let manifest = self.image(number).await?.to_string();
        self.put(tag, MANIFEST, &manifest).await?.is(201)?;
        Ok(manifest)
    }

    /// An artifact without content: the empty configuration is also its layer.
    pub(super) async fn artifact(&self, kind: &str) -> Result<Value> {
        self.push(b"{}").await?;
        Ok(json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor(EMPTY, b"{}"), "layers": [descriptor(EMPTY, b"{}")],
        }))
    }

    /// All responses so far.
    pub(super) fn heard(&self) -> String {
        let heard = self.heard.borrow();
        let mut text = heard.lines.join("\n");
        for (value, name) in &heard.made_up {
            text = text.replace(value, name);
        }
        text
    }

    fn headers<'a>(&self, headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.authorization.map(|value| ("Authorization", value));
        headers.iter().copied().chain(own).collect()
    }

    async fn exchange(&self, method: &str, path: &str, request: &[u8]) -> Result<Reply> {
        let response = wire::exchange(self.address, method, request).await;
        let response = response.with_context(|| format!("{method} {path}"))?;
        self.heard.borrow_mut().hear(method, path, &response);
        Ok(Reply {
            request: format!("{method} {path}"),
            response,
        })
    }
}

impl Heard {
    fn hear(&mut self, method: &str, path: &str, response: &Response) {
        let head = &response.head;
        if let Some(id) = head.header("docker-upload-uuid") {
            self.make_up(id, "SESSION");
        }
        let state = head
            .header("location")
            .and_then(|to| to.split_once("_state="));
        if let Some((_, state)) = state {
            self.make_up(state, "STATE");
        }
        let boundary = head
            .header("content-type")
            .and_then(|kind| kind.split_once("boundary="));
        if let Some((_, boundary)) = boundary {
            self.make_up(boundary, "BOUNDARY");
        }
        // These differ between two responses, or describe one connection only.
        let mut headers: Vec<_> = head
            .headers()
            .filter(|(name, _)| !matches!(*name, "date" | "connection"))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        headers.sort();
        let mut line = format!("{method} {path}: {} {}", head.status, headers.join(", "));
        // Writing to a String cannot fail.
        write!(line, " {:?}", String::from_utf8_lossy(&response.body)).ok();
        self.lines.push(line);
    }

    fn make_up(&mut self, value: &str, name: &'static str) {
        if !self.made_up.iter().any(|(known, _)| known == value) {
            self.made_up.push((value.to_owned(), name));
        }
    }
}

impl Reply {
    /// The response must have this status.
    pub(super) fn is(&self, status: u16) -> Result<&Self> {
        ensure!(
            self.response.head.status == status,
            "{}: {}, not {status}: {}",
            self.request,
            self.response.head.status,
            String::from_utf8_lossy(&self.response.body)
        );
        Ok(self)
    }

    /// The response must be this error: its status, and the code in a body of the specification's
    /// format (Error Codes).
    pub(super) fn refuses(&self, status: u16, code: &str) -> Result<&Self> {
        self.is(status)?;
        let found = self.response.error_code();
        ensure!(
            found.as_deref() == Some(code),
            "{}: {found:?}, not {code}",
            self.request
        );
        self.says("content-type", "application/json")
    }

    /// The value of a header that must be there.
    pub(super) fn header(&self, name: &str) -> Result<&str> {
        let value = self.response.head.header(name);
        value.with_context(|| format!("{}: no {name}", self.request))
    }

    /// The header must have this value.
    pub(super) fn says(&self, name: &str, value: &str) -> Result<&Self> {
        let found = self.header(name)?;
        ensure!(
            found == value,
            "{}: {name} is {found:?}, not {value:?}",
            self.request
        );
        Ok(self)
    }

    /// The header must be absent.
    pub(super) fn lacks(&self, name: &str) -> Result<&Self> {
        let found = self.response.head.header(name);
        ensure!(found.is_none(), "{}: {name} is {found:?}", self.request);
        Ok(self)
    }

    /// The body must be these bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> Result<&Self> {
        ensure!(
            self.response.body == bytes,
            "{}: {} bytes that are not the expected {}",
            self.request,
            self.response.body.len(),
            bytes.len()
        );
        Ok(self)
    }

    /// The path and query of `Location`.
    pub(super) fn location(&self) -> Result<String> {
        let location = self.header("location")?;
        Ok(location.strip_prefix(HOST).unwrap_or(location).to_owned())
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.response.body)
            .with_context(|| format!("{}: a body that is no JSON", self.request))
    }
}

/// Adds a parameter to a location.
pub(super) fn with(location: &str, parameter: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}{parameter}")
}
