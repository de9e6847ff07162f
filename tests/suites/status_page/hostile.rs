//! Names and figures that a source or a configuration chose badly: they are text, and change nothing else.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::client::Client;
use harness::octoserve::Launch;
use harness::source::Source;

use super::{cell, figure, open};

const MARKUP: &str = "<img src=x onerror=window.pwned=1>";

#[tokio::test]
async fn hostile_names_and_figures_stay_inert() -> Result<()> {
    // With the types of octoserve's own families, so that they are merged into them.
    let mut exposition = String::new();
    for (name, kind) in [
        ("octoserve_build_info", "gauge"),
        ("octoserve_http_requests_total", "counter"),
        ("octoserve_upstream_replicas", "gauge"),
        ("octoserve_upstream_replicas_healthy", "gauge"),
        ("octoserve_aggregate_up", "gauge"),
        ("octoserve_config_last_reload_successful", "gauge"),
        ("octoserve_panics_total", "counter"),
        ("process_start_time_seconds", "gauge"),
    ] {
        writeln!(exposition, "# TYPE {name} {kind}")?;
    }
    exposition.push_str(
        "octoserve_build_info{version=\"<script>pwned=1</script>\"} 1\n\
         octoserve_http_requests_total{endpoint=\"blob\",method=\"GET\",status=\"500\"} 1e300\n\
         octoserve_upstream_replicas{upstream=\"fake\"} 3\n\
         octoserve_upstream_replicas_healthy{upstream=\"fake\"} 0\n\
         octoserve_aggregate_up{source=\"fake\"} 0\n\
         octoserve_config_last_reload_successful 0\n\
         octoserve_panics_total 7\n\
         process_start_time_seconds 1\n\
         octoserve_storage_filesystem_size_bytes NaN\n\
         octoserve_storage_filesystem_avail_bytes -1e308\n\
         octoserve_storage_disk_usage_bytes +Inf\n\
         octoserve_tags 1e-320\n\
         octoserve_repository_stored_bytes{repository=\"</td><script>pwned=1</script>\"} 9e99\n\
         octoserve_repository_stored_bytes{repository=\"a\\\"b\\\\c\\nd\"} 8e99\n\
         octoserve_repository_stored_bytes{repository=\"__proto__\"} 7e99\n\
         octoserve_repository_stored_bytes{repository=\"\u{202E}reversed\u{0007}\"} 6e99\n",
    );
    writeln!(
        exposition,
        "octoserve_repository_stored_bytes{{repository=\"{}\"}} 5e99",
        "w".repeat(5000)
    )?;
    let source = Source::exposition("text/plain; version=0.0.4", exposition).await?;
    let registry = Launch::registry().start().await?;
    let yaml = format!(
        "upstreams:\n- name: \"{MARKUP}\"\n  replicas: ['{}']\n  metrics: [{{source: \"{MARKUP}\", url: '{}'}}]\n\
         metrics:\n  listen: '127.0.0.1:0'\n  labels: {{region: \"{MARKUP}\"}}\n  \
         repositories: {{group: [{{match: 'team/.*', name: \"<b onclick=pwned=1>&amp;{{}}\"}}]}}\n",
        registry.url(""),
        source.url()
    );
    let server = Launch::configured(&yaml)
        .announces_metrics()
        .start()
        .await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    let browser = Browser::start().await?;
    browser.resize(390, 800, true).await?;
    open(&browser, &server).await?;
    let row = |table: &str, key: &str| {
        format!(
            "[...document.querySelectorAll('#{table} tbody th')].some((th) => th.textContent === {key:?})"
        )
    };
    for (table, key) in [
        ("upstreams", MARKUP),
        ("sources", MARKUP),
        ("storage", MARKUP),
        ("repositories", "<b onclick=pwned=1>&amp;{}"),
        ("repositories", "</td><script>pwned=1</script>"),
        ("repositories", "a\"b\\c\u{FFFD}d"),
        ("repositories", "__proto__"),
    ] {
        browser.until(&row(table, key)).await?;
    }
    // Nothing of it is markup, and nothing ran.
    let markup = "return [document.images.length, document.scripts.length, document.querySelectorAll('main b, main script, main iframe').length, typeof window.pwned].join()";
    assert_eq!(browser.text(markup).await?, "0,1,0,undefined");
    let longest = "return String(Math.max(...[...document.querySelectorAll('bdi')].map((one) => one.textContent.length)))";
    assert_eq!(browser.text(longest).await?, "201");
    let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    browser.until(fits).await?;
    // No source can add to what octoserve says of itself.
    let requests = figure(&browser, "requests_total").await?;
    ensure!(
        requests.is_some_and(|count| count > 0.0 && count < 100.0),
        "{requests:?}"
    );
    assert_eq!(figure(&browser, "failures_total").await?, Some(0.0));
    assert_eq!(cell(&browser, "upstreams", "fake", "replicas").await?, None);
    assert_eq!(cell(&browser, "sources", "fake", "up").await?, None);
    let problems = browser
        .text("return document.getElementById('problems').textContent")
        .await?;
    for foreign in ["panic", "reload", "fake"] {
        ensure!(!problems.contains(foreign), "{problems}");
    }
    let build = browser
        .text("return document.getElementById('build').textContent")
        .await?;
    ensure!(
        build.starts_with("version ") && !build.contains('<'),
        "{build}"
    );
    let console = browser.console().await?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

/// A source with very many samples of a family that the page shows takes neither its memory nor its sight
/// of what octoserve says itself.
#[tokio::test]
async fn a_source_with_very_many_samples_is_shown_in_part() -> Result<()> {
    let mut exposition = String::new();
    for number in 0..60_000 {
        writeln!(
            exposition,
            "octoserve_repository_stored_bytes{{repository=\"r{number}\"}} {number}"
        )?;
    }
    let source = Source::exposition("text/plain; version=0.0.4", exposition).await?;
    let yaml = format!(
        "upstreams:\n- replicas: ['http://127.0.0.1:1']\n  metrics: [{{source: many, url: '{}'}}]\n\
         metrics: {{listen: '127.0.0.1:0'}}\n",
        source.url()
    );
    let server = Launch::configured(&yaml)
        .announces_metrics()
        .start()
        .await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    browser
        .until("document.querySelectorAll('#repositories tbody tr').length >= 10")
        .await?;
    let caption = "return document.querySelector('#repositories caption').textContent";
    let caption = browser.text(caption).await?;
    ensure!(caption.contains("20 k repositories"), "{caption}");
    browser
        .until("document.getElementById('problems').textContent.includes('main does not serve')")
        .await
}
