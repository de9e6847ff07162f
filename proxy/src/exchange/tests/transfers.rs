//! Aborted transfers, speeds and redirects.

use service::metrics::Label as _;

use super::*;

/// How many transfers the client and the upstream aborted.
fn aborted(recorder: &Recorder, endpoint: Endpoint) -> [u64; Side::ALL.len()] {
    let aborted = &recorder.metrics.transfers.aborted;
    std::array::from_fn(|index| aborted.value((endpoint, Side::ALL[index])))
}

#[test]
fn an_aborted_transfer_is_counted_by_the_side_that_aborted_it() {
    let recorder = recorder();
    for side in [Side::Client, Side::Upstream, Side::Upstream] {
        let mut download = ask(&recorder, "GET", &blob());
        download.received(b"").responded(200, &[]);
        download.response_body(&[0; 10], false);
        download.cut(5, side);
        let mut upload = ask(&recorder, "PATCH", &of_app("blobs/uploads/1"));
        upload.request_body(&[0; 10], false);
        upload.cut(0, side);
    }
    assert_eq!(aborted(&recorder, Endpoint::Blob), [1, 2]);
    assert_eq!(aborted(&recorder, Endpoint::UploadSession), [1, 2]);
}

#[test]
fn an_exchange_without_a_body_aborts_no_transfer() {
    let recorder = recorder();
    // No byte of a body had moved yet.
    ask(&recorder, "GET", &blob()).cut(0, Side::Client);
    ask(&recorder, "GET", &blob()).cut(0, Side::Upstream);
    // The response has no body.
    for (method, status, fields) in [
        ("HEAD", 200, ("content-length", "10")),
        ("GET", 304, ("etag", "x")),
        ("GET", 204, ("etag", "x")),
        ("GET", 200, ("content-length", "0")),
    ] {
        let mut exchange = ask(&recorder, method, &blob());
        exchange.responded(status, &[fields]).cut(0, Side::Client);
    }
    // The whole body had moved before the client closed.
    let mut late = ask(&recorder, "GET", &blob());
    late.responded(200, &[]);
    late.response_body(&[0; 10], true);
    late.cut(10, Side::Client);
    assert_eq!(aborted(&recorder, Endpoint::Blob), [0, 0]);
    let sizes = &recorder.metrics.http.response_size;
    assert_eq!(sizes.count(Endpoint::Blob), 1);
}

#[test]
fn an_upload_that_is_refused_before_its_end_is_not_aborted() {
    let recorder = recorder();
    let mut refused = ask(&recorder, "PATCH", &of_app("blobs/uploads/1"));
    refused.request_body(&[0; 10], false);
    refused.responded(413, &[]).response_body(b"no", true);
    refused.cut(2, Side::Client);
    assert_eq!(aborted(&recorder, Endpoint::UploadSession), [0, 0]);
    // A response of the proxy itself reports that the upload was aborted.
    let mut stalled = ask(&recorder, "PATCH", &of_app("blobs/uploads/1"));
    stalled.request_body(&[0; 10], false);
    stalled.proxy_response(408, ErrorCode::Unsupported, 2);
    stalled.cut(2, Side::Client);
    assert_eq!(aborted(&recorder, Endpoint::UploadSession), [1, 0]);
}

#[test]
fn a_transfer_that_the_proxy_aborts_is_counted_for_neither_side() {
    let recorder = recorder();
    let mut download = ask(&recorder, "GET", &blob());
    download.responded(200, &[]).sent(1);
    drop(download);
    assert_eq!(aborted(&recorder, Endpoint::Blob), [0, 0]);
}

#[test]
fn only_complete_blobs_over_a_mebibyte_have_a_speed() {
    let recorder = recorder();
    let big = vec![0; (1 << 20) + 1];
    let speed = |transfer| recorder.metrics.transfers.speed.count(transfer);
    let get = |status, body: &[u8]| {
        let mut exchange = ask(&recorder, "GET", &blob());
        exchange.received(b"").responded(status, &[]).whole(body);
    };
    get(200, &big[1..]);
    get(206, &big);
    let mut cut = ask(&recorder, "GET", &blob());
    cut.responded(200, &[]).cut(2 << 20, Side::Client);
    assert_eq!(speed(Transfer::Download), 0);
    get(200, &big);
    assert_eq!(speed(Transfer::Download), 1);

    let put = |status, body: &[u8], last| {
        let target = of_app("blobs/uploads/1?digest=x");
        let mut exchange = ask(&recorder, "PUT", &target);
        exchange.request_body(body, false);
        exchange.request_body(b"", last);
        exchange.responded(status, &[]).whole(b"");
    };
    put(201, &big[1..], true);
    put(400, &big, true);
    put(201, &big, false);
    assert_eq!(speed(Transfer::Upload), 0);
    put(201, &big, true);
    assert_eq!(speed(Transfer::Upload), 1);
    assert_eq!(speed(Transfer::Download), 1);
}

#[test]
fn a_speed_is_that_of_the_body_alone_with_buckets_up_to_4_gib_a_second() {
    let registry = MetricsRegistry::new("octoserve_");
    let recorder = recorder_on(&registry);
    let big = vec![0; 4 << 20];
    // The waits for the response and for the end of the commit are not part of it.
    let mut download = ask(&recorder, "GET", &blob());
    pass_a_moment();
    pass_a_moment();
    let began = Instant::now();
    download.received(b"").responded(200, &[]);
    pass_a_moment();
    download.whole(&big);
    let downloaded = began.elapsed();

    let mut upload = ask(&recorder, "PUT", &of_app("blobs/uploads/1?digest=x"));
    pass_a_moment();
    let began = Instant::now();
    upload.request_body(&big[1..], false);
    pass_a_moment();
    upload.request_body(&big[..1], true);
    let uploaded = began.elapsed();
    pass_a_moment();
    upload.responded(201, &[]).whole(b"");

    let family = "transfer_speed_bytes_per_second";
    for (direction, lasted) in [("download", downloaded), ("upload", uploaded)] {
        let measured = sum(&registry, family, &format!("direction=\"{direction}\""));
        let speed = |time: Duration| big.len() as f64 / time.as_secs_f64();
        let range = speed(lasted)..=speed(MOMENT);
        assert!(
            range.contains(&measured),
            "{direction}: {measured} is not in {range:?}"
        );
    }
    let mut text = String::new();
    registry.gather().write_text(&mut text);
    let first = format!("octoserve_{family}_bucket{{direction=\"upload\",le=\"");
    let bounds: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(&first)?.split('"').next())
        .map(|bound| bound.parse().unwrap())
        .collect();
    let mut expected: Vec<_> = (0..9).map(|n| 65536.0 * 4_f64.powi(n)).collect();
    expected.push(f64::INFINITY);
    assert_eq!(bounds, expected);
}

#[test]
fn a_redirect_is_counted_by_endpoint() {
    let recorder = recorder();
    for status in [200, 301, 302, 303, 304, 307, 308] {
        exchange(&recorder, "GET", &blob(), status);
    }
    let redirects = &recorder.metrics.transfers.redirects;
    assert_eq!(redirects.value(Endpoint::Blob), 5);
}
