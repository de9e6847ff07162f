//! The clients of this field push and pull over TLS.

use anyhow::Result;
use harness::containerd::Containerd;
use harness::docker::Docker;
use harness::foreign::ForeignRegistry;
use harness::podman::Podman;
use harness::scrape::metric;
use harness::skopeo::Skopeo;

use super::Secure;

async fn front() -> Result<(ForeignRegistry, Secure)> {
    let registry = ForeignRegistry::start().await?;
    let front = Secure::in_front_of(&registry.url(), "").await?;
    Ok((registry, front))
}

/// All of it went over TLS: nothing else is spoken there.
async fn pulled(front: &Secure) -> Result<()> {
    let manifests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
    let pulled = manifests.label("method", "GET").label("status", "200");
    let scrape = front.server.scrape().await?;
    anyhow::ensure!(scrape.sum(&pulled) >= Some(1.0), "{}", scrape.text());
    Ok(())
}

#[tokio::test]
async fn skopeo_pushes_and_pulls() -> Result<()> {
    let (_registry, front) = front().await?;
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[61, 62])?;
    let image = format!("docker://{}/team/app:1", front.server.secure_host());
    // A directory as skopeo wants it: every `.crt` in it is trusted.
    let trusted = tempfile::tempdir()?;
    std::fs::copy(front.certificate.path(), trusted.path().join("ca.crt"))?;
    let trusted = trusted.path().display().to_string();
    skopeo
        .copy_verified(&layout, &image, &["--dest-cert-dir", &trusted])
        .await?;
    let back = format!("dir:{}", skopeo.directory().join("back").display());
    skopeo
        .copy_verified(&image, &back, &["--src-cert-dir", &trusted])
        .await?;
    assert_eq!(
        skopeo.manifest(&image).await?,
        skopeo.manifest(&back).await?
    );
    pulled(&front).await
}

#[tokio::test]
async fn podman_pushes_and_pulls() -> Result<()> {
    let (_registry, front) = front().await?;
    let podman = Podman::new()?;
    let image = format!("{}/team/app:1", front.server.secure_host());
    podman.image(&image, "amd64", 63).await?;
    podman.push(&image).await?;
    podman.forget(&[&image]).await?;
    podman.pull(&image, &[]).await?;
    pulled(&front).await
}

/// The daemon takes any certificate of 127.0.0.0/8.
#[tokio::test]
async fn docker_pushes_and_pulls() -> Result<()> {
    let (_registry, front) = front().await?;
    let docker = Docker::shared().await?;
    let image = format!("{}/team/app:1", front.server.host());
    docker.image(&image, None, 164).await?;
    let id = docker.id(&image).await?;
    docker.run(&["push", &image]).await?;
    docker.forget(&[&image]).await?;
    docker.run(&["pull", &image]).await?;
    assert_eq!(docker.id(&image).await?, id);
    pulled(&front).await
}

#[tokio::test]
async fn containerd_pulls_and_pushes() -> Result<()> {
    let (_registry, front) = front().await?;
    let host = front.server.secure_host();
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[65, 66])?;
    let image = format!("{host}/team/app:1");
    skopeo
        .copy(&layout, &format!("docker://{image}"), &[])
        .await?;
    let containerd = Containerd::trusting(&host, &front.certificate.path()).await?;
    // Its layers are no archives, so that they are fetched but not unpacked.
    containerd.fetch(&image, &[]).await?;
    let copy = format!("{host}/team/copy:1");
    containerd.tag(&image, &copy).await?;
    containerd.push(&copy, &[]).await?;
    assert_eq!(
        skopeo.manifest(&format!("docker://{copy}")).await?,
        skopeo.manifest(&format!("docker://{image}")).await?
    );
    pulled(&front).await
}
