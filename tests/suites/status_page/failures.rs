//! Metrics that are foreign, huge, cut, slow or gone: the page says so, and goes on once they are back.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::octoserve::Launch;
use harness::source::Source;
use harness::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::live;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";

/// What a server that has the page responds at `/metrics`.
#[derive(Clone, Copy, Debug)]
enum Metrics {
    Good,
    Foreign(&'static str),
    Status(u16),
    Huge,
    Cut(&'static str),
    Slow,
    Gone,
}

/// A server with octoserve's own page whose metrics are as a test wants them.
struct Impostor {
    source: Source,
    metrics: Arc<Mutex<Metrics>>,
}

impl Impostor {
    async fn start() -> Result<Impostor> {
        let server = Launch::all_in_one().metrics_listener().start().await?;
        let own = |path: &str| wire::request("GET", path, &[], b"");
        let local = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let address = server.metrics_address();
        let page = wire::exchange(address, "GET", local.as_bytes()).await?;
        let policy = page.head.header("content-security-policy");
        let policy = policy.context("no policy")?;
        let length = page.body.len();
        let mut html = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
             Content-Security-Policy: {policy}\r\nConnection: close\r\n\r\n"
        )
        .into_bytes();
        html.extend(page.body);
        let exposition = wire::exchange(address, "GET", &own("/metrics")).await?;
        let exposition = String::from_utf8(exposition.body)?;
        let metrics = Arc::new(Mutex::new(Metrics::Good));
        let now = Arc::clone(&metrics);
        let source = Source::with_heads(move |head: String, mut stream| {
            let metrics = *now.lock().unwrap_or_else(PoisonError::into_inner);
            let (html, exposition) = (html.clone(), exposition.clone());
            async move {
                let written = match head.split(' ').nth(1) {
                    Some("/metrics") => respond(metrics, &exposition, &mut stream).await,
                    _ => stream.write_all(&html).await,
                };
                // The page leaves when it has read enough.
                written.ok();
                Ok(())
            }
        });
        Ok(Impostor {
            source: source.await?,
            metrics,
        })
    }

    fn becomes(&self, metrics: Metrics) {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
    }

    /// Opens the page, and for each failure waits for its words, and for the figures after it.
    async fn survives(&self, failures: &[(Metrics, &str)]) -> Result<()> {
        let browser = Browser::start().await?;
        browser.open(&self.source.url_of("/")).await?;
        live(&browser).await?;
        for (metrics, words) in failures {
            self.becomes(*metrics);
            let said = format!(
                "document.documentElement.dataset.state === 'failed' && \
                 document.getElementById('connection').checkVisibility() && \
                 document.getElementById('connection').textContent.includes({words:?}) && \
                 document.getElementById('connection').textContent.includes('What is below is old') && \
                 document.querySelector('[data-figure=requests_total]').checkVisibility()"
            );
            browser
                .until(&said)
                .await
                .with_context(|| format!("{metrics:?}"))?;
            self.becomes(Metrics::Good);
            live(&browser).await?;
            let banner = "!document.getElementById('connection').checkVisibility()";
            browser.until(banner).await?;
        }
        Ok(())
    }
}

async fn respond(
    metrics: Metrics,
    exposition: &str,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    let whole = |text: &str| {
        let length = text.len();
        format!("{HEAD}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}")
    };
    let response = match metrics {
        Metrics::Good => whole(exposition),
        Metrics::Foreign(text) => text.to_owned(),
        Metrics::Status(status) => {
            format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        Metrics::Cut(framing) => {
            let half = &exposition[..exposition.len() / 2];
            format!("{HEAD}{framing}\r\n\r\n{}", half.trim_end())
        }
        Metrics::Huge => {
            let head = format!("{HEAD}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let piece = format!("# HELP octoserve_tags {}\n", "x".repeat(1000)).repeat(64);
            loop {
                stream.write_all(piece.as_bytes()).await?;
            }
        }
        Metrics::Slow => {
            stream.write_all(HEAD.as_bytes()).await?;
            // Until the page gives up.
            return stream.read_u8().await.map(drop);
        }
        Metrics::Gone => return Ok(()),
    };
    stream.write_all(response.as_bytes()).await
}

#[tokio::test]
async fn foreign_and_refused_metrics_are_told_and_the_page_goes_on() -> Result<()> {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 16\r\nConnection: close\r\n\r\n<h1>Welcome</h1>";
    let other = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: 5\r\nConnection: close\r\n\r\nup 1\n";
    let impostor = Impostor::start().await?;
    let failures = [
        (Metrics::Foreign(html), "not octoserve's metrics"),
        (Metrics::Foreign(other), "not octoserve's metrics"),
        (Metrics::Status(503), "status 503"),
        (Metrics::Gone, "does not respond"),
    ];
    impostor.survives(&failures).await
}

#[tokio::test]
async fn cut_huge_and_slow_metrics_are_told_and_the_page_goes_on() -> Result<()> {
    let impostor = Impostor::start().await?;
    let failures = [
        (Metrics::Cut("Content-Length: 9999999"), "broke off"),
        (Metrics::Cut("Connection: close"), "broke off"),
        (Metrics::Huge, "larger than 32 MiB"),
        (Metrics::Slow, "not responded within 10 s"),
    ];
    impostor.survives(&failures).await
}

/// A browser that asked again would ask its user for the password each time.
#[tokio::test]
async fn a_password_that_is_refused_ends_the_questions() -> Result<()> {
    let impostor = Impostor::start().await?;
    impostor.becomes(Metrics::Status(401));
    let browser = Browser::start().await?;
    browser.open(&impostor.source.url_of("/")).await?;
    browser
        .until("document.getElementById('connection').textContent.includes('Load the page again')")
        .await?;
    let verdict = "return document.getElementById('verdict').textContent";
    assert_eq!(
        browser.text(verdict).await?,
        "Not known: there are no metrics."
    );
    impostor.becomes(Metrics::Good);
    // It would have asked again by now.
    browser.until("performance.now() > 8000").await?;
    let asked = impostor.source.asked();
    let scrapes = asked.iter().filter(|head| head.contains("GET /metrics "));
    assert_eq!(scrapes.count(), 1);
    Ok(())
}

#[tokio::test]
async fn it_asks_at_most_once_a_second_and_not_while_nobody_sees_it() -> Result<()> {
    let impostor = Impostor::start().await?;
    let browser = Browser::start().await?;
    browser.open(&impostor.source.url_of("/")).await?;
    let scrapes = "performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/metrics'))";
    browser.until(&format!("{scrapes}.length >= 4")).await?;
    // Whoever hides, shows, pauses and resumes it makes it ask no faster.
    let visible = "Object.defineProperty(document, 'hidden', {get: () => window.hides ?? false, configurable: true});";
    browser.run(visible).await?;
    let toggle = "for (let i = 0; i < 20; i += 1) { window.hides = i % 2 === 0; document.dispatchEvent(new Event('visibilitychange')); document.getElementById('pause').click(); }";
    browser.run(toggle).await?;
    browser.until(&format!("{scrapes}.length >= 7")).await?;
    let shortest = format!(
        "const starts = {scrapes}.map((entry) => entry.startTime); \
         return Math.min(...starts.slice(1).map((start, at) => start - starts[at]))"
    );
    let shortest = browser.run(&shortest).await?;
    let shortest = shortest.as_f64().context("no time")?;
    ensure!(shortest >= 1000.0, "{shortest} ms");

    browser
        .run("window.hides = true; document.dispatchEvent(new Event('visibilitychange'))")
        .await?;
    // The one that had begun ends; then there is none for longer than it waits between two.
    let count = format!("return {scrapes}.length + ' ' + performance.now()");
    let before = browser.text(&count).await?;
    let (before, since) = before.split_once(' ').context("two")?;
    browser
        .until(&format!("performance.now() > {since} + 5000"))
        .await?;
    let after = browser.text(&count).await?;
    let (after, _) = after.split_once(' ').context("two")?;
    let (before, after): (u32, u32) = (before.parse()?, after.parse()?);
    ensure!(after <= before + 1, "{before} {after}");
    browser
        .run("window.hides = false; document.dispatchEvent(new Event('visibilitychange'))")
        .await?;
    browser
        .until(&format!("{scrapes}.length > {after} + 1"))
        .await
}
