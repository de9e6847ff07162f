//! A configuration that is read again while requests are in flight: what changes, what stays, and what is
//! refused.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::certificate::Certificate;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::scrape::{Metric, metric};
use harness::scripted::{Caller, Scripted};
use harness::source::Source;
use harness::tls::SecureClient;
use harness::wire::{self, Wire};
use tokio::sync::watch;

use crate::scene::{BLOB, DEADLINE, SESSION, get};

fn with_upstream(url: &str) -> String {
    format!("upstreams: [{{replicas: ['{url}']}}]\n")
}

/// Responds to every request with a text.
async fn named(name: &'static str) -> Result<Scripted> {
    Scripted::start(move |mut caller: Caller| async move {
        loop {
            caller.head().await?;
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            caller.send(head).await?;
        }
    })
    .await
}

async fn body(server: &Server, request: &str) -> Result<String> {
    let response = wire::exchange(server.address(), "GET", request.as_bytes()).await?;
    ensure!(response.head.status == 200, "{}", response.head.status);
    Ok(String::from_utf8(response.body)?)
}

async fn status(server: &Server, request: &str) -> Result<u16> {
    let response = wire::exchange(server.address(), "GET", request.as_bytes()).await?;
    Ok(response.head.status)
}

async fn applied(server: &Server, configuration: &str) -> Result<()> {
    server.configure(configuration)?;
    ensure!(server.reload().await?, "refused: {configuration}");
    Ok(())
}

async fn sum(server: &Server, metric: &Metric) -> Result<Option<f64>> {
    Ok(server.scrape().await?.sum(metric))
}

#[tokio::test]
async fn requests_in_flight_end_where_they_began_and_new_ones_go_elsewhere() -> Result<()> {
    let (go, going) = watch::channel(false);
    let slow = Scripted::start(move |mut caller: Caller| {
        let mut going = going.clone();
        async move {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow")
                .await?;
            going.wait_for(|going| *going).await?;
            caller.send("slow").await
        }
    })
    .await?;
    let other = named("other").await?;
    let server = Launch::configured(&with_upstream(&slow.url()))
        .start()
        .await?;
    let mut download = Wire::connect(server.address()).await?;
    download.send(get(BLOB).as_bytes()).await?;
    download.head().await?;
    // It has begun before the reload, and has no request in flight.
    let mut kept = Wire::connect(server.address()).await?;
    kept.send(get("/livez").as_bytes()).await?;
    kept.response("GET").await?;
    applied(&server, &with_upstream(&other.url())).await?;
    assert_eq!(body(&server, &get("/v2/")).await?, "other");
    kept.send(get("/v2/").as_bytes()).await?;
    assert_eq!(kept.response("GET").await?.body, b"other");
    go.send_replace(true);
    assert_eq!(download.exactly(8).await?, b"slowslow");
    let requests = metric("octoserve_http_requests_total");
    requests.value(3).assert_in(&server).await?;
    let replicas = metric("octoserve_upstream_replicas").label("upstream", "main");
    replicas.value(1).assert(&server.scrape().await?)
}

/// What the log says of the last reload that was refused.
async fn refusal(server: &mut Server) -> Result<String> {
    logged(server, "configuration reload refused").await
}

/// The last line of the log with these words. It may come a moment after what it is about.
async fn logged(server: &mut Server, words: &str) -> Result<String> {
    harness::poll::until(words, DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok(log
            .lines()
            .rfind(|line| line.contains(words))
            .map(str::to_owned))
    })
    .await
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_file_line_and_key_and_the_old_one_stays() -> Result<()> {
    let upstream = named("there").await?;
    let good = with_upstream(&upstream.url());
    let mut server = Launch::configured(&good).start().await?;
    let last = metric("octoserve_config_last_reload_successful");
    last.clone().value(1).assert(&server.scrape().await?)?;
    let since = metric("octoserve_config_last_reload_success_timestamp_seconds");
    let first = sum(&server, &since).await?;
    ensure!(first > Some(0.0), "{first:?}");
    for (wrong, place) in [
        // Half written.
        (&good[..good.len() - 10], "octoserve.yaml:"),
        ("", ""),
        ("# Half of it.\n", "it is empty"),
        (&format!("{good}colour: red\n"), ":2: colour"),
        (
            &format!("{good}metrics: {{repositories: {{group: [{{match: '(', name: a}}]}}}}\n"),
            ":2: metrics.repositories.group[0].match",
        ),
        (
            &format!("{good}logging: {{level: loud}}\n"),
            ":2: logging.level",
        ),
        (
            "upstreams:\n- replicas: ['https://localhost:1']\n  tls: {ca: /nowhere/ca.crt}\n",
            ":3: upstreams[0].tls.ca",
        ),
        (
            "upstreams:\n- replicas: ['http://127.0.0.1:1']\n  credentials: {username: a, \
             password_file: /nowhere}\n",
            ":3: upstreams[0].credentials.password_file",
        ),
        (
            "upstreams:\n- replicas: ['http://127.0.0.1:1']\n- replicas: ['http://127.0.0.1:2']\n",
            ":3: upstreams[1].name",
        ),
    ] {
        if wrong.is_empty() {
            std::fs::remove_file(server.configuration_file())?;
        } else {
            server.configure(wrong)?;
        }
        ensure!(!server.reload().await?, "{wrong}");
        harness::poll::until(&format!("{place} is refused"), DEADLINE, async || {
            let said = refusal(&mut server).await?;
            Ok(said.contains(place).then_some(()))
        })
        .await?;
        last.clone().value(0).assert(&server.scrape().await?)?;
        assert_eq!(sum(&server, &since).await?, first);
        assert_eq!(body(&server, &get("/v2/")).await?, "there");
    }
    applied(&server, &good).await?;
    last.value(1).assert(&server.scrape().await?)?;
    ensure!(sum(&server, &since).await? >= first);
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_applied_and_seen_and_comes_back() -> Result<()> {
    let upstream = named("there").await?;
    let server = Launch::configured(&with_upstream(&upstream.url()))
        .start()
        .await?;
    assert_eq!(body(&server, &get("/v2/")).await?, "there");
    // Nobody listens there: only root can bind the discard port.
    applied(
        &server,
        "upstreams: [{name: gone, replicas: ['http://127.0.0.1:9']}]\n",
    )
    .await?;
    assert_eq!(status(&server, &get("/v2/")).await?, 502);
    ready(&server, 503).await?;
    // What was counted of the old one is still there. What says how it is now is not.
    let reused = metric("octoserve_upstream_request_duration_seconds_count");
    let scrape = server.scrape().await?;
    ensure!(scrape.sum(&reused.label("upstream", "main")) > Some(0.0));
    for gauge in [
        "octoserve_upstream_replicas",
        "octoserve_upstream_replicas_healthy",
    ] {
        assert_eq!(scrape.sum(&metric(gauge).label("upstream", "main")), None);
        ensure!(
            scrape
                .sum(&metric(gauge).label("upstream", "gone"))
                .is_some()
        );
    }
    applied(&server, &with_upstream(&upstream.url())).await?;
    assert_eq!(body(&server, &get("/v2/")).await?, "there");
    ready(&server, 200).await
}

async fn ready(server: &Server, expected: u16) -> Result<()> {
    harness::poll::until("/readyz changes", DEADLINE, async || {
        Ok((status(server, &get("/readyz")).await? == expected).then_some(()))
    })
    .await
}

#[tokio::test]
async fn each_setting_of_requests_and_metrics_changes() -> Result<()> {
    let upstream = named("there").await?;
    let source = Source::exposition("text/plain; version=0.0.4", "up 1\n").await?;
    let good = with_upstream(&upstream.url());
    let mut server = Launch::configured(&good).metrics_listener().start().await?;
    let with_origin = wire::request("GET", "/v2/", &[("Origin", "https://ui.example")], b"");
    let allowed = async |server: &Server| {
        let response = wire::exchange(server.address(), "GET", &with_origin).await?;
        let header = response.head.header("access-control-allow-origin");
        anyhow::Ok(header.map(str::to_owned))
    };
    assert_eq!(allowed(&server).await?, None);
    let delete = wire::request("DELETE", "/v2/team/app/manifests/1", &[], b"");
    let changed = format!(
        "upstreams:\n- replicas: ['{}']\n  read_only: true\n  \
         metrics: [{{source: other, url: '{}'}}]\n\
         cors: {{origins: ['https://ui.example']}}\n\
         metrics: {{path: /there, basic_auth: {{username: a, password_file: password}}}}\n\
         logging: {{access: false}}\n",
        upstream.url(),
        source.url(),
    );
    let asked =
        |path: &str, authorization: &[(&str, &str)]| wire::request("GET", path, authorization, b"");
    let basic = [("Authorization", "Basic YTpi")];
    std::fs::write(server.working_directory().join("password"), "b\n")?;
    server.configure(&changed)?;
    server.process().signal(harness::process::Signal::HUP)?;
    let page = harness::poll::until("the metrics have moved", DEADLINE, async || {
        let request = asked("/there", &basic);
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        Ok((response.head.status == 200).then_some(response.body))
    });
    let page = String::from_utf8(page.await?)?;
    ensure!(page.contains("up{source=\"other\"} 1"), "{page}");
    for (path, headers, status) in [
        ("/metrics", &basic[..], 404),
        ("/there", &[], 401),
        ("/readyz", &[], 200),
    ] {
        let request = asked(path, headers);
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        assert_eq!(response.head.status, status, "{path}");
    }
    assert_eq!(
        allowed(&server).await?.as_deref(),
        Some("https://ui.example")
    );
    let response = wire::exchange(server.address(), "DELETE", &delete).await?;
    assert_eq!(response.head.status, 405);
    let log = server.process().output(OutputStream::Stderr)?;
    let logged = log.matches("\"target\":\"access\"").count();
    // Back again, with the log.
    server.configure(&good)?;
    server.process().signal(harness::process::Signal::HUP)?;
    harness::poll::until("the metrics are back", DEADLINE, async || {
        let request = asked("/metrics", &[]);
        let response = wire::exchange(server.metrics_address(), "GET", &request).await?;
        Ok((response.head.status == 200).then_some(()))
    })
    .await?;
    let aggregated = metric("octoserve_aggregate_up").label("source", "other");
    assert_eq!(sum(&server, &aggregated).await?, None);
    assert_eq!(allowed(&server).await?, None);
    harness::poll::until("the request is logged", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
        Ok((log.matches("\"target\":\"access\"").count() > logged).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_listener_gets_the_certificates_of_other_files() -> Result<()> {
    let upstream = named("there").await?;
    let (first, second) = (Certificate::new()?, Certificate::new()?);
    let keys = |certificate: &Certificate| {
        format!(
            "listen: [{{address: '127.0.0.1:0', tls: {}}}]\n{}",
            certificate.keys(),
            with_upstream(&upstream.url())
        )
    };
    let server = Launch::configured(&keys(&first))
        .listens_as_configured()
        .metrics_listener()
        .start()
        .await?;
    let connect = async |certificate: &Certificate| {
        let client = SecureClient::trusting(certificate)?;
        client.connect(server.address()).await
    };
    let mut open = Wire::inside(connect(&first).await?);
    applied(&server, &keys(&second)).await?;
    ensure!(connect(&first).await.is_err());
    connect(&second).await?;
    open.send(get("/v2/").as_bytes()).await?;
    assert_eq!(open.response("GET").await?.body, b"there");
    let expiry = |certificate: &Certificate| {
        let name = certificate.path().display().to_string();
        metric("octoserve_tls_certificate_expiry_timestamp_seconds").label("name", &name)
    };
    assert_eq!(sum(&server, &expiry(&first)).await?, None);
    ensure!(sum(&server, &expiry(&second)).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_the_others_are_applied() -> Result<()> {
    let (first, second) = (named("first").await?, named("second").await?);
    let start = with_upstream(&first.url());
    let mut server = Launch::configured(&start).start().await?;
    let changed = format!(
        "{}metrics: {{labels: {{region: eu}}, listen: '127.0.0.1:0'}}\n",
        with_upstream(&second.url())
    );
    applied(&server, &changed).await?;
    let said = logged(&mut server, "configuration reloaded").await?;
    ensure!(
        said.contains("metrics.labels") && said.contains("metrics.listen"),
        "{said}"
    );
    ensure!(!said.contains("upstreams"), "{said}");
    assert_eq!(body(&server, &get("/v2/")).await?, "second");
    // The embedded registry is started with the process alone.
    let mut server = Launch::all_in_one().configuration("{}\n").start().await?;
    server.configure(&start)?;
    // The command line still has the data directory, which goes with no upstream.
    ensure!(!server.reload().await?);
    let said = refusal(&mut server).await?;
    ensure!(
        said.contains("--data: registry: there are upstreams"),
        "{said}"
    );
    Ok(())
}

/// An upload session that one of two replicas has, which a request before the reload has opened.
#[tokio::test]
async fn an_upload_session_stays_at_its_replica_over_a_reload() -> Result<()> {
    let replica = |name: &'static str| {
        Scripted::start(move |mut caller: Caller| async move {
            loop {
                let head = caller.head().await?;
                if head.starts_with("POST ") {
                    caller
                        .send(format!(
                            "HTTP/1.1 202 Accepted\r\nLocation: {SESSION}\r\nContent-Length: 0\r\n\r\n"
                        ))
                        .await?;
                } else {
                    let length = name.len();
                    caller
                        .send(format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
                        ))
                        .await?;
                }
            }
        })
    };
    let (a, b, c) = (
        replica("a").await?,
        replica("b").await?,
        replica("c").await?,
    );
    let of = |replicas: &[&Scripted]| {
        let urls: Vec<_> = replicas
            .iter()
            .map(|one| format!("'{}'", one.url()))
            .collect();
        format!(
            "upstreams: [{{balance: round_robin, replicas: [{}]}}]\n",
            urls.join(", ")
        )
    };
    let server = Launch::configured(&of(&[&a, &b])).start().await?;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let post = wire::request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
        let response = wire::exchange(server.address(), "POST", &post).await?;
        let location = response
            .head
            .header("location")
            .context("no Location")?
            .to_owned();
        let at = body(&server, &get(&location)).await?;
        sessions.push((location, at));
    }
    ensure!(sessions[0].1 != sessions[1].1, "{sessions:?}");
    applied(&server, &of(&[&c, &b, &a])).await?;
    for (location, at) in &sessions {
        for _ in 0..3 {
            assert_eq!(&body(&server, &get(location)).await?, at);
        }
    }
    // The replica that is gone has the session no more.
    applied(&server, &of(&[&c, &b])).await?;
    for (location, at) in &sessions {
        let expected = if at == "a" { 404 } else { 200 };
        assert_eq!(status(&server, &get(location)).await?, expected, "{at}");
    }
    Ok(())
}

#[tokio::test]
async fn no_request_fails_and_none_is_lost_from_the_counts_while_it_reloads_again_and_again()
-> Result<()> {
    const CLIENTS: usize = 8;
    let (first, second) = (named("first").await?, named("second").await?);
    let server = Launch::configured(&with_upstream(&first.url()))
        .start()
        .await?;
    let (stop, stopped) = watch::channel(false);
    let clients = (0..CLIENTS).map(|_| {
        let (address, stopped) = (server.address(), stopped.clone());
        tokio::spawn(async move {
            let mut client = Wire::connect(address).await?;
            let mut requests = 0_u32;
            while !*stopped.borrow() {
                client.send(get("/v2/").as_bytes()).await?;
                let response = client.response("GET").await?;
                ensure!(response.head.status == 200, "{}", response.head.status);
                requests += 1;
            }
            Ok(requests)
        })
    });
    let clients: Vec<_> = clients.collect();
    for at in 0..20 {
        let url = if at % 2 == 0 {
            // By a name, which has to be resolved before the first request.
            second.url().replace("127.0.0.1", "localhost")
        } else {
            first.url()
        };
        applied(&server, &with_upstream(&url)).await?;
        if at % 5 == 0 {
            server.configure("upstreams: [")?;
            ensure!(!server.reload().await?);
        }
    }
    stop.send_replace(true);
    let mut sent = 0;
    for counted in try_join_all(clients).await? {
        sent += counted?;
    }
    ensure!(!first.heard().is_empty() && !second.heard().is_empty());
    let requests = metric("octoserve_http_requests_total").label("status", "200");
    requests.value(sent).assert_in(&server).await?;
    let sent_on = metric("octoserve_upstream_request_duration_seconds_count");
    let sent_on = sent_on.label("outcome", "ok").label("upstream", "main");
    sent_on.value(sent).assert(&server.scrape().await?)?;
    let reloads = metric("octoserve_config_reloads_total");
    let scrape = server.scrape().await?;
    reloads
        .clone()
        .label("result", "ok")
        .value(20)
        .assert(&scrape)?;
    reloads.label("result", "refused").value(4).assert(&scrape)
}

#[tokio::test]
async fn limits_and_who_is_trusted_change_for_new_connections() -> Result<()> {
    let upstream = Scripted::start(|mut caller: Caller| async move {
        loop {
            caller.head().await?;
            caller
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await?;
        }
    })
    .await?;
    let good = with_upstream(&upstream.url());
    let server = Launch::configured(&good).metrics_listener().start().await?;
    let forwarded = wire::request("GET", "/v2/", &[("X-Forwarded-For", "192.0.2.7")], b"");
    let believed = async || {
        // With one connection at most, a new one is closed until the last one has ended.
        harness::poll::until("a response", DEADLINE, async || {
            let response = wire::exchange(server.address(), "GET", &forwarded).await;
            Ok(response.ok())
        })
        .await?;
        let heard = upstream.heard().concat().to_ascii_lowercase();
        let last = heard.rfind("x-forwarded-for: ").context("no such header")?;
        anyhow::Ok(
            heard[last..]
                .lines()
                .next()
                .unwrap_or_default()
                .contains("192.0.2.7"),
        )
    };
    ensure!(!believed().await?);
    applied(
        &server,
        &format!("{good}trust_forwarded_from: [127.0.0.0/8]\nlimits: {{connections: 1}}\n"),
    )
    .await?;
    ensure!(believed().await?);
    // A new connection is closed for as long as the last response of another one is being ended.
    let connected = async || {
        harness::poll::until("a connection", DEADLINE, async || {
            let attempt = async {
                let mut wire = Wire::connect(server.address()).await?;
                wire.send(get("/v2/").as_bytes()).await?;
                wire.response("GET").await?;
                anyhow::Ok(wire)
            };
            Ok(attempt.await.ok())
        })
        .await
    };
    // With one connection at most, an idle one gives way to a new one.
    let mut first = connected().await?;
    let mut second = connected().await?;
    ensure!(first.rest().await?.is_empty(), "it is closed");
    applied(&server, &good).await?;
    ensure!(!believed().await?);
    second.send(get("/v2/").as_bytes()).await?;
    second.response("GET").await?;
    Ok(())
}

/// Files that the configuration names are read again, under keys that stay the same.
#[tokio::test]
async fn a_password_file_is_read_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("password");
    let write = |path: &Path, password: &str| std::fs::write(path, password);
    write(&path, "first\n")?;
    let upstream = named("there").await?;
    let configuration = format!(
        "{}metrics: {{basic_auth: {{username: a, password_file: '{}'}}}}\n",
        with_upstream(&upstream.url()),
        path.display()
    );
    let mut server = Launch::configured(&configuration).start().await?;
    let scrape = async |server: &Server, basic: &str| {
        let value = format!("Basic {basic}");
        let request = wire::request("GET", "/metrics", &[("Authorization", &value)], b"");
        let response = wire::exchange(server.address(), "GET", &request).await?;
        anyhow::Ok(response.head.status)
    };
    let (first, second) = ("YTpmaXJzdA==", "YTpzZWNvbmQ=");
    assert_eq!(scrape(&server, first).await?, 200);
    assert_eq!(scrape(&server, second).await?, 401);
    write(&path, "second\n")?;
    server.process().signal(harness::process::Signal::HUP)?;
    harness::poll::until("the other password counts", DEADLINE, async || {
        Ok((scrape(&server, second).await? == 200).then_some(()))
    })
    .await?;
    assert_eq!(scrape(&server, first).await?, 401);
    Ok(())
}
