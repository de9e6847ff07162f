//! The metrics that any HTTP server has.

use super::*;
use crate::metrics::label::{AuthResult, Purpose};

fn pair() -> Pair {
    Pair::of(Endpoint::Blob, Method::Get)
}

#[expect(clippy::cast_possible_truncation, reason = "a small count")]
fn in_flight(recorder: &Recorder, endpoint: Endpoint) -> i64 {
    recorder.metrics.http.in_flight.value(endpoint) as i64
}

fn text(registry: &MetricsRegistry) -> String {
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    text
}

#[test]
fn a_request_is_in_flight_until_it_ends_and_counted_once() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    assert_eq!(in_flight(&recorder, Endpoint::Blob), 1);
    exchange.received(b"").responded(200, &[]);
    exchange.sent(10);
    exchange.whole(&[0; 30]);
    let http = &recorder.metrics.http;
    assert_eq!(in_flight(&recorder, Endpoint::Blob), 0);
    assert_eq!(http.requests.value((pair(), Status::of(200))), 1);
    assert_eq!(http.requests.value((pair(), Status::of(502))), 0);
    assert_eq!(http.response_body_bytes.value(pair()), 30);
    assert_eq!(http.response_size.count(Endpoint::Blob), 1);
    assert_eq!(http.request_size.count(Endpoint::Blob), 0);
    assert_eq!(http.duration.count(pair()), 1);
    assert_eq!(http.ttfb.count(pair()), 1);
}

#[test]
fn in_flight_counts_requests_and_not_connections() {
    let recorder = recorder();
    let waiting: Vec<_> = (0..3).map(|_| ask(&recorder, "GET", &blob())).collect();
    assert_eq!(in_flight(&recorder, Endpoint::Blob), 3);
    drop(waiting);
    assert_eq!(in_flight(&recorder, Endpoint::Blob), 0);
}

#[test]
fn bytes_of_a_transfer_are_counted_as_they_move() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.responded(200, &[]).sent(64);
    let http = &recorder.metrics.http;
    assert_eq!(http.response_body_bytes.value(pair()), 64);
    assert_eq!(http.requests.value((pair(), Status::of(200))), 0);
    exchange.sent(100);
    assert_eq!(http.response_body_bytes.value(pair()), 100);
}

#[test]
fn bytes_are_those_that_moved_and_not_a_content_length() {
    let recorder = recorder();
    let target = of_app("blobs/uploads/1");
    let mut exchange = ask_with(&recorder, "PATCH", &target, &[("content-length", "809")]);
    exchange.request_body(&[0; 4000], false);
    exchange.request_body(&[0; 96], true);
    exchange
        .responded(202, &[("content-length", "7")])
        .whole(b"");
    let http = &recorder.metrics.http;
    let pair = Pair::of(Endpoint::UploadSession, Method::Patch);
    assert_eq!(http.request_body_bytes.value(pair), 4096);
    assert_eq!(http.response_body_bytes.value(pair), 0);
    assert_eq!(http.request_size.count(Endpoint::UploadSession), 1);
}

#[test]
fn a_download_lasts_to_its_last_byte_and_not_to_its_headers() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.received(b"").responded(200, &[]);
    let http = &recorder.metrics.http;
    assert_eq!(http.ttfb.count(pair()), 1);
    assert_eq!(http.duration.count(pair()), 0);
    pass_a_moment();
    exchange.response_body(&[0; 10], true);
    exchange.sent(10);
    let summary = exchange.end(End::Complete).summary();
    assert_eq!(http.duration.count(pair()), 1);
    assert!(summary.duration >= summary.ttfb.unwrap() + MOMENT);
}

#[test]
fn durations_are_in_seconds_and_sizes_go_to_16_gib() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    ask(&recorder, "GET", &blob())
        .received(b"")
        .responded(200, &[])
        .whole(&vec![0; 700 << 10]);
    let text = text(&registry);
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    let size = "octoserve_http_response_size_bytes_bucket{endpoint=\"blob\",le=";
    has(&format!("{size}\"262144.0\"}} 0"));
    has(&format!("{size}\"1.048576e+06\"}} 1"));
    has(&format!("{size}\"1.7179869184e+10\"}} 1"));
    let pair = "endpoint=\"blob\",method=\"GET\"";
    let lasted = format!("octoserve_http_request_duration_seconds_bucket{{{pair},le=");
    has(&format!("{lasted}\"900.0\"}} 1"));
    let sum = format!("octoserve_http_request_duration_seconds_sum{{{pair}}} ");
    let sum = text
        .lines()
        .find_map(|line| line.strip_prefix(&sum))
        .unwrap();
    let sum: f64 = sum.parse().unwrap();
    assert!(
        sum > 0.0 && sum.fract() > 0.0,
        "{sum}: neither cut to whole seconds nor millis"
    );
}

#[test]
fn the_times_to_the_headers_and_to_the_end_are_measured() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let began = Instant::now();
    let mut exchange = ask(&recorder, "GET", &blob());
    pass_a_moment();
    exchange.received(b"").responded(200, &[]);
    let until_headers = began.elapsed();
    pass_a_moment();
    exchange.whole(&[0; 10]);
    let in_all = began.elapsed();
    for (family, least, most) in [
        ("http_response_ttfb_seconds", MOMENT, until_headers),
        ("http_request_duration_seconds", 2 * MOMENT, in_all),
    ] {
        let measured = sum(&registry, family, "endpoint=\"blob\",method=\"GET\"");
        let range = least.as_secs_f64()..=most.as_secs_f64();
        assert!(
            range.contains(&measured),
            "{family}: {measured} is not in {range:?}"
        );
    }
}

#[test]
fn a_cut_download_keeps_its_status_and_has_no_size() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.responded(200, &[]);
    exchange.response_body(&[0; 100], false);
    exchange.cut(64, Side::Client);
    let http = &recorder.metrics.http;
    assert_eq!(http.requests.value((pair(), Status::of(200))), 1);
    assert_eq!(http.response_size.count(Endpoint::Blob), 0);
    assert_eq!(http.response_body_bytes.value(pair()), 64);
}

#[test]
fn a_client_that_closes_before_the_response_is_499() {
    let recorder = recorder();
    ask(&recorder, "GET", &blob()).cut(0, Side::Client);
    let http = &recorder.metrics.http;
    assert_eq!(http.requests.value((pair(), Status::of(499))), 1);
    assert_eq!(http.ttfb.count(pair()), 0);
}

#[test]
fn a_dropped_exchange_is_a_500_and_lowers_the_gauge() {
    let recorder = recorder();
    drop(ask(&recorder, "GET", &blob()));
    let requests = &recorder.metrics.http.requests;
    assert_eq!(requests.value((pair(), Status::of(500))), 1);
    assert_eq!(in_flight(&recorder, Endpoint::Blob), 0);
}

#[test]
fn a_cut_upload_counts_its_bytes_and_no_size() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "PATCH", &of_app("blobs/uploads/1"));
    exchange.request_body(&[0; 7], false);
    exchange.cut(0, Side::Client);
    let http = &recorder.metrics.http;
    let pair = Pair::of(Endpoint::UploadSession, Method::Patch);
    assert_eq!(http.request_body_bytes.value(pair), 7);
    assert_eq!(http.request_size.count(Endpoint::UploadSession), 0);
}

#[test]
fn a_method_that_an_endpoint_does_not_have_is_other() {
    let recorder = recorder();
    exchange(&recorder, "BREW", &of_app("manifests/latest"), 405);
    let pair = Pair::of(Endpoint::Other, Method::Other);
    let requests = &recorder.metrics.http.requests;
    assert_eq!(requests.value((pair, Status::of(405))), 1);
    assert_eq!(in_flight(&recorder, Endpoint::Manifest), 0);
}

#[test]
fn neither_a_nested_name_nor_a_made_up_method_becomes_a_label() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    for method in ["GET", "PURGE", "get"] {
        for rest in [
            "manifests/v1.2",
            "blobs/uploads/manifests/secret",
            "tags/list",
        ] {
            let mut exchange = ask_with(
                &recorder,
                method,
                &format!("/v2/team/blobs/tags/manifests/app/{rest}?n=secret"),
                &[("user-agent", "secret/1"), ("authorization", "secret")],
            );
            exchange.received(b"").responded(404, &[]).whole(b"");
        }
    }
    let text = text(&registry);
    for part in ["team", "v1.2", "secret", "PURGE", "get"] {
        let label = text
            .lines()
            .find(|line| line.contains(&format!("{part}\"")));
        assert_eq!(label, None);
    }
}

#[test]
fn each_request_is_counted_by_client_and_purpose() {
    let recorder = recorder();
    let docker = [("user-agent", "docker/27.3.1 go/go1.22.7")];
    for (method, rest) in [
        ("GET", "manifests/1".to_owned()),
        ("GET", format!("blobs/{DIGEST}")),
        ("HEAD", "manifests/1".to_owned()),
        ("HEAD", format!("blobs/{DIGEST}")),
        ("POST", "blobs/uploads/".to_owned()),
        ("PATCH", "blobs/uploads/1".to_owned()),
        ("PUT", "blobs/uploads/1".to_owned()),
        ("PUT", "manifests/1".to_owned()),
        ("DELETE", "manifests/1".to_owned()),
        ("GET", "tags/list".to_owned()),
    ] {
        ask_with(&recorder, method, &of_app(&rest), &docker).cut(0, Side::Client);
    }
    exchange(&recorder, "GET", "/v2/", 200);
    let requests = &recorder.metrics.clients.requests;
    assert_eq!(requests.value((Client::Docker, Purpose::Pull)), 2);
    assert_eq!(requests.value((Client::Docker, Purpose::Push)), 4);
    assert_eq!(requests.value((Client::Docker, Purpose::Other)), 4);
    assert_eq!(requests.value((Client::Other, Purpose::Other)), 1);
}

#[test]
fn credentials_are_judged_by_the_upstreams_response_alone() {
    let recorder = recorder();
    let bearer = [("authorization", "Bearer eyJ0.e30.x")];
    exchange(&recorder, "GET", "/v2/", 401);
    ask_with(&recorder, "GET", "/v2/", &bearer)
        .responded(401, &[])
        .whole(b"");
    ask_with(&recorder, "GET", "/v2/", &bearer)
        .responded(200, &[])
        .whole(b"");
    // A response of the proxy itself says nothing about credentials.
    let mut refused = ask_with(&recorder, "GET", "/v2/", &bearer);
    refused.proxy_response(502, ErrorCode::Unavailable, 0);
    refused.cut(0, Side::Upstream);
    let auth = &recorder.metrics.clients.auth;
    assert_eq!(auth.value((AuthScheme::None, AuthResult::Challenge)), 1);
    assert_eq!(
        auth.value((AuthScheme::Bearer, AuthResult::Unauthorized)),
        1
    );
    assert_eq!(auth.value((AuthScheme::Bearer, AuthResult::Ok)), 1);
}

/// The access log is the same with metrics on and off.
#[test]
fn an_exchange_without_a_recorder_has_the_same_summary() {
    let observers = [Observer::new(Some(&recorder())), Observer::new(None)];
    let summaries = observers.map(|observer| {
        let run = |method: &str, target: &str, status, fields: &[(&'static str, &str)]| {
            let asked = HeaderMap::new();
            let request = request(method, target, &asked);
            let mut exchange = observer.begin(&request);
            exchange.request_body(b"some", true);
            let mut exchange = exchange.response_head(&request, status, &headers(fields));
            exchange.response_body(b"more", true);
            exchange.sent(3);
            let summary = exchange.end(End::Complete).summary();
            assert!(summary.duration >= summary.ttfb.unwrap());
            (
                summary.endpoint,
                summary.status,
                summary.received,
                summary.sent,
            )
        };
        let location = [("location", "/elsewhere/7")];
        [
            run("GET", &of_app("manifests/1"), 200, &[]),
            run("POST", &of_app("blobs/uploads/"), 202, &location),
            run("PATCH", "/elsewhere/7", 202, &[]),
            run("PUT", "/elsewhere/7?digest=x", 201, &[]),
        ]
    });
    let endpoints = summaries[0].map(|(endpoint, ..)| endpoint);
    assert_eq!(endpoints[3], Endpoint::UploadSession);
    assert_eq!(summaries[0], summaries[1]);
    assert!(
        Observer::new(None).if_needed(false).is_none(),
        "nothing to observe for"
    );
}

#[test]
fn an_aborted_exchange_without_a_recorder_has_its_status() {
    let observer = Observer::new(None);
    let asked = HeaderMap::new();
    let exchange = observer.begin(&request("GET", &blob(), &asked));
    let end = End::Aborted {
        status: 500,
        side: None,
    };
    let ended = exchange.end(end);
    assert!(ended.deferred.is_none());
    assert_eq!(ended.summary().status, 500);
}
