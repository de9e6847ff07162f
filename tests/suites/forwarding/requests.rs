//! Requests that are forwarded in one form, or refused: 400 with an OCI body, counted, and nothing of
//! them reaches the upstream.

use anyhow::{Context, Result, ensure};
use harness::frames::{Frames, Outcome};
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::poll;
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::Scripted;
use harness::wire;

use super::{OK, nothing_in_flight, polite};
use crate::scene::{DEADLINE, SESSION, Scene, get, sulk};

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Chunked bodies that break a rule after their first chunk, or in it.
const CHUNKS: &[&str] = &[
    "\r\n\r\n",
    ";x\r\n\r\n",
    " \r\n\r\n",
    "5\r\nhello\r\n\r\nworld\r\n0\r\n\r\n",
    "5\r\nhello\r\n;x\r\nworld\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\0b\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "5;\u{7f}\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\nb\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
];

/// How many requests were refused, whether or not they had an exchange.
async fn refused(server: &Server) -> Result<f64> {
    let scrape = server.scrape().await?;
    let rejected = metric("octoserve_http_rejected_total");
    let requests = metric("octoserve_http_requests_total").label("status", "400");
    let counts = [rejected, requests].map(|metric| scrape.sum(&metric).unwrap_or_default());
    Ok(counts.iter().sum())
}

/// Waits until so many requests were refused.
async fn counted(server: &Server, requests: usize) -> Result<()> {
    poll::until("the refused requests are counted", DEADLINE, async || {
        Ok(((refused(server).await? - requests as f64).abs() < 0.5).then_some(()))
    })
    .await
}

/// Sends each of these, and checks that it is refused.
async fn are_refused(requests: &[String]) -> Result<()> {
    let scene = Scene::of(polite).await?;
    for (before, request) in requests.iter().enumerate() {
        let asked = wire::exchange(scene.address(), "GET", request.as_bytes()).await;
        let response = asked.with_context(|| format!("{request:?}"))?;
        assert_eq!(response.head.status, 400, "{request:?}");
        assert_eq!(
            response.error_code().as_deref(),
            Some("UNSUPPORTED"),
            "{request:?}"
        );
        counted(&scene.server, before + 1).await?;
    }
    let heard = scene.upstream.heard();
    ensure!(heard.is_empty(), "{heard:?}");
    nothing_in_flight(&scene.server).await
}

#[tokio::test]
async fn a_chunk_without_a_size_or_with_control_characters_is_400() -> Result<()> {
    for chunks in CHUNKS {
        let scene = Scene::of(sulk).await?;
        let mut client = scene.client().await?;
        let start = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{CHUNKED}\r\n");
        client
            .send(format!("{start}\r\n{chunks}").as_bytes())
            .await?;
        let response = client.response("PATCH").await;
        let response = response.with_context(|| format!("{chunks:?}"))?;
        assert_eq!(response.head.status, 400, "{chunks:?}");
        assert_eq!(
            response.error_code().as_deref(),
            Some("UNSUPPORTED"),
            "{chunks:?}"
        );
        ensure!(
            client.rest().await?.is_empty(),
            "{chunks:?}: more than one response"
        );
        scene.counted("upload_session", "400").await?;
        let heard = scene.upstream.heard().concat();
        ensure!(
            !heard.contains("\r\n0\r\n\r\n"),
            "{chunks:?} looks whole: {heard}"
        );
        ensure!(!heard.contains("world"), "{chunks:?}: {heard}");
    }
    Ok(())
}

#[tokio::test]
async fn a_chunk_extension_is_dropped() -> Result<()> {
    for chunks in [
        "5;a=b\r\nhello\r\n0;c\r\n\r\n",
        "5;a=\"b c\"\r\nhello\r\n00\r\nX: y\r\n\r\n",
        "005\t;a\r\nhello\r\n0\r\n\r\n",
    ] {
        let scene = Scene::of(|mut caller: harness::scripted::Caller| async move {
            caller.until("0\r\n\r\n").await?;
            caller.send(OK).await
        })
        .await?;
        let mut client = scene.client().await?;
        let start = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{CHUNKED}\r\n");
        client
            .send(format!("{start}\r\n{chunks}").as_bytes())
            .await?;
        assert_eq!(client.response("PATCH").await?.body, b"ok");
        let heard = scene.upstream.heard().concat();
        ensure!(
            heard.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "{heard}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn equal_content_lengths_are_forwarded_as_one() -> Result<()> {
    for lengths in [
        "Content-Length: 5, 5",
        "Content-Length: 5,5 ,\t5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 5, 5",
        "Content-Length: 005",
    ] {
        let scene = Scene::of(polite).await?;
        let request = format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\nhello");
        let response = wire::exchange(scene.address(), "PATCH", request.as_bytes()).await?;
        assert_eq!(response.head.status, 200, "{lengths}");
        let heard = scene.upstream.heard().concat().to_ascii_lowercase();
        assert_eq!(heard.matches("content-length").count(), 1, "{heard}");
        ensure!(heard.contains("\r\ncontent-length: 5\r\n"), "{heard}");
        ensure!(heard.ends_with("\r\n\r\nhello"), "{heard}");
    }
    Ok(())
}

#[tokio::test]
async fn unequal_content_lengths_are_400() -> Result<()> {
    let lengths = [
        "Content-Length: 5, 6",
        "Content-Length: 5, 5, 6",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length: 5; 5",
        "Content-Length: 5 5",
        "Content-Length: ",
        "Content-Length: 5, x",
    ];
    are_refused(
        &lengths.map(|lengths| {
            format!("PATCH {SESSION} HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\nhello!")
        }),
    )
    .await
}

#[tokio::test]
async fn a_list_of_content_lengths_over_http2_is_one_value_or_refused() -> Result<()> {
    for (lengths, may_pass) in [
        (&["5, 5"][..], true),
        (&["5", "5"], true),
        (&["5, 6"], false),
        (&["5", "6"], false),
        (&["+5"], false),
    ] {
        let scene = Scene::of(polite).await?;
        let mut client = H2::connect(scene.address(), false).await?;
        let headers: Vec<_> = lengths
            .iter()
            .map(|length| ("content-length", *length))
            .collect();
        let mut stream = client.send("PATCH", SESSION, &headers, false).await?;
        stream.push(b"hello", true)?;
        let status = stream.response().await.map(|response| response.status).ok();
        let heard = scene.upstream.heard().concat().to_ascii_lowercase();
        if may_pass && status == Some(200) {
            assert_eq!(heard.matches("content-length").count(), 1, "{heard}");
            ensure!(heard.contains("\r\ncontent-length: 5\r\n"), "{heard}");
        } else {
            ensure!(
                matches!(status, None | Some(400)),
                "{lengths:?}: {status:?}"
            );
            ensure!(heard.is_empty(), "{lengths:?}: {heard}");
        }
        nothing_in_flight(&scene.server).await?;
    }
    Ok(())
}

/// Targets that no request may have.
const TARGETS: &[&str] = &[
    "/v2/a b",
    "/v2/ ",
    " /v2/",
    "/v2/\ta",
    "/v2/\u{b}",
    "/v2/\u{1}",
    "/v2/\0",
    "/v2/\u{7f}",
    "/v2/a\r",
];

/// Targets with a fragment, which is the client's own.
const FRAGMENTS: &[&str] = &[
    "/v2/#frag",
    "/v2/?n=1#frag",
    "#frag",
    "http://a/#frag",
    "http://a#frag",
];

#[tokio::test]
async fn a_target_with_a_space_a_fragment_or_a_control_character_is_400() -> Result<()> {
    let targets = TARGETS.iter().chain(FRAGMENTS);
    let requests = targets.map(|target| get(target));
    are_refused(&requests.collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_target_with_a_space_or_a_control_character_is_refused_over_http2() -> Result<()> {
    are_refused_over_http2(TARGETS).await
}

/// h2 drops it before the proxy can see it.
#[tokio::test]
async fn a_fragment_over_http2_is_not_forwarded() -> Result<()> {
    for target in FRAGMENTS {
        let scene = Scene::of(polite).await?;
        let mut client = Frames::connect(scene.address()).await?;
        let stream = client.get(target).await?;
        client.response(stream).await?;
        let heard = scene.upstream.heard().concat();
        ensure!(!heard.contains('#'), "{target:?}: {heard}");
    }
    Ok(())
}

/// Sends a GET for each of these, and checks that none is forwarded in any form.
async fn are_refused_over_http2(targets: &[&str]) -> Result<()> {
    let scene = Scene::of(polite).await?;
    for target in targets {
        let mut client = Frames::connect(scene.address()).await?;
        let stream = client.get(target).await?;
        let outcome = client.response(stream).await?;
        let heard = scene.upstream.heard();
        ensure!(heard.is_empty(), "{target:?}: {outcome:?}, {heard:?}");
        ensure!(
            matches!(
                outcome,
                Outcome::Status(400) | Outcome::Reset | Outcome::Closed
            ),
            "{target:?}: {outcome:?}"
        );
    }
    nothing_in_flight(&scene.server).await
}

#[tokio::test]
async fn a_control_character_in_a_pipelined_target_is_400() -> Result<()> {
    for (requests, target) in ["/v2/\u{1}", "/v2/\0", "/v2/\u{7f}", "/v2/\ta", "/v2/a b"]
        .into_iter()
        .enumerate()
    {
        let scene = Scene::of(polite).await?;
        let mut client = scene.client().await?;
        let both = [get("/v2/"), get(target), get("/v2/hidden")].concat();
        client.send(both.as_bytes()).await?;
        assert_eq!(client.response("GET").await?.body, b"ok", "{target:?}");
        let response = client.response("GET").await?;
        assert_eq!(response.head.status, 400, "{target:?}, {requests}");
        assert_eq!(response.error_code().as_deref(), Some("UNSUPPORTED"));
        ensure!(
            client.rest().await?.is_empty(),
            "{target:?}: a third response"
        );
        counted(&scene.server, 1).await?;
        let heard = scene.upstream.heard().concat();
        assert_eq!(heard.matches("GET ").count(), 1, "{heard}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tab_in_a_field_passes_however_the_request_is_split() -> Result<()> {
    let scene = Scene::of(polite).await?;
    let request = "GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Split: a\tb\r\n\r\n";
    for split in 1..request.len() {
        let mut client = scene.client().await?;
        client.send(&request.as_bytes()[..split]).await?;
        // Another client's response: the proxy has had time to read the first segment.
        let probe = wire::request("GET", "/livez", &[], b"");
        ensure!(
            wire::exchange(scene.address(), "GET", &probe)
                .await?
                .head
                .status
                == 200
        );
        client.send(&request.as_bytes()[split..]).await?;
        let response = client.response("GET").await?;
        assert_eq!(response.head.status, 200, "split at {split}");
    }
    let heard = scene.upstream.heard().concat().to_ascii_lowercase();
    assert_eq!(
        heard.matches("\r\nx-split: a\tb\r\n").count(),
        request.len() - 1
    );
    Ok(())
}

/// What no host looks like.
const HOSTS: &[&str] = &[
    "a b", "a/b", "a/", "<script>", "", "a?b", "a#b", "user@a", "a\\b", "a\"b", "a,b:x", "a:65536",
    "a:b", "a:80:80", ":80", "[::1", "::1", "[a]", "[::1]x", "\u{e4}",
];

#[tokio::test]
async fn an_invalid_host_is_400() -> Result<()> {
    let requests = HOSTS
        .iter()
        .map(|host| format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let mut requests: Vec<_> = requests.collect();
    requests.extend([
        "GET /v2/ HTTP/1.1\r\n\r\n".to_owned(),
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET http://b/v2/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://a:80/v2/ HTTP/1.1\r\nHost: a:81\r\n\r\n".to_owned(),
        "GET http://a b/v2/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http:///v2/ HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
    ]);
    are_refused(&requests).await
}

#[tokio::test]
async fn an_invalid_host_is_refused_over_http2() -> Result<()> {
    let scene = Scene::of(polite).await?;
    for host in HOSTS {
        for name in [":authority", "host"] {
            let mut client = Frames::connect(scene.address()).await?;
            let get = [(":method", "GET"), (":scheme", "http"), (":path", "/v2/")];
            let fields = [&get[..], &[(name, *host)]].concat();
            let stream = client.ask(&fields).await?;
            let outcome = client.response(stream).await?;
            let heard = scene.upstream.heard();
            ensure!(heard.is_empty(), "{name}: {host:?}: {outcome:?}, {heard:?}");
            ensure!(
                matches!(
                    outcome,
                    Outcome::Status(400) | Outcome::Reset | Outcome::Closed
                ),
                "{name}: {host:?}: {outcome:?}"
            );
        }
    }
    nothing_in_flight(&scene.server).await
}

#[tokio::test]
async fn hosts_are_compared_without_case() -> Result<()> {
    let scene = Scene::of(polite).await?;
    for request in [
        "GET http://A/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTP://a.Example:80/v2/ HTTP/1.1\r\nHost: A.example:80\r\n\r\n",
        "GET http://[::AB]:5000/v2/ HTTP/1.1\r\nHost: [::ab]:5000\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a_b.example:\r\n\r\n",
    ] {
        let response = wire::exchange(scene.address(), "GET", request.as_bytes()).await?;
        assert_eq!(response.head.status, 200, "{request}");
    }
    let mut client = H2::connect(scene.address(), false).await?;
    for host in ["registry", "REGISTRY"] {
        let stream = client.send("GET", "/v2/", &[("host", host)], true).await?;
        let response = stream.response().await?;
        assert_eq!(
            (response.status, response.read().await?),
            (200, b"ok".to_vec())
        );
    }
    let heard = scene.upstream.heard().concat().to_ascii_lowercase();
    assert_eq!(heard.matches("get /v2/ http/1.1\r\n").count(), 6, "{heard}");
    // Each has one host, and says it once to servers behind.
    assert_eq!(heard.matches("\r\nhost: ").count(), 6, "{heard}");
    assert_eq!(
        heard.matches("\r\nx-forwarded-host: ").count(),
        6,
        "{heard}"
    );
    Ok(())
}

#[tokio::test]
async fn an_http2_request_with_other_several_or_no_hosts_is_400_counted_and_logged() -> Result<()> {
    let upstream = Scripted::start(polite).await?;
    let mut server = Launch::in_front_of(&upstream.url())
        .environment("OCTOSERVE_LOGGING_LEVEL", "debug")
        .start()
        .await?;
    for (before, (uri, hosts)) in [
        ("http://registry/v2/", &["other"][..]),
        ("http://registry/v2/", &["registry:80"]),
        ("http://registry/v2/", &["registry", "registry"]),
        ("http://registry/v2/", &["registry", "other"]),
        ("/v2/", &["a", "b"]),
        ("/v2/", &["a", "a"]),
        ("/v2/", &["a b"]),
        ("/v2/", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = H2::connect(server.address(), false).await?;
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let stream = client.send_to(uri, "GET", &headers, true).await?;
        let response = stream
            .response()
            .await
            .with_context(|| format!("{uri}, {hosts:?}"))?;
        assert_eq!(response.status, 400, "{uri}, {hosts:?}");
        let json = response.headers.get("content-type");
        ensure!(
            json.is_some_and(|json| json == "application/json"),
            "{json:?}"
        );
        let body: serde_json::Value = serde_json::from_slice(&response.read().await?)?;
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED", "{body}");
        counted(&server, before + 1).await?;
        poll::until("the refusal is logged", DEADLINE, async || {
            let log = server.process().output(OutputStream::Stderr)?;
            let lines = log
                .lines()
                .filter(|line| line.contains("request refused") || line.contains("\"status\":400"));
            Ok((lines.count() > before).then_some(()))
        })
        .await
        .with_context(|| format!("{uri}, {hosts:?}"))?;
    }
    let heard = upstream.heard();
    ensure!(heard.is_empty(), "{heard:?}");
    Ok(())
}
