//! Merging sources: several at once, in the style of real programs, and hostile ones. The
//! `aggregate_*` families report each failure. Whatever a source does, the metrics endpoint
//! responds 200 and Prometheus can read the exposition.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::{Scrape, metric};
use harness::source::Source;
use harness::wire::Wire;
use harness::{poll, prometheus};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(30);

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Expositions in the style of real programs.
const EXPOSITIONS: [(&str, &str, &str); 4] = [
    (
        "distribution",
        TEXT,
        include_str!("sources/distribution.txt"),
    ),
    ("zot", TEXT, include_str!("sources/zot.txt")),
    ("haproxy", TEXT, include_str!("sources/haproxy.txt")),
    (
        "exporter",
        OPENMETRICS,
        include_str!("sources/openmetrics.txt"),
    ),
];

/// The proxy with these sources. Its upstream does not exist, because no test here sends it a
/// request.
async fn with(sources: &[(&str, &Source)], bounds: &str) -> Result<Server> {
    let mut yaml = String::from("upstreams:\n- replicas: ['http://127.0.0.1:1']\n  metrics:\n");
    for (name, source) in sources {
        writeln!(yaml, "  - {{source: '{name}', url: '{}'}}", source.url())?;
    }
    writeln!(yaml, "metrics: {{aggregate: {{{bounds}}}}}")?;
    Launch::configured(&yaml).start().await
}

/// Scrapes twice, because the second exposition has the counts of samples that the first one
/// dropped, and checks it with promtool.
async fn scrape(server: &Server) -> Result<Scrape> {
    server.scrape().await?;
    let scrape = server.scrape().await?;
    let words = prometheus::promtool(scrape.text()).await?;
    // Style problems in the sources are not octoserve's to fix.
    ensure!(!words.contains("parsing"), "{words}\n{}", scrape.text());
    Ok(scrape)
}

fn expect(scrape: &Scrape, name: &str, source: &str, value: f64) -> Result<()> {
    metric(name)
        .label("source", source)
        .value(value)
        .assert(scrape)
}

fn dropped(scrape: &Scrape, source: &str, reason: &str) -> Option<f64> {
    let dropped = metric("octoserve_aggregate_dropped_samples_total");
    scrape.sum(&dropped.label("source", source).label("reason", reason))
}

#[tokio::test]
async fn sources_of_every_style_merge_into_one_exposition() -> Result<()> {
    let mut sources = Vec::new();
    for (name, media_type, exposition) in EXPOSITIONS {
        sources.push((name, Source::exposition(media_type, exposition).await?));
    }
    let named: Vec<_> = sources
        .iter()
        .map(|(name, source)| (*name, source))
        .collect();
    let server = with(&named, "").await?;
    let scrape = scrape(&server).await?;
    for (name, _, exposition) in EXPOSITIONS {
        let samples = exposition
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count();
        expect(&scrape, "octoserve_aggregate_up", name, 1.0)?;
        let samples = f64::from(u32::try_from(samples)?);
        expect(&scrape, "octoserve_aggregate_samples", name, samples)?;
        for reason in ["type_conflict", "duplicate", "malformed", "limit"] {
            assert_eq!(
                dropped(&scrape, name, reason),
                Some(0.0),
                "{name}: {reason}"
            );
        }
    }
    // The source and the proxy both have this family: two samples under one TYPE.
    let memory = scrape.exposition().family("process_resident_memory_bytes");
    assert_eq!(memory.context("no memory")?.samples().count(), 2);
    // OpenMetrics samples appear in the text format, without empty labels.
    let text = scrape.text();
    for line in [
        "# TYPE exporter_requests_total counter",
        "exporter_requests_total{path=\"C:\\\\DIR\\n\",exported_source=\"disk\",source=\"exporter\"} \
         17 1700000000123",
        "exporter_latency_seconds_bucket{le=\"0.1\",source=\"exporter\"} 8",
        "exporter_odd{source=\"exporter\"} -Inf",
        "process_virtual_memory_max_bytes{source=\"distribution\"} 1.8446744073709552e+19",
        "haproxy_server_check_last_change_seconds{proxy=\"registry\",server=\"a\",source=\"haproxy\"} NaN",
        "zot_info{binary_type=\"-sync\",commit=\"v2.1.1-0-g\\\"x\\\"\",go_version=\"go1.23\",source=\"zot\"} 0",
    ] {
        ensure!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    ensure!(
        !text.contains("trace_id") && !text.contains("# EOF"),
        "{text}"
    );
    for (name, source) in &sources {
        let asked = source.asked();
        let accept = format!("accept: {TEXT}\r\n");
        ensure!(
            asked.iter().all(|head| head.contains(&accept)),
            "{name}: {asked:?}"
        );
    }
    Ok(())
}

/// In other aggregators, one duplicate fails the whole scrape, or concatenation mixes the formats.
#[tokio::test]
async fn one_duplicate_does_not_fail_the_scrape_and_formats_are_not_mixed() -> Result<()> {
    let twice = "# TYPE x gauge\nx{a=\"1\"} 1\nx{a=\"1\"} 2\ny 1\r\n# a comment\n\ny 1";
    let twice = Source::exposition(TEXT, twice).await?;
    let (_, _, openmetrics) = EXPOSITIONS[3];
    let other = Source::exposition(OPENMETRICS, openmetrics).await?;
    let server = with(&[("twice", &twice), ("other", &other)], "").await?;
    let scrape = scrape(&server).await?;
    expect(&scrape, "octoserve_aggregate_up", "twice", 1.0)?;
    expect(&scrape, "x", "twice", 1.0)?;
    expect(&scrape, "y", "twice", 1.0)?;
    // Each scrape drops two; the exposition shows those of the first scrape.
    assert_eq!(dropped(&scrape, "twice", "duplicate"), Some(2.0));
    for accept in ["text/plain", "application/openmetrics-text"] {
        let headers = [("Accept", accept)];
        let request = harness::wire::request("GET", "/metrics", &headers, b"");
        let response = harness::wire::exchange(server.metrics_address(), "GET", &request).await?;
        let text = String::from_utf8(response.body)?;
        let ends = text.matches("# EOF").count();
        let openmetrics = accept.contains("openmetrics");
        assert_eq!(ends, usize::from(openmetrics), "{text}");
        assert_eq!(text.ends_with("# EOF\n"), openmetrics, "{text}");
        let counter = if openmetrics {
            "exporter_requests"
        } else {
            "exporter_requests_total"
        };
        ensure!(
            text.contains(&format!("# TYPE {counter} counter\n")),
            "{text}"
        );
        let sample = if openmetrics {
            " 17 1700000000.123\n"
        } else {
            " 17 1700000000123\n"
        };
        ensure!(text.contains(sample), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn conflicting_samples_are_dropped_and_counted_by_reason() -> Result<()> {
    let conflict = "# TYPE octoserve_http_requests_total gauge\nocto 1\n\
        octoserve_http_requests_total{endpoint=\"blob\"} 7\n";
    let halves = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh 5\n# TYPE h_count gauge\nh_count 1\n\
        # TYPE octoserve_http_request_size_bytes_count gauge\n\
        octoserve_http_request_size_bytes_count 1\n";
    let malformed = "good 1\nbad\nbad{a=} 1\nbad{a=\"1\",a=\"2\"} 1\nbad 1 2 3\n\u{1}\n\
        # TYPE good thing\n# TYPE nothing\n<html>\n";
    let many: String = (0..50).fold(String::new(), |mut exposition, n| {
        // Writing to a String cannot fail.
        writeln!(exposition, "many{{n=\"{n}\"}} {n}").ok();
        exposition
    });
    let conflict = Source::exposition(TEXT, conflict).await?;
    let halves = Source::exposition(TEXT, halves).await?;
    let malformed = Source::exposition(TEXT, malformed).await?;
    let many = Source::exposition(TEXT, many).await?;
    let sources = [
        ("conflict", &conflict),
        ("halves", &halves),
        ("malformed", &malformed),
        ("many", &many),
    ];
    let server = with(&sources, "max_samples: 20").await?;
    let scrape = scrape(&server).await?;
    for (name, _) in sources {
        expect(&scrape, "octoserve_aggregate_up", name, 1.0)?;
    }
    assert_eq!(dropped(&scrape, "conflict", "type_conflict"), Some(1.0));
    expect(&scrape, "octo", "conflict", 1.0)?;
    // A histogram with a sample of its bare name, a gauge named like the histogram's count, and a
    // gauge named like the count of one of our histograms.
    assert_eq!(dropped(&scrape, "halves", "malformed"), Some(1.0));
    assert_eq!(dropped(&scrape, "halves", "type_conflict"), Some(2.0));
    expect(&scrape, "h_bucket", "halves", 1.0)?;
    assert_eq!(dropped(&scrape, "malformed", "malformed"), Some(8.0));
    expect(&scrape, "good", "malformed", 1.0)?;
    assert_eq!(dropped(&scrape, "many", "limit"), Some(30.0));
    expect(&scrape, "octoserve_aggregate_samples", "many", 20.0)
}

#[tokio::test]
async fn samples_that_parsers_reject_are_dropped_and_counted() -> Result<()> {
    let exposition = "# TYPE a gauge\na{__name__=\"b\"} 1\na 2\n\
        # TYPE h histogram\nh_bucket{le=\"x\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n\
        # TYPE c_total counter\nc_total NaN\nc_total{d=\"1\"} 1\n";
    let source = Source::exposition(TEXT, exposition).await?;
    let server = with(&[("s", &source)], "").await?;
    // The text format allows a counter that is NaN, OpenMetrics does not.
    let scrape = scrape(&server).await?;
    expect(&scrape, "a", "s", 2.0)?;
    expect(&scrape, "h_bucket", "s", 1.0)?;
    ensure!(scrape.text().contains("\nc_total{source=\"s\"} NaN\n"));
    // Each exposition shows the counts of earlier ones.
    assert_eq!(dropped(&scrape, "s", "malformed"), Some(2.0));
    let headers = [("Accept", "application/openmetrics-text")];
    let request = harness::wire::request("GET", "/metrics", &headers, b"");
    let response = harness::wire::exchange(server.metrics_address(), "GET", &request).await?;
    let text = String::from_utf8(response.body)?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(harness::openmetrics::read(&[&text]).await?, [Ok(samples)]);
    ensure!(
        text.contains("\nc_total{d=\"1\",source=\"s\"} 1\n"),
        "{text}"
    );
    ensure!(!text.contains("\nc_total{source"), "{text}");
    assert_eq!(
        dropped(&server.scrape().await?, "s", "malformed"),
        Some(2.0 + 2.0 + 3.0)
    );
    Ok(())
}

#[tokio::test]
async fn hostile_sources_are_left_out_and_the_good_one_is_served() -> Result<()> {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b'x'; 1 << 20])?;
    }
    let bomb = bomb.finish()?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let bomb = Source::responding([head.as_bytes(), &bomb].concat()).await?;
    let html = "<!doctype html>\n<html><body>Not here.</body></html>\n";
    let html = Source::exposition("text/html", html).await?;
    // No line of it is text.
    let binary: Vec<u8> = harness::content::bytes(7, 10_000);
    let binary: Vec<u8> = binary.iter().map(|byte| byte | 0x80).collect();
    let binary = Source::exposition(TEXT, binary).await?;
    let refused = Source::responding("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nx 1\n").await?;
    let no_http = Source::responding("SSH-2.0-OpenSSH_9.2\r\n").await?;
    let cut = Source::responding("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx 1\n").await?;
    let closed = Source::responding("").await?;
    let unbounded = Source::scripted(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let line = "endless 1\n".repeat(1000);
        while stream.write_all(line.as_bytes()).await.is_ok() {}
        Ok(())
    })
    .await?;
    let heads = Source::scripted(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
        Ok(())
    })
    .await?;
    // Neither of these would end by itself.
    let silent = Source::scripted(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await?;
    let slow = Source::scripted(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nslow 1\n").await?;
        std::future::pending().await
    })
    .await?;
    let good = Source::exposition(TEXT, "good 1\n").await?;
    let hostile = [
        ("bomb", &bomb),
        ("html", &html),
        ("binary", &binary),
        ("refused", &refused),
        ("no_http", &no_http),
        ("cut", &cut),
        ("closed", &closed),
        ("unbounded", &unbounded),
        ("heads", &heads),
        ("silent", &silent),
        ("slow", &slow),
    ];
    let mut all = hostile.to_vec();
    all.push(("good", &good));
    let mut server = with(&all, "timeout: 1s, max_bytes: 1MiB").await?;
    let before = server.process().memory()?.resident;
    let started = Instant::now();
    let scrape = scrape(&server).await?;
    // In each of the two scrapes, the sources share one deadline.
    ensure!(
        started.elapsed() < Duration::from_secs(10),
        "the sources were fetched one after the other"
    );
    for (name, _) in hostile {
        expect(&scrape, "octoserve_aggregate_up", name, 0.0)?;
        expect(&scrape, "octoserve_aggregate_samples", name, 0.0)?;
        expect(
            &scrape,
            "octoserve_aggregate_last_success_timestamp_seconds",
            name,
            0.0,
        )?;
    }
    expect(&scrape, "octoserve_aggregate_up", "good", 1.0)?;
    expect(&scrape, "good", "good", 1.0)?;
    let grown = server.process().memory()?.resident.saturating_sub(before);
    ensure!(grown < 48 << 20, "{grown} bytes more");
    Ok(())
}

#[tokio::test]
async fn a_short_scrape_timeout_leaves_out_the_slow_source() -> Result<()> {
    let silent = Source::scripted(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await?;
    let good = Source::exposition(TEXT, "good 1\n").await?;
    let server = with(&[("silent", &silent), ("good", &good)], "timeout: 5m").await?;
    let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "1")];
    let request = harness::wire::request("GET", "/metrics", &headers, b"");
    let response = harness::wire::exchange(server.metrics_address(), "GET", &request).await?;
    let scrape = Scrape::parse(String::from_utf8(response.body)?)?;
    expect(&scrape, "octoserve_aggregate_up", "silent", 0.0)?;
    expect(&scrape, "good", "good", 1.0)
}

#[tokio::test]
async fn a_source_that_disappears_keeps_the_time_of_its_last_success() -> Result<()> {
    let seconds_since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH);
    let silent = Source::scripted(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await?;
    let good = Source::exposition(TEXT, "good 1\n").await?;
    let before = seconds_since_epoch()?.as_secs_f64();
    let server = with(&[("silent", &silent), ("good", &good)], "timeout: 2s").await?;
    let own = |name: &str| metric(&format!("octoserve_aggregate_{name}"));
    let value_of = |exposition: &Scrape, name: &str, source: &str| {
        let value = exposition.sum(&own(name).label("source", source));
        value.with_context(|| format!("no {name} of {source}"))
    };
    // These gauges describe the scrape of the same exposition.
    let exposition = server.scrape().await?;
    let succeeded = value_of(&exposition, "last_success_timestamp_seconds", "good")?;
    let now = seconds_since_epoch()?.as_secs_f64();
    ensure!(
        (before..=now).contains(&succeeded),
        "{before}, {succeeded}, {now}"
    );
    let took = value_of(&exposition, "duration_seconds", "good")?;
    ensure!(took > 0.0, "{took} s");
    let waited = value_of(&exposition, "duration_seconds", "silent")?;
    ensure!((2.0..20.0).contains(&waited), "{waited} s waited");
    drop(good);
    let exposition = server.scrape().await?;
    for (name, value) in [
        ("up", 0.0),
        ("samples", 0.0),
        ("last_success_timestamp_seconds", succeeded),
    ] {
        expect(
            &exposition,
            &format!("octoserve_aggregate_{name}"),
            "good",
            value,
        )?;
    }
    Ok(())
}

/// A source that responds only after the test opens it.
async fn held() -> Result<(Source, watch::Sender<bool>)> {
    let (open, is_open) = watch::channel(false);
    let source = Source::scripted(move |mut stream| {
        let mut is_open = is_open.clone();
        async move {
            is_open.wait_for(|open| *open).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nheld 1\n").await?;
            Ok(())
        }
    });
    Ok((source.await?, open))
}

/// Sends a scrape without reading the response yet.
async fn begin(server: &Server, headers: &[(&str, &str)]) -> Result<Wire> {
    let mut wire = Wire::connect(server.metrics_address()).await?;
    let request = harness::wire::request("GET", "/metrics", headers, b"");
    wire.send(&request).await?;
    Ok(wire)
}

/// Waits until the source has received this many requests.
async fn asked(source: &Source, times: usize) -> Result<()> {
    poll::until("the source receives the requests", DEADLINE, async || {
        Ok((source.asked().len() >= times).then_some(()))
    })
    .await
}

#[tokio::test]
async fn one_fetch_serves_all_concurrent_scrapes_even_if_some_abort() -> Result<()> {
    let (source, open) = held().await?;
    let server = with(&[("held", &source)], "timeout: 1m").await?;
    let first = begin(&server, &[]).await?;
    asked(&source, 1).await?;
    let forms: [&[(&str, &str)]; 4] = [
        &[],
        &[("Accept-Encoding", "gzip")],
        &[("Accept", "application/openmetrics-text")],
        &[
            ("Accept", "application/openmetrics-text"),
            ("Accept-Encoding", "gzip"),
        ],
    ];
    let mut scrapers = Vec::new();
    for number in 0..16 {
        scrapers.push((number % 4, begin(&server, forms[number % 4]).await?));
    }
    // Closing the scrape that started the fetch does not end the fetch.
    drop(first);
    open.send_replace(true);
    for (form, mut scraper) in scrapers {
        let response = scraper.response("GET").await?;
        assert_eq!(response.head.status, 200);
        let mut text = response.body;
        if form % 2 == 1 {
            let mut unpacked = Vec::new();
            GzDecoder::new(&*text).read_to_end(&mut unpacked)?;
            text = unpacked;
        }
        let text = String::from_utf8(text)?;
        ensure!(text.contains("\nheld{source=\"held\"} 1\n"), "{text}");
        assert_eq!(text.ends_with("# EOF\n"), form >= 2);
    }
    // A scrape that arrived late may have started a second fetch.
    let fetches = source.asked().len();
    ensure!(fetches <= 2, "{fetches} fetches for 17 scrapes");
    Ok(())
}

#[tokio::test]
async fn only_a_scrape_with_a_short_timeout_gets_a_partial_exposition() -> Result<()> {
    let (source, open) = held().await?;
    let good = Source::exposition(TEXT, "good 1\n").await?;
    let server = with(&[("held", &source), ("good", &good)], "timeout: 1m").await?;
    let mut patient = begin(&server, &[("X-Prometheus-Scrape-Timeout-Seconds", "50")]).await?;
    asked(&source, 1).await?;
    for timeout in ["0.001", "0", "1"] {
        let headers = [("X-Prometheus-Scrape-Timeout-Seconds", timeout)];
        let response = begin(&server, &headers).await?.response("GET").await?;
        assert_eq!(response.head.status, 200, "{timeout}");
        let scrape = Scrape::parse(String::from_utf8(response.body)?)?;
        ensure!(scrape.exposition().family("octoserve_build_info").is_some());
        ensure!(scrape.exposition().family("held").is_none());
        if timeout == "1" {
            expect(&scrape, "good", "good", 1.0)?;
        }
    }
    open.send_replace(true);
    let response = patient.response("GET").await?;
    let scrape = Scrape::parse(String::from_utf8(response.body)?)?;
    expect(&scrape, "held", "held", 1.0)?;
    expect(&scrape, "octoserve_aggregate_up", "held", 1.0)?;
    assert_eq!((source.asked().len(), good.asked().len()), (1, 1));
    Ok(())
}

/// A poll of the status page, or any other scraper that does not wait, is no failure of the source.
#[tokio::test]
async fn a_scraper_that_does_not_wait_changes_nothing_for_those_who_do() -> Result<()> {
    let (source, open) = held().await?;
    let mut server = with(&[("held", &source)], "timeout: 1m").await?;
    // Once as it should be, then slow.
    open.send_replace(true);
    server.scrape().await?;
    open.send_replace(false);
    let hasty = async || {
        let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "0.5")];
        let response = begin(&server, &headers).await?.response("GET").await?;
        Scrape::parse(String::from_utf8(response.body)?)
    };
    for _ in 0..3 {
        let scrape = hasty().await?;
        // The exposition lacks it, and says so.
        expect(&scrape, "octoserve_aggregate_up", "held", 0.0)?;
        ensure!(scrape.exposition().family("held").is_none());
    }
    // All of them have waited for one and the same response.
    assert_eq!(source.asked().len(), 2);
    let mut patient = begin(&server, &[]).await?;
    open.send_replace(true);
    let response = patient.response("GET").await?;
    let scrape = Scrape::parse(String::from_utf8(response.body)?)?;
    expect(&scrape, "octoserve_aggregate_up", "held", 1.0)?;
    expect(&scrape, "held", "held", 1.0)?;
    let log = server.process().output(OutputStream::Stderr)?;
    ensure!(!log.contains("source scrape failed"), "{log}");
    ensure!(!log.contains("source scrape recovered"), "{log}");
    Ok(())
}

#[tokio::test]
async fn dropped_samples_are_counted_once_per_fetch() -> Result<()> {
    let (source, open) = held().await?;
    let twice = Source::exposition(TEXT, "x 1\nx 2\nbad\n").await?;
    let server = with(&[("held", &source), ("twice", &twice)], "timeout: 1m").await?;
    let mut patient = begin(&server, &[]).await?;
    asked(&source, 1).await?;
    for _ in 0..3 {
        let headers = [("X-Prometheus-Scrape-Timeout-Seconds", "1")];
        begin(&server, &headers).await?.response("GET").await?;
    }
    open.send_replace(true);
    patient.response("GET").await?;
    let scrape = server.scrape().await?;
    let fetches = f64::from(u32::try_from(twice.asked().len())?);
    // The next exposition will count the fetch of this one.
    assert_eq!(dropped(&scrape, "twice", "duplicate"), Some(fetches - 1.0));
    assert_eq!(dropped(&scrape, "twice", "malformed"), Some(fetches - 1.0));
    Ok(())
}

#[tokio::test]
async fn a_source_is_logged_only_when_it_fails_or_recovers() -> Result<()> {
    let (state, current) = watch::channel(503);
    let source = Source::scripted(move |mut stream| {
        let status = *current.borrow();
        async move {
            let head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 4\r\n\r\nx 1\n");
            stream.write_all(head.as_bytes()).await?;
            Ok(())
        }
    });
    let source = source.await?;
    let mut server = with(&[("exporter", &source)], "").await?;
    for status in [503, 200, 503, 200] {
        state.send_replace(status);
        for _ in 0..3 {
            server.scrape().await?;
        }
    }
    drop(source);
    for _ in 0..3 {
        server.scrape().await?;
    }
    let log = poll::until("the last failure is logged", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        let failures = log.matches("source scrape failed").count();
        Ok((failures >= 3).then_some(log))
    })
    .await?;
    let said = |words: &str| {
        let lines = log.lines().filter(|line| line.contains(words));
        let lines: Vec<_> = lines.collect();
        let named = lines
            .iter()
            .all(|line| line.contains("\"source\":\"exporter\""));
        assert!(named, "{lines:?}");
        lines
    };
    let failed = said("source scrape failed");
    assert_eq!(failed.len(), 3, "{failed:?}");
    ensure!(
        failed[0].contains("503") && failed[2].contains("cannot connect"),
        "{failed:?}"
    );
    assert_eq!(said("source scrape recovered").len(), 2);
    Ok(())
}
