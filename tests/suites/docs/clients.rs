//! The files for clients on the pages, used by these clients.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::authority::Authority;
use harness::certificate::Certificate;
use harness::containerd::Containerd;
use harness::docker::{Docker, ELSEWHERE};
use harness::octoserve::Launch;
use harness::poll;
use harness::scrape::metric;
use harness::skopeo::Skopeo;
use tempfile::TempDir;

use super::pages::Page;

/// How long docker may take to read its configuration again.
const DEADLINE: Duration = Duration::from_mins(1);

/// The registry that the pages name.
const REGISTRY: &str = "registry.example";

/// The first block of TOML on a page that has this line, with the port of the server.
fn snippet(page: &str, line: &str, host: &str) -> Result<String> {
    let block = block(page, "toml", |text| text.lines().any(|own| own == line))?;
    Ok(block.replace("127.0.0.1:5000", host))
}

/// The first block of this language on a page that is `wanted`.
fn block(page: &str, language: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let page = Page::read(page)?;
    let mut blocks = page.blocks().filter(|block| block.language == language);
    let block = blocks.find(|block| wanted(&block.text));
    let block = block.with_context(|| format!("{}: no such block of {language}", page.name))?;
    Ok(block.text)
}

/// The file daemon.json on docker's page that has this key.
fn daemon_json(key: &str) -> Result<String> {
    block("docs/clients/docker.md", "json", |text| text.contains(key))
}

/// The registry that docker's page names, as docker sees it.
fn elsewhere() -> SocketAddr {
    SocketAddr::from((ELSEWHERE, 5000))
}

#[tokio::test]
async fn docker_takes_plain_http_from_elsewhere_where_daemon_json_says_so() -> Result<()> {
    let etc = TempDir::new()?;
    let docker = Docker::elsewhere(etc.path()).await?;
    let server = Launch::all_in_one()
        .under(docker.beside()?)
        .listen(elsewhere());
    let _server = server.start().await?;
    let image = format!("{REGISTRY}:5000/team/app:1");
    docker.image(&image, None, 1660).await?;
    let refused = docker.run(&["push", &image]).await;
    let said = format!("{:#}", refused.err().context("it is pushed without TLS")?);
    ensure!(said.contains("HTTP response to HTTPS client"), "{said}");

    docker.configure(&daemon_json("insecure-registries")?)?;
    poll::until("docker has read daemon.json", DEADLINE, async || {
        Ok(docker.run(&["push", &image]).await.ok())
    })
    .await?;
    docker.forget(&[&image]).await?;
    docker.run(&["pull", &image]).await?;
    Ok(())
}

#[tokio::test]
async fn docker_trusts_an_authority_in_certs_d_and_pulls_from_a_mirror() -> Result<()> {
    let etc = TempDir::new()?;
    let docker = Docker::elsewhere(etc.path()).await?;
    let authority = Authority::new("of registry.example")?;
    let signed = authority.sign(&[REGISTRY])?;
    let certificate = Certificate::new()?;
    certificate.become_signed(&signed)?;
    // It has the client's certificate, too, as the page says.
    let tls = format!(
        "{{certificate: '{}', key: '{}', client_ca: '{}', client_certificates: required}}",
        certificate.path().display(),
        certificate.key().display(),
        authority.path().display()
    );
    let listen = format!(
        "listen: [{{address: '{}', tls: {tls}}}]\nmetrics: {{listen: '127.0.0.1:0'}}\n",
        elsewhere()
    );
    let server = Launch::all_in_one()
        .configuration(&listen)
        .listens_as_configured()
        .announces_metrics()
        .under(docker.beside()?);
    let _server = server.start().await?;
    let image = format!("{REGISTRY}:5000/library/octoserve-try:1");
    docker.image(&image, None, 1661).await?;
    let refused = docker.run(&["push", &image]).await;
    let said = format!("{:#}", refused.err().context("it trusts a stranger")?);
    ensure!(said.contains("unknown authority"), "{said}");

    // Without a restart, and without a signal.
    let directory = block("docs/clients/docker.md", "text", |text| {
        text.contains("certs.d")
    })?;
    let ca = directory.trim().trim_start_matches("/etc/");
    let ca = etc.path().join(ca);
    std::fs::create_dir_all(ca.parent().context("a file in no directory")?)?;
    std::fs::copy(authority.path(), &ca)?;
    let refused = docker.run(&["push", &image]).await;
    ensure!(
        refused.is_err(),
        "it is pushed without a client's certificate"
    );
    let own = Certificate::new()?;
    own.become_signed(&authority.sign(&["a client"])?)?;
    std::fs::copy(own.path(), ca.with_file_name("client.cert"))?;
    std::fs::copy(own.key(), ca.with_file_name("client.key"))?;
    docker.run(&["push", &image]).await?;

    // A name of Docker Hub, which this daemon cannot reach.
    docker.forget(&[&image]).await?;
    docker.configure(&daemon_json("registry-mirrors")?)?;
    poll::until("docker asks its mirror", DEADLINE, async || {
        Ok(docker.run(&["pull", "octoserve-try:1"]).await.ok())
    })
    .await?;
    Ok(())
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
