//! OCI errors that clients receive.

use crate::metrics::label::ErrorCodeLabel as Label;
use service::metrics::Label as _;

use super::*;

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const DENIED: &[u8] = br#"{"errors":[{"code":"DENIED","message":"no"}]}"#;

fn codes(recorder: &Recorder) -> Vec<(&'static str, u64)> {
    let errors = &recorder.metrics.oci.errors;
    let all = Label::ALL.iter();
    all.map(|&code| (code.value(), errors.value(code)))
        .filter(|&(_, count)| count > 0)
        .collect()
}

#[test]
fn the_code_of_an_error_is_read_as_it_streams_by() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.received(b"").responded(403, &[JSON]);
    let (start, end) = DENIED.split_at(22);
    exchange.response_body(start, false);
    exchange.response_body(end, true);
    assert_eq!(codes(&recorder), []);
    exchange.sent(DENIED.len() as u64);
    assert!(exchange.finish(End::Complete).is_none());
    assert_eq!(codes(&recorder), [("DENIED", 1)]);
}

#[test]
fn only_errors_have_codes() {
    for (method, status, fields, body, expected) in [
        ("GET", 200, &[JSON][..], DENIED, None),
        ("GET", 404, &[("content-type", "text/plain")], DENIED, None),
        ("GET", 404, &[], DENIED, None),
        ("GET", 404, &[JSON], b"{}", None),
        ("HEAD", 404, &[JSON], b"", None),
        (
            "GET",
            404,
            &[JSON],
            br#"{"errors":[{"code":"OWN"}]}"#,
            Some("other"),
        ),
        (
            "GET",
            500,
            &[JSON, ("content-encoding", "gzip")],
            b"\x1f\x8b",
            Some("other"),
        ),
        (
            "GET",
            403,
            &[("content-type", "application/problem+json")],
            DENIED,
            Some("DENIED"),
        ),
    ] {
        let recorder = recorder();
        let mut exchange = ask(&recorder, method, &blob());
        exchange.received(b"").responded(status, fields).whole(body);
        let expected: Vec<_> = expected.map(|code| (code, 1)).into_iter().collect();
        assert_eq!(codes(&recorder), expected, "{method} {status} {fields:?}");
    }
}

#[test]
fn an_aborted_error_response_counts_no_code() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.received(b"").responded(403, &[JSON]);
    exchange.response_body(DENIED, false);
    exchange.cut(10, Side::Upstream);
    assert_eq!(codes(&recorder), []);
}

#[test]
fn an_error_of_the_proxy_itself_is_counted() {
    let recorder = recorder();
    let mut exchange = ask(&recorder, "GET", &blob());
    exchange.proxy_response(502, ErrorCode::Unavailable, 40);
    exchange.cut(40, Side::Upstream);
    // The response to a HEAD has no body to carry a code.
    let mut exchange = ask(&recorder, "HEAD", &blob());
    exchange.proxy_response(502, ErrorCode::Unavailable, 0);
    exchange.cut(0, Side::Upstream);
    assert_eq!(codes(&recorder), [("UNAVAILABLE", 1)]);
}
