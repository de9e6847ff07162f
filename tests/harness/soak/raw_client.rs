//! A client that pushes and pulls with requests of its own choice, and checks every byte that it gets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::line::{BookedLine, Leave, LineKind, LineRequest, LineResponse};
use super::progress::{Mishap, Progress};
use crate::client::{INDEX, MANIFEST, descriptor};
use crate::content;

const OCTETS: &str = "application/octet-stream";
/// The digest of a blob that does not exist.
const MISSING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// How many different blobs a client has: what it pushes again needs no more space in the registry.
const BLOBS: u64 = 24;
/// How many of them are large, and how large.
const LARGE: (u64, u64) = (2, 3 << 20);
/// How many tags a client uses.
const TAGS: u64 = 16;
/// How many blobs and images a client remembers, to pull them.
const MOST_KNOWN: usize = 32;

/// A client with a random generator of its own.
pub(crate) struct RawClient {
    pub(crate) number: usize,
    pub(crate) line: BookedLine,
    pub(crate) progress: Arc<Progress>,
    pub(crate) repository: String,
    /// The upstream that the repository is at.
    pub(crate) upstream: &'static str,
    /// Whether that is docker-registry, which has no referrers.
    pub(crate) is_foreign: bool,
    dice: StdRng,
    blobs: Vec<KnownBlob>,
    images: Vec<KnownManifest>,
    /// Content whose push or delete failed: it may still take effect, or have been done by half. It is not
    /// used again.
    doubtful: HashSet<String>,
    /// Pushes of a tag that failed. A killed docker-registry may have emptied the tag's file, and then fails
    /// on each deletion in that repository until the tag is pushed again.
    owed: Vec<LineRequest>,
    /// How many pushes and deletes failed: the next ones use new tags and another configuration.
    generation: usize,
}

#[derive(Clone, Debug)]
struct KnownBlob {
    seed: u64,
    length: u64,
    digest: String,
}

#[derive(Clone, Debug)]
struct KnownManifest {
    tag: String,
    digest: String,
    media_type: &'static str,
}

/// The operation is over: what came of it is noted.
struct Spoilt;

type Done<T = ()> = Result<T, Spoilt>;

impl RawClient {
    pub(crate) fn new(
        number: usize,
        seed: u64,
        line: BookedLine,
        progress: Arc<Progress>,
        upstream: &'static str,
    ) -> Self {
        let is_foreign = upstream == "main";
        let prefix = if is_foreign { "team" } else { "other" };
        Self {
            number,
            line,
            progress,
            repository: format!("{prefix}/soak/{number}"),
            upstream,
            is_foreign,
            dice: StdRng::seed_from_u64(seed ^ ((number as u64) << 32)),
            blobs: Vec::new(),
            images: Vec::new(),
            doubtful: HashSet::new(),
            owed: Vec::new(),
            generation: 0,
        }
    }

    /// One operation after the other, until the soak ends.
    pub(crate) async fn run(mut self) {
        while !self.progress.is_stopping() {
            // A failure is noted where it is found; the next operation begins anew.
            if self.play().await.is_ok() {
                self.progress.step(self.number);
            }
            let pause = self.dice.random_range(0..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn play(&mut self) -> Done {
        while let Some(push) = self.owed.last().cloned() {
            self.expect(push, &[201]).await?;
            self.owed.pop();
        }
        match self.dice.random_range(0..20) {
            0..3 => self.push_blob().await.map(drop),
            3..5 => self.push_in_parts().await,
            5 => self.push_at_once().await,
            6..9 => self.push_image().await,
            9..12 => self.pull_image().await,
            12 => self.pull_blob().await,
            13 => self.pull_range().await,
            14 => self.mount().await,
            15 => self.delete().await,
            16 => self.leave().await,
            17 => self.cancel().await,
            18 => self.list().await,
            _ => self.ask_for_what_is_missing().await,
        }
    }

    async fn push_blob(&mut self) -> Done<KnownBlob> {
        let (blob, bytes) = self.content();
        let location = self.open().await?;
        self.complete(&location, &blob.digest, bytes).await?;
        self.know(blob.clone());
        Ok(blob)
    }

    async fn push_in_parts(&mut self) -> Done {
        let (blob, bytes) = self.content();
        let mut location = self.open().await?;
        let chunked = self.dice.random_bool(0.5);
        for part in bytes.chunks(bytes.len() / 2 + 1) {
            let request = LineRequest {
                chunked,
                ..upload("PATCH", location, part.to_vec())
            };
            let response = self.expect(request, &[202]).await?;
            location = self.location(response)?;
        }
        self.complete(&location, &blob.digest, Vec::new()).await?;
        self.know(blob);
        Ok(())
    }

    /// In a single POST, where the registry knows that; docker-registry opens a session.
    async fn push_at_once(&mut self) -> Done {
        let (blob, bytes) = self.content();
        let path = format!(
            "/v2/{}/blobs/uploads/?digest={}",
            self.repository, blob.digest
        );
        let request = upload(
            "POST",
            path,
            if self.is_foreign {
                Vec::new()
            } else {
                bytes.clone()
            },
        );
        let response = self.expect(request, &[201, 202]).await?;
        if response.status == 202 {
            let location = self.location(response)?;
            self.complete(&location, &blob.digest, bytes).await?;
        }
        self.know(blob);
        Ok(())
    }

    async fn push_image(&mut self) -> Done {
        let layer = self.push_blob().await?;
        let location = self.open().await?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": format!("{}", self.generation),
        });
        let config = config.to_string().into_bytes();
        self.complete(&location, &content::digest(&config), config.clone())
            .await?;
        let layer = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.digest, "size": layer.length,
        });
        let config = descriptor("application/vnd.oci.image.config.v1+json", &config);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        // Only our own registry takes an artifact's subject into its referrers.
        let subject = self
            .images
            .last()
            .filter(|image| image.media_type == MANIFEST);
        if let Some(subject) = subject.filter(|_| !self.is_foreign)
            && self.dice.random_bool(0.3)
        {
            manifest["artifactType"] = "application/vnd.example.soak".into();
            manifest["subject"] = json!({
                "mediaType": MANIFEST, "digest": subject.digest, "size": 1000,
            });
        }
        let image = self.put_manifest(MANIFEST, manifest.to_string()).await?;
        if self.dice.random_bool(0.3) {
            let entry = json!({
                "mediaType": MANIFEST, "digest": image.1.digest, "size": image.0,
                "platform": {"architecture": "amd64", "os": "linux"},
            });
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
            self.put_manifest(INDEX, index.to_string()).await?;
        }
        Ok(())
    }

    /// Returns its length, too.
    async fn put_manifest(
        &mut self,
        media_type: &'static str,
        text: String,
    ) -> Done<(usize, KnownManifest)> {
        let tag = self.dice.random_range(0..TAGS);
        let tag = format!("t{tag}-{}", self.generation);
        // Until the registry has responded, nobody knows what the tag names.
        self.images.retain(|image| image.tag != tag);
        let length = text.len();
        let known = KnownManifest {
            tag: tag.clone(),
            digest: content::digest(text.as_bytes()),
            media_type,
        };
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let request = LineRequest {
            method: "PUT",
            target: path,
            headers: vec![("content-type", media_type.to_owned())],
            body: text.into_bytes(),
            ..LineRequest::default()
        };
        let put = self.expect(request.clone(), &[201]).await;
        if put.is_err() {
            self.doubt(&known.digest);
            self.owed.push(request);
        }
        put?;
        if !self.doubtful.contains(&known.digest) {
            self.images.push(known.clone());
        }
        if self.images.len() > MOST_KNOWN {
            self.images.remove(0);
        }
        Ok((length, known))
    }

    async fn pull_image(&mut self) -> Done {
        let Some(image) = self.any_image() else {
            return self.push_image().await;
        };
        for reference in [&image.tag, &image.digest] {
            let path = format!("/v2/{}/manifests/{reference}", self.repository);
            let accept = vec![("accept", format!("{MANIFEST}, {INDEX}"))];
            for method in ["HEAD", "GET"] {
                let request = LineRequest {
                    headers: accept.clone(),
                    ..request(method, path.clone())
                };
                let response = self.expect(request, &[200]).await?;
                if method == "GET" && content::digest(&response.body) != image.digest {
                    return self.broke(&format!("GET {path}: other bytes than were pushed"));
                }
            }
        }
        if !self.is_foreign {
            let path = format!("/v2/{}/referrers/{}", self.repository, image.digest);
            self.expect(request("GET", path), &[200]).await?;
        }
        Ok(())
    }

    async fn pull_blob(&mut self) -> Done {
        let Some(blob) = self.any_blob() else {
            return self.push_blob().await.map(drop);
        };
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        self.expect(request("HEAD", path.clone()), &[200]).await?;
        let response = self.expect(request("GET", path.clone()), &[200]).await?;
        if content::digest(&response.body) != blob.digest {
            return self.broke(&format!("GET {path}: other bytes than were pushed"));
        }
        Ok(())
    }

    async fn pull_range(&mut self) -> Done {
        let Some(blob) = self.any_blob() else {
            return self.push_blob().await.map(drop);
        };
        let from = self.dice.random_range(0..blob.length);
        let to = self.dice.random_range(from..blob.length);
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        let request = LineRequest {
            headers: vec![("range", format!("bytes={from}-{to}"))],
            ..request("GET", path.clone())
        };
        let response = self.expect(request, &[206]).await?;
        let whole = content::bytes(blob.seed, blob.length);
        let range = usize::try_from(from).unwrap_or(0)..=usize::try_from(to).unwrap_or(0);
        if whole.get(range) != Some(&response.body) {
            return self.broke(&format!("GET {path}: other bytes than bytes={from}-{to}"));
        }
        Ok(())
    }

    async fn mount(&mut self) -> Done {
        let Some(blob) = self.any_blob() else {
            return self.push_blob().await.map(drop);
        };
        let (from, digest) = (&self.repository, &blob.digest);
        let path = format!("/v2/{from}-too/blobs/uploads/?mount={digest}&from={from}");
        let response = self
            .expect(upload("POST", path, Vec::new()), &[201, 202])
            .await?;
        if response.status == 202 {
            let location = self.location(response)?;
            self.expect(request("DELETE", location), &[204]).await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Done {
        if self.dice.random_bool(0.5) {
            let Some(image) = self.any_image() else {
                return Ok(());
            };
            // All its tags go with it, and what it is the subject of stays.
            self.images.retain(|other| other.digest != image.digest);
            let path = format!("/v2/{}/manifests/{}", self.repository, image.digest);
            self.remove(path, image.digest).await
        } else {
            let Some(blob) = self.any_blob() else {
                return Ok(());
            };
            self.blobs.retain(|other| other.digest != blob.digest);
            let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
            self.remove(path, blob.digest).await
        }
    }

    async fn remove(&mut self, path: String, digest: String) -> Done {
        let removed = self.expect(request("DELETE", path), &[202]).await;
        if removed.is_err() {
            self.doubt(&digest);
        }
        removed.map(drop)
    }

    /// Leaves in the middle of an upload or a download.
    async fn leave(&mut self) -> Done {
        let is_upload = self.dice.random_bool(0.5) && self.line.name().starts_with("HTTP/1.1");
        if is_upload {
            let (_, bytes) = self.content();
            let location = self.open().await?;
            let sent = self.dice.random_range(0..bytes.len());
            let request = LineRequest {
                leave: Leave::Upload(sent),
                ..upload("PATCH", location, bytes)
            };
            self.expect(request, &[0]).await?;
            return Ok(());
        }
        let Some(blob) = self.any_blob() else {
            return Ok(());
        };
        let read = self.dice.random_range(0..blob.length);
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        let request = LineRequest {
            leave: Leave::Download(usize::try_from(read).unwrap_or(0)),
            ..request("GET", path)
        };
        self.expect(request, &[0, 200]).await.map(drop)
    }

    /// Cancels an upload, or completes it with what was not sent.
    async fn cancel(&mut self) -> Done {
        let (_, bytes) = self.content();
        let location = self.open().await?;
        if self.dice.random_bool(0.3) {
            let request = upload("PUT", with_digest(&location, MISSING), bytes);
            return self.expect(request, &[400]).await.map(drop);
        }
        let response = self
            .expect(upload("PATCH", location, bytes), &[202])
            .await?;
        let location = self.location(response)?;
        let response = self
            .expect(request("GET", location.clone()), &[204])
            .await?;
        let location = response
            .location
            .map_or(location, |location| path(&location));
        self.expect(request("DELETE", location), &[204])
            .await
            .map(drop)
    }

    async fn list(&mut self) -> Done {
        self.expect(request("GET", "/v2/".to_owned()), &[200])
            .await?;
        let tags = format!("/v2/{}/tags/list", self.repository);
        self.expect(request("GET", tags), &[200, 404]).await?;
        Ok(())
    }

    async fn ask_for_what_is_missing(&mut self) -> Done {
        for (method, rest) in [
            ("GET", "manifests/never"),
            ("HEAD", "manifests/never"),
            ("GET", &format!("blobs/{MISSING}")),
            ("HEAD", &format!("blobs/{MISSING}")),
        ] {
            let path = format!("/v2/{}/{rest}", self.repository);
            self.expect(request(method, path), &[404]).await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Done<String> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let response = self
            .expect(upload("POST", path, Vec::new()), &[202])
            .await?;
        self.location(response)
    }

    async fn complete(&mut self, location: &str, digest: &str, bytes: Vec<u8>) -> Done {
        let request = upload("PUT", with_digest(location, digest), bytes);
        let completed = self.expect(request, &[201]).await;
        if completed.is_err() {
            self.doubt(digest);
        }
        completed.map(drop)
    }

    /// A push that fails may spoil what was pushed before, too: docker-registry truncates the link of a blob
    /// before it writes the same again, and responds with 500 forever if it is killed in between.
    fn doubt(&mut self, digest: &str) {
        self.blobs.retain(|blob| blob.digest != digest);
        self.images.retain(|image| image.digest != digest);
        self.doubtful.insert(digest.to_owned());
    }

    /// Sends a request whose response must have one of these statuses. Any other is a mishap, which a fault
    /// may explain or not.
    async fn expect(&mut self, request: LineRequest, statuses: &[u16]) -> Done<LineResponse> {
        let what = format!("{} {} {}", self.line.name(), request.method, request.target);
        let began = self.progress.now();
        let problem = match self.line.ask(&request).await {
            Ok(response) if statuses.contains(&response.status) => return Ok(response),
            Ok(response) => {
                let body = String::from_utf8_lossy(&response.body);
                let body: String = body.chars().take(300).collect();
                format!("{what}: {}, not {statuses:?}: {body}", response.status)
            }
            Err(error) => format!("{what}: {error:#}"),
        };
        if request.method != "GET" && request.method != "HEAD" {
            self.generation += 1;
        }
        self.progress.failed(Mishap {
            client: format!("raw client {}", self.number),
            // It names no repository, and so goes to the upstream of all others.
            upstream: if request.target == "/v2/" {
                "main"
            } else {
                self.upstream
            },
            began,
            ended: self.progress.now(),
            what: problem,
        });
        Err(Spoilt)
    }

    fn broke<T>(&self, what: &str) -> Done<T> {
        self.progress
            .broke(&format!("raw client {}: {what}", self.number));
        Err(Spoilt)
    }

    fn location(&self, response: LineResponse) -> Done<String> {
        match response.location {
            Some(location) => Ok(path(&location)),
            None => self.broke("a session without a Location"),
        }
    }

    fn content(&mut self) -> (KnownBlob, Vec<u8>) {
        let which = self.dice.random_range(0..BLOBS);
        // After a failure others are pushed.
        let rounds = (self.doubtful.len() as u64) << 8;
        let seed = ((self.number as u64) << 24) + rounds + which;
        let length = if which < LARGE.0 {
            LARGE.1
        } else {
            // Of the seed alone, so that a blob that is pushed again is the same.
            StdRng::seed_from_u64(seed).random_range(1..200_000)
        };
        let bytes = content::bytes(seed, length);
        let digest = content::digest(&bytes);
        let blob = KnownBlob {
            seed,
            length,
            digest,
        };
        (blob, bytes)
    }

    fn know(&mut self, blob: KnownBlob) {
        self.blobs.retain(|other| other.digest != blob.digest);
        self.blobs.push(blob);
    }

    fn any_blob(&mut self) -> Option<KnownBlob> {
        let at = self.dice.random_range(0..self.blobs.len().max(1));
        self.blobs.get(at).cloned()
    }

    fn any_image(&mut self) -> Option<KnownManifest> {
        let at = self.dice.random_range(0..self.images.len().max(1));
        self.images.get(at).cloned()
    }
}

/// The kinds of lines, one for each client in turn, and the program that the client says it is.
pub(crate) fn kinds(
    http1: &crate::tls::SecureClient,
    http2: &crate::tls::SecureClient,
) -> [(LineKind, &'static str); 4] {
    [
        (LineKind::Plain, "curl/8.5.0"),
        (LineKind::H2c, "docker/27.3.1"),
        (LineKind::Tls(http1.clone()), "skopeo/1.9.3"),
        (LineKind::H2Tls(http2.clone()), "soak/1"),
    ]
}

fn request(method: &'static str, target: String) -> LineRequest {
    LineRequest {
        method,
        target,
        ..LineRequest::default()
    }
}

fn upload(method: &'static str, target: String, body: Vec<u8>) -> LineRequest {
    LineRequest {
        headers: vec![("content-type", OCTETS.to_owned())],
        body,
        ..request(method, target)
    }
}

fn with_digest(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

/// The path and query of a Location.
fn path(location: &str) -> String {
    let at = location.find("/v2/").unwrap_or(0);
    location[at..].to_owned()
}
