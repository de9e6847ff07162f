//! The metrics endpoint: access, formats, compression and TLS, also with a real Prometheus.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use flate2::read::GzDecoder;
use harness::certificate::Certificate;
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::prometheus::{self, Prometheus};
use harness::scrape::{Scrape, metric};
use harness::source::Source;
use harness::wire::{self, Response};
use harness::{poll, tools};
use tokio::io::AsyncWriteExt;

/// `prometheus:a secret`.
const AUTHORIZED: (&str, &str) = ("Authorization", "Basic cHJvbWV0aGV1czphIHNlY3JldA==");
const WRONG: (&str, &str) = ("Authorization", "Basic cHJvbWV0aGV1czpndWVzcw==");
pub(crate) const BASIC_AUTH: &str = "basic_auth: {username: prometheus, password_hash: \
    '$2y$05$abcdefghijklmnopqrstuuIAEipimVgSTxGS2VyWH9AhzRz3iJI3.'}";

async fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let request = wire::request("GET", path, headers, b"");
    wire::exchange(server.metrics_address(), "GET", &request).await
}

#[tokio::test]
async fn a_real_prometheus_scrapes_with_a_password_over_tls() -> Result<()> {
    let certificate = Certificate::new()?;
    let tls = certificate.keys();
    let metrics =
        format!("metrics: {{listen: {{address: '127.0.0.1:0', tls: {tls}}}, {BASIC_AUTH}}}\n");
    let launches = [Launch::all_in_one(), Launch::registry()];
    let mut servers = Vec::new();
    for launch in launches {
        let launch = launch.configuration(&metrics).announces_metrics();
        servers.push(launch.start().await?);
    }
    let targets: Vec<_> = servers.iter().map(Server::metrics_address).collect();
    let trust = format!(
        "scheme: https, tls_config: {{ca_file: '{}', server_name: localhost}}",
        certificate.path().display()
    );
    let known = "basic_auth: {username: prometheus, password: a secret}";
    let prometheus = Prometheus::scraping_with(&targets, &format!("{trust}, {known}")).await?;
    prometheus.expect("sum(up)", 2.0).await?;
    prometheus
        .expect("count(octoserve_build_info)", 2.0)
        .await?;
    prometheus.expect("count(octoserve_blobs)", 2.0).await?;
    let stranger = Prometheus::scraping_with(&targets, &trust).await?;
    stranger.expect("count(up == 0)", 2.0).await?;
    // A client without TLS gets nothing.
    ensure!(ask(&servers[0], "/metrics", &[AUTHORIZED]).await.is_err());
    Ok(())
}

/// Prometheus prefers OpenMetrics, so it reads the text format through a server that requests text.
#[tokio::test]
async fn a_real_prometheus_reads_both_formats_alike() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    let address = server.metrics_address();
    let hop = Source::scripted(move |mut stream| async move {
        let request = wire::request("GET", "/metrics", &[], b"");
        let exposition = wire::exchange(address, "GET", &request).await?;
        let media_type = exposition.head.header("content-type").unwrap_or_default();
        ensure!(media_type.starts_with("text/plain"), "{media_type}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n\r\n");
        stream
            .write_all(&[head.as_bytes(), &exposition.body].concat())
            .await?;
        Ok(stream.shutdown().await?)
    })
    .await?;
    let prometheus = Prometheus::scraping(&[address, hop.address()]).await?;
    prometheus.expect("sum(up)", 2.0).await?;
    // Both have the same series, including buckets: only the target differs.
    for name in [
        "octoserve_http_requests_total",
        "octoserve_http_request_duration_seconds_bucket",
        "octoserve_storage_operation_duration_seconds_bucket",
        "octoserve_build_info",
        "process_cpu_seconds_total",
    ] {
        let both = format!("count(count without (instance) ({name}) != 2) or vector(0)");
        prometheus.expect(&both, 0.0).await?;
        prometheus
            .expect(&format!("count(count by (instance) ({name}))"), 2.0)
            .await?;
    }
    Ok(())
}

/// Other registries serve `/metrics` only on a debug port with a profiler, or take half-configured
/// basic auth for none.
#[tokio::test]
async fn metrics_with_basic_auth_require_the_password_and_no_debug_paths_exist() -> Result<()> {
    let metrics = format!("metrics: {{{BASIC_AUTH}}}\n");
    let server = Launch::all_in_one().configuration(&metrics).start().await?;
    // The main listener serves the metrics and the probes, and nothing else of the proxy's own.
    assert_eq!(server.metrics_address(), server.address());
    for path in ["/debug/pprof/", "/debug/vars", "/debug/", "/config"] {
        assert_eq!(ask(&server, path, &[AUTHORIZED]).await?.head.status, 404);
    }
    for headers in [&[][..], &[WRONG], &[AUTHORIZED, AUTHORIZED]] {
        let response = ask(&server, "/metrics", headers).await?;
        assert_eq!(response.head.status, 401, "{headers:?}");
        let challenge = response.head.header("www-authenticate").unwrap_or_default();
        ensure!(challenge.starts_with("Basic realm="), "{challenge}");
        ensure!(!String::from_utf8_lossy(&response.body).contains("octoserve_"));
    }
    for _ in 0..3 {
        let response = ask(&server, "/metrics", &[AUTHORIZED]).await?;
        assert_eq!(response.head.status, 200);
    }
    // Readiness is not secret, and clients need no password.
    assert_eq!(ask(&server, "/readyz", &[]).await?.head.status, 200);
    assert_eq!(ask(&server, "/v2/", &[]).await?.head.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_exposition_is_compressed_on_request_and_a_head_has_no_body() -> Result<()> {
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let server = launch.start().await?;
        let plain = ask(
            &server,
            "/metrics",
            &[("Accept-Encoding", "gzip;q=0, deflate")],
        )
        .await?;
        assert_eq!(plain.head.header("content-encoding"), None);
        let gzip = ask(&server, "/metrics", &[("Accept-Encoding", "deflate, gzip")]).await?;
        assert_eq!(gzip.head.header("content-encoding"), Some("gzip"));
        ensure!(
            gzip.body.len() * 2 < plain.body.len(),
            "{}",
            gzip.body.len()
        );
        let mut text = String::new();
        GzDecoder::new(&*gzip.body).read_to_string(&mut text)?;
        assert_eq!(prometheus::promtool(&text).await?, "");
        for response in [&plain, &gzip] {
            assert_eq!(
                response.head.header("vary"),
                Some("Accept, Accept-Encoding")
            );
        }
        let headers = [("Accept-Encoding", "gzip")];
        let request = wire::request("HEAD", "/metrics", &headers, b"");
        let head = wire::exchange(server.metrics_address(), "HEAD", &request).await?;
        assert_eq!(head.head.status, 200);
        assert_eq!(head.head.header("content-encoding"), Some("gzip"));
        let length: usize = head
            .head
            .header("content-length")
            .unwrap_or_default()
            .parse()?;
        ensure!(length > 500, "{length}");
    }
    Ok(())
}

#[tokio::test]
async fn metrics_have_the_configured_path_and_labels() -> Result<()> {
    let metrics = "metrics: {path: /-/page, labels: {region: eu-1, zone: 'a\"b'}}\n";
    let server = Launch::all_in_one().configuration(metrics).start().await?;
    assert_eq!(ask(&server, "/metrics", &[]).await?.head.status, 404);
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    let exposition = ask(&server, "/-/page", &[]).await?;
    let scrape = Scrape::parse(String::from_utf8(exposition.body)?)?;
    // Samples of the proxy and of the embedded registry both have the labels.
    let labels: BTreeSet<_> = scrape
        .exposition()
        .families()
        .flat_map(|family| family.samples().collect::<Vec<_>>())
        .map(|sample| (sample.label("region"), sample.label("zone")))
        .collect();
    let all = (Some("eu-1".into()), Some("a\"b".into()));
    assert_eq!(labels, BTreeSet::from([all]));
    metric("octoserve_registry_http_requests_total")
        .label("region", "eu-1")
        .label("source", "registry")
        .label("endpoint", "manifest")
        .value(1)
        .assert(&scrape)?;
    // The default path is an ordinary path now.
    metric("octoserve_http_requests_total")
        .label("endpoint", "other")
        .label("status", "404")
        .value(1)
        .assert(&scrape)?;
    let registry = Launch::registry()
        .configuration("metrics: {path: /-/page, labels: {region: eu-1}}\n")
        .start()
        .await?;
    assert_eq!(ask(&registry, "/metrics", &[]).await?.head.status, 404);
    assert_eq!(ask(&registry, "/-/page", &[]).await?.head.status, 200);
    Ok(())
}

#[tokio::test]
async fn every_label_that_is_used_is_reserved() -> Result<()> {
    let server = Launch::all_in_one().start().await?;
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    let scrape = server.scrape().await?;
    for (name, _) in scrape.label_values() {
        ensure!(
            registry::metrics::label::NAMES.contains(&name.as_str()),
            "{name}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_refused() -> Result<()> {
    let certificate = Certificate::new()?;
    let listen = format!("{{address: '127.0.0.1:0', tls: {}}}", certificate.keys());
    let metrics = format!("metrics: {{listen: {listen}}}\n");
    let launch = Launch::all_in_one().configuration(&metrics);
    let mut server = launch.announces_metrics().start().await?;
    let port = server.metrics_address().port();
    let trusted = async |trust: &std::path::Path| {
        let output = tools::attempt(
            "curl",
            &[
                "--silent".to_owned(),
                "--show-error".to_owned(),
                "--cacert".to_owned(),
                trust.display().to_string(),
                "--resolve".to_owned(),
                format!("localhost:{port}:127.0.0.1"),
                format!("https://localhost:{port}/metrics"),
            ],
        )
        .await?;
        anyhow::Ok(output.status.success() && output.stdout.starts_with(b"# HELP"))
    };
    let first = certificate.path().with_file_name("first.crt");
    std::fs::copy(certificate.path(), &first)?;
    ensure!(trusted(&first).await?, "the first one");
    certificate.renew()?;
    poll::until("the new certificate", Duration::from_secs(30), async || {
        Ok(trusted(&certificate.path()).await?.then_some(()))
    })
    .await?;
    ensure!(!trusted(&first).await?, "the first one is gone");
    let second = certificate.path().with_file_name("second.crt");
    std::fs::copy(certificate.path(), &second)?;
    certificate.replace(&certificate.path(), "not a certificate\n")?;
    let refused = "certificate reload failed";
    poll::until(
        "the refusal in the log",
        Duration::from_secs(30),
        async || {
            let log = server
                .process()
                .output(harness::process::OutputStream::Stderr)?;
            Ok(log.contains(refused).then_some(()))
        },
    )
    .await?;
    ensure!(trusted(&second).await?, "the old one stays");
    Ok(())
}

#[tokio::test]
async fn metrics_listen_on_the_command_line_keeps_tls() -> Result<()> {
    let certificate = Certificate::new()?;
    let tls = certificate.keys();
    let metrics = format!("metrics: {{listen: {{address: '127.0.0.1:9', tls: {tls}}}}}\n");
    let (name, address) = ("OCTOSERVE_METRICS_LISTEN", "127.0.0.1:0");
    for launch in [
        Launch::all_in_one().metrics_listener(),
        Launch::registry(),
        Launch::all_in_one()
            .announces_metrics()
            .environment(name, address),
    ] {
        let server = launch.configuration(&metrics).start().await?;
        let port = server.metrics_address().port();
        ensure!(port != 9, "the listener has its old address");
        let ask = async |scheme: &str| {
            let trust = certificate.path().display().to_string();
            let resolve = format!("localhost:{port}:127.0.0.1");
            let url = format!("{scheme}://localhost:{port}/metrics");
            let trust = ["--silent", "--cacert", &trust, "--resolve", &resolve, &url];
            let response = tools::attempt("curl", &trust).await?;
            anyhow::Ok(response.stdout.starts_with(b"# HELP"))
        };
        ensure!(ask("https").await?, "not inside TLS");
        ensure!(!ask("http").await?, "in clear");
    }
    Ok(())
}
