//! The access log: docs/reference/access-log.md has exactly its fields, and no line of any
//! format has a secret.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Client;
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::metric;
use harness::scripted::{Caller, Scripted};
use harness::wire::Wire;
use harness::{poll, wire};
use serde_json::Value;
use tokio::sync::Notify;

use crate::scene;

const DEADLINE: Duration = Duration::from_secs(30);

/// `ann`, with a password.
const BASIC: &str = "Basic YW5uOnBsYW50ZWQtcGFzc3dvcmQ=";
/// A JWT whose subject is `ci`, with a claim and a signature that are secret.
const BEARER: &str =
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJjaSIsImp0aSI6InBsYW50ZWQtY2xhaW0ifQ.planted-signature";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn log(server: &mut Server) -> Result<String> {
    server.process().output(OutputStream::Stderr)
}

/// Waits for so many lines of the access log.
async fn lines(server: &mut Server, count: usize) -> Result<Vec<Value>> {
    poll::until("the requests are logged", DEADLINE, async || {
        let log = log(server)?;
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let events: Vec<Value> = events
            .filter(|event: &Value| event["target"] == "access")
            .collect();
        Ok((events.len() >= count).then_some(events))
    })
    .await
}

/// Sends one request, and waits for its whole response.
async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<u16> {
    let request = wire::request(method, path, headers, b"");
    let response = wire::exchange(server.address(), method, &request).await?;
    Ok(response.head.status)
}

/// What an upstream waits for before it responds to `/v2/held/`.
type Hold = Arc<Notify>;

async fn upstream() -> Result<(Scripted, Hold)> {
    let hold = Hold::default();
    let scripts = Arc::clone(&hold);
    let script = move |caller| registry(caller, Arc::clone(&scripts));
    Ok((Scripted::start(script).await?, hold))
}

/// Responds by the path: with a failure, a challenge, a redirect to a signed URL, or an upload session
/// whose Location holds secrets.
async fn registry(mut caller: Caller, hold: Hold) -> Result<()> {
    for number in 0.. {
        let head = caller.head().await?;
        let line = head.lines().next().unwrap_or_default();
        let is_authorized = head.to_lowercase().contains("\r\nauthorization:");
        let response = if line.contains("/private/") && !is_authorized {
            "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://a/?x=planted-realm\""
        } else if line.contains("/cut/") {
            return caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")
                .await;
        } else if line.contains("/gone/") || (line.contains("/again/") && number > 0) {
            return Ok(());
        } else if line.starts_with("POST") || line.starts_with("PATCH") {
            "202 Accepted\r\nLocation: /opaque/planted-session?_state=planted-state"
        } else if line.contains("/blobs/") {
            "307 Temporary Redirect\r\n\
             Location: https://u:planted-userinfo@s3/b?X-Amz-Signature=planted-amz"
        } else if line.contains("/missing") {
            "404 Not Found"
        } else {
            "200 OK\r\nSet-Cookie: session=planted-cookie-set"
        };
        if line.contains("/held/") {
            hold.notified().await;
        }
        caller
            .send(format!("HTTP/1.1 {response}\r\nContent-Length: 0\r\n\r\n"))
            .await?;
    }
    Ok(())
}

/// The names of the fields in the table of a section of docs/reference/access-log.md.
fn documented(program: &str) -> Result<BTreeSet<String>> {
    let path = format!(
        "{}/../docs/reference/access-log.md",
        env!("CARGO_MANIFEST_DIR")
    );
    let document = std::fs::read_to_string(&path).context(path)?;
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split_once("` | "));
    let is_of = |column: &str| column.split(", ").any(|name| name == program);
    let of = rows.filter(|(_, rest)| rest.split(" | ").next().is_some_and(is_of));
    Ok(of.map(|(name, _)| name.to_owned()).collect())
}

fn fields(lines: &[Value]) -> BTreeSet<String> {
    let objects = lines.iter().filter_map(Value::as_object);
    objects.flat_map(|line| line.keys().cloned()).collect()
}

#[tokio::test]
async fn the_table_has_exactly_the_fields_of_the_proxys_lines() -> Result<()> {
    let (upstream, hold) = upstream().await?;
    let mut server = Launch::configured(&format!(
        "upstreams:\n\
         - name: main\n  replicas: ['{}']\n  max_connections: 1\n\
         logging: {{user: true}}\n",
        upstream.url()
    ))
    .start()
    .await?;
    let headers = [
        ("Authorization", BASIC),
        ("User-Agent", "skopeo/1.9 (a test)"),
        ("X-Request-Id", "a-request"),
    ];
    ask(&server, "GET", "/v2/gone/manifests/1", &headers).await?;
    ask(&server, "GET", "/v2/team/app/manifests/1", &headers).await?;
    // One client's connection, so that the upstream's is used again, which ends just then.
    let mut client = Wire::connect(server.address()).await?;
    for path in ["/v2/a/manifests/1", "/v2/again/manifests/1"] {
        client.send(scene::get(path).as_bytes()).await?;
        assert_eq!(client.response("GET").await?.head.status, 200);
    }
    // The second one waits for the only place.
    let first = ask(&server, "GET", "/v2/held/manifests/1", &[]);
    let second = async {
        let queue = metric("octoserve_upstream_queue_length");
        poll::until("the upstream is asked", DEADLINE, async || {
            let heard = upstream.heard().concat();
            Ok(heard.contains("/held/").then_some(()))
        })
        .await?;
        let second = ask(&server, "GET", "/v2/second/manifests/1", &[]);
        let release = async {
            queue.value(1).assert_in(&server).await?;
            hold.notify_one();
            anyhow::Ok(())
        };
        tokio::try_join!(second, release)
    };
    tokio::try_join!(first, second)?;
    let lines = lines(&mut server, 6).await?;
    let (logged, table) = (fields(&lines), documented("proxy")?);
    assert_eq!(logged, table);
    let of = |repository: &str| {
        let line = lines.iter().find(|line| line["repository"] == repository);
        line.with_context(|| format!("{repository} is not logged"))
    };
    let line = of("team/app")?;
    assert_eq!(line["user"], "ann");
    assert_eq!(line["client"], "containers");
    assert_eq!(line["user_agent"], "skopeo/1.9 (a test)");
    assert_eq!(line["client_address"], "127.0.0.1");
    assert_eq!(line["upstream"], "main");
    assert_eq!(line["replica"], upstream.url());
    assert_eq!(line["request_id"], "a-request");
    assert_eq!(
        (&line["protocol"], &line["tls"]),
        (&"HTTP/1.1".into(), &false.into())
    );
    assert_eq!(of("again")?["retries"], 1);
    ensure!(of("second")?["queue_ms"].as_f64() > Some(0.0), "{lines:#?}");
    let failed = of("gone")?;
    assert_eq!(
        (&failed["status"], &failed["failure"]),
        (&502.into(), &"upstream_failed".into())
    );
    assert_eq!(failed["reason"], "reset");
    assert_eq!(failed.get("user"), None, "it was not accepted");
    Ok(())
}

#[tokio::test]
async fn the_table_has_exactly_the_fields_of_the_registrys_lines() -> Result<()> {
    let mut server = Launch::registry().start().await?;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [
        ("User-Agent", "oras/1.2"),
        ("X-Request-Id", "a-request"),
        ("traceparent", traceparent.as_str()),
    ];
    ask(&server, "GET", "/v2/team/app/manifests/1", &headers).await?;
    // A client that leaves a response behind that is more than the sockets hold.
    let digest = Client::new(&server.url(""))?;
    let digest = digest.push_blob("a", &vec![7; 32 << 20]).await?;
    let mut client = Wire::connect(server.address()).await?;
    let path = format!("/v2/a/blobs/{digest}");
    client.send(scene::get(&path).as_bytes()).await?;
    client.head().await?;
    drop(client);
    let lines = lines(&mut server, 4).await?;
    assert_eq!(fields(&lines), documented("registry")?);
    let line = lines.iter().find(|line| line["client"] == "oras");
    let line = line.context("no line")?;
    assert_eq!(
        (&line["trace_id"], &line["client_address"]),
        (&TRACE.into(), &"127.0.0.1".into())
    );
    Ok(())
}

#[tokio::test]
async fn the_trace_of_a_request_goes_on_or_begins() -> Result<()> {
    let (upstream, _) = upstream().await?;
    let mut server = Launch::in_front_of(&upstream.url()).start().await?;
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-00");
    ask(
        &server,
        "GET",
        "/v2/",
        &[("traceparent", &valid), ("tracestate", "vendor=kept")],
    )
    .await?;
    let invalid = valid.to_uppercase();
    ask(
        &server,
        "GET",
        "/v2/",
        &[("traceparent", &invalid), ("tracestate", "vendor=dropped")],
    )
    .await?;
    let lines = lines(&mut server, 2).await?;
    let heard = upstream.heard().concat();
    // Lines are written when requests have ended, in any order.
    let went_on = lines.iter().position(|line| line["trace_id"] == TRACE);
    let went_on = went_on.context("the trace did not go on")?;
    ensure!(
        heard.contains(&format!("\r\ntraceparent: {valid}\r\n")),
        "{heard}"
    );
    ensure!(heard.contains("\r\ntracestate: vendor=kept\r\n"), "{heard}");
    let begun = lines[1 - went_on]["trace_id"]
        .as_str()
        .context("no trace")?;
    ensure!(begun != TRACE && begun.len() == 32, "{begun}");
    ensure!(
        heard.contains(&format!("\r\ntraceparent: 00-{begun}-")),
        "{heard}"
    );
    ensure!(
        !heard.contains("dropped") && !heard.contains(&invalid),
        "{heard}"
    );
    Ok(())
}

#[tokio::test]
async fn no_trace_begins_where_none_is_wanted() -> Result<()> {
    for keys in [
        "logging: {access: false}",
        "forward_headers: {traceparent: false}",
    ] {
        let (upstream, _) = upstream().await?;
        let server = Launch::in_front_of(&upstream.url()).configuration(&format!("{keys}\n"));
        let server = server.start().await?;
        ask(&server, "GET", "/v2/", &[]).await?;
        let heard = upstream.heard().concat();
        ensure!(!heard.contains("traceparent"), "{keys}: {heard}");
    }
    Ok(())
}

#[tokio::test]
async fn failures_are_logged_although_everything_else_is_filtered_or_sampled_away() -> Result<()> {
    for keys in [
        "sample: 0",
        "access_filter: {status: [404, 5xx]}",
        "access_filter: {min_duration: 1h}",
    ] {
        let (upstream, _) = upstream().await?;
        let server = Launch::in_front_of(&upstream.url());
        let server = server.configuration(&format!("logging: {{{keys}}}\n"));
        let mut server = server.start().await?;
        for path in ["/v2/", "/v2/private/tags/list", "/v2/a/manifests/missing"] {
            ask(&server, "GET", path, &[]).await?;
        }
        let mut client = Wire::connect(server.address()).await?;
        client
            .send(&wire::request("GET", "/v2/cut/manifests/1", &[], b""))
            .await?;
        client.rest().await.ok();
        ask(&server, "GET", "/v2/gone/manifests/1", &[]).await?;
        let lines = lines(&mut server, 3).await?;
        let logged = lines.iter().map(|line| line["status"].as_u64());
        let logged: BTreeSet<_> = logged.collect();
        let expected = [Some(200), Some(404), Some(502)];
        assert_eq!(logged, BTreeSet::from(expected), "{keys}: {lines:#?}");
        let mut cut = lines.iter().filter(|line| line["repository"] == "cut");
        ensure!(
            cut.all(|line| line["failure"] == "upstream_failed"),
            "{lines:#?}"
        );
    }
    Ok(())
}

/// Sends secrets in every place that has room for one.
async fn plant(server: &Server) -> Result<()> {
    let headers: &[&[(&str, &str)]] = &[
        &[("Authorization", BASIC)],
        &[("Authorization", BEARER)],
        &[("Authorization", "Bearer planted-opaque")],
        &[("Authorization", "planted-scheme planted")],
        &[("Proxy-Authorization", "Basic planted-proxy")],
        &[("Cookie", "session=planted-cookie")],
        &[("X-Registry-Auth", "planted-header")],
        &[("Referer", "https://a/?token=planted-referer")],
        &[("X-Request-Id", "planted id")],
        &[
            ("traceparent", "planted-trace"),
            ("tracestate", "planted=state"),
        ],
    ];
    let targets = [
        ("GET", "/v2/?token=planted-token"),
        (
            "GET",
            "/v2/a/manifests/missing?X-Amz-Signature=planted-amz&sig=planted-sig",
        ),
        ("GET", "/v2/private/tags/list?n=planted-n"),
        (
            "GET",
            "/v2/a/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            "GET",
            "/token?account=a&password=planted-password&refresh_token=planted-refresh",
        ),
        ("POST", "/v2/a/blobs/uploads/?digest=planted-digest"),
        (
            "PATCH",
            "/v2/a/blobs/uploads/planted-session?_state=planted-state",
        ),
        ("GET", "/v2/cut/manifests/1?token=planted-token"),
        ("GET", "/v2/gone/manifests/1?token=planted-token"),
        ("GET", "http://planted-user:planted-password@registry/v2/"),
    ];
    for (method, target) in targets {
        for headers in headers {
            let mut client = Wire::connect(server.address()).await?;
            client
                .send(&wire::request(method, target, headers, b""))
                .await?;
            // A response that is cut may be a reset.
            client.rest().await.ok();
        }
    }
    let mut client = H2::connect(server.address(), false).await?;
    for header in [("authorization", BEARER), ("cookie", "planted-h2")] {
        let headers = [header];
        let stream = client.send("GET", "/v2/?token=planted-h2", &headers, true);
        stream.await?.response().await?.read().await?;
    }
    // What is no request, and what is too much of one.
    for request in [
        "GET /v2/?token=planted-line\u{1} HTTP/1.1\r\n\r\n".to_owned(),
        format!(
            "GET /v2/ HTTP/1.1\r\nHost: a\r\nCookie: planted-{}\r\n\r\n",
            "x".repeat(100_000)
        ),
    ] {
        let mut client = Wire::connect(server.address()).await?;
        client.send(request.as_bytes()).await?;
        client.rest().await.ok();
    }
    Ok(())
}

#[tokio::test]
async fn no_line_of_any_format_and_level_has_a_secret() -> Result<()> {
    let (upstream, _) = upstream().await?;
    // An opaque path is known to be of a session from the response that opened it.
    let launches: [(&dyn Fn() -> Launch, bool); 3] = [
        (&|| Launch::in_front_of(&upstream.url()), true),
        (&Launch::all_in_one, false),
        (&Launch::registry, false),
    ];
    for (launch, has_opaque_sessions) in launches {
        for keys in [
            "level: trace, user: true",
            "level: trace, user: true, format: text",
            "level: debug, user: true, access_format: clf",
        ] {
            let server = launch().configuration(&format!("logging: {{{keys}}}\n"));
            let mut server = server.start().await?;
            plant(&server).await?;
            if has_opaque_sessions {
                let session = "/opaque/planted-session?_state=planted-state";
                ask(&server, "PATCH", session, &[]).await?;
            }
            // The last one marks the end, so that the lines before it are there.
            ask(&server, "GET", "/v2/the-end/manifests/1", &[]).await?;
            let log = poll::until("the last request is logged", DEADLINE, async || {
                let log = log(&mut server)?;
                Ok(log.contains("the-end").then_some(log))
            });
            let log = log.await?;
            ensure!(log.lines().count() > 100, "{keys}: {log}");
            let planted = log.lines().filter(|line| {
                // Base64 of the planted credentials, too.
                ["planted", "cGxhbnRlZ", "YW5uO", "eyJzdWIi"]
                    .iter()
                    .any(|secret| line.contains(secret))
            });
            let planted: Vec<_> = planted.collect();
            ensure!(planted.is_empty(), "{keys}: {planted:#?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_common_log_format_is_read_by_others() -> Result<()> {
    let (upstream, _) = upstream().await?;
    for launch in [Launch::in_front_of(&upstream.url()), Launch::registry()] {
        let keys = "logging: {access_format: clf, address: network, format: json}\n";
        let mut server = launch.configuration(keys).start().await?;
        ask(
            &server,
            "GET",
            "/v2/team/app/manifests/missing?token=x",
            &[],
        )
        .await?;
        let line = poll::until("the request is logged", DEADLINE, async || {
            let log = log(&mut server)?;
            let mut lines = log
                .lines()
                .filter(|line| line.starts_with("127.0.0.0 - - ["));
            Ok(lines.next().map(str::to_owned))
        })
        .await?;
        ensure!(
            line.contains("] \"GET /v2/team/app/manifests/missing HTTP/1.1\" 404 "),
            "{line}"
        );
    }
    Ok(())
}
