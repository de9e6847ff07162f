//! The status page in a real Chromium: it shows what the metrics say, it follows them, and people use it
//! with a phone, a keyboard and a screen reader.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::client::Client;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::scrape::{Metric, metric};
use serde_json::Value;

/// Who gets the page, from which listener and by which name.
mod access;
/// Metrics that are foreign, huge, cut, slow or gone.
mod failures;
/// Names and figures that a source or a configuration chose badly.
mod hostile;
/// What the page computes, figure by figure.
mod reading;
/// The pictures of the documentation.
mod screenshots;
/// What is wrong, in words.
mod wrong;

const DEADLINE: Duration = Duration::from_secs(30);

/// The page of a server's metrics listener, once it shows the metrics.
async fn open(browser: &Browser, server: &Server) -> Result<()> {
    browser
        .open(&format!("http://{}/", server.metrics_address()))
        .await?;
    live(browser).await
}

async fn live(browser: &Browser) -> Result<()> {
    browser
        .until("document.documentElement.dataset.state === 'live'")
        .await
}

/// The exact value of a figure of its own.
async fn figure(browser: &Browser, name: &str) -> Result<Option<f64>> {
    exact(browser, &format!("#figures [data-figure=\"{name}\"]")).await
}

/// The exact value of a cell of a table.
async fn cell(browser: &Browser, table: &str, row: &str, column: &str) -> Result<Option<f64>> {
    let row = format!(
        "[...document.querySelectorAll('#{table} tr')].find((row) => row.dataset.key === {row:?})"
    );
    let script =
        format!("return ({row})?.querySelector('[data-figure=\"{column}\"]')?.value ?? null");
    number(&browser.run(&script).await?)
}

async fn exact(browser: &Browser, selector: &str) -> Result<Option<f64>> {
    let script = format!("return document.querySelector('{selector}')?.value ?? null");
    number(&browser.run(&script).await?)
}

fn number(value: &Value) -> Result<Option<f64>> {
    match value.as_str() {
        None | Some("") => Ok(None),
        Some(text) => Ok(Some(text.parse().with_context(|| text.to_owned())?)),
    }
}

/// Waits until the page shows what the metrics say at the same moment, which is more than nothing.
async fn equals(browser: &Browser, server: &Server, shown: &Shown, of: &Metric) -> Result<()> {
    let what = format!("{shown:?}");
    poll::until(&what, DEADLINE, async || {
        let expected = server.scrape().await?.sum(of);
        let found = match shown {
            Shown::Figure(name) => figure(browser, name).await?,
            Shown::Cell(table, row, column) => cell(browser, table, row, column).await?,
        };
        Ok((found.is_some() && found == expected).then_some(()))
    })
    .await
}

/// Where the page shows a figure.
#[derive(Debug)]
enum Shown {
    Figure(&'static str),
    Cell(&'static str, &'static str, &'static str),
}

async fn some_traffic(client: &Client) -> Result<()> {
    for repository in ["team/app", "team/base"] {
        client.push_image(repository, "1", &[1, 2]).await?;
        for _ in 0..3 {
            client.pull_image(repository, "1").await?;
        }
    }
    client.open_upload("team/app").await?;
    for (path, status) in [
        ("/v2/team/app/manifests/nope", 404),
        ("/v2/UPPER/tags/list", 400),
    ] {
        ensure!(client.get(path).await?.status().as_u16() == status);
    }
    Ok(())
}

#[tokio::test]
async fn every_figure_equals_the_metrics_and_follows_them() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    let client = Client::new(&server.url(""))?;
    some_traffic(&client).await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    let of = |name: &str| metric(&format!("octoserve_{name}"));
    let repository = |name: &str| of(name).label("repository", "team/app");
    let expected = [
        (Shown::Figure("requests_total"), of("http_requests_total")),
        (
            Shown::Figure("pulls_total"),
            of("repository_operations_total").label("operation", "pull"),
        ),
        (
            Shown::Figure("pushes_total"),
            of("repository_operations_total").label("operation", "push"),
        ),
        (
            Shown::Figure("sent_total"),
            of("http_response_body_bytes_total"),
        ),
        (
            Shown::Figure("received_total"),
            of("http_request_body_bytes_total"),
        ),
        (
            Shown::Cell("endpoints", "manifest", "total"),
            of("http_requests_total").label("endpoint", "manifest"),
        ),
        (
            Shown::Cell("endpoints", "blob", "total"),
            of("http_requests_total").label("endpoint", "blob"),
        ),
        (
            Shown::Cell("repositories", "team/app", "pulls"),
            repository("repository_operations_total").label("operation", "pull"),
        ),
        (
            Shown::Cell("repositories", "team/app", "sent"),
            repository("repository_bytes_total").label("direction", "download"),
        ),
        (
            Shown::Cell("repositories", "team/app", "received"),
            repository("repository_bytes_total").label("direction", "upload"),
        ),
        (
            Shown::Cell("repositories", "team/app", "stored"),
            repository("repository_stored_bytes"),
        ),
        (
            Shown::Cell("repositories", "team/app", "pulled"),
            repository("repository_last_pull_timestamp_seconds"),
        ),
        (
            Shown::Cell("clients", "other", "pull"),
            of("client_requests_total")
                .label("client", "other")
                .label("operation", "pull"),
        ),
        (
            Shown::Cell("errors", "MANIFEST_UNKNOWN", "total"),
            of("oci_errors_total").label("code", "MANIFEST_UNKNOWN"),
        ),
        (
            Shown::Cell("uploads", "in progress", "active"),
            of("upload_sessions_active"),
        ),
        (
            Shown::Cell("uploads", "in the store", "stored"),
            of("registry_upload_sessions"),
        ),
        (
            Shown::Cell("storage", "registry", "size"),
            of("storage_filesystem_size_bytes"),
        ),
        (
            Shown::Cell("storage", "registry", "used"),
            of("storage_disk_usage_bytes"),
        ),
        (
            Shown::Cell("storage", "registry", "repositories"),
            of("repositories"),
        ),
        (Shown::Cell("storage", "registry", "tags"), of("tags")),
        (Shown::Cell("storage", "registry", "blobs"), of("blobs")),
        (
            Shown::Cell("sources", "registry", "up"),
            of("aggregate_up").label("source", "registry"),
        ),
        (
            Shown::Cell("upstreams", "registry", "total"),
            of("upstream_request_duration_seconds_count"),
        ),
    ];
    for (shown, of) in &expected {
        equals(&browser, &server, shown, of).await?;
    }
    // More traffic: the page follows by itself.
    let scrapes = browser
        .text("return document.documentElement.dataset.scrapes")
        .await?;
    let before = figure(&browser, "requests_total").await?;
    some_traffic(&client).await?;
    let followed = format!("Number(document.documentElement.dataset.scrapes) > {scrapes} + 1");
    browser.until(&followed).await?;
    for (shown, of) in &expected {
        equals(&browser, &server, shown, of).await?;
    }
    ensure!(figure(&browser, "requests_total").await? > before);
    ensure!(cell(&browser, "endpoints", "manifest", "minute").await? > Some(0.0));
    ensure!(cell(&browser, "endpoints", "manifest", "4xx").await? > Some(0.0));
    ensure!(cell(&browser, "endpoints", "manifest", "p95").await? > Some(0.0));
    for name in ["requests", "latency", "sent"] {
        ensure!(figure(&browser, name).await? > Some(0.0), "{name}");
    }
    let plots = "[...document.querySelectorAll('svg.plot path.line')].filter((path) => path.getAttribute('d').includes('L')).length > 4";
    browser.until(plots).await?;
    let console = browser.console().await?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

#[tokio::test]
async fn the_registry_alone_has_the_page_and_shows_what_it_has() -> Result<()> {
    let server = Launch::registry().start().await?;
    let client = Client::new(&server.url(""))?;
    some_traffic(&client).await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    let of = |name: &str| metric(&format!("octoserve_{name}"));
    for (shown, of) in [
        (
            Shown::Figure("requests_total"),
            of("registry_http_requests_total"),
        ),
        (
            Shown::Cell("endpoints", "manifest", "total"),
            of("registry_http_requests_total").label("endpoint", "manifest"),
        ),
        (
            Shown::Cell("repositories", "team/app", "stored"),
            of("repository_stored_bytes").label("repository", "team/app"),
        ),
        (Shown::Cell("storage", "this registry", "tags"), of("tags")),
    ] {
        equals(&browser, &server, &shown, &of).await?;
    }
    // What only a proxy has is not there, and no empty table is.
    let absent = "return [...document.querySelectorAll('section:not([hidden]) table')].map((table) => table.id).join()";
    let tables = browser.text(absent).await?;
    assert_eq!(tables, "endpoints,repositories,uploads,storage,process");
    let console = browser.console().await?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

/// WebDriver's names of keys.
const TAB: char = '\u{E004}';
const ENTER: char = '\u{E007}';
const SPACE: char = ' ';

#[tokio::test]
async fn the_keyboard_reaches_everything_and_a_screen_reader_finds_its_way() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    some_traffic(&Client::new(&server.url(""))?).await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    let reachable = browser
        .run("return [...document.querySelectorAll('a, button, [tabindex=\"0\"]')].filter((e) => e.checkVisibility()).length")
        .await?;
    let reachable = reachable.as_u64().context("no number")?;
    ensure!(reachable > 8, "{reachable}");
    let mut reached = Vec::new();
    for _ in 0..reachable {
        browser.press(TAB).await?;
        // Where the focus is can be seen.
        let focus = browser
            .text(
                "const e = document.activeElement, s = getComputedStyle(e); \
                 return s.outlineStyle === 'none' || s.outlineWidth === '0px' ? 'invisible' \
                 : e.id || e.getAttribute('aria-labelledby') || e.textContent",
            )
            .await?;
        reached.push(focus);
    }
    ensure!(reached[0].starts_with("Skip"), "{reached:?}");
    let mut distinct = reached.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len() as u64, reachable, "{reached:?}");
    ensure!(!distinct.contains(&"invisible".to_owned()), "{reached:?}");

    browser
        .run("document.querySelector('.skip').focus()")
        .await?;
    browser.press(ENTER).await?;
    browser
        .until("document.activeElement.id === 'main'")
        .await?;
    browser
        .run("document.getElementById('pause').focus()")
        .await?;
    browser.press(SPACE).await?;
    browser
        .until("document.documentElement.dataset.state === 'paused'")
        .await?;
    let pressed = "return document.getElementById('pause').getAttribute('aria-pressed')";
    assert_eq!(browser.text(pressed).await?, "true");
    browser.press(SPACE).await?;
    live(&browser).await?;

    let faults = browser
        .run(
            "const faults = []; const all = (s) => [...document.querySelectorAll(s)];
             for (const one of ['header', 'main', 'footer', 'h1']) if (all(one).length !== 1) faults.push(one);
             if (document.documentElement.lang !== 'en' || document.title === '') faults.push('document');
             for (const s of all('section')) if (!document.getElementById(s.getAttribute('aria-labelledby'))?.textContent) faults.push('section');
             for (const t of all('table')) if (!t.caption?.textContent || t.querySelectorAll('thead th[scope=col]').length !== t.rows[1].cells.length || t.querySelectorAll('tbody tr').length !== t.querySelectorAll('tbody th[scope=row]').length) faults.push(t.id);
             for (const p of all('svg')) if (p.getAttribute('role') !== 'img' || !p.getAttribute('aria-label')) faults.push('plot');
             if (all('[role=status]').length !== 2) faults.push('status');
             return faults.join()",
        )
        .await?;
    assert_eq!(faults, "");
    Ok(())
}

#[tokio::test]
async fn it_fits_a_phone_and_its_words_can_be_read_in_light_and_dark() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    some_traffic(&Client::new(&server.url(""))?).await?;
    let browser = Browser::start().await?;
    open(&browser, &server).await?;
    for width in [320, 390, 768, 1280] {
        browser.resize(width, 800, width < 500).await?;
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        browser
            .until(&format!("innerWidth === {width} && {fits}"))
            .await?;
    }
    // The least contrast of any text with what is behind it, as WCAG 2.2 computes it.
    let contrast = "
        const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
        const light = (color) => { const [r, g, b] = parse(color).map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parse(c)[3] !== 0) return c; } return 'rgb(255, 255, 255)'; };
        const hidden = document.createElement('ul'); hidden.id = 'problems';
        for (const level of ['error', 'warning']) { const li = document.createElement('li'); li.className = level; const word = document.createElement('strong'); word.textContent = 'x'; li.append(word, 'x'); hidden.append(li); }
        document.body.append(hidden);
        const ratios = [...document.body.querySelectorAll('*')].filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); });
        hidden.remove();
        return [Math.min(...ratios), getComputedStyle(document.body).backgroundColor];";
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await?;
        let result = browser.run(contrast).await?;
        let least = result[0].as_f64().context("no ratio")?;
        ensure!(least >= 4.5, "{scheme}: {least}");
        papers.push(result[1].to_string());
    }
    ensure!(papers[0] != papers[1], "{papers:?}");
    Ok(())
}
