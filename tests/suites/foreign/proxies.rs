//! Two proxies one behind the other, and nginx in front of both: what a registry says of its own address
//! leads a client back through all of them.

use anyhow::{Context, Result, ensure};
use harness::docker::Docker;
use harness::foreign::ForeignRegistry;
use harness::octoserve::{Launch, Server};
use harness::scrape::metric;
use harness::skopeo::Skopeo;
use harness::terminator::Terminator;
use harness::wire;

/// octoserve behind octoserve, in front of a registry.
struct Chain {
    outer: Server,
    inner: Server,
    _registry: ForeignRegistry,
}

/// Whom both believe about their clients.
const TRUSTED: &str = "trust_forwarded_from: [127.0.0.0/8]\n";

impl Chain {
    async fn to(registry: ForeignRegistry, keys: &str) -> Result<Self> {
        let front = async |url: &str| {
            let configuration = format!("upstreams: [{{replicas: ['{url}']}}]\n{keys}");
            Launch::configured(&configuration).start().await
        };
        let inner = front(&registry.url()).await?;
        let outer = front(&inner.url("")).await?;
        Ok(Self {
            outer,
            inner,
            _registry: registry,
        })
    }

    /// Both of them counted the manifest that was pushed, and what was pulled.
    async fn saw_a_push_and_a_pull(&self) -> Result<()> {
        for server in [&self.outer, &self.inner] {
            let manifests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
            let pushed = manifests
                .clone()
                .label("method", "PUT")
                .label("status", "201");
            pushed.value(1).assert_in(server).await?;
            let blobs = metric("octoserve_http_requests_total").label("endpoint", "upload_session");
            let uploads = blobs.label("status", "201");
            let uploads = server.scrape().await?.sum(&uploads);
            ensure!(uploads >= Some(2.0), "{uploads:?}");
            let failed = metric("octoserve_upstream_errors_total");
            ensure!(server.scrape().await?.sum(&failed).unwrap_or_default() < 0.5);
        }
        Ok(())
    }
}

/// Registries whose locations are URLs, and ones whose are paths.
async fn registries() -> Result<[(ForeignRegistry, bool); 2]> {
    Ok([
        (ForeignRegistry::start().await?, true),
        (
            ForeignRegistry::start_with_relative_locations().await?,
            false,
        ),
    ])
}

#[tokio::test]
async fn an_upload_location_names_the_outer_proxy_or_none() -> Result<()> {
    for keys in ["", TRUSTED] {
        for (registry, is_absolute) in registries().await? {
            let chain = Chain::to(registry, keys).await?;
            let request = wire::request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
            let response = wire::exchange(chain.outer.address(), "POST", &request).await?;
            let location = response.head.header("location").context("no Location")?;
            let expected = if is_absolute {
                "http://registry/v2/"
            } else {
                "/v2/"
            };
            ensure!(location.starts_with(expected), "{location}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn skopeo_pushes_and_pulls_through_two_proxies() -> Result<()> {
    for (registry, _) in registries().await? {
        let chain = Chain::to(registry, "").await?;
        copies_through(&chain.outer.host()).await?;
        chain.saw_a_push_and_a_pull().await?;
    }
    Ok(())
}

#[tokio::test]
async fn skopeo_pushes_and_pulls_through_a_tls_terminator_and_two_proxies() -> Result<()> {
    for (registry, is_absolute) in registries().await? {
        let chain = Chain::to(registry, TRUSTED).await?;
        let terminator = Terminator::start(chain.outer.address()).await?;
        copies_through(&terminator.host()).await?;
        chain.saw_a_push_and_a_pull().await?;
        // What nginx says of the scheme has arrived behind both.
        let headers = [("X-Forwarded-Proto", "https")];
        let request = wire::request("POST", "/v2/team/app/blobs/uploads/", &headers, b"");
        let response = wire::exchange(chain.outer.address(), "POST", &request).await?;
        let location = response.head.header("location").context("no Location")?;
        ensure!(
            location.starts_with("https://registry/v2/") == is_absolute,
            "{location}"
        );
    }
    Ok(())
}

/// Pushes an image, pulls it, and compares.
async fn copies_through(host: &str) -> Result<()> {
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[271, 272])?;
    let image = format!("docker://{host}/team/app:1");
    skopeo.copy(&layout, &image, &[]).await?;
    let back = format!("dir:{}", skopeo.directory().join("back").display());
    skopeo.copy(&image, &back, &[]).await?;
    // The push has compressed the layers, so that the manifest is another one than the layout's.
    assert_eq!(
        skopeo.manifest(&image).await?,
        skopeo.manifest(&back).await?
    );
    Ok(())
}

/// The daemon takes any certificate of 127.0.0.0/8.
#[tokio::test]
async fn docker_pushes_and_pulls_through_a_tls_terminator_and_two_proxies() -> Result<()> {
    for (seed, (registry, _)) in (770..).zip(registries().await?) {
        let chain = Chain::to(registry, TRUSTED).await?;
        let terminator = Terminator::start(chain.outer.address()).await?;
        let docker = Docker::shared().await?;
        let image = format!("{}/team/app:1", terminator.address());
        docker.image(&image, None, seed).await?;
        let id = docker.id(&image).await?;
        docker.run(&["push", &image]).await?;
        docker.forget(&[&image]).await?;
        docker.run(&["pull", &image]).await?;
        assert_eq!(docker.id(&image).await?, id);
        chain.saw_a_push_and_a_pull().await?;
    }
    Ok(())
}
