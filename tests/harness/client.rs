//! A small distribution client. It sends exactly the requests that a test asks for, so the test
//! knows what the metrics must show.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::content;

/// The media type of the manifests that [`Client::push_image`] makes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Every kind of manifest: what `GET` accepts, as all clients do.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, */*";

/// A client of the registry at one URL. It follows no redirects and ignores proxy variables.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

/// An image that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: String,
    /// The manifest, byte for byte.
    pub manifest: String,
    /// The configuration's digest.
    pub config: String,
    /// The layers' digests.
    pub layers: Vec<String>,
}

impl Client {
    /// A client of the registry at `base`, such as `http://127.0.0.1:5000`.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        })
    }

    /// Sends one request; `path` may be a whole URL, as in a `Location`.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Response> {
        let url = match path.strip_prefix('/') {
            Some(_) => format!("{}{path}", self.base),
            None => path.to_owned(),
        };
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }

    /// GETs a path.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn get(&self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, &[("Accept", ACCEPT)], "")
            .await
    }

    /// GETs a path and returns the whole body.
    ///
    /// # Errors
    /// If the response is not 200.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        let response = self.get(path).await?;
        ensure!(
            response.status() == StatusCode::OK,
            "GET {path}: {}",
            response.status()
        );
        Ok(response.bytes().await?)
    }

    /// Pushes a blob in two requests (POST, then PUT) and returns its digest.
    ///
    /// # Errors
    /// If the registry refuses it.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = content::digest(bytes);
        let location = self.open_upload(repository).await?;
        let joint = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{joint}digest={digest}");
        let octets = [("Content-Type", "application/octet-stream")];
        let response = self
            .send(Method::PUT, &path, &octets, bytes.to_vec())
            .await?;
        ensure!(
            response.status() == StatusCode::CREATED,
            "PUT {path}: {}",
            said(response).await
        );
        Ok(digest)
    }

    /// Opens an upload session (one request) and returns its location.
    ///
    /// # Errors
    /// If the registry refuses.
    pub async fn open_upload(&self, repository: &str) -> Result<String> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let response = self.send(Method::POST, &path, &[], "").await?;
        ensure!(
            response.status() == StatusCode::ACCEPTED,
            "POST {path}: {}",
            response.status()
        );
        let location = response
            .headers()
            .get("location")
            .context("202 without a Location")?;
        Ok(location.to_str()?.to_owned())
    }

    /// Pushes a manifest in one request and returns its digest.
    ///
    /// # Errors
    /// If the registry refuses it.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &str,
    ) -> Result<String> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let headers = [("Content-Type", media_type)];
        let response = self
            .send(Method::PUT, &path, &headers, manifest.to_owned())
            .await?;
        ensure!(
            response.status() == StatusCode::CREATED,
            "PUT {path}: {}",
            said(response).await
        );
        Ok(content::digest(manifest.as_bytes()))
    }

    /// Pushes an image: two requests for each of the layers (1 KiB each) and for the configuration,
    /// one for the manifest.
    ///
    /// # Errors
    /// If the registry refuses a part of it.
    pub async fn push_image(
        &self,
        repository: &str,
        reference: &str,
        seeds: &[u64],
    ) -> Result<Pushed> {
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for &seed in seeds {
            let bytes = content::bytes(seed, 1024);
            let digest = self.push_blob(repository, &bytes).await?;
            descriptors.push(descriptor("application/vnd.oci.image.layer.v1.tar", &bytes));
            layers.push(digest);
        }
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": layers},
        });
        let config = config.to_string();
        let config_digest = self.push_blob(repository, config.as_bytes()).await?;
        let config_type = "application/vnd.oci.image.config.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(config_type, config.as_bytes()), "layers": descriptors,
        });
        let manifest = manifest.to_string();
        let digest = self
            .push_manifest(repository, reference, MANIFEST, &manifest)
            .await?;
        Ok(Pushed {
            digest,
            manifest,
            config: config_digest,
            layers,
        })
    }

    /// Pulls an image (a manifest, then each of its blobs once) and checks every digest.
    ///
    /// # Errors
    /// If something is missing or differs.
    pub async fn pull_image(&self, repository: &str, reference: &str) -> Result<usize> {
        let bytes = self
            .read(&format!("/v2/{repository}/manifests/{reference}"))
            .await?;
        let manifest: Value = serde_json::from_slice(&bytes)?;
        let layers = manifest["layers"]
            .as_array()
            .context("a manifest without layers")?;
        for part in layers.iter().chain([&manifest["config"]]) {
            let digest = part["digest"]
                .as_str()
                .context("a descriptor without a digest")?;
            let blob = self
                .read(&format!("/v2/{repository}/blobs/{digest}"))
                .await?;
            ensure!(content::digest(&blob) == digest, "{digest} has other bytes");
        }
        Ok(layers.len() + 1)
    }
}

/// The descriptor of some bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": content::digest(bytes), "size": bytes.len()})
}

async fn said(response: Response) -> String {
    let status = response.status();
    format!("{status} {}", response.text().await.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::ForeignRegistry;

    #[tokio::test]
    async fn an_image_that_was_pushed_can_be_pulled() {
        let registry = ForeignRegistry::start().await.unwrap();
        let client = Client::new(&registry.url()).unwrap();
        let pushed = client.push_image("team/app", "1", &[1, 2]).await.unwrap();
        assert_eq!(
            client.pull_image("team/app", &pushed.digest).await.unwrap(),
            3
        );
    }
}
