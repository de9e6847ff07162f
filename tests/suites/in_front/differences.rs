//! Response by response: what a client gets from the proxy is what it gets from the registry itself.

use anyhow::{Context, Result};
use harness::content;
use harness::foreign::AUTHORIZATION;
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

#[tokio::test]
async fn the_proxy_responds_as_the_registry_does() -> Result<()> {
    let whole = Whole::with(Ends::Octoserve).await?;
    let skopeo = harness::skopeo::Skopeo::new()?;
    let image = format!("docker://{}/team/app:1", whole.host());
    let own = credentials();
    let layout = skopeo.layout("one", &[991])?;
    skopeo
        .copy(&layout, &image, &["--dest-creds", &own])
        .await?;
    let manifest = skopeo.manifest_as(&image, &own).await?;
    let parsed: Value = serde_json::from_str(&manifest)?;
    let layer = parsed["layers"][0]["digest"].as_str().context("no layer")?;

    let bearer = format!("Bearer {}", token(&whole).await?);
    let auth = ("Authorization", bearer.as_str());
    let nothing = content::digest(b"nothing");
    let digest = content::digest(manifest.as_bytes());
    let mut requests: Vec<(&str, String, Vec<(&str, &str)>, &[u8])> = Vec::new();
    for method in ["GET", "HEAD"] {
        for (path, headers) in [
            ("/v2/".to_owned(), vec![]),
            ("/v2/".to_owned(), vec![auth]),
            ("/v2/".to_owned(), vec![("Authorization", "Bearer wrong")]),
            ("/v2/team/app/manifests/1".to_owned(), vec![ACCEPT]),
            ("/v2/team/app/manifests/1".to_owned(), vec![ACCEPT, auth]),
            (
                format!("/v2/team/app/manifests/{digest}"),
                vec![ACCEPT, auth],
            ),
            ("/v2/team/app/manifests/none".to_owned(), vec![ACCEPT, auth]),
            (format!("/v2/team/app/blobs/{layer}"), vec![auth]),
            (
                format!("/v2/team/app/blobs/{layer}"),
                vec![auth, ("Range", "bytes=10-19")],
            ),
            (
                format!("/v2/team/app/blobs/{layer}"),
                vec![auth, ("Range", "bytes=99999999-")],
            ),
            (format!("/v2/team/app/blobs/{nothing}"), vec![auth]),
            (format!("/v2/team/app/referrers/{digest}"), vec![auth]),
            // Of another repository than the token is for.
            ("/v2/other/tags/list".to_owned(), vec![auth]),
            ("/v2/team/app/tags/list".to_owned(), vec![auth]),
            ("/v2/_catalog?n=1".to_owned(), vec![auth]),
            ("/v2/INVALID/tags/list".to_owned(), vec![auth]),
            ("/elsewhere?a=%2F".to_owned(), vec![auth]),
        ] {
            requests.push((method, path, headers, b""));
        }
    }
    let kind = ("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    for (method, path, body) in [
        ("POST", "/v2/team/app/blobs/uploads/".to_owned(), &b""[..]),
        (
            "POST",
            format!("/v2/team/app/blobs/uploads/?mount={layer}&from=team/app"),
            b"",
        ),
        ("PUT", "/v2/team/app/manifests/2".to_owned(), b"{}"),
        (
            "PUT",
            "/v2/team/app/manifests/2".to_owned(),
            manifest.as_bytes(),
        ),
        ("PATCH", "/v2/team/app/blobs/uploads/none".to_owned(), b"x"),
        ("DELETE", "/v2/team/app/blobs/uploads/none".to_owned(), b""),
        ("OPTIONS", "/v2/".to_owned(), b""),
    ] {
        requests.push((method, path, vec![auth, kind], body));
    }

    let proxy = SecureClient::trusting(&whole.certificate)?;
    let registry = SecureClient::trusting_file(&whole.authority.path())?;
    for (method, path, headers, body) in requests {
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
            responses.push(
                response
                    .map(|response| seen(&response))
                    .map_err(|error| error.to_string()),
            );
        }
        assert_eq!(responses[1], responses[0], "{method} {path}");
    }
    Ok(())
}
