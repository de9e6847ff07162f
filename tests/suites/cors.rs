//! Browser user interfaces on other origins: the proxy responds to preflights itself and lets allowed
//! origins read responses, its own refusals too. Off, it says nothing of origins.

use anyhow::{Result, ensure};
use harness::client::MANIFEST;
use harness::foreign::{AUTHORIZATION, ForeignRegistry};
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::{self, Response, Wire};

const UI: &str = "https://ui.example";
const CORS: &str = "cors: {origins: ['HTTPS://UI.example:443'], allow_credentials: true}\n";

/// The headers by which a browser asks whether a user interface may delete.
const PREFLIGHT: &[(&str, &str)] = &[
    ("Origin", UI),
    ("Access-Control-Request-Method", "DELETE"),
    (
        "Access-Control-Request-Headers",
        "authorization,cache-control",
    ),
];

async fn ask(server: &Server, method: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let request = wire::request(method, "/v2/team/app/manifests/1", headers, b"");
    wire::exchange(server.address(), method, &request).await
}

/// What a response says of origins, sorted.
fn said(response: &Response) -> Vec<String> {
    let headers = response.head.headers();
    let headers =
        headers.filter(|(name, _)| name.starts_with("access-control-") || *name == "vary");
    let mut said: Vec<_> = headers
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    said.sort_unstable();
    said
}

/// An upstream that has a policy of its own.
async fn upstream() -> Result<Scripted> {
    Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller
                .send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nContent-Length: 0\r\n\
                     Docker-Content-Digest: sha256:00\r\nAccess-Control-Allow-Origin: *\r\n\
                     Access-Control-Allow-Methods: TRACE\r\nVary: Accept\r\n\r\n"
                ))
                .await?;
        }
    })
    .await
}

async fn front(upstream: &Scripted, keys: &str) -> Result<Server> {
    let configuration = format!("upstreams: [{{replicas: ['{}']}}]\n{keys}", upstream.url());
    Launch::configured(&configuration).start().await
}

#[tokio::test]
async fn a_preflight_gets_its_response_from_the_proxy_and_is_no_request_of_the_registry()
-> Result<()> {
    let upstream = upstream().await?;
    let mut server = front(&upstream, CORS).await?;
    // Twice on one connection, with a request after them.
    let mut wire = Wire::connect(server.address()).await?;
    let preflight = format!(
        "OPTIONS /v2/ HTTP/1.1\r\nHost: registry\r\nOrigin: {UI}\r\n\
         Access-Control-Request-Method: DELETE\r\n\r\n"
    );
    for _ in 0..2 {
        wire.send(preflight.as_bytes()).await?;
        let response = wire.response("OPTIONS").await?;
        assert_eq!(response.head.status, 204);
        assert_eq!(response.head.header("content-length"), None);
        let headers = "access-control-allow-headers: Authorization, Accept, Cache-Control, ";
        let said = said(&response);
        ensure!(
            said.iter().any(|said| said.starts_with(headers)),
            "{said:?}"
        );
        for expected in [
            "access-control-allow-credentials: true",
            "access-control-allow-methods: GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE",
            "access-control-allow-origin: https://ui.example",
            "access-control-max-age: 600",
            "vary: Origin",
        ] {
            ensure!(
                said.iter().any(|said| said == expected),
                "{expected}: {said:?}"
            );
        }
    }
    ensure!(upstream.heard().is_empty());
    wire.send(&wire::request("GET", "/v2/", &[], b"")).await?;
    assert_eq!(wire.response("GET").await?.head.status, 200);
    let requests = metric("octoserve_http_requests_total");
    requests.value(1).assert_in(&server).await?;
    server.terminate(std::time::Duration::from_secs(30)).await?;
    let log = server.process().output(OutputStream::Stderr)?;
    assert_eq!(log.matches("\"access\"").count(), 1, "{log}");
    Ok(())
}

#[tokio::test]
async fn http2_has_preflights_too() -> Result<()> {
    let upstream = upstream().await?;
    let server = front(&upstream, CORS).await?;
    let mut h2 = H2::connect(server.address(), false).await?;
    let headers: Vec<_> = PREFLIGHT
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .collect();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let preflight = h2.send("OPTIONS", "/v2/", &headers, true).await?;
    let response = preflight.response().await?;
    assert_eq!(response.status, 204);
    assert_eq!(response.headers["access-control-allow-origin"], UI);
    let get = h2.send("GET", "/v2/", &headers[..1], true).await?;
    let response = get.response().await?;
    assert_eq!(response.headers["access-control-allow-origin"], UI);
    assert_eq!(
        response
            .headers
            .get_all("access-control-allow-origin")
            .iter()
            .count(),
        1
    );
    Ok(())
}

#[tokio::test]
async fn an_allowed_origin_reads_responses_and_the_upstreams_own_policy_is_replaced() -> Result<()>
{
    let upstream = upstream().await?;
    let server = front(&upstream, CORS).await?;
    for method in ["GET", "HEAD", "DELETE"] {
        let response = ask(&server, method, &[("Origin", UI)]).await?;
        let said = said(&response);
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(
            said[..2],
            [
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://ui.example",
            ]
        );
        ensure!(said[2].contains("Docker-Content-Digest"), "{said:?}");
        ensure!(said[2].contains("WWW-Authenticate"), "{said:?}");
        assert_eq!(said[3..], ["vary: Accept", "vary: Origin"]);
    }
    let any = "cors: {origins: ['*'], expose_headers: [Link], headers: [], max_age: 1s}\n";
    let server = front(&upstream, any).await?;
    let response = ask(&server, "GET", &[("Origin", "http://anywhere:8080")]).await?;
    assert_eq!(
        said(&response),
        [
            "access-control-allow-origin: *",
            "access-control-expose-headers: Link",
            "vary: Accept",
            "vary: Origin",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn other_origins_and_other_requests_are_forwarded_as_they_are() -> Result<()> {
    let upstream = upstream().await?;
    let own = [
        "access-control-allow-methods: TRACE",
        "access-control-allow-origin: *",
        "vary: Accept",
    ];
    for (keys, vary) in [(CORS, true), ("", false)] {
        let server = front(&upstream, keys).await?;
        let before = upstream.heard().concat().matches("OPTIONS ").count();
        for origin in ["https://evil.example", "null", "https://ui.example.evil"] {
            let headers = [&[("Origin", origin)], &PREFLIGHT[1..]].concat();
            for method in ["OPTIONS", "GET"] {
                let response = ask(&server, method, &headers).await?;
                assert_eq!(response.head.status, 200);
                let mut said = said(&response);
                // A cache must not give an allowed origin what was made for this one.
                let added = said.iter().position(|said| said == "vary: Origin");
                assert_eq!(added.is_some(), vary, "{said:?}");
                added.map(|at| said.remove(at));
                assert_eq!(said, own, "{origin}, {method}");
            }
        }
        // No preflight.
        ask(&server, "OPTIONS", &[("Origin", UI)]).await?;
        let options = upstream.heard().concat().matches("OPTIONS ").count();
        assert_eq!(options - before, 4);
    }
    Ok(())
}

#[tokio::test]
async fn a_user_interface_can_read_why_the_proxy_refuses() -> Result<()> {
    // Nobody listens there.
    let gone = upstream().await?.url();
    for (replica, read_only, method, status) in [
        (gone.clone(), false, "GET", 502),
        (gone, true, "DELETE", 405),
    ] {
        let configuration =
            format!("upstreams: [{{replicas: ['{replica}'], read_only: {read_only}}}]\n{CORS}");
        let server = Launch::configured(&configuration).start().await?;
        let response = ask(&server, method, &[("Origin", UI)]).await?;
        assert_eq!(response.head.status, status);
        assert_eq!(
            response.head.header("access-control-allow-origin"),
            Some(UI)
        );
        ensure!(response.error_code().is_some());
        let response = ask(&server, method, &[("Origin", "https://evil.example")]).await?;
        assert_eq!(said(&response), ["vary: Origin"]);
        // A preflight needs no upstream.
        assert_eq!(ask(&server, "OPTIONS", PREFLIGHT).await?.head.status, 204);
    }
    Ok(())
}

/// As a user interface does it: a preflight without a password, for which the registry has a 401, and
/// then the request with one.
#[tokio::test]
async fn a_user_interface_reads_a_registry_with_a_password() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    let configuration = format!("upstreams: [{{replicas: ['{}']}}]\n{CORS}", registry.url());
    let server = Launch::configured(&configuration).start().await?;
    assert_eq!(ask(&server, "OPTIONS", PREFLIGHT).await?.head.status, 204);
    let challenge = ask(&server, "GET", &[("Origin", UI)]).await?;
    assert_eq!(challenge.head.status, 401);
    ensure!(challenge.head.header("www-authenticate").is_some());
    assert_eq!(
        challenge.head.header("access-control-allow-origin"),
        Some(UI)
    );
    let headers = [("Origin", UI), ("Authorization", AUTHORIZATION)];
    let request = wire::request("GET", "/v2/_catalog", &headers, b"");
    let catalog = wire::exchange(server.address(), "GET", &request).await?;
    assert_eq!(catalog.head.status, 200);
    assert_eq!(catalog.head.header("access-control-allow-origin"), Some(UI));
    Ok(())
}

#[tokio::test]
async fn the_embedded_registry_has_user_interfaces_too_and_the_metrics_have_none() -> Result<()> {
    let server = Launch::all_in_one().configuration(CORS).start().await?;
    assert_eq!(ask(&server, "OPTIONS", PREFLIGHT).await?.head.status, 204);
    let missing = ask(&server, "GET", &[("Origin", UI)]).await?;
    assert_eq!(missing.head.status, 404);
    assert_eq!(missing.head.header("access-control-allow-origin"), Some(UI));
    for (method, headers) in [("GET", &[("Origin", UI)][..]), ("OPTIONS", PREFLIGHT)] {
        let request = wire::request(method, "/metrics", headers, b"");
        let response = wire::exchange(server.address(), method, &request).await?;
        assert_eq!(response.head.header("access-control-allow-origin"), None);
    }
    Ok(())
}
