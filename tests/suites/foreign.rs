//! Foreign registries behind the proxy: with passwords, tokens, unusual upload locations,
//! redirected blobs and a huge catalog. Clients notice no difference.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use harness::client::{MANIFEST, descriptor};
use harness::content;
use harness::docker::Docker;
use harness::foreign::{AUTHORIZATION, ForeignRegistry, USER};
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::skopeo::Skopeo;
use harness::tools;
use harness::wire::{self, Wire};
use serde_json::json;

mod proxies;
mod rate_limits;
mod referrers;

const TOKEN: &str = "eyJ-a-token-that-nobody-else-may-see";

/// The log contains none of these tests' secrets.
fn keeps_secrets(server: &mut Server) -> Result<()> {
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        let log = server.process().output(stream)?;
        for secret in [TOKEN, USER.1, AUTHORIZATION.trim_start_matches("Basic ")] {
            ensure!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_challenge_passes_unchanged() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    let mut server = Launch::in_front_of(&registry.url()).start().await?;
    for (headers, status) in [
        (&[][..], 401),
        (&[("Authorization", "Basic bm9ib2R5OndpdGhvdXQ=")], 401),
        (&[("Authorization", AUTHORIZATION)], 200),
    ] {
        let request = wire::request("GET", "/v2/", headers, b"");
        let direct = wire::exchange(registry.address(), "GET", &request).await?;
        let proxied = wire::exchange(server.address(), "GET", &request).await?;
        assert_eq!(proxied.head.status, status);
        assert_eq!(proxied.body, direct.body);
        for name in ["www-authenticate", "content-type", "content-length"] {
            assert_eq!(
                proxied.head.header(name),
                direct.head.header(name),
                "{name}"
            );
        }
    }
    let refused = metric("octoserve_http_requests_total").label("status", "401");
    refused.value(2).assert_in(&server).await?;
    keeps_secrets(&mut server)
}

#[tokio::test]
async fn docker_logs_in_pushes_and_pulls_with_a_password() -> Result<()> {
    let registry = ForeignRegistry::start_with_password().await?;
    let mut server = Launch::in_front_of(&registry.url()).start().await?;
    let docker = Docker::shared().await?;
    let image = format!("{}/team/app:1", server.host());
    docker.image(&image, None, 700).await?;
    let id = docker.id(&image).await?;
    ensure!(
        docker.run(&["push", &image]).await.is_err(),
        "an anonymous push succeeds"
    );
    let login = [
        "login",
        "--username",
        USER.0,
        "--password",
        USER.1,
        &server.host(),
    ];
    docker.run(&login).await?;
    docker.run(&["push", &image]).await?;
    docker.forget(&[&image]).await?;
    docker.run(&["pull", &image]).await?;
    assert_eq!(docker.id(&image).await?, id);
    keeps_secrets(&mut server)
}

/// The value of a header, by its name in lower case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A token server: responds with a token if the request has the password.
fn token(head: &str) -> String {
    match header(head, "authorization") {
        Some(AUTHORIZATION) => {
            let body = json!({"token": TOKEN}).to_string();
            response("200 OK", "Content-Type: application/json\r\n", &body)
        }
        _ => response("401 Unauthorized", "", ""),
    }
}

async fn token_server(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        caller.send(token(&head)).await?;
    }
}

#[tokio::test]
async fn tokens_from_the_upstream_or_another_server_are_never_logged() -> Result<()> {
    let elsewhere = Scripted::start_beside(token_server).await?;
    for realm in [None, Some(format!("{}/token", elsewhere.url()))] {
        let through = realm.is_none();
        let upstream = Scripted::start(move |mut caller: Caller| {
            let realm = realm.clone();
            async move {
                loop {
                    let head = caller.head().await?;
                    let said = if head.contains(" /token?") {
                        token(&head)
                    } else if header(&head, "authorization") == Some(&format!("Bearer {TOKEN}")) {
                        let kind = format!("Content-Type: {MANIFEST}\r\n");
                        response("200 OK", &kind, &manifest())
                    } else {
                        // Some registries use the client's Host header in their own URLs.
                        let host = header(&head, "host").context("no Host")?;
                        let realm = realm.clone();
                        let realm = realm.unwrap_or_else(|| format!("http://{host}/token"));
                        let challenge = format!(
                            "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"tests\"\r\n"
                        );
                        response("401 Unauthorized", &challenge, "")
                    };
                    caller.send(said).await?;
                }
            }
        });
        let upstream = upstream.await?;
        let mut server = Launch::in_front_of(&upstream.url()).start().await?;
        let image = format!("docker://{}/team/app:1", server.host());
        let credentials = format!("{}:{}", USER.0, USER.1);
        let skopeo = Skopeo::new()?;
        let seen = skopeo.manifest_as(&image, &credentials).await?;
        assert_eq!(seen.trim(), manifest());
        let heard = upstream.heard().concat();
        ensure!(heard.contains(&format!("Bearer {TOKEN}")), "{heard}");
        ensure!(heard.contains("GET /token?") == through, "{heard}");
        let tokens = metric("octoserve_http_requests_total").label("endpoint", "token");
        let tokens = server.scrape().await?.sum(&tokens);
        ensure!(tokens.is_some() == through, "{tokens:?}");
        let manifests = metric("octoserve_http_requests_total").label("endpoint", "manifest");
        let manifests = manifests.label("status", "200");
        manifests.value(1).assert_in(&server).await?;
        keeps_secrets(&mut server)?;
    }
    Ok(())
}

fn manifest() -> String {
    let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).to_string()
}

#[tokio::test]
async fn secrets_in_a_query_or_an_upload_location_are_not_logged() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let location = format!("Location: /v2/a/blobs/uploads/{TOKEN}?_state={TOKEN}\r\n");
            caller.send(response("202 Accepted", &location, "")).await?;
        }
    });
    let upstream = upstream.await?;
    let mut server = Launch::in_front_of(&upstream.url())
        .environment("OCTOSERVE_LOGGING_LEVEL", "trace")
        .start()
        .await?;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Cookie", TOKEN),
        ("Proxy-Authorization", bearer.as_str()),
    ];
    for path in [
        format!("/token?account=a&password={TOKEN}"),
        format!("/v2/a/blobs/uploads/{TOKEN}?_state={TOKEN}"),
        format!("/signed/{TOKEN}?signature={TOKEN}"),
    ] {
        let request = wire::request("POST", &path, &headers, b"");
        let response = wire::exchange(server.address(), "POST", &request).await?;
        assert_eq!(response.head.status, 202);
    }
    let requests = metric("octoserve_http_requests_total");
    requests.value(3).assert_in(&server).await?;
    let exposition = server.scrape().await?;
    ensure!(!exposition.text().contains(TOKEN), "{}", exposition.text());
    keeps_secrets(&mut server)
}

/// Forms of an upload location; `HOST` stands for the upstream's own address.
const LOCATIONS: &[&str] = &[
    "http://HOST/v2/team/app/blobs/uploads/1?_state=a%2Fb%3D",
    "/v2/team/app/blobs/uploads/1",
    "/pushes.cgi/1;k=v?upload=%7B1%7D",
    "//HOST-OF-CLIENT/v2/team/app/blobs/uploads/1?x",
    "?upload=1",
    "1?upload=1",
    "../../../../elsewhere/1",
];

#[tokio::test]
async fn a_push_follows_any_upload_location() -> Result<()> {
    for shape in LOCATIONS {
        let upstream = Scripted::start(move |mut caller: Caller| async move {
            loop {
                let head = caller.head().await?;
                let location = location(shape, &caller, &head)?;
                let said = match head.split(' ').next().unwrap_or_default() {
                    "POST" => response("202 Accepted", &location, ""),
                    method @ ("PATCH" | "PUT") => {
                        match header(&head, "content-length") {
                            Some(length) => drop(caller.exactly(length.parse()?).await?),
                            None => drop(caller.until("\r\n0\r\n\r\n").await?),
                        }
                        if method == "PATCH" {
                            response("202 Accepted", &location, "")
                        } else {
                            response("201 Created", "", "")
                        }
                    }
                    "GET" => response("200 OK", "", ""),
                    // No blob exists yet. A HEAD has no body.
                    _ => response("404 Not Found", "", ""),
                };
                caller.send(said).await?;
            }
        });
        let upstream = upstream.await?;
        let server = Launch::in_front_of(&upstream.url()).start().await?;
        let skopeo = Skopeo::new()?;
        let layout = skopeo.layout("one", &[71])?;
        let image = format!("docker://{}/team/app:1", server.host());
        let pushed = skopeo.copy(&layout, &image, &[]).await;
        pushed.with_context(|| (*shape).to_owned())?;
        let heard = upstream.heard().concat();
        assert_eq!(heard.matches("PATCH ").count(), 2, "{shape}");
        // The registry receives the Host header that the client sent.
        let own = server.host();
        ensure!(heard.contains(&format!("\r\nHost: {own}\r\n")), "{shape}");
        // The layer and the configuration.
        assert_eq!(heard.matches("digest=sha256").count(), 2, "{shape}");
        assert_eq!(heard.matches("PUT /v2/team/app/manifests/1 ").count(), 1);
    }
    Ok(())
}

fn location(shape: &str, caller: &Caller, head: &str) -> Result<String> {
    let own = caller.address()?.to_string();
    let clients = header(head, "host").context("no Host")?;
    let location = shape
        .replace("HOST-OF-CLIENT", clients)
        .replace("HOST", &own);
    Ok(format!("Location: {location}\r\n"))
}

#[tokio::test]
async fn a_redirected_blob_is_fetched_from_its_storage() -> Result<()> {
    let bytes: Arc<[u8]> = content::bytes(72, 1 << 20).into();
    let kept = Arc::clone(&bytes);
    let store = Scripted::start_beside(move |mut caller: Caller| {
        let bytes = Arc::clone(&kept);
        async move {
            caller.head().await?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            caller.send(head).await?;
            caller.send(&bytes).await?;
            caller.closed().await
        }
    });
    let store = store.await?;
    let signed = format!("{}/bucket/a%2Fb?X-Signature=abc%3D&x=%20", store.url());
    let headers = format!("Location: {signed}\r\nX-Kept: as  it is\r\n");
    let upstream = Scripted::start(move |mut caller: Caller| {
        let redirect = response("307 Temporary Redirect", &headers, "moved");
        async move {
            loop {
                caller.head().await?;
                caller.send(&redirect).await?;
            }
        }
    });
    let upstream = upstream.await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let path = format!("/v2/team/app/blobs/{}", content::digest(&bytes));
    let request = wire::request("GET", &path, &[], b"");
    let redirect = wire::exchange(server.address(), "GET", &request).await?;
    assert_eq!(redirect.head.status, 307);
    assert_eq!(redirect.head.header("location"), Some(signed.as_str()));
    assert_eq!(redirect.head.header("x-kept"), Some("as  it is"));
    assert_eq!(redirect.body, b"moved");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("blob");
        let file = file.to_string_lossy();
        let url = server.url(&path);
        let arguments = ["--silent", "--fail", "--output", &file, version, &url];
        // The version applies to both of curl's requests, but the blob storage speaks only
        // HTTP/1.1.
        let arguments = if version == "--http1.1" {
            [&arguments[..], &["--location"]].concat()
        } else {
            arguments.to_vec()
        };
        tools::run("curl", &arguments).await?;
        let expected: &[u8] = if version == "--http1.1" {
            &bytes
        } else {
            b"moved"
        };
        assert_eq!(std::fs::read(&*file)?, expected, "{version}");
    }
    Ok(())
}

#[tokio::test]
async fn a_registry_without_referrers_responds_with_its_own_404() -> Result<()> {
    let body = "404 page not found\n";
    let upstream = Scripted::start(move |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let kind = "Content-Type: text/plain; charset=utf-8\r\n";
            caller.send(response("404 Not Found", kind, body)).await?;
        }
    });
    let upstream = upstream.await?;
    let server = Launch::in_front_of(&upstream.url()).start().await?;
    let path = format!("/v2/team/app/referrers/{}", content::digest(b""));
    let request = wire::request("GET", &path, &[], b"");
    let response = wire::exchange(server.address(), "GET", &request).await?;
    assert_eq!(
        (response.head.status, response.body),
        (404, body.as_bytes().to_vec())
    );
    let kind = response.head.header("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"));
    let counted = metric("octoserve_http_requests_total").label("endpoint", "referrers");
    counted
        .label("status", "404")
        .value(1)
        .assert_in(&server)
        .await
}

#[tokio::test]
async fn a_catalog_of_four_million_repositories_streams_in_bounded_memory() -> Result<()> {
    // Of a thousand names each: hundreds of megabytes.
    const CHUNKS: usize = 4096;
    const MARGIN: u64 = 32 << 20;
    let names = Arc::<str>::from(format!("\"{}\",", "a/b".repeat(21)).repeat(1000));
    let chunk = names.len();
    let upstream = Scripted::start(move |mut caller: Caller| {
        let names = Arc::clone(&names);
        async move {
            caller.head().await?;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            caller
                .send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"))
                .await?;
            let chunk = format!("{:x}\r\n{names}\r\n", names.len());
            for _ in 0..CHUNKS {
                caller.send(&chunk).await?;
            }
            caller.send("0\r\n\r\n").await?;
            caller.closed().await
        }
    });
    let upstream = upstream.await?;
    let mut server = Launch::in_front_of(&upstream.url()).start().await?;
    let before = server.process().memory()?.resident;
    let mut client = Wire::connect(server.address()).await?;
    client
        .send(&wire::request("GET", "/v2/_catalog", &[], b""))
        .await?;
    ensure!(client.head().await?.header("transfer-encoding") == Some("chunked"));
    let mut received = 0;
    loop {
        let piece = client.chunk().await?;
        if piece.is_empty() {
            break;
        }
        received += piece.len();
    }
    assert_eq!(received, CHUNKS * chunk);
    let peak = server.process().memory()?.peak;
    ensure!(peak <= before + MARGIN, "{peak} bytes, {before} before");
    let bytes = metric("octoserve_http_response_body_bytes_total").label("endpoint", "catalog");
    let received = u32::try_from(received)?;
    bytes.value(received).assert_in(&server).await
}
