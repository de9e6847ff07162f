//! The pictures of the documentation, of a page under real traffic. `make screenshots` keeps them in
//! docs/images; each run of the tests takes them, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::octoserve::Launch;
use harness::{content, report};
use reqwest::Method;

use super::open;

/// The directory that keeps them, from `make screenshots`.
const KEPT: &str = "SCREENSHOTS";
const LARGEST: u64 = 200 << 10;

const REPOSITORIES: [&str; 6] = [
    "team/app/web",
    "team/app/api",
    "team/base/debian",
    "ci/cache/builder",
    "library/nginx",
    "ml/models/embedder",
];
const CLIENTS: [&str; 6] = [
    "docker/27.1.1 go/go1.22.5",
    "containerd/v2.0.0",
    "skopeo/1.16",
    "Buildah/1.37",
    "cosign/v2.4.1",
    "python-requests/2.32",
];

/// Pushes, pulls and fails until it is told to stop.
async fn traffic(base: String, number: u64, stop: Arc<AtomicBool>) -> Result<()> {
    let client = harness::client::Client::new(&base)?;
    let mut round = number;
    while !stop.load(Ordering::Relaxed) {
        round += 4;
        let at = |many: usize| usize::try_from(round).unwrap_or_default() % many;
        let agent = [("User-Agent", CLIENTS[at(5) + at(2)])];
        let repository = REPOSITORIES[at(7).min(at(6))];
        let get = async |path: &str| client.send(Method::GET, path, &agent, "").await;
        match at(11) {
            0 => {
                client
                    .push_image(repository, "1", &[round, round + 1])
                    .await?;
                let blob = content::bytes(round, 300_000);
                client.push_blob(repository, &blob).await?;
            }
            1 => drop(get(&format!("/v2/{repository}/manifests/none")).await?),
            2 if at(3) == 0 => drop(get("/v2/mirror/app/manifests/1").await?),
            3 if at(5) == 0 => drop(client.open_upload(repository).await?),
            _ => {
                let manifest = get(&format!("/v2/{repository}/manifests/1")).await?;
                if !manifest.status().is_success() {
                    client.push_image(repository, "1", &[round]).await?;
                    continue;
                }
                let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes().await?)?;
                for layer in manifest["layers"].as_array().context("no layers")? {
                    let digest = layer["digest"].as_str().context("no digest")?;
                    get(&format!("/v2/{repository}/blobs/{digest}"))
                        .await?
                        .bytes()
                        .await?;
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn screenshots_of_real_traffic_are_small_and_not_empty() -> Result<()> {
    let registry = Launch::registry().start().await?;
    let yaml = format!(
        "upstreams:\n- name: mirror\n  match: {{prefixes: [mirror]}}\n  replicas: ['http://127.0.0.1:1']\n\
         - name: main\n  replicas: ['{}', 'http://127.0.0.1:1']\n  \
         metrics: [{{source: registry, url: 'http://{}/metrics'}}]\n\
         metrics: {{listen: '127.0.0.1:0'}}\n",
        registry.url(""),
        registry.metrics_address()
    );
    let server = Launch::configured(&yaml)
        .announces_metrics()
        .start()
        .await?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| tokio::spawn(traffic(server.url(""), number, Arc::clone(&stop))))
        .collect();
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    let directory = tempfile::tempdir()?;
    let kept = std::env::var_os(KEPT).map(PathBuf::from);
    // The plots of a kept picture have something to show.
    let scrapes = if kept.is_some() { 30 } else { 3 };
    browser
        .until(&format!(
            "Number(document.documentElement.dataset.scrapes) >= {scrapes}"
        ))
        .await?;
    let into = kept.as_deref().unwrap_or(directory.path());
    for (name, scheme, width, height) in [
        ("light", "light", 1280, 1100),
        ("dark", "dark", 1280, 1100),
        ("phone", "light", 390, 1500),
    ] {
        browser.prefer(scheme).await?;
        browser.resize(width, height, width < 500).await?;
        browser.until(&format!("innerWidth === {width}")).await?;
        let path = into.join(format!("status-page-{name}.png"));
        browser.screenshot(&path).await?;
        check(&path)?;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    Ok(())
}

fn check(path: &Path) -> Result<()> {
    let bytes = std::fs::metadata(path)?.len();
    ensure!(
        (10_000..LARGEST).contains(&bytes),
        "{}: {bytes}",
        path.display()
    );
    report(&format!("{}: {bytes} bytes", path.display()));
    Ok(())
}
