//! A registry without the referrers API: clients fall back to a tag that is made of the subject's digest
//! (the referrers tag schema of the OCI specification), and the proxy counts what they do.

use anyhow::{Context, Result, ensure};
use harness::client::{self, Client, INDEX, MANIFEST};
use harness::foreign::ForeignRegistry;
use harness::octoserve::Launch;
use harness::oras;
use harness::scrape::{Metric, metric};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Attaches a file to an image: pushes an artifact whose subject is the image, with oras-py, and
/// maintains the fallback tag as the specification asks of clients, with what oras-py has for it.
const ATTACH: &str = "
import oras.oci
name, path, digest, size, media_type = arguments
subject = oras.oci.Subject(media_type, digest, int(size))
pushed = client.push(
    target=f'{host}/{name}:signature', files=[path + ':application/vnd.example.signature'],
    subject=subject, disable_path_validation=True, quiet=True)
attached = pushed.headers['Docker-Content-Digest']
base = f'http://{host}/v2/{name}'
statuses = [client.do_request(f'{base}/referrers/{digest}').status_code]
tag = digest.replace(':', '-')
index_type = 'application/vnd.oci.image.index.v1+json'
found = client.do_request(f'{base}/manifests/{tag}', headers={'Accept': index_type})
statuses.append(found.status_code)
index = found.json() if found.status_code == 200 else {
    'schemaVersion': 2, 'mediaType': index_type, 'manifests': []}
manifest = client.do_request(
    f'{base}/manifests/{attached}',
    headers={'Accept': 'application/vnd.oci.image.manifest.v1+json'})
index['manifests'].append({
    'mediaType': 'application/vnd.oci.image.manifest.v1+json', 'digest': attached,
    'size': len(manifest.content), 'artifactType': 'application/vnd.example.signature'})
put = client.do_request(
    f'{base}/manifests/{tag}', 'PUT', data=json.dumps(index).encode(),
    headers={'Content-Type': index_type})
statuses.append(put.status_code)
print(json.dumps([attached, statuses, manifest.json().get('subject')]))
";

fn requests(endpoint: &str, method: &str, status: &str) -> Metric {
    metric("octoserve_http_requests_total")
        .label("endpoint", endpoint)
        .label("method", method)
        .label("status", status)
}

#[tokio::test]
async fn oras_attaches_and_clients_discover_by_the_fallback_tag() -> Result<()> {
    let registry = ForeignRegistry::start().await?;
    let server = Launch::in_front_of(&registry.url()).start().await?;
    let host = server.host();
    let client = Client::new(&server.url(""))?;
    let image = client.push_image("team/app", "1", &[81]).await?;
    let size = image.manifest.len().to_string();
    let work = TempDir::new()?;
    let mut attached = Vec::new();
    for (number, found) in [(0, 404), (1, 200)] {
        let path = work.path().join(format!("signature-{number}"));
        std::fs::write(&path, format!("signature {number}"))?;
        let path = path.display().to_string();
        let arguments = ["team/app", &path, &image.digest, &size, MANIFEST];
        let said = oras::run(&host, ATTACH, &arguments).await?;
        // No referrers API; the tag is there the second time; the new list is stored.
        assert_eq!(said[1], json!([404, found, 201]), "{said}");
        assert_eq!(said[2]["digest"], image.digest, "{said}");
        attached.push(said[0].as_str().context("no digest")?.to_owned());
    }
    requests("referrers", "GET", "404")
        .value(2)
        .assert_in(&server)
        .await?;
    requests("manifest", "GET", "404")
        .value(1)
        .assert_in(&server)
        .await?;
    // The image, two artifacts, and the list of them, twice.
    requests("manifest", "PUT", "201")
        .value(5)
        .assert_in(&server)
        .await?;

    // Another client discovers them: the same through the proxy as at the registry.
    let tag = format!("/v2/team/app/manifests/{}", image.digest.replace(':', "-"));
    let list = client.read(&tag).await?;
    ensure!(list == Client::new(&registry.url())?.read(&tag).await?);
    let list: Value = serde_json::from_slice(&list)?;
    assert_eq!(list["mediaType"], INDEX);
    let listed: Vec<_> = list["manifests"]
        .as_array()
        .context("no manifests")?
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(listed, attached);
    for digest in &attached {
        // Its manifest, its configuration and its file, with their digests.
        assert_eq!(client.pull_image("team/app", digest).await?, 2);
    }
    // A subject that nothing refers to has neither.
    let nothing = harness::content::digest(b"nothing");
    for path in [
        format!("/v2/team/app/referrers/{nothing}"),
        format!("/v2/team/app/manifests/{}", nothing.replace(':', "-")),
    ] {
        let response = client.send(Method::GET, &path, &[], "").await?;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    requests("referrers", "GET", "404")
        .value(3)
        .assert_in(&server)
        .await
}

/// The specification's way to withdraw a referrer: the list without it is pushed again.
#[tokio::test]
async fn the_fallback_tag_is_replaced_and_deleted() -> Result<()> {
    let registry = ForeignRegistry::start().await?;
    let server = Launch::in_front_of(&registry.url()).start().await?;
    let client = Client::new(&server.url(""))?;
    let image = client.push_image("team/app", "1", &[82]).await?;
    let tag = image.digest.replace(':', "-");
    let list = |manifests: Vec<Value>| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string()
    };
    let entry = client::descriptor(MANIFEST, image.manifest.as_bytes());
    for manifests in [vec![entry.clone()], vec![]] {
        let list = list(manifests);
        let digest = client.push_manifest("team/app", &tag, INDEX, &list).await?;
        let read = client
            .read(&format!("/v2/team/app/manifests/{tag}"))
            .await?;
        assert_eq!(harness::content::digest(&read), digest);
    }
    let digest = harness::content::digest(list(vec![]).as_bytes());
    let path = format!("/v2/team/app/manifests/{digest}");
    let deleted = client.send(Method::DELETE, &path, &[], "").await?;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    let gone = client.get(&format!("/v2/team/app/manifests/{tag}")).await?;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    Ok(())
}
