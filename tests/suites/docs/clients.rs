//! The files for clients on the pages, used by these clients.

use anyhow::{Context, Result};
use harness::containerd::Containerd;
use harness::octoserve::Launch;
use harness::scrape::metric;
use harness::skopeo::Skopeo;

use super::pages::Page;

/// The registry that the pages name.
const REGISTRY: &str = "registry.example";

/// The first block of TOML on a page that has this line, with the port of the server.
fn snippet(page: &str, line: &str, host: &str) -> Result<String> {
    let page = Page::read(page)?;
    let mut blocks = page.blocks().filter(|block| block.language == "toml");
    let block = blocks.find(|block| block.text.lines().any(|own| own == line));
    let block = block.with_context(|| format!("{}: no block with {line}", page.name))?;
    Ok(block.text.replace("127.0.0.1:5000", host))
}

#[tokio::test]
async fn skopeo_finds_octoserve_by_registries_conf() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[1610])?;
    let pushed = format!("docker://{}/team/app:1", server.host());
    skopeo.copy(&layout, &pushed, &[]).await?;

    let text = snippet(
        "docs/clients/podman.md",
        "prefix = \"registry.example\"",
        &server.host(),
    )?;
    let file = skopeo.directory().join("registries.conf");
    std::fs::write(&file, text)?;
    let logical = format!("docker://{REGISTRY}/team/app:1");
    let shown = skopeo.configured_manifest(&file, &logical).await?;
    assert_eq!(shown, skopeo.manifest(&pushed).await?);
    Ok(())
}

#[tokio::test]
async fn containerd_finds_octoserve_by_hosts_toml_and_names_the_registry() -> Result<()> {
    let registry = Launch::registry().start().await?;
    // Without the upstream for this name, the proxy responds 404.
    let server = Launch::configured(&format!(
        "upstreams:\n- name: own\n  match: {{ns: [{REGISTRY}]}}\n  replicas: ['{}']\n",
        registry.url("")
    ));
    let server = server.start().await?;
    let skopeo = Skopeo::new()?;
    let layout = skopeo.layout("one", &[1611])?;
    let pushed = format!("docker://{}/team/app:1", registry.host());
    skopeo.copy(&layout, &pushed, &[]).await?;

    let text = snippet(
        "docs/clients/containerd.md",
        "server = \"https://registry.example\"",
        &server.host(),
    )?;
    let containerd = Containerd::with_hosts(REGISTRY, &text).await?;
    containerd
        .fetch(&format!("{REGISTRY}/team/app:1"), &[])
        .await?;
    let pulls = metric("octoserve_repository_operations_total")
        .label("repository", "team/app")
        .label("operation", "pull");
    pulls.value(1).assert_in(&server).await
}
