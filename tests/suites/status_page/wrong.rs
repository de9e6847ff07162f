//! What is wrong, in words: really, and for each kind by an exposition of the test's own.

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::certificate::Certificate;
use harness::client::Client;
use harness::octoserve::Launch;

use super::open;
use super::reading::SNAPSHOT;

#[tokio::test]
async fn what_is_wrong_comes_first_and_goes_away() -> Result<()> {
    let registry = Launch::registry().start().await?;
    let expired = Certificate::expired()?;
    let yaml = |upstream: &str| {
        format!(
            "listen: [{{address: '127.0.0.1:0', tls: {}}}]\n\
             upstreams:\n- name: gone\n  match: {{prefixes: [gone]}}\n  replicas: ['http://127.0.0.1:1']\n\
             - name: back\n  replicas: ['{upstream}', 'http://127.0.0.1:1']\n  \
             metrics: [{{source: lost, url: 'http://127.0.0.1:1/metrics'}}]\n\
             metrics: {{listen: '127.0.0.1:0'}}\n",
            expired.keys()
        )
    };
    let server = Launch::configured(&yaml(&registry.url("")))
        .listens_as_configured()
        .announces_metrics()
        .start()
        .await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    let says = |words: &str| {
        format!("document.getElementById('problems').textContent.includes({words:?})")
    };
    for words in [
        "The upstream gone does not serve: its only replica is unhealthy.",
        "1 of 2 replicas of the upstream back is unhealthy.",
        "The metrics of the source lost cannot be scraped, and it never did.",
        "expired",
    ] {
        browser.until(&says(words)).await?;
    }
    server.configure("listen: nonsense")?;
    ensure!(!server.reload().await?);
    let refused = says("The last reload of the configuration was refused");
    browser.until(&refused).await?;
    // Errors before warnings, and before any figure.
    let order =
        "return [...document.querySelectorAll('#problems li')].map((li) => li.className).join()";
    let order = browser.text(order).await?;
    ensure!(
        order.starts_with("error") && order.ends_with("warning"),
        "{order}"
    );
    ensure!(!order.contains("warning,error"), "{order}");
    let first =
        "document.querySelector('main section').contains(document.getElementById('problems'))";
    browser.until(first).await?;
    browser
        .until("/^[0-9]+ errors, 1 warning\\.$/.test(document.getElementById('verdict').textContent) && document.title.startsWith('(')")
        .await?;
    server.configure(&yaml(&registry.url("")))?;
    ensure!(server.reload().await?);
    browser.until(&format!("!{refused}")).await
}

#[tokio::test]
async fn nothing_is_wrong_where_nothing_is_and_failures_are_told_as_they_come() -> Result<()> {
    let registry = Launch::registry().start().await?;
    let gone = "- name: gone\n  match: {prefixes: [gone]}\n  replicas: ['http://127.0.0.1:1']\n";
    let with = |more: &str| {
        let url = registry.url("");
        format!("upstreams:\n{more}- replicas: ['{url}']\nmetrics: {{listen: '127.0.0.1:0'}}\n")
    };
    let alone = Launch::configured(&with("")).announces_metrics();
    let alone = alone.start().await?;
    let browser = Browser::start().await?;
    open(&browser, &alone).await?;
    browser
        .until("document.getElementById('verdict').textContent === 'Nothing is wrong, as far as the metrics show.'")
        .await?;
    let server = Launch::configured(&with(gone)).announces_metrics();
    let server = server.start().await?;
    open(&browser, &server).await?;
    browser
        .until("Number(document.documentElement.dataset.scrapes) >= 1")
        .await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1]).await?;
    for _ in 0..3 {
        let failed = client.get("/v2/gone/app/manifests/1").await?;
        ensure!(failed.status().is_server_error(), "{}", failed.status());
    }
    browser
        .until("/3 of [0-9]+ requests of the last minute failed/.test(document.getElementById('problems').textContent)")
        .await?;
    browser
        .until("document.querySelector('[data-figure=failures_total]').value === '3'")
        .await
}

/// One exposition for each kind, a minute after another one, and the words that it gives.
#[tokio::test]
async fn each_kind_of_wrong_has_its_words() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    for (exposition, words) in [
        ("octoserve_tags 1", ""),
        (
            "octoserve_upstream_replicas{upstream=\"u\"} 2\noctoserve_upstream_replicas_healthy{upstream=\"u\"} 0",
            "error: The upstream u does not serve: none of its 2 replicas is healthy.",
        ),
        (
            "octoserve_upstream_queue_length{upstream=\"u\"} 3",
            "warning: 3 requests to the upstream u wait for a free connection (max_connections).",
        ),
        (
            "octoserve_upstream_ratelimit_remaining{upstream=\"u\"} 0",
            "error: The upstream u allows no more requests for now (RateLimit-Remaining is 0).",
        ),
        (
            "octoserve_upstream_errors_total{upstream=\"u\",reason=\"connect\"} 4",
            "warning: 4 attempts to reach the upstream u failed in the last minute: connect 4.",
        ),
        (
            "octoserve_transfers_aborted_total{endpoint=\"blob\",side=\"upstream\"} 1\noctoserve_transfers_aborted_total{endpoint=\"blob\",side=\"client\"} 9",
            "warning: An upstream cut off 1 transfer in the last minute.",
        ),
        (
            "octoserve_http_requests_total{endpoint=\"blob\",status=\"200\"} 97\noctoserve_http_requests_total{endpoint=\"blob\",status=\"502\"} 3",
            "warning: 3 of 100 requests of the last minute failed (3 %): status 502 3.",
        ),
        (
            "octoserve_http_requests_total{endpoint=\"blob\",status=\"503\"} 3",
            "error: 3 of 3 requests of the last minute failed (100 %): status 503 3.",
        ),
        (
            "octoserve_http_requests_total{endpoint=\"blob\",status=\"404\"} 50",
            "",
        ),
        (
            "octoserve_auth_total{scheme=\"basic\",result=\"unauthorized\"} 6",
            "warning: 6 requests of the last minute had wrong credentials or too few rights.",
        ),
        (
            "octoserve_auth_total{scheme=\"none\",result=\"challenge\"} 600",
            "",
        ),
        (
            "octoserve_connections_rejected_total{reason=\"limit\"} 2",
            "warning: Connections were closed before a response in the last minute: limit 2.",
        ),
        (
            "octoserve_http_rejected_total 2",
            "warning: 2 requests of the last minute could not be parsed: some client does not speak HTTP.",
        ),
        (
            "octoserve_repository_label_overflow_total 5",
            "warning: All names of repositories are in use: 5 operations of the last minute count as _other (metrics.repositories.limit).",
        ),
        (
            "octoserve_panics_total 1",
            "error: 1 panic since the start: a bug in octoserve, whose cause the log has.",
        ),
        (
            "octoserve_config_last_reload_successful 0",
            "error: The last reload of the configuration was refused: the old configuration is in use. The log says why.",
        ),
        (
            "octoserve_tls_certificate_expiry_timestamp_seconds{name=\"c\"} 1000000",
            "warning: The certificate c expires in 11 days 13 h.",
        ),
        (
            "octoserve_tls_certificate_expiry_timestamp_seconds{name=\"c\"} 90000",
            "error: The certificate c expires in 1 day.",
        ),
        (
            "octoserve_tls_certificate_expiry_timestamp_seconds{name=\"c\"} 500",
            "error: The certificate c expired 8 min 20 s ago.",
        ),
        (
            "octoserve_tls_certificate_expiry_timestamp_seconds{name=\"c\"} 9e9",
            "",
        ),
        (
            "octoserve_storage_filesystem_avail_bytes{source=\"s\"} 100\noctoserve_storage_filesystem_size_bytes{source=\"s\"} 1000000",
            "error: The disk of s is nearly full: 100 B (0.01 %) are free.",
        ),
        (
            "octoserve_storage_filesystem_avail_bytes 8\noctoserve_storage_filesystem_size_bytes 100",
            "warning: The disk is nearly full: 8 B (8 %) are free.",
        ),
        (
            "octoserve_storage_filesystem_avail_bytes{source=\"fills\"} 3.6e9\noctoserve_storage_filesystem_size_bytes{source=\"fills\"} 9e9",
            "warning: The disk of fills will be full in 2 h if it goes on as now.",
        ),
        (
            "octoserve_storage_filesystem_files_free 12",
            "warning: The disk has only 12 free inodes.",
        ),
        (
            "octoserve_upload_session_oldest_age_seconds 90000",
            "warning: An upload has been open for 1 day 1 h: its client may have left it.",
        ),
        (
            "octoserve_storage_errors_total{error_type=\"no_space\"} 2\noctoserve_storage_errors_total{error_type=\"not_found\"} 9",
            "error: The store failed in the last minute: no_space 2.",
        ),
        (
            "octoserve_stats_errors_total 2",
            "warning: Parts of the store could not be counted in the last minute: old figures stay.",
        ),
        (
            "process_open_fds 95\nprocess_max_fds 100",
            "warning: 95 of 100 file descriptors are in use.",
        ),
        (
            "octoserve_aggregate_up{source=\"s\"} 0\noctoserve_aggregate_last_success_timestamp_seconds{source=\"s\"} 940",
            "error: The metrics of the source s cannot be scraped; it last did 1 min ago.",
        ),
        (
            "octoserve_aggregate_up{source=\"s\"} 0\noctoserve_aggregate_duration_seconds{source=\"s\"} 4\n\
             octoserve_aggregate_last_success_timestamp_seconds{source=\"s\"} 995",
            "warning: The metrics of the source s take 4 s: slower than this page waits. Its figures are missing.",
        ),
        (
            "octoserve_aggregate_dropped_samples_total{source=\"s\",reason=\"limit\"} 7",
            "warning: Samples of the source s were dropped in the last minute: limit 7.",
        ),
    ] {
        let script = format!(
            "{SNAPSHOT}
            const timeline = new Timeline();
            timeline.push(snapshot('octoserve_blobs 1\\n', 0));
            const now = snapshot({exposition:?} + '\\n', 60);
            timeline.push(now);
            const fills = new FreeSpace();
            for (let time = 0; time <= 60; time += 5) fills.push(time, 3.6e9 + (60 - time) * 5e5);
            const view = {{ now, minute: timeline.minute, base: 'http', freeSpace: new Map([['fills', fills]]) }};
            return problems(view).map(({{ level, parts }}) => level + ': ' + parts.map((part) => part.name ?? part).join('')).join(' / ')"
        );
        assert_eq!(browser.text(&script).await?, words, "{exposition}");
    }
    Ok(())
}
