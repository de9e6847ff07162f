//! Real clients and real registries: docker, skopeo and podman by prefixes that are kept and stripped,
//! containerd by `?ns=`.

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::containerd::Containerd;
use harness::content;
use harness::docker::Docker;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::podman::Podman;
use harness::scrape::metric;
use harness::skopeo::Skopeo;
use reqwest::{Method, Response};

use super::proxy;

/// Three registries behind one proxy.
struct Registries {
    server: Server,
    /// `team-a`, which it does not know of.
    own: Server,
    /// `team-b`, which it does not know of; its Locations are absolute.
    foreign: ForeignRegistry,
    /// `kept`, and everything else.
    kept: ForeignRegistry,
    client: Client,
}

impl Registries {
    async fn start() -> Result<Self> {
        let own = Launch::registry().start().await?;
        let foreign = ForeignRegistry::start().await?;
        let kept = ForeignRegistry::start().await?;
        let server = proxy(&[
            (
                "own",
                &own.url(""),
                "match: {prefixes: [team-a], strip_prefix: true}",
            ),
            (
                "foreign",
                &foreign.url(),
                "match: {prefixes: [team-b], strip_prefix: true}",
            ),
            ("kept", &kept.url(), "match: {prefixes: [kept]}"),
            ("rest", &kept.url(), ""),
        ])
        .await?;
        let client = Client::new(&server.url(""))?;
        Ok(Self {
            server,
            own,
            foreign,
            kept,
            client,
        })
    }

    /// Clients of the registries, and the name of a repository at each and at the proxy.
    fn each(&self) -> Result<[(Client, &'static str, &'static str); 4]> {
        Ok([
            (Client::new(&self.own.url(""))?, "app", "team-a/app"),
            (Client::new(&self.foreign.url())?, "app/x", "team-b/app/x"),
            (Client::new(&self.kept.url())?, "kept/app", "kept/app"),
            (Client::new(&self.kept.url())?, "lib/app", "lib/app"),
        ])
    }
}

fn location(response: &Response) -> Result<String> {
    let location = response.headers().get("location").context("no Location")?;
    Ok(location.to_str()?.to_owned())
}

#[tokio::test]
async fn images_lie_at_their_registries_under_their_own_names() -> Result<()> {
    let all = Registries::start().await?;
    for (at, (registry, name, ours)) in all.each()?.into_iter().enumerate() {
        let seed = 7200 + u64::try_from(at)?;
        let image = all.client.push_image(ours, "1", &[seed]).await?;
        registry.pull_image(name, "1").await?;
        all.client.pull_image(ours, &image.digest).await?;
    }
    let catalog = all.client.read("/v2/_catalog").await?;
    let catalog: serde_json::Value = serde_json::from_slice(&catalog)?;
    assert_eq!(
        catalog["repositories"],
        serde_json::json!(["kept/app", "lib/app"])
    );
    // The metrics know repositories by the clients' names.
    let shown = metric("octoserve_repository_operations_total").label("operation", "push");
    for (_, _, ours) in all.each()? {
        shown
            .clone()
            .label("repository", ours)
            .value(1)
            .assert_in(&all.server)
            .await?;
    }
    let scrape = all.server.scrape().await?;
    let names = &scrape.label_values()["repository"];
    ensure!(
        !names.iter().any(|name| name.starts_with("app")),
        "{names:?}"
    );
    let sessions = |event: &str| metric("octoserve_upload_sessions_total").label("event", event);
    let unknown = scrape.sum(&sessions("unknown")).unwrap_or_default();
    ensure!(unknown < 0.5, "{}", scrape.text());
    Ok(())
}

#[tokio::test]
async fn an_upload_in_chunks_stays_at_its_registry() -> Result<()> {
    let all = Registries::start().await?;
    for (registry, name, ours) in all.each()? {
        let mut next = all.client.open_upload(ours).await?;
        for chunk in ["some", "more"] {
            let patched = all.client.send(Method::PATCH, &next, &[], chunk).await?;
            ensure!(
                patched.status() == 202,
                "PATCH {next}: {}",
                patched.status()
            );
            next = location(&patched)?;
            let asked = all.client.get(&next).await?;
            ensure!(asked.status() == 204, "GET {next}: {}", asked.status());
            next = location(&asked)?;
            ensure!(
                next.contains(&format!("/v2/{ours}/blobs/uploads/")),
                "{next}"
            );
            ensure!(
                !next.contains("_octoserve"),
                "it leads there by itself: {next}"
            );
        }
        let digest = content::digest(b"somemore");
        let joint = if next.contains('?') { '&' } else { '?' };
        let put = format!("{next}{joint}digest={digest}");
        let stored = all.client.send(Method::PUT, &put, &[], "").await?;
        ensure!(stored.status() == 201, "PUT {put}: {}", stored.status());
        let blob = location(&stored)?;
        ensure!(
            blob.ends_with(&format!("/v2/{ours}/blobs/{digest}")),
            "{blob}"
        );
        registry.read(&format!("/v2/{name}/blobs/{digest}")).await?;
        // A session that is cancelled is gone.
        let next = all.client.open_upload(ours).await?;
        let cancelled = all.client.send(Method::DELETE, &next, &[], "").await?;
        ensure!(cancelled.status() == 204, "{}", cancelled.status());
    }
    let active = metric("octoserve_upload_sessions_active");
    active.value(0).assert_in(&all.server).await
}

#[tokio::test]
async fn a_blob_is_mounted_within_a_registry_and_uploaded_across() -> Result<()> {
    let all = Registries::start().await?;
    let blob = content::bytes(7300, 1000);
    let digest = content::digest(&blob);
    for (_, _, ours) in all.each()? {
        all.client.push_blob(ours, &blob).await?;
    }
    for (into, from, status) in [
        ("team-a/other", "team-a/app", 201),
        ("team-b/other", "team-b/app/x", 201),
        ("kept/other", "kept/app", 201),
        ("team-b/another", "team-a/app", 202),
        // It is there, but clients know it by no such name.
        ("team-b/another", "app/x", 202),
        ("team-b/another", "kept/app", 202),
        ("kept/another", "team-a/app", 202),
    ] {
        let path = format!("/v2/{into}/blobs/uploads/?mount={digest}&from={from}");
        let response = all.client.send(Method::POST, &path, &[], "").await?;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let location = location(&response)?;
        ensure!(
            location.contains(&format!("/v2/{into}/blobs/")),
            "{location}"
        );
    }
    let mounts = metric("octoserve_blob_mounts_total");
    let fallback = mounts.clone().label("result", "fallback");
    fallback.value(4).assert_in(&all.server).await?;
    mounts
        .label("result", "mounted")
        .value(3)
        .assert_in(&all.server)
        .await
}

#[tokio::test]
async fn pages_of_tags_are_followed_by_the_names_of_clients() -> Result<()> {
    let all = Registries::start().await?;
    for tag in ["1", "2", "3"] {
        all.client.push_image("team-a/app", tag, &[7400]).await?;
    }
    let mut next = Some("/v2/team-a/app/tags/list?n=2".to_owned());
    let mut tags = Vec::new();
    while let Some(path) = next {
        let response = all.client.get(&path).await?;
        ensure!(response.status() == 200, "{path}: {}", response.status());
        next = match response.headers().get("link") {
            None => None,
            Some(link) => {
                let link = link.to_str()?.strip_prefix('<').context("no link")?;
                Some(link.split('>').next().context("no end")?.to_owned())
            }
        };
        let page: serde_json::Value = serde_json::from_slice(&response.bytes().await?)?;
        tags.extend(page["tags"].as_array().context("no tags")?.clone());
    }
    assert_eq!(tags, ["1", "2", "3"]);
    Ok(())
}

#[tokio::test]
async fn docker_skopeo_and_podman_work_with_each_prefix() -> Result<()> {
    let all = Registries::start().await?;
    let docker = Docker::shared().await?;
    let (skopeo, podman) = (Skopeo::new()?, Podman::new()?);
    let host = all.server.host();
    for (at, team) in ["team-a", "team-b", "kept", "lib"].into_iter().enumerate() {
        let seed = 7500 + 10 * u64::try_from(at)?;
        let base = format!("{host}/{team}/docker/base:1");
        let web = format!("{host}/{team}/docker/web:1");
        docker.image(&base, None, seed).await?;
        docker.image(&web, Some(&base), seed + 1).await?;
        docker.run(&["push", &base]).await?;
        docker.run(&["push", &web]).await?;
        let id = docker.id(&web).await?;
        docker.forget(&[&web, &base]).await?;
        docker.run(&["pull", &web]).await?;
        assert_eq!(docker.id(&web).await?, id, "{team}");
        docker.forget(&[&web]).await?;

        let from = format!("docker://{web}");
        let copy = format!("docker://{host}/{team}/skopeo:1");
        skopeo.copy(&from, &copy, &[]).await?;
        let tags = skopeo
            .tags(&format!("docker://{host}/{team}/skopeo"))
            .await?;
        assert_eq!(tags, ["1"], "{team}");

        let image = format!("{host}/{team}/podman:1");
        podman.image(&image, "amd64", seed + 2).await?;
        podman.push(&image).await?;
        podman.forget(&[&image]).await?;
        podman.pull(&image, &[]).await?;
    }
    // From one registry to another.
    let from = format!("docker://{host}/team-a/skopeo:1");
    let to = format!("docker://{host}/team-b/from-a:1");
    skopeo.copy(&from, &to, &[]).await?;
    let (own, foreign) = (
        Client::new(&all.own.url(""))?,
        Client::new(&all.foreign.url())?,
    );
    own.pull_image("skopeo", "1").await?;
    foreign.pull_image("from-a", "1").await?;
    foreign.pull_image("docker/web", "1").await?;
    let failed = metric("octoserve_http_requests_total").label("status", "502");
    assert_eq!(all.server.scrape().await?.sum(&failed), None);
    Ok(())
}

#[tokio::test]
async fn containerd_reaches_the_registry_that_it_names() -> Result<()> {
    let (hub, other) = (
        Launch::registry().start().await?,
        ForeignRegistry::start().await?,
    );
    let server = proxy(&[
        ("hub", &hub.url(""), "match: {ns: [hub.invalid]}"),
        (
            "other",
            &other.url(),
            "match: {ns: ['other.invalid', 'more.invalid']}",
        ),
    ])
    .await?;
    // The same name at both, with other content.
    for (at, url) in [hub.url(""), other.url()].iter().enumerate() {
        let client = Client::new(url)?;
        client
            .push_image("team/app", "1", &[7600 + u64::try_from(at)?])
            .await?;
    }
    let registries = ["hub.invalid", "other.invalid", "unknown.invalid"];
    let containerd = Containerd::mirroring(&registries, &server.host()).await?;
    for (registry, client) in [
        ("hub.invalid", Client::new(&hub.url(""))?),
        ("other.invalid", Client::new(&other.url())?),
    ] {
        let image = format!("{registry}/team/app:1");
        containerd.fetch(&image, &[]).await?;
        let manifest = client.read("/v2/team/app/manifests/1").await?;
        let by_digest = format!("{registry}/team/app@{}", content::digest(&manifest));
        containerd.fetch(&by_digest, &[]).await?;
    }
    let refused = containerd.fetch("unknown.invalid/team/app:1", &[]).await;
    ensure!(refused.is_err(), "an unknown registry");
    for name in ["hub", "other"] {
        let sent = server.scrape().await?.sum(&super::responses_of(name));
        ensure!(sent >= Some(3.0), "{name}: {sent:?}");
    }
    let unknown = metric("octoserve_http_requests_total").label("status", "404");
    ensure!(server.scrape().await?.sum(&unknown) >= Some(1.0));
    Ok(())
}
