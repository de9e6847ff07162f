//! Who gets the page: listeners, passwords and names. Whatever else a listener serves stays as it was.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::browser::Browser;
use harness::client::Client;
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::scripted::{Caller, Scripted};
use harness::wire::{self, Response};
use sha2::{Digest as _, Sha256};

use super::live;

/// `prometheus:a secret`.
const AUTHORIZED: &str = "Authorization: Basic cHJvbWV0aGV1czphIHNlY3JldA==\r\n";
const BASIC_AUTH: &str = "basic_auth: {username: prometheus, password_hash: \
    '$2y$05$abcdefghijklmnopqrstuuIAEipimVgSTxGS2VyWH9AhzRz3iJI3.'}";
const BROWSER: &str = "Accept: text/html,application/xhtml+xml\r\n";

/// Asks for `/` by a host's name, with more headers.
async fn ask(address: SocketAddr, method: &str, host: &str, headers: &str) -> Result<Response> {
    let request =
        format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    wire::exchange(address, method, request.as_bytes()).await
}

fn is_page(response: &Response) -> bool {
    response.head.status == 200
        && response.head.header("content-type") == Some("text/html; charset=utf-8")
        && response.body.starts_with(b"<!doctype html>")
}

async fn gets_page(server: &Server, headers: &str) -> Result<bool> {
    let address = server.metrics_address();
    let response = ask(address, "GET", &address.to_string(), headers).await?;
    Ok(is_page(&response))
}

#[tokio::test]
async fn the_headers_bound_the_page_exactly() -> Result<()> {
    let server = Launch::all_in_one().metrics_listener().start().await?;
    let address = server.metrics_address();
    let page = ask(address, "GET", "localhost", "").await?;
    ensure!(is_page(&page), "{:?}", page.head);
    let html = String::from_utf8(page.body)?;
    let hash = |open: &str, close: &str| -> Result<String> {
        let (_, rest) = html.split_once(open).context(open.to_owned())?;
        let (text, _) = rest.split_once(close).context(close.to_owned())?;
        Ok(STANDARD.encode(Sha256::digest(text)))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash("<script type=\"module\">", "</script>")?,
        hash("<style>", "</style>")?
    );
    for (name, value) in [
        ("content-security-policy", policy.as_str()),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(page.head.header(name), Some(value), "{name}");
    }
    let head = ask(address, "HEAD", "localhost", "").await?;
    assert_eq!(head.head.status, 200);
    assert_eq!(
        head.head.header("content-length"),
        Some(&*html.len().to_string())
    );
    let post = ask(address, "POST", "localhost", "").await?;
    assert_eq!(post.head.status, 405);

    // Chromium holds the page to it.
    let browser = Browser::start().await?;
    super::open(&browser, &server).await?;
    let refused =
        "try { document.body.innerHTML = '<p>'; return 'set' } catch (error) { return error.name }";
    assert_eq!(browser.text(refused).await?, "TypeError");
    let inline = "document.body.setAttribute('onclick', 'window.ran = 1'); document.body.click(); return String(window.ran)";
    let ran = browser.text(inline).await.unwrap_or_default();
    ensure!(ran != "1", "an inline handler ran");
    let console = browser.console().await?.join("\n");
    ensure!(console.contains("TrustedHTML"), "{console}");
    Ok(())
}

#[tokio::test]
async fn with_a_password_the_page_needs_it_as_the_metrics_do() -> Result<()> {
    let metrics = format!("metrics: {{listen: '127.0.0.1:0', {BASIC_AUTH}}}\n");
    let server = Launch::all_in_one().configuration(&metrics);
    let server = server.announces_metrics().start().await?;
    let address = server.metrics_address();
    for headers in ["", "Authorization: Basic cHJvbWV0aGV1czpndWVzcw==\r\n"] {
        let refused = ask(address, "GET", "localhost", headers).await?;
        assert_eq!(refused.head.status, 401);
        let challenge = refused.head.header("www-authenticate");
        ensure!(challenge.is_some_and(|value| value.starts_with("Basic ")));
        assert_eq!(refused.head.header("cache-control"), Some("no-store"));
        ensure!(!String::from_utf8_lossy(&refused.body).contains("<html"));
    }
    // By any name: a web site has no password.
    let known = ask(address, "GET", "evil.example", AUTHORIZED).await?;
    ensure!(is_page(&known));
    let browser = Browser::start().await?;
    let url = format!("http://prometheus:a%20secret@{address}/");
    browser.open(&url).await?;
    live(&browser).await?;
    let console = browser.console().await?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

#[tokio::test]
async fn without_a_password_no_web_site_and_no_terminator_gets_it() -> Result<()> {
    let metrics = "metrics: {listen: '127.0.0.1:0', status_page: {hosts: [status.example]}}\n";
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let server = launch.configuration(metrics).announces_metrics();
        let server = server.start().await?;
        let address = server.metrics_address();
        for host in ["127.0.0.1", "localhost:80", "[::1]", "Status.Example:5001"] {
            let response = ask(address, "GET", host, "").await?;
            ensure!(is_page(&response), "{host}");
        }
        for (host, headers) in [
            ("evil.example", ""),
            ("127.0.0.1.evil.example", ""),
            ("", ""),
            ("127.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n"),
            ("localhost", "Forwarded: for=192.0.2.1\r\n"),
            ("localhost", "Via: 1.1 a\r\n"),
        ] {
            let refused = ask(address, "GET", host, headers).await?;
            assert_eq!(refused.head.status, 403, "{host} {headers}");
            let words = String::from_utf8(refused.body)?;
            ensure!(words.contains("metrics.status_page.hosts"), "{words}");
        }
        // A scrape by any name is what it was.
        let request = wire::request("GET", "/metrics", &[], b"");
        let scrape = wire::exchange(address, "GET", &request).await?;
        assert_eq!(scrape.head.status, 200);
        let browser = Browser::start().await?;
        let url = format!("http://evil.example:{}/", address.port());
        browser.open(&url).await?;
        let shown = browser.text("return document.body.innerText").await?;
        ensure!(shown.contains("Without a password"), "{shown}");
    }
    Ok(())
}

/// What a client gets at `/` of a main listener: by a browser, by anything else, and by a POST.
async fn at_the_root(server: &Server, headers: &str) -> Result<[(u16, String); 3]> {
    let address = server.address();
    let host = address.to_string();
    let mut all = Vec::new();
    for (method, accept) in [
        ("GET", BROWSER),
        ("GET", "Accept: */*\r\n"),
        ("POST", BROWSER),
    ] {
        let response = ask(address, method, &host, &format!("{headers}{accept}")).await?;
        let body = if is_page(&response) {
            "the status page".to_owned()
        } else {
            String::from_utf8(response.body)?
        };
        all.push((response.head.status, body));
    }
    all.try_into().ok().context("three")
}

#[tokio::test]
async fn a_main_listener_gives_what_it_gave_unless_it_is_told_otherwise() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let own = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nits own\r\n";
            caller.send(own).await?;
        }
    });
    let upstream = upstream.await?;
    let remote = format!("upstreams: [{{replicas: ['{}']}}]\n", upstream.url());
    let own = || (200, "its own\r\n".to_owned());
    let probe = || (200, "ok\n".to_owned());
    let page = || (200, "the status page".to_owned());
    // In front of another registry, whose page is there: a password does not change that.
    for metrics in ["", &*format!("metrics: {{{BASIC_AUTH}}}\n")] {
        let server = Launch::configured(&format!("{remote}{metrics}"));
        let server = server.start().await?;
        let got = at_the_root(&server, AUTHORIZED).await?;
        assert_eq!(got, [own(), probe(), own()], "{metrics}");
    }
    let all = "metrics: {status_page: {listeners: all}}\n";
    let server = Launch::configured(&format!("{remote}{all}"))
        .start()
        .await?;
    assert_eq!(at_the_root(&server, "").await?, [page(), probe(), own()]);
    let headers = format!("Via: 1.1 a\r\n{BROWSER}");
    let forwarded = ask(server.address(), "GET", "localhost", &headers).await?;
    assert_eq!(forwarded.head.status, 403);

    // The registry of its own has nothing there: a password is enough, and needed.
    let nothing = at_the_root(&Launch::all_in_one().start().await?, "").await?;
    assert_eq!((nothing[0].0, nothing[1].0), (404, 200));
    let metrics = format!("metrics: {{{BASIC_AUTH}}}\n");
    let server = Launch::all_in_one().configuration(&metrics).start().await?;
    let known = at_the_root(&server, AUTHORIZED).await?;
    assert_eq!(known, [page(), probe(), nothing[2].clone()]);
    let stranger = at_the_root(&server, "").await?;
    assert_eq!(stranger[0].0, 401);
    assert_eq!(stranger[1..], known[1..]);
    // A registry's client finds the registry.
    Client::new(&server.url(""))?
        .push_image("team/app", "1", &[1])
        .await?;
    let browser = Browser::start().await?;
    browser
        .open(&format!("http://prometheus:a%20secret@{}/", server.host()))
        .await?;
    live(&browser).await
}

#[tokio::test]
async fn a_browser_over_http2_is_known_by_its_authority() -> Result<()> {
    let all = "metrics: {status_page: {listeners: all}}\n";
    let server = Launch::all_in_one().configuration(all).start().await?;
    let mut client = H2::connect(server.address(), false).await?;
    for (host, status) in [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("evil.example", 403),
    ] {
        let uri = format!("http://{host}:{}/", server.address().port());
        let accept = [("accept", "text/html")];
        let stream = client.send_to(&uri, "GET", &accept, true).await?;
        let response = stream.response().await?;
        assert_eq!(response.status, status, "{host}");
        let body = String::from_utf8(response.read().await?)?;
        assert_eq!(body.starts_with("<!doctype html>"), status == 200, "{host}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reload_changes_who_gets_it() -> Result<()> {
    let with =
        |page: &str| format!("metrics: {{listen: '127.0.0.1:0', status_page: {{{page}}}}}\n");
    for launch in [Launch::all_in_one(), Launch::registry()] {
        let server = launch.configuration(&with("")).announces_metrics();
        let server = server.start().await?;
        ensure!(gets_page(&server, "").await?);
        for (page, is_served) in [("listeners: none", false), ("listeners: auto", true)] {
            server.configure(&with(page))?;
            ensure!(server.reload().await?, "{page}");
            assert_eq!(gets_page(&server, "").await?, is_served, "{page}");
        }
    }
    Ok(())
}
