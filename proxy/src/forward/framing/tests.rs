use super::*;

fn fields(fields: &[(&str, &str)]) -> Result<Fields, FieldError> {
    let mut parsed = Fields::with_capacity(fields.len());
    for (name, value) in fields {
        parsed.push(name.parse().unwrap(), value.parse().unwrap())?;
    }
    Ok(parsed)
}

/// A request over HTTP/2, as its pseudo-header fields and its fields say.
fn http2(
    method: Method,
    authority: Option<&str>,
    listed: &[(&str, &str)],
) -> Result<(RequestHead, Option<Refusal>), Refusal> {
    let line = RequestLine {
        method,
        target: "/v2/".parse().unwrap(),
        authority: authority.map(|authority| authority.parse().unwrap()),
        version: Version::HTTP_2,
    };
    line.with(fields(listed)?)
}

fn with_via(values: &[&str]) -> RequestHead {
    let listed: Vec<_> = values.iter().map(|value| ("via", *value)).collect();
    http2(Method::GET, Some("a"), &listed).unwrap().0
}

#[test]
fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
    for host in [
        "a",
        "A.b-c_d~e",
        "127.0.0.1",
        "%41",
        "a,b",
        "!$&'()*+,;=",
        "a:",
        "a:0",
        "a:80",
        "a:65535",
        "a:00080",
        "[::1]",
        "[::1]:",
        "[::1]:65535",
        "[2001:db8::127.0.0.1]:80",
    ] {
        assert!(is_host(host.as_bytes()), "{host:?}");
    }
    for host in [
        "",
        ":80",
        "a b",
        "a\tb",
        " a",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "a\\b",
        "<script>",
        "a\"b",
        "\u{e9}",
        "a:65536",
        "a:99999999999999999999999",
        "a:-1",
        "a:+1",
        "a:b",
        "a:80:80",
        "a: 80",
        "::1",
        "[",
        "[::1",
        "[<script>",
        "[a b",
        "[:80",
        "[]",
        "::1]",
        "a]",
        "[a]",
        "[127.0.0.1]",
        "[::1%25eth0]",
        "[v1.a]",
        "[::1]80",
        "[::1]a",
        "[::1]:a",
        "[::1]:65536",
        "[[::1]]",
        "a[::1]",
    ] {
        assert!(!is_host(host.as_bytes()), "{host:?}");
    }
}

#[test]
fn a_length_has_digits_alone() {
    for (digits, expected) in [
        ("0", Some(0)),
        ("00", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("", None),
        ("+5", None),
        ("-5", None),
        (" 5", None),
        ("5 ", None),
        ("0x5", None),
        ("5_0", None),
        ("5e1", None),
    ] {
        assert_eq!(decimal(digits.as_bytes()), expected, "{digits:?}");
    }
}

#[test]
fn equal_lengths_go_on_once() {
    let listed = [
        ("content-length", "5, 05"),
        ("content-length", "5"),
        ("content-length", "005 ,5"),
    ];
    let fields = fields(&listed).unwrap();
    assert_eq!(fields.length, Some(5));
    let values: Vec<_> = fields.headers.get_all(CONTENT_LENGTH).iter().collect();
    assert_eq!(values, ["5"]);
}

#[test]
fn each_kind_of_field_error_is_told_apart() {
    for (name, value, error) in [
        ("content-length", "x", FieldError::Length),
        ("content-length", "5, 6", FieldError::Length),
        ("transfer-encoding", "gzip", FieldError::TransferEncoding),
        ("connection", "a b", FieldError::Header),
    ] {
        assert_eq!(fields(&[(name, value)]).err(), Some(error), "{name}");
    }
}

#[test]
fn an_http2_request_has_no_chunks() {
    for listed in [
        &[("transfer-encoding", "chunked")][..],
        &[("transfer-encoding", "chunked"), ("content-length", "5")],
        &[("transfer-encoding", "identity")],
    ] {
        let refused = http2(Method::PUT, Some("a"), listed);
        assert_eq!(refused.err(), Some(Refusal::Length), "{listed:?}");
    }
    let (head, refusal) = http2(Method::PUT, Some("a"), &[("content-length", "5")]).unwrap();
    assert_eq!((head.body, refusal), (BodyLength::Known(5), None));
}

#[test]
fn an_http2_request_names_its_host_by_its_authority_or_its_host() {
    for (authority, listed, expected) in [
        (Some("A:80"), &[][..], "A:80"),
        (Some("a"), &[("host", "A")], "A"),
        (None, &[("host", "a")], "a"),
    ] {
        let (head, refusal) = http2(Method::GET, authority, listed).unwrap();
        assert_eq!(refusal, None, "{authority:?}");
        assert_eq!(head.host.unwrap(), expected);
        assert!(head.headers.is_empty());
    }
    for (authority, listed, refusal) in [
        (None, &[][..], Refusal::NoHost),
        (Some(""), &[], Refusal::Host),
        (Some("u@a"), &[], Refusal::Host),
        (Some("a/b"), &[], Refusal::Host),
    ] {
        let (_, refused) = http2(Method::GET, authority, listed).unwrap();
        assert_eq!(refused, Some(refusal), "{authority:?}");
    }
    for (authority, listed) in [
        (Some("a"), &[("host", "b")][..]),
        (Some("a"), &[("host", "a:80")]),
        (None, &[("host", "a"), ("host", "a")]),
    ] {
        let refused = http2(Method::GET, authority, listed);
        assert_eq!(refused.err(), Some(Refusal::Host), "{authority:?}");
    }
}

#[test]
fn an_http2_request_can_not_ask_for_a_tunnel() {
    let (_, refusal) = http2(Method::CONNECT, Some("a:443"), &[]).unwrap();
    assert_eq!(refusal, Some(Refusal::Connect));
}

#[test]
fn a_request_with_our_name_in_via_has_passed_before() {
    for values in [
        &["1.1 octoserve-1"][..],
        &["1.1 a, 2 octoserve-1"],
        &["1.1 a", "1.0 b,1.1 octoserve-1 (comment), 1.1 c"],
        &["HTTP/1.1 octoserve-1"],
    ] {
        assert!(with_via(values).has_passed("octoserve-1"), "{values:?}");
    }
    for values in [
        &[][..],
        &[""],
        &["octoserve-1"],
        &["1.1 octoserve-12"],
        &["1.1 octoserve-"],
        &["1.1 a (octoserve-1)"],
        &["1.1 Octoserve-1"],
        &["1.1 a octoserve-1"],
    ] {
        assert!(!with_via(values).has_passed("octoserve-1"), "{values:?}");
    }
}

#[test]
fn a_loop_is_508() {
    assert_eq!(Refusal::Loop.status(), 508);
}

#[test]
fn a_response_of_our_own_keeps_the_connection() {
    let head = ResponseHead::own(StatusCode::OK, HeaderMap::new(), BodyLength::None);
    assert!(head.keep_alive && head.reason.is_empty());
}
