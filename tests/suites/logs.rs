//! The access log of both programs: it does not depend on metrics, and client input cannot make a
//! line grow beyond its bound.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::client::Client;
use harness::h2::H2;
use harness::octoserve::{Launch, Server};
use harness::process::OutputStream;
use harness::{poll, wire};
use reqwest::Method;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for this many events of the access log.
async fn requests(server: &mut Server, count: usize) -> Result<Vec<Value>> {
    poll::until("the requests are logged", DEADLINE, async || {
        let log = server.process().output(OutputStream::Stderr)?;
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

/// The fields of an event, with the values that do not differ between two runs.
fn comparable(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        // A connection is made or used again.
        fields.remove("connect_ms");
        for (name, value) in fields {
            let varies = [
                "timestamp",
                "duration_ms",
                "ttfb_ms",
                "request_id",
                "trace_id",
                "replica",
                "bytes_out",
            ];
            if varies.contains(&name.as_str()) {
                *value = Value::Null;
            }
        }
    }
    event
}

/// Sends some requests of each kind, one after the other.
async fn day(server: &mut Server) -> Result<Vec<Value>> {
    let client = Client::new(&server.url(""))?;
    client.push_image("team/app", "1", &[1, 2]).await?;
    client.pull_image("team/app", "1").await?;
    client.get("/v2/team/app/manifests/none").await?;
    client
        .send(Method::HEAD, "/v2/team/app/manifests/1", &[], "")
        .await?;
    client
        .send(Method::DELETE, "/v2/team/app/manifests/1", &[], "")
        .await?;
    client.get("/v2/a b/tags/list").await?;
    client.get("/nothing").await?;
    let events = requests(server, 16).await?;
    let mut events: Vec<_> = events.into_iter().map(comparable).collect();
    // These vary, because two connections may be in use.
    events.sort_by_key(Value::to_string);
    Ok(events)
}

#[tokio::test]
async fn the_access_log_does_not_depend_on_whether_metrics_are_on() -> Result<()> {
    let upstream = Launch::registry().start().await?;
    let launches: [&dyn Fn() -> Launch; 3] = [&Launch::all_in_one, &Launch::registry, &|| {
        Launch::in_front_of(&upstream.url(""))
    }];
    for launch in launches {
        let with = day(&mut launch().start().await?).await?;
        let without = day(&mut launch().without_metrics().start().await?).await?;
        ensure!(with == without, "{with:#?}\nwithout metrics: {without:#?}");
        let fields = |event: &Value| event.as_object().map(serde_json::Map::len);
        ensure!(
            with.iter().all(|event| fields(event) >= Some(11)),
            "{with:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn no_log_line_grows_with_what_a_client_sends() -> Result<()> {
    let upstream = Launch::registry().start().await?;
    let launches: [&dyn Fn() -> Launch; 4] = [
        &Launch::all_in_one,
        &Launch::registry,
        &|| Launch::in_front_of(&upstream.url("")),
        &|| Launch::in_front_of(&upstream.url("")).without_metrics(),
    ];
    for launch in launches {
        let level = "OCTOSERVE_LOGGING_LEVEL";
        let mut server = launch().environment(level, "debug").start().await?;
        let text = "n".repeat(14_000);
        let paths = [
            format!("/v2/{text}/manifests/{text}"),
            format!("/v2/a/manifests/x:{text}{text}"),
            format!("/v2/{text}{text}/tags/list"),
        ];
        let mut client = H2::connect(server.address(), false).await?;
        for path in &paths {
            let request = wire::request("GET", path, &[], b"");
            wire::exchange(server.address(), "GET", &request).await?;
            client
                .send("GET", path, &[], true)
                .await?
                .response()
                .await?;
        }
        let events = requests(&mut server, 2 * paths.len()).await?;
        for event in &events {
            for (field, most) in [("repository", 255), ("reference", 135)] {
                let value = event[field].as_str().unwrap_or_default();
                ensure!(value.len() <= most, "{field}: {value}");
            }
        }
        ensure!(
            events.iter().any(|event| event["repository"]
                .as_str()
                .is_some_and(|name| name.starts_with("nnn") && name.ends_with('…'))),
            "what was cut says so: {events:#?}"
        );
        let log = server.process().output(OutputStream::Stderr)?;
        let longest = log.lines().map(str::len).max();
        ensure!(longest < Some(4 << 10), "a line of {longest:?} bytes");
    }
    Ok(())
}
