//! The server as clients, probes and scrapers meet it: limits, drain, recording.

mod pulls;

use std::future::poll_fn;

use http_body::SizeHint;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;

use crate::api::tests::harness::{Client, Running};
use crate::config::RegistryConfig;
use crate::metrics::storage::Backend;
use crate::oci::{Algorithm, Digest};
use crate::server;
use crate::store::MemoryStore;
use service::config::{Flag, Sources};
use service::listen::ListenAddr;
use service::program::Server as _;
use service::program_config::Configuration as _;
use service::shutdown::Shutdown;

const MOMENT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let registry = Running::start().await;
    let mut client = registry.client().await;
    for _ in 0..3 {
        client.ask("GET", "/v2/", &[], b"").await.expect(200);
        client
            .ask("GET", "/v2/A/tags/list", &[], b"")
            .await
            .expect(400);
    }
    let one = "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send(one.repeat(5)).await;
    for _ in 0..5 {
        client.response().await.expect(200);
    }
}

#[tokio::test]
async fn a_refused_small_upload_keeps_its_connection() {
    let registry = Running::start().await;
    let mut client = registry.client().await;
    let body = vec![b'x'; 100_000];
    for _ in 0..3 {
        let nowhere = "/v2/a/blobs/uploads/1";
        let response = client.ask("PATCH", nowhere, &[], &body).await.expect(404);
        assert_eq!(response.header("connection"), "");
    }
}

#[tokio::test]
async fn the_response_to_a_refused_large_upload_can_be_read() {
    let registry = Running::start().await;
    let mut client = registry.client().await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    let response = client
        .ask("PATCH", "/v2/a/blobs/uploads/1", &[], &body)
        .await
        .expect(404);
    assert_eq!(response.header("connection"), "close");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn expect_100_continue_gets_a_response_before_the_body() {
    let registry = Running::start().await;
    let head = |location: &str| {
        format!(
            "PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = registry.client().await;
    client.send(head("/v2/a/blobs/uploads/1")).await;
    let response = client.response().await.expect(404);
    assert_eq!(response.header("connection"), "close");
    let location = registry.open("a").await;
    let mut client = registry.client().await;
    client.send(head(&location)).await;
    client.response().await.expect(100);
    client.send("01234").await;
    client.response().await.expect(202);
}

#[tokio::test]
async fn slow_headers_close_a_connection_and_an_idle_one_stays_open_longer() {
    let registry = Running::configured(|config| {
        config.limits.header_timeout = MOMENT;
        config.limits.idle_timeout = Duration::from_secs(1);
    })
    .await;
    let mut idle = registry.client().await;
    idle.ask("GET", "/v2/", &[], b"").await.expect(200);
    let mut slow = registry.client().await;
    slow.ask("GET", "/v2/", &[], b"").await.expect(200);
    slow.send("GET /v2/ HTTP/1.1\r\nho").await;
    assert!(slow.is_closed().await);
    idle.ask("GET", "/v2/", &[], b"").await.expect(200);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn an_upload_that_stalls_gets_408_and_its_bytes_stay() {
    let registry = Running::configured(|config| config.limits.body_stall = MOMENT).await;
    let location = registry.open("a").await;
    let mut client = registry.client().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
    client.send(head + "012").await;
    client.response().await.rejected(408, "SIZE_INVALID");
    assert!(client.is_closed().await);
    let response = registry.get(&location).await.expect(204);
    assert_eq!(response.header("range"), "0-2");
}

#[tokio::test]
async fn a_download_that_no_client_reads_is_cut_and_keeps_its_status() {
    let registry = Running::configured(|config| config.limits.body_stall = MOMENT).await;
    let digest = registry.push_blob("a", &vec![0; 32 * 1024 * 1024]).await;
    let mut client = registry.client().await;
    client
        .send(format!(
            "GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"
        ))
        .await;
    let series =
        r#"octoserve_registry_http_requests_total{endpoint="blob",method="GET",status="200"}"#;
    registry.wait_for(series, 1.0).await;
    let mut rest = Vec::new();
    // Cut: the end comes early, with or without a reset.
    let _ = client.stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 32 * 1024 * 1024);
}

#[tokio::test]
async fn at_the_cap_the_longest_idle_connection_is_closed() {
    let registry = Running::configured(|config| config.limits.connections = 2).await;
    let (mut silent, mut idle) = (registry.client().await, registry.client().await);
    idle.ask("GET", "/v2/", &[], b"").await.expect(200);
    let mut third = registry.client().await;
    third.ask("GET", "/v2/", &[], b"").await.expect(200);
    assert!(silent.is_closed().await);
    idle.ask("GET", "/v2/", &[], b"").await.expect(200);
    let mut fourth = registry.client().await;
    fourth.ask("GET", "/v2/", &[], b"").await.expect(200);
    assert!(third.is_closed().await);
}

#[tokio::test]
async fn at_the_cap_a_connection_waits_while_all_others_are_busy() {
    let registry = Running::configured(|config| config.limits.connections = 1).await;
    let location = registry.open("a").await;
    let mut busy = registry.half_sent(&location).await;
    let mut waiting = registry.client().await;
    waiting.send("GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let early = tokio::time::timeout(MOMENT, waiting.response()).await;
    assert!(early.is_err());
    busy.send("56789").await;
    busy.response().await.expect(202);
    waiting.response().await.expect(200);
    assert!(busy.is_closed().await);
}

#[tokio::test]
async fn a_shutdown_finishes_requests_and_closes_idle_connections() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let mut busy = registry.half_sent(&location).await;
    let mut idle = registry.client().await;
    idle.ask("GET", "/v2/", &[], b"").await.expect(200);
    let mut probe = Client::connect(registry.metrics).await;
    probe.ask("GET", "/readyz", &[], b"").await.expect(200);

    registry.stop();
    assert!(idle.is_closed().await);
    probe.ask("GET", "/readyz", &[], b"").await.expect(503);
    probe.ask("GET", "/livez", &[], b"").await.expect(200);
    busy.send("56789").await;
    busy.response().await.expect(202);
    assert!(busy.is_closed().await);
    assert!(registry.stopped().await);
}

#[tokio::test]
async fn a_shutdown_ends_at_the_drain_timeout() {
    let registry = Running::configured(|config| config.limits.drain = MOMENT).await;
    let location = registry.open("a").await;
    let _client = registry.half_sent(&location).await;
    registry.stop();
    let ended = registry.stopped().await;
    assert!(!ended);
}

#[tokio::test]
async fn a_request_aborted_before_its_response_is_counted_as_499() {
    let registry = Running::start().await;
    let location = registry.open("a").await;
    let client = registry.half_sent(&location).await;
    // A reset: the client cannot receive a response.
    client.stream.set_zero_linger().unwrap();
    drop(client);
    let series = r#"octoserve_registry_http_requests_total{endpoint="upload_session",method="PATCH",status="499"}"#;
    registry.wait_for(series, 1.0).await;
}

#[tokio::test]
async fn the_duration_of_a_request_ends_with_its_last_byte() {
    let registry = Running::start().await;
    let digest = registry.push_blob("a", &vec![0; 32 * 1024 * 1024]).await;
    let mut client = registry.client().await;
    let asked = Instant::now();
    client
        .send(format!(
            "GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n"
        ))
        .await;
    // Meanwhile the client has other things to do.
    let began = Instant::now();
    while began.elapsed() < MOMENT {
        registry.get("/v2/").await.expect(200);
    }
    assert_eq!(
        client.response().await.expect(200).body.len(),
        32 * 1024 * 1024
    );
    let labels = r#"{endpoint="blob",method="GET"}"#;
    let count = format!("octoserve_registry_http_request_duration_seconds_count{labels}");
    registry.wait_for(&count, 1.0).await;
    let sum = format!("octoserve_registry_http_request_duration_seconds_sum{labels}");
    let sum = registry.sample(&sum).await.unwrap();
    let range = MOMENT.as_secs_f64()..=asked.elapsed().as_secs_f64();
    assert!(range.contains(&sum), "{sum} is not in {range:?}");
}

#[tokio::test]
async fn the_metrics_listener_serves_only_metrics_and_probes() {
    let registry = Running::start().await;
    let mut client = Client::connect(registry.metrics).await;
    let exposition = client.ask("GET", "/metrics", &[], b"").await.expect(200);
    assert_eq!(
        exposition.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(
        exposition
            .text()
            .contains("# TYPE octoserve_registry_http_requests_total counter")
    );
    let head = client.ask("HEAD", "/metrics", &[], b"").await.expect(200);
    assert_ne!(head.header("content-length"), "0");
    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    let exposition = client
        .ask("GET", "/metrics", &accept, b"")
        .await
        .expect(200);
    assert!(
        exposition
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(exposition.text().ends_with("# EOF\n"));
    client.ask("GET", "/readyz", &[], b"").await.expect(200);
    let response = client.ask("POST", "/metrics", &[], b"").await.expect(405);
    assert_eq!(response.header("allow"), "GET, HEAD");
    client.ask("GET", "/v2/", &[], b"").await.expect(404);
    registry.get("/metrics").await.expect(404);
}

#[tokio::test]
async fn no_text_of_a_client_becomes_a_label() {
    let registry = Running::start().await;
    let scan = async |n: usize| {
        let method = format!("M{n}");
        let headers = [("user-agent", method.as_str())];
        registry
            .ask(&method, &format!("/v2/r{n}/x/y{n}"), &headers, b"")
            .await;
        registry
            .get(&format!("/v2/r{n}/manifests/t{n}"))
            .await
            .expect(404);
    };
    scan(0).await;
    let labels = r#"{endpoint="manifest",method="GET",status="404"}"#;
    let counter = format!("octoserve_registry_http_requests_total{labels}");
    registry.wait_for(&counter, 1.0).await;
    let before = registry.series().await;
    for n in 1..=200 {
        scan(n).await;
    }
    registry.wait_for(&counter, 201.0).await;
    assert_eq!(registry.series().await, before);
}

#[tokio::test]
async fn http2_without_tls_is_spoken_on_the_same_port() {
    let registry = Running::start().await;
    let content = Bytes::from(vec![b'x'; 3 * 1024 * 1024]);
    let digest = registry.push_blob("a", &content).await;
    let stream = tokio::net::TcpStream::connect(registry.address)
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let uri = |path: &str| format!("http://{}{path}", registry.address);
    let target = uri(&format!("/v2/a/blobs/{digest}"));
    for (method, length) in [(Method::GET, content.len()), (Method::HEAD, 0)] {
        let request = Request::builder().method(method).uri(&target);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-length"],
            content.len().to_string()
        );
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len(),
            length
        );
    }
    // Refused with a body unread: that stream ends, the connection does not.
    for _ in 0..2 {
        let request = Request::patch(uri("/v2/a/blobs/uploads/1")).body(Full::new(content.clone()));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 404);
    }
    let target = uri(&format!("/v2/b/blobs/uploads/?digest={digest}"));
    let request = Request::post(target).body(Full::new(content)).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 201);
}

#[tokio::test]
async fn when_embedded_it_is_called_and_its_families_are_gathered_in_process() {
    let directory = tempfile::tempdir().unwrap();
    let fields = crate::config::StorageFields {
        data: directory.path().join("data"),
        ..Default::default()
    };
    let config = RegistryConfig::embedded(fields, Some(BTreeMap::new()));
    let bound = server::bind(config).await.unwrap();
    assert_eq!(bound.addresses(), []);
    assert_eq!(bound.metrics_address(), None);
    let families = bound.families().unwrap();
    let registry = bound.in_process();
    let (stop, shutdown) = Shutdown::new();
    let served = tokio::spawn(bound.serve(shutdown));
    for _ in 0..2 {
        let request = Request::get("/v2/").header("host", "x").body(()).unwrap();
        let (head, ()) = request.into_parts();
        let mut call = registry.call(head, SizeHint::with_exact(0));
        let head = poll_fn(|context| call.poll_head(context)).await;
        assert_eq!(head.status, 200);
        let mut body = Vec::new();
        while let read @ 1.. = poll_fn(|context| {
            call.poll_body(context).map(|piece| {
                let piece = piece.unwrap();
                body.extend_from_slice(piece);
                piece.len()
            })
        })
        .await
        {
            call.consume(read);
        }
        assert_eq!(body, b"{}");
    }
    let mut exposition = String::new();
    families.gather().write_text(&mut exposition);
    let counted =
        r#"octoserve_registry_http_requests_total{endpoint="base",method="GET",status="200"} 2"#;
    assert!(exposition.contains(counted), "{exposition}");
    assert!(!exposition.contains("process_"), "{exposition}");
    stop.trigger();
    assert!(served.await.unwrap());
}

#[tokio::test]
async fn without_metrics_nothing_is_recorded_and_everything_works() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let flags = vec![
        Flag::new("--listen", "listen", "127.0.0.1:0"),
        Flag::new("--data", "data", &data),
        Flag::new("--metrics", "metrics.enabled", false),
    ];
    let sources = Sources {
        flags,
        ..Sources::default()
    };
    let (config, _) = RegistryConfig::load(sources).unwrap();
    let bound = server::bind(config).await.unwrap();
    assert_eq!(bound.metrics_address(), None);
    let ListenAddr::Tcp(address) = bound.addresses()[0].clone() else {
        panic!("no TCP address");
    };
    let (_stop, shutdown) = Shutdown::new();
    tokio::spawn(bound.serve(shutdown));
    Client::connect(address)
        .await
        .ask("GET", "/v2/", &[], b"")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_store_in_memory_is_served_and_measured_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let flags = vec![
        Flag::new("-", "listen", "127.0.0.1:0"),
        Flag::new("-", "metrics.listen", "127.0.0.1:0"),
        Flag::new("-", "data", &data),
    ];
    let sources = Sources {
        flags,
        ..Sources::default()
    };
    let (config, _) = RegistryConfig::load(sources).unwrap();
    let bound = server::bind_store(config, MemoryStore::default(), Backend::Memory).await;
    let bound = bound.unwrap();
    let addresses = [&bound.addresses()[0], bound.metrics_address().unwrap()];
    let [api, exposition] = addresses.map(|address| match address {
        ListenAddr::Tcp(address) => *address,
        ListenAddr::Unix(_) => panic!("no TCP address"),
    });
    let (_stop, shutdown) = Shutdown::new();
    tokio::spawn(bound.serve(shutdown));
    let mut client = Client::connect(api).await;
    let digest = Digest::of(Algorithm::Sha256, b"content");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let pushed = client.ask("POST", &target, &[], b"content").await;
    pushed.expect(201);
    let target = format!("/v2/a/blobs/{digest}");
    let pulled = client.ask("GET", &target, &[], b"").await.expect(200);
    assert_eq!(pulled.body, b"content");
    let mut client = Client::connect(exposition).await;
    let exposition = client.ask("GET", "/metrics", &[], b"").await.expect(200);
    let written = r#"octoserve_storage_bytes_total{backend="memory",direction="write"} 7"#;
    assert!(exposition.text().contains(written), "{}", exposition.text());
    assert!(!data.exists());
}

#[tokio::test]
async fn a_directory_in_use_and_an_address_in_use_are_errors_at_the_start() {
    let registry = Running::start().await;
    let clash = |key: &'static str, value: String| async move {
        let other = tempfile::tempdir().unwrap();
        let mut flags = vec![
            Flag::new("-", "listen", "127.0.0.1:0"),
            Flag::new("-", "metrics.listen", "127.0.0.1:0"),
            Flag::new("-", "data", other.path()),
        ];
        flags.push(Flag::new("-", key, value));
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        server::bind(RegistryConfig::load(sources).unwrap().0)
            .await
            .err()
            .unwrap()
    };
    let error = clash("listen", registry.address.to_string()).await;
    assert!(
        matches!(error, server::RegistryStartError::Bind(_)),
        "{error}"
    );
    let error = clash("data", registry.directory().display().to_string()).await;
    assert!(
        matches!(error, server::RegistryStartError::Store(_)),
        "{error}"
    );
}
