use http::HeaderMap;

use super::*;
use crate::forward::framing::BodyLength;

fn parse(text: impl AsRef<[u8]>) -> Result<(RequestHead, Option<Refusal>), Refusal> {
    request(&Bytes::copy_from_slice(text.as_ref()))
}

/// The request, which must go on.
fn accepted(text: &str) -> RequestHead {
    match parse(text) {
        Ok((head, None)) => head,
        refused => panic!("{text:?}: {refused:?}"),
    }
}

/// Why the request is refused, whether or not it can be named in the log.
fn refused(text: impl AsRef<[u8]>) -> Refusal {
    let text = text.as_ref();
    match parse(text) {
        Ok((_, Some(refusal))) | Err(refusal) => refusal,
        Ok((head, None)) => panic!("{:?}: {head:?}", text.escape_ascii().to_string()),
    }
}

fn with_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A request with these lines after its Host.
fn with_fields(fields: &str) -> String {
    format!("PUT /v2/ HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

fn answer(text: &str, method: &Method) -> Option<ResponseHead> {
    response(&Bytes::copy_from_slice(text.as_bytes()), method)
}

/// Fields, as text.
fn listed(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let fields = headers.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// What the head's end is, when the bytes arrive in these pieces.
fn ends(pieces: &[&[u8]]) -> Result<Option<(usize, usize)>, BareLineFeed> {
    let (mut end, mut bytes) = (HeadEnd::default(), Vec::new());
    let mut found = Ok(None);
    for piece in pieces {
        bytes.extend_from_slice(piece);
        found = end.find(&bytes);
        if found != Ok(None) {
            break;
        }
    }
    found
}

#[test]
fn the_end_of_a_head_is_the_same_however_it_arrives() {
    for (text, found) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Ok(Some((0, 27)))),
        (b"GET / HTTP/1.1\r\n\r\nbody\n", Ok(Some((0, 18)))),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n", Ok(Some((4, 22)))),
        (b"\r\n\r\n", Ok(None)),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", Ok(None)),
        (b"\nGET / HTTP/1.1\r\n\r\n", Err(BareLineFeed)),
        (b"\r\n\nGET / HTTP/1.1\r\n\r\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\n\r\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(BareLineFeed)),
    ] {
        assert_eq!(ends(&[text]), found, "{}", text.escape_ascii());
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(ends(&pieces), found, "{}", text.escape_ascii());
            }
        }
    }
}

#[test]
fn the_first_line_begins_after_the_empty_lines_before_it() {
    let mut end = HeadEnd::default();
    assert_eq!(end.find(b"\r\n\r\nGET / "), Ok(None));
    assert_eq!(end.start(), 4);
}

#[test]
fn what_can_be_a_request_begins_with_a_method() {
    for start in [&b""[..], b"\r\n", b"\r\n\r\nG", b"GET", b"\r\n*"] {
        assert!(may_be_request(start), "{start:?}");
    }
    for start in [&b"\x16\x03\x01"[..], b"\r\n\x16", b" GET", b"\0", b"\x80"] {
        assert!(!may_be_request(start), "{start:?}");
    }
}

#[test]
fn what_can_be_a_response_begins_with_its_version() {
    for start in [&b""[..], b"H", b"HTTP/1.", b"HTTP/1.1 200 OK"] {
        assert!(may_be_response(start), "{start:?}");
    }
    for start in [&b"h"[..], b"HTTP/2", b"220 mail", b"\r", b" HTTP/1.1"] {
        assert!(!may_be_response(start), "{start:?}");
    }
}

#[test]
fn a_request_line_has_three_words_and_one_space_between_two() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /a b HTTP/1.1",
        "",
        "GET",
        "(GET) / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        " / HTTP/1.1",
    ] {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(&text), Refusal::RequestLine, "{line:?}");
    }
}

#[test]
fn a_control_character_in_the_request_line_is_refused() {
    for control in (0..=31_u8).chain([127]) {
        // A carriage return ends the first line, and what follows must be a line feed.
        if control == b'\r' {
            continue;
        }
        for text in [
            [b"GET /?n=", &[control][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            [b"G", &[control][..], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1", &[control][..], b"\r\nHost: a\r\n\r\n"].concat(),
        ] {
            assert_eq!(refused(&text), Refusal::ControlCharacters, "{control}");
        }
    }
}

#[test]
fn a_bare_carriage_return_ends_no_line() {
    assert_eq!(
        refused("GET / HTTP/1.1\rHost: a\r\n\r\n"),
        Refusal::Malformed
    );
    assert_eq!(
        refused("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
        Refusal::RequestLine
    );
    for field in ["X: y\rTransfer-Encoding: chunked", "X: y\r", "X\r: y"] {
        let text = with_fields(field);
        assert_eq!(refused(&text), Refusal::Header, "{field:?}");
    }
}

#[test]
fn a_method_goes_on_as_it_is() {
    for method in ["GET", "get", "M-SEARCH", "a!#$%&'*+-.^_`|~0", "PRI"] {
        let head = accepted(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.method.as_str(), method);
    }
}

#[test]
fn a_path_goes_on_byte_for_byte() {
    for target in [
        "/",
        "//",
        "//evil/v2/",
        "/v2/a/../b/./c",
        "/v2/%2e%2E/%2f/%00/%zz/%",
        "/v2/?n=1&last=a%20b",
        "/?",
        "/??/?",
        "/v2/;a=b,c:@!$&'()*+~-._",
        "/v2/?a=http://b/c",
    ] {
        assert_eq!(accepted(&with_target(target)).target.as_str(), target);
    }
}

#[test]
fn a_target_that_is_no_path_is_refused() {
    for target in [
        "v2/",
        "?a",
        "a:80",
        "*",
        "**",
        "ftp://a/",
        "http:/a/",
        "http:a",
        "://a/",
        "/#",
        "/v2/#fragment",
        "/?a#b",
        "#",
        "/<",
        "/>",
        "/`",
        "/?a<b",
        "/?a>b",
        "/\u{e9}",
        "/?\u{e9}",
        "http://a/\u{e9}",
    ] {
        assert_eq!(refused(with_target(target)), Refusal::Target, "{target:?}");
    }
    let invalid = b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(refused(invalid), Refusal::Target);
}

#[test]
fn an_absolute_target_goes_on_as_its_path() {
    for (target, path) in [
        ("http://a/v2/?n=1", "/v2/?n=1"),
        ("https://a/v2/", "/v2/"),
        ("HTTP://a/", "/"),
        ("hTtPs://A/b", "/b"),
        ("http://a", "/"),
        ("http://a?n=1", "/?n=1"),
        ("http://a?", "/?"),
        ("http://a?/b", "/?/b"),
        ("http://a//b", "//b"),
    ] {
        let head = accepted(&with_target(target));
        assert_eq!(head.target.as_str(), path, "{target:?}");
    }
    for target in ["http://a#b", "http://a/#b", "http://a?n#b", "http://a/<"] {
        assert_eq!(refused(with_target(target)), Refusal::Target, "{target:?}");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let head = accepted("GET http://A.b:80/ HTTP/1.1\r\nHost: a.B:80\r\n\r\n");
    assert_eq!(head.host.unwrap(), "a.B:80");
    let head = accepted("GET http://a.b/ HTTP/1.1\r\n\r\n");
    assert_eq!(head.host.unwrap(), "a.b");
    for (target, host) in [
        ("http://a/", "b"),
        ("http://a:80/", "a"),
        ("http://a/", "a:80"),
        ("http://a/", ""),
        ("http:///", "a"),
        ("http://u@a/", "a"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        // Nobody can say which of the two is meant.
        assert_eq!(parse(&text).err(), Some(Refusal::Host), "{text:?}");
    }
    for target in ["http:///", "http://u@a/", "http://a b/", "http://:80/"] {
        let text = format!("GET {target} HTTP/1.1\r\n\r\n");
        let expected = if target.contains(' ') {
            Refusal::RequestLine
        } else {
            Refusal::Host
        };
        assert_eq!(refused(&text), expected, "{text:?}");
    }
}

#[test]
fn an_asterisk_is_a_target_of_options_alone() {
    let head = accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target.as_str(), "*");
    for method in ["GET", "options", "PUT"] {
        let text = format!("{method} * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused(&text), Refusal::Target, "{method}");
    }
}

#[test]
fn connect_is_refused_and_can_be_named_in_the_log() {
    for target in ["a:443", "*", "/", "http://a/"] {
        let text = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (head, refusal) = parse(&text).unwrap();
        assert_eq!(refusal, Some(Refusal::Connect), "{target}");
        assert_eq!(head.method, Method::CONNECT);
    }
    assert_eq!(Refusal::Connect.status(), 405);
}

#[test]
fn versions_but_1_0_and_1_1_are_refused() {
    for (version, expected) in [
        ("HTTP/1.0", Version::HTTP_10),
        ("HTTP/1.1", Version::HTTP_11),
    ] {
        let head = accepted(&format!("GET / {version}\r\nHost: a\r\n\r\n"));
        assert_eq!(head.version, expected);
    }
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/01.1",
        "http/1.1",
        "HTTPS/1.1",
        "",
    ] {
        let text = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(refused(&text), Refusal::Version, "{version:?}");
    }
}

#[test]
fn a_request_names_one_valid_host() {
    for host in ["a", "a.b:5000", "127.0.0.1", "[::1]:5000", "a:"] {
        let head = accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(head.host.unwrap(), host);
        // It is written apart from the other fields.
        assert!(head.headers.is_empty());
    }
    for host in ["", " ", "a b", "a/b", "<script>", "a,b c", "u@a", "a:65536"] {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let text = format!("GET / {version}\r\nHost: {host}\r\n\r\n");
            assert_eq!(refused(&text), Refusal::Host, "{text:?}");
        }
    }
}

#[test]
fn two_hosts_are_refused_even_if_they_are_equal() {
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let text = format!("GET / {version}\r\nHost: a\r\nhost: a\r\n\r\n");
        assert_eq!(parse(&text).err(), Some(Refusal::Host));
    }
}

#[test]
fn only_http_1_0_need_not_name_a_host() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Refusal::NoHost);
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").host, None);
}

#[test]
fn a_field_is_a_token_a_colon_and_a_value() {
    for field in [
        "X : y",
        "X\t: y",
        " X: y",
        ": y",
        "X",
        "X y: z",
        "X\0: y",
        "X(): y",
        "X\u{e9}: y",
        "X: \0",
        "X: a\u{1}b",
        "X: \u{7f}",
        "X:\u{b}y",
    ] {
        assert_eq!(refused(with_fields(field)), Refusal::Header, "{field:?}");
    }
}

#[test]
fn a_folded_line_is_refused() {
    for field in ["X: y\r\n z", "X: y\r\n\tz", "X: y\r\n ", "X:\r\n y"] {
        assert_eq!(refused(with_fields(field)), Refusal::Header, "{field:?}");
    }
    // Before all fields, too.
    let first = "GET / HTTP/1.1\r\n Host: a\r\n\r\n";
    assert_eq!(refused(first), Refusal::Header);
}

#[test]
fn a_value_goes_on_without_the_whitespace_around_it() {
    let head = accepted(&with_fields("X:  a \t b\u{e9} \t\r\nY:\r\nx:c"));
    let values: Vec<_> = head.headers.get_all("x").iter().collect();
    assert_eq!(values, ["a \t b\u{e9}", "c"]);
    assert_eq!(head.headers["y"], "");
}

#[test]
fn the_length_of_a_body_is_what_the_fields_say() {
    for (fields, expected) in [
        ("X: y", BodyLength::None),
        ("Content-Length: 0", BodyLength::Known(0)),
        ("Content-Length: 5", BodyLength::Known(5)),
        ("Content-Length: 007", BodyLength::Known(7)),
        ("Content-Length: 5, 5", BodyLength::Known(5)),
        (
            "Content-Length: 5\r\nContent-Length: 5",
            BodyLength::Known(5),
        ),
        (
            "Content-Length: 18446744073709551615",
            BodyLength::Known(u64::MAX),
        ),
        ("Transfer-Encoding: chunked", BodyLength::Chunked),
        ("transfer-encoding: \tCHUNKED ", BodyLength::Chunked),
    ] {
        let head = accepted(&with_fields(fields));
        assert_eq!(head.body, expected, "{fields:?}");
        let lengths = head.headers.get_all("content-length").iter().count();
        let is_known = matches!(expected, BodyLength::Known(_));
        assert_eq!(lengths, usize::from(is_known), "{fields:?}");
        assert!(!head.headers.contains_key("transfer-encoding"));
    }
}

#[test]
fn a_request_whose_length_is_in_doubt_is_refused() {
    for fields in [
        "Content-Length: 5, 0",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 0",
        "Content-Length: 5;",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: ,5",
        "Content-Length: 5,",
        "Content-Length: \u{665}",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        // Where the next request begins can't be said.
        let text = with_fields(fields);
        assert_eq!(parse(&text).err(), Some(Refusal::Length), "{fields:?}");
    }
    let old = "PUT / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse(old).err(), Some(Refusal::Length));
}

#[test]
fn what_connection_lists_is_removed() {
    let fields = "Connection: close, X-a ,, te\r\nConnection: x-B\r\nX-A: 1\r\nx-b: 2\r\nx-c: 3";
    let head = accepted(&with_fields(fields));
    assert_eq!(listed(&head.headers), [("x-c", &b"3"[..])]);
}

#[test]
fn connection_must_not_list_what_delimits_a_request() {
    for name in ["Host", "content-length", "Transfer-Encoding"] {
        let text = with_fields(&format!("Connection: x, {name}"));
        assert_eq!(refused(&text), Refusal::Header, "{name}");
    }
    for name in ["a b", "\"x\"", "x/y", "x;y"] {
        let text = with_fields(&format!("Connection: {name}"));
        assert_eq!(refused(&text), Refusal::Header, "{name}");
    }
}

#[test]
fn fields_that_end_at_this_hop_do_not_go_on() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Proxy-Authorization",
        "Proxy-Authenticate",
    ] {
        let head = accepted(&with_fields(&format!("{name}: x\r\nAuthorization: y")));
        assert_eq!(listed(&head.headers), [("authorization", &b"y"[..])]);
        let text = format!("HTTP/1.1 200 OK\r\n{name}: x\r\nETag: y\r\n\r\n");
        let head = answer(&text, &Method::GET).unwrap();
        assert_eq!(listed(&head.headers), [("etag", &b"y"[..])]);
    }
}

#[test]
fn a_connection_carries_another_request_unless_the_client_says_otherwise() {
    for (version, fields, expected) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: x, Close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Proxy-Connection: close\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", false),
    ] {
        let head = accepted(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {fields:?}");
    }
}

#[test]
fn a_request_has_at_most_90_fields() {
    let with_count = |count: usize| with_fields(&vec!["x: y"; count - 1].join("\r\n"));
    assert_eq!(accepted(&with_count(90)).headers.len(), 89);
    for count in [91, 128, 129, 500] {
        let (head, refusal) = parse(with_count(count)).unwrap();
        assert_eq!(refusal, Some(Refusal::HeadersTooLarge), "{count}");
        assert_eq!(head.target.as_str(), "/v2/");
    }
}

#[test]
fn the_target_and_the_fields_of_a_request_have_at_most_60_kib() {
    // As they are written: the target, and each field with a colon, a space and the end of its line.
    let (target, rest) = ("/v2/".len(), "host: a\r\n".len() + "x: \r\n".len());
    let room = (60 << 10) - target - rest;
    let with_value = |length: usize| with_fields(&format!("x: {}", "y".repeat(length)));
    assert_eq!(accepted(&with_value(room)).headers["x"].len(), room);
    assert_eq!(refused(with_value(room + 1)), Refusal::HeadersTooLarge);
    let room = (60 << 10) - "host: a\r\n".len();
    let with_length = |length: usize| with_target(&format!("/{}", "p".repeat(length - 1)));
    assert_eq!(accepted(&with_length(room)).target.as_str().len(), room);
    assert_eq!(refused(with_length(room + 1)), Refusal::HeadersTooLarge);
}

#[test]
fn a_field_that_ends_at_this_hop_counts_towards_the_limits() {
    let fields = vec!["TE: x"; 90].join("\r\n");
    assert_eq!(refused(with_fields(&fields)), Refusal::HeadersTooLarge);
    let long = format!("Keep-Alive: {}", "x".repeat(60 << 10));
    assert_eq!(refused(with_fields(&long)), Refusal::HeadersTooLarge);
}

#[test]
fn a_request_that_is_too_large_to_be_parsed_is_named_by_its_first_line() {
    let text = Bytes::from(format!("PUT /v2/?a HTTP/1.1\r\nX: {}", "y".repeat(100)));
    let head = too_large(&text).unwrap();
    assert_eq!(
        (head.method, head.target.as_str(), head.keep_alive),
        (Method::PUT, "/v2/?a", false)
    );
    let endless = Bytes::from_static(b"PUT /aaaaaaaaa");
    assert_eq!(too_large(&endless).err(), Some(Refusal::HeadersTooLarge));
    let invalid = Bytes::from_static(b"PUT a b\r\nX: yyyyy");
    assert_eq!(too_large(&invalid).err(), Some(Refusal::Version));
}

#[test]
fn a_target_longer_than_its_parser_takes_is_refused() {
    for target in [
        format!("/{}?query", "p".repeat(1 << 16)),
        format!("/{}", "\u{e9}".repeat(1 << 15)),
        format!("http://a/{}", "p".repeat(1 << 16)),
        format!("/?{}", "q".repeat(1 << 17)),
    ] {
        let refusal = refused(with_target(&target));
        let expected = [Refusal::Target, Refusal::HeadersTooLarge];
        assert!(expected.contains(&refusal), "{refusal:?}");
    }
}

#[test]
fn a_response_goes_on_with_its_status_reason_and_fields() {
    let text = "HTTP/1.1 201 All Right\r\nX: y\r\nContent-Length: 5, 5\r\nx: z\r\n\r\n";
    let head = answer(text, &Method::PUT).unwrap();
    assert_eq!(head.status, StatusCode::CREATED);
    assert_eq!(&head.reason[..], b"All Right");
    let values: Vec<_> = head.headers.get_all("x").iter().collect();
    assert_eq!(values, ["y", "z"]);
    assert_eq!(head.headers["content-length"], "5");
    assert_eq!(head.body, BodyLength::Known(5));
    assert!(head.keep_alive);
}

#[test]
fn a_response_may_have_no_reason() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 299 "] {
        let head = answer(&format!("{line}\r\n\r\n"), &Method::GET).unwrap();
        assert!(head.reason.is_empty(), "{line:?}");
    }
}

#[test]
fn a_malformed_status_line_is_refused() {
    for line in [
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 200 O\u{1}K",
        "HTTP/1.1 200 O\rK",
        "200 OK",
        "",
    ] {
        let text = format!("{line}\r\nContent-Length: 0\r\n\r\n");
        assert!(answer(&text, &Method::GET).is_none(), "{line:?}");
    }
}

#[test]
fn a_response_with_a_malformed_field_is_refused() {
    for field in [
        "X : y",
        " X: y",
        "X",
        ": y",
        "X: y\r\n z",
        "X: a\0b",
        "X: a\rb",
        "Connection: a b",
        "Content-Length: x",
        "Content-Length: 5, 6",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ] {
        for (method, status) in [
            (Method::GET, "200 OK"),
            (Method::HEAD, "200 OK"),
            (Method::GET, "204 No Content"),
        ] {
            let text = format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n");
            assert!(answer(&text, &method).is_none(), "{text:?}");
        }
    }
}

#[test]
fn a_response_has_at_most_128_fields() {
    let text = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
    let head = answer(&text(128), &Method::GET).unwrap();
    assert_eq!(head.headers.len(), 128);
    assert!(answer(&text(129), &Method::GET).is_none());
}

#[test]
fn the_body_of_a_response_ends_as_its_fields_and_its_request_say() {
    let (get, head) = (Method::GET, Method::HEAD);
    for (method, status, field, body) in [
        (
            &get,
            "200 OK",
            "Content-Length: 5\r\n",
            BodyLength::Known(5),
        ),
        (
            &get,
            "200 OK",
            "Content-Length: 0\r\n",
            BodyLength::Known(0),
        ),
        (
            &get,
            "200 OK",
            "Transfer-Encoding: chunked\r\n",
            BodyLength::Chunked,
        ),
        (&get, "200 OK", "", BodyLength::UntilClose),
        (&get, "404 Not Found", "", BodyLength::UntilClose),
        (
            &get,
            "205 Reset Content",
            "Content-Length: 0\r\n",
            BodyLength::Known(0),
        ),
        (&head, "200 OK", "Content-Length: 5\r\n", BodyLength::None),
        (
            &head,
            "200 OK",
            "Transfer-Encoding: chunked\r\n",
            BodyLength::None,
        ),
        (&head, "200 OK", "", BodyLength::None),
        (
            &get,
            "204 No Content",
            "Content-Length: 5\r\n",
            BodyLength::None,
        ),
        (&get, "204 No Content", "", BodyLength::None),
        (
            &get,
            "304 Not Modified",
            "Content-Length: 5\r\n",
            BodyLength::None,
        ),
        (&get, "304 Not Modified", "", BodyLength::None),
    ] {
        let text = format!("HTTP/1.1 {status}\r\n{field}\r\n");
        let response = answer(&text, method).unwrap();
        assert_eq!(response.body, body, "{method} {text:?}");
        assert_eq!(
            response.keep_alive,
            body != BodyLength::UntilClose,
            "{text:?}"
        );
        let goes_on = field.starts_with("Content-Length") && !status.starts_with("204");
        assert_eq!(
            response.headers.contains_key("content-length"),
            goes_on,
            "{text:?}"
        );
        assert!(!response.headers.contains_key("transfer-encoding"));
    }
}

#[test]
fn what_delimits_a_response_stays_whatever_connection_lists() {
    for name in ["Content-Length", "content-length, close"] {
        let text = format!("HTTP/1.1 200 OK\r\nConnection: {name}\r\nContent-Length: 5\r\n\r\n");
        let head = answer(&text, &Method::GET).unwrap();
        assert_eq!(head.body, BodyLength::Known(5));
        assert_eq!(head.headers["content-length"], "5");
    }
    let text = "HTTP/1.1 200 OK\r\nConnection: x, keep-alive\r\nx: 1\r\ny: 2\r\n\r\n";
    let head = answer(text, &Method::HEAD).unwrap();
    assert_eq!(listed(&head.headers), [("y", &b"2"[..])]);
}

#[test]
fn an_interim_response_has_no_body() {
    for status in ["100 Continue", "102 Processing", "103 Early Hints", "199 x"] {
        let fields = "Link: x\r\nContent-Length: 5\r\n";
        let text = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
        let head = answer(&text, &Method::GET).unwrap();
        assert_eq!(head.body, BodyLength::None);
        assert_eq!(listed(&head.headers), [("link", &b"x"[..])]);
    }
}

#[test]
fn a_switch_of_protocols_is_refused() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    assert!(answer(text, &Method::GET).is_none());
}

#[test]
fn an_old_response_ends_its_connection_and_has_no_chunks() {
    let text = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
    let head = answer(text, &Method::GET).unwrap();
    assert_eq!(head.body, BodyLength::Known(5));
    assert!(!head.keep_alive);
    let text = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(answer(text, &Method::GET).is_none());
}

#[test]
fn an_upstream_that_says_close_is_not_asked_again() {
    for option in ["close", "Close, x", "x,close", "keep-alive, close"] {
        let text = format!("HTTP/1.1 200 OK\r\nConnection: {option}\r\nContent-Length: 0\r\n\r\n");
        assert!(!answer(&text, &Method::GET).unwrap().keep_alive);
    }
}
