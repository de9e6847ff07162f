//! Response by response: what a client gets from the proxy is what it gets from the registry itself.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use harness::content;
use harness::foreign::AUTHORIZATION;
use harness::skopeo::Skopeo;
use harness::tls::SecureClient;
use harness::wire::{self, Response, Wire};
use serde_json::Value;

use super::{Ends, Whole, credentials};

const ACCEPT: (&str, &str) = ("Accept", "application/vnd.oci.image.manifest.v1+json");

/// A token for the repository and the catalog, fetched as a client does it.
async fn token(whole: &Whole) -> Result<String> {
    let url = format!(
        "{}?service=octoserve-tests&scope=repository:team/app:pull,push&scope=registry:catalog:*",
        whole.tokens.realm()
    );
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.get(url).header("Authorization", AUTHORIZATION);
    let response: Value = serde_json::from_str(&response.send().await?.text().await?)?;
    Ok(response["token"].as_str().context("no token")?.to_owned())
}

/// The status, the headers and the body, without what differs from response to response: the time, and the
/// names of uploads.
fn seen(response: &Response) -> (u16, Vec<String>, String) {
    let without_upload = |value: &str| match value.split_once("/blobs/uploads/") {
        Some((before, _)) => format!("{before}/blobs/uploads/…"),
        None => value.to_owned(),
    };
    let headers = response.head.headers();
    let headers =
        headers.filter(|(name, _)| !["date", "connection", "docker-upload-uuid"].contains(name));
    let mut headers: Vec<_> = headers
        .map(|(name, value)| format!("{name}: {}", without_upload(value)))
        .collect();
    headers.sort_unstable();
    let body = String::from_utf8_lossy(&response.body).into_owned();
    (response.head.status, headers, body)
}

/// A request that is sent to both.
struct Compared<'r> {
    method: &'static str,
    path: String,
    headers: Vec<(&'r str, &'r str)>,
    body: &'r [u8],
}

/// An image in the registry, as it was pushed.
struct Image {
    manifest: String,
    layer: String,
}

impl Image {
    async fn push(whole: &Whole) -> Result<Self> {
        let skopeo = Skopeo::new()?;
        let name = format!("docker://{}/team/app:1", whole.host());
        let own = credentials();
        let layout = skopeo.layout("one", &[991])?;
        skopeo.copy(&layout, &name, &["--dest-creds", &own]).await?;
        let manifest = skopeo.manifest_as(&name, &own).await?;
        let parsed: Value = serde_json::from_str(&manifest)?;
        let layer = parsed["layers"][0]["digest"].as_str();
        let layer = layer.context("no layer")?.to_owned();
        Ok(Self { manifest, layer })
    }

    fn reads<'r>(&self, bearer: &'r str) -> Vec<Compared<'r>> {
        let auth = ("Authorization", bearer);
        let digest = content::digest(self.manifest.as_bytes());
        let nothing = content::digest(b"nothing");
        let manifest = |reference: &str| format!("/v2/team/app/manifests/{reference}");
        let blob = |digest: &str| format!("/v2/team/app/blobs/{digest}");
        let paths = [
            ("/v2/".to_owned(), vec![]),
            ("/v2/".to_owned(), vec![auth]),
            ("/v2/".to_owned(), vec![("Authorization", "Bearer wrong")]),
            (manifest("1"), vec![ACCEPT]),
            (manifest("1"), vec![ACCEPT, auth]),
            (manifest(&digest), vec![ACCEPT, auth]),
            (manifest("none"), vec![ACCEPT, auth]),
            (blob(&self.layer), vec![auth]),
            (blob(&self.layer), vec![auth, ("Range", "bytes=10-19")]),
            (blob(&self.layer), vec![auth, ("Range", "bytes=99999999-")]),
            (blob(&nothing), vec![auth]),
            (format!("/v2/team/app/referrers/{digest}"), vec![auth]),
            // Of another repository than the token is for.
            ("/v2/other/tags/list".to_owned(), vec![auth]),
            ("/v2/team/app/tags/list".to_owned(), vec![auth]),
            ("/v2/_catalog?n=1".to_owned(), vec![auth]),
            ("/v2/INVALID/tags/list".to_owned(), vec![auth]),
            ("/elsewhere?a=%2F".to_owned(), vec![auth]),
        ];
        let reads = paths.into_iter().flat_map(|(path, headers)| {
            ["GET", "HEAD"].map(|method| Compared {
                method,
                path: path.clone(),
                headers: headers.clone(),
                body: b"",
            })
        });
        reads.collect()
    }

    fn writes<'r>(&'r self, bearer: &'r str) -> Vec<Compared<'r>> {
        let headers = vec![("Authorization", bearer), ("Content-Type", ACCEPT.1)];
        let uploads = "/v2/team/app/blobs/uploads/";
        let wrong = format!("/v2/team/app/manifests/{}", content::digest(b"nothing"));
        let mount = format!("{uploads}?mount={}&from=team/app", self.layer);
        let paths = [
            ("POST", uploads.to_owned(), &b""[..]),
            ("POST", mount, b""),
            ("PUT", "/v2/team/app/manifests/2".to_owned(), b"{}"),
            (
                "PUT",
                "/v2/team/app/manifests/2".to_owned(),
                self.manifest.as_bytes(),
            ),
            // Of another digest than its own.
            ("PUT", wrong, self.manifest.as_bytes()),
            ("PATCH", format!("{uploads}none"), b"x"),
            ("DELETE", format!("{uploads}none"), b""),
            ("OPTIONS", "/v2/".to_owned(), b""),
        ];
        let writes = paths.into_iter().map(|(method, path, body)| Compared {
            method,
            path,
            headers: headers.clone(),
            body,
        });
        writes.collect()
    }
}

#[tokio::test]
async fn the_proxy_responds_as_the_registry_does() -> Result<()> {
    let whole = Whole::with(Ends::Octoserve).await?;
    let image = Image::push(&whole).await?;
    let bearer = format!("Bearer {}", token(&whole).await?);
    let proxy = SecureClient::trusting(&whole.certificate)?;
    let registry = SecureClient::trusting_file(&whole.authority.path())?;
    let mut statuses = BTreeSet::new();
    for compared in image
        .reads(&bearer)
        .into_iter()
        .chain(image.writes(&bearer))
    {
        let Compared {
            method,
            path,
            headers,
            body,
        } = compared;
        let request = wire::request(method, &path, &headers, body);
        let mut responses = Vec::new();
        for (client, address) in [
            (&registry, whole.first.address()),
            (&proxy, whole.server.address()),
        ] {
            let mut wire = Wire::inside(client.connect(address).await?);
            wire.send(&request).await?;
            // docker-registry itself cuts the body of a 416: that is a response, too.
            let response = wire.response(method).await;
            statuses.extend(response.as_ref().ok().map(|response| response.head.status));
            let response = response.map(|response| seen(&response));
            responses.push(response.map_err(|_| "cut"));
        }
        assert_eq!(responses[1], responses[0], "{method} {path}");
    }
    // Both would also agree where they refuse everything.
    for status in [200, 201, 202, 206, 400, 401, 404] {
        ensure!(statuses.contains(&status), "{status}: {statuses:?}");
    }
    Ok(())
}
