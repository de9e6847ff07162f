//! What a trusted peer says of a client.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};

/// What a trusted peer says of a client; nothing where it says nothing that can be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientClaims {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Whether the client speaks TLS.
    pub is_https: Option<bool>,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
}

impl ClientClaims {
    /// Reads `X-Forwarded-*` and, for what they do not say, `Forwarded` (RFC 7239 §4). `trusts` says whether
    /// an address is that of a trusted proxy: the client is the last one that is not.
    pub(super) fn read(headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> ClientClaims {
        let mut claims = ClientClaims::default();
        if let Some(list) = joined(headers, "x-forwarded-for") {
            let nodes = list.as_bytes().rsplit(|byte| *byte == b',');
            claims.address = client(nodes.map(|node| address(node.trim_ascii())), &trusts);
        }
        claims.is_https = first(headers, "x-forwarded-proto").and_then(scheme);
        claims.host = first(headers, "x-forwarded-host")
            .filter(|host| is_authority(host))
            .and_then(|host| with_port(host, first(headers, "x-forwarded-port"), claims.is_https));
        claims.complete(headers, &trusts);
        claims
    }

    fn complete(&mut self, headers: &HeaderMap, trusts: &impl Fn(IpAddr) -> bool) {
        let mut last = Element::default();
        // Each line by itself: what one leaves open must not swallow the next.
        'lines: for line in headers.get_all("forwarded").iter().rev() {
            let Some(elements) = split(line.as_bytes(), b',') else {
                // A line that can't be read says nothing, nor does what is before it.
                break;
            };
            for element in elements.into_iter().rev() {
                last = Element::parse(element);
                if !last.address.is_some_and(trusts) {
                    break 'lines;
                }
            }
        }
        self.address = self.address.or(last.address);
        self.is_https = self.is_https.or(last.is_https);
        let host = || HeaderValue::from_bytes(&last.host?).ok();
        self.host = self.host.take().or_else(host);
    }
}

/// The values of a list header, joined; `None` without any.
pub fn joined(headers: &HeaderMap, name: &str) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let mut joined: Option<Vec<u8>> = None;
    for value in values {
        let joined = joined.get_or_insert_with(|| first.as_bytes().to_vec());
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value.as_bytes());
    }
    match joined {
        None => Some(first.clone()),
        // Parts of header values make a header value.
        Some(joined) => HeaderValue::from_bytes(&joined).ok(),
    }
}

/// The last address, read from the end, that is not trusted; the first one if all are.
fn client(
    nodes: impl Iterator<Item = Option<IpAddr>>,
    trusts: &impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut known = None;
    for node in nodes {
        // What can't be read says nothing, nor does what is before it.
        let Some(address) = node else {
            break;
        };
        known = Some(address);
        if !trusts(address) {
            break;
        }
    }
    known
}

/// The first value of a header. Proxies that append put what the client used first.
fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let value = headers.get(name)?.as_bytes();
    let first = value.split(|byte| *byte == b',').next()?;
    Some(first.trim_ascii()).filter(|first| !first.is_empty())
}

fn scheme(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"https") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"http") {
        Some(false)
    } else {
        None
    }
}

/// Whether a text is a host with a port or without, and can be a part of a URL.
fn is_authority(text: &[u8]) -> bool {
    let authority = std::str::from_utf8(text).ok();
    let authority = authority.and_then(|text| text.parse::<http::uri::Authority>().ok());
    let is_valid = |authority: http::uri::Authority| {
        let rest = &authority.as_str()[authority.host().len()..];
        !authority.host().is_empty() && (rest.is_empty() || authority.port_u16().is_some())
    };
    !text.contains(&b'@') && authority.is_some_and(is_valid)
}

/// The host with the port that a proxy names apart, where it is not the scheme's own.
fn with_port(host: &[u8], port: Option<&[u8]>, is_https: Option<bool>) -> Option<HeaderValue> {
    let has_port = host.rsplit(|byte| *byte == b']').next()?.contains(&b':');
    let own: &[u8] = if is_https == Some(true) {
        b"443"
    } else {
        b"80"
    };
    let is_port =
        |port: &&[u8]| std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok());
    match port.filter(is_port) {
        Some(port) if !has_port && port != own => {
            HeaderValue::from_bytes(&[host, b":", port].concat()).ok()
        }
        _ => HeaderValue::from_bytes(host).ok(),
    }
}

/// An address, with a port or without, as `X-Forwarded-For` and `Forwarded` have it.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let bare = node
        .strip_prefix('[')
        .and_then(|node| node.strip_suffix(']'));
    let address = bare.unwrap_or(node).parse().ok();
    address
        .or_else(|| node.parse::<SocketAddr>().ok().map(|node| node.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

/// What one proxy says (RFC 7239 §4).
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    address: Option<IpAddr>,
    is_https: Option<bool>,
    host: Option<Vec<u8>>,
}

impl Element {
    fn parse(text: &[u8]) -> Element {
        let mut element = Element::default();
        for pair in split(text, b';').unwrap_or_default() {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let name = pair[..equals].trim_ascii();
            let value = unquoted(pair[equals + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"for") {
                element.address = address(&value);
            } else if name.eq_ignore_ascii_case(b"proto") {
                element.is_https = scheme(&value);
            } else if name.eq_ignore_ascii_case(b"host") {
                element.host = Some(value).filter(|host| is_authority(host));
            }
        }
        element
    }
}

/// Splits a text where the byte is not in a quoted string (RFC 9110 §5.6.4); `None` if one is not closed.
fn split(text: &[u8], at: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            byte if *byte == at && !is_quoted => {
                parts.push(text[start..index].trim_ascii());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim_ascii());
    (!is_quoted).then_some(parts)
}

/// A value without its quotes.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let inner = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return text.to_vec();
    };
    let (mut plain, mut is_escaped) = (Vec::with_capacity(inner.len()), false);
    for byte in inner {
        is_escaped = *byte == b'\\' && !is_escaped;
        if !is_escaped {
            plain.push(*byte);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> ClientClaims {
        let fields = fields.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let trusted = "10.0.0.0/8".parse::<service::net::Network>().unwrap();
        ClientClaims::read(&headers, |address| trusted.has(address))
    }

    fn said(claims: &ClientClaims) -> (String, Option<bool>, String) {
        (
            claims
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            claims.is_https,
            claims
                .host
                .as_ref()
                .map(|host| host.to_str().unwrap().to_owned())
                .unwrap_or_default(),
        )
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxys() {
        for (list, client) in [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
            (
                "198.51.100.1, 203.0.113.7, 10.0.0.1,10.0.0.2",
                "203.0.113.7",
            ),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:4711, 10.0.0.1", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("evil, 10.0.0.1", "10.0.0.1"),
            ("203.0.113.7, unknown", ""),
            ("", ""),
        ] {
            let claims = read(&[("x-forwarded-for", list)]);
            assert_eq!(said(&claims).0, client, "{list}");
        }
        let claims = read(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ]);
        assert_eq!(said(&claims).0, "2.2.2.2");
    }

    #[test]
    fn scheme_host_and_port_make_the_clients_view() {
        for (fields, is_https, host) in [
            (&[("x-forwarded-proto", "https")][..], Some(true), ""),
            (&[("x-forwarded-proto", "HTTP, https")], Some(false), ""),
            (&[("x-forwarded-proto", "gopher")], None, ""),
            (&[("x-forwarded-host", "a.example")], None, "a.example"),
            (
                &[("x-forwarded-host", "a.example:8443, b")],
                None,
                "a.example:8443",
            ),
            (&[("x-forwarded-host", "a/b")], None, ""),
            (&[("x-forwarded-host", "user@a")], None, ""),
            (&[("x-forwarded-host", "a:99999")], None, ""),
            (&[("x-forwarded-host", "a:")], None, ""),
            (
                &[
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "a.example"),
                    ("x-forwarded-port", "8443"),
                ],
                Some(true),
                "a.example:8443",
            ),
            (
                &[
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "[::1]"),
                    ("x-forwarded-port", "443"),
                ],
                Some(true),
                "[::1]",
            ),
            (
                &[("x-forwarded-host", "a:1"), ("x-forwarded-port", "2")],
                None,
                "a:1",
            ),
            (
                &[("x-forwarded-host", "a"), ("x-forwarded-port", "65536")],
                None,
                "a",
            ),
        ] {
            let claims = read(fields);
            assert_eq!(
                (claims.is_https, said(&claims).2),
                (is_https, host.to_owned()),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn forwarded_says_what_the_others_do_not() {
        for (list, address, is_https, host) in [
            (
                "for=203.0.113.7;proto=https;host=a.example",
                "203.0.113.7",
                Some(true),
                "a.example",
            ),
            (
                "For=\"[2001:db8::1]:80\"; Host=\"a:5000\"",
                "2001:db8::1",
                None,
                "a:5000",
            ),
            (
                "for=1.1.1.1;host=evil, for=203.0.113.7;host=a",
                "203.0.113.7",
                None,
                "a",
            ),
            (
                "for=203.0.113.7;host=a, for=10.0.0.1;host=b",
                "203.0.113.7",
                None,
                "a",
            ),
            ("for=\"a,b\";proto=https", "", Some(true), ""),
            ("for=_hidden;host=\"a/b\"", "", None, ""),
            ("proto=https;;=;x, ", "", None, ""),
            (
                "for=1.1.1.1;host=evil;x=\", for=203.0.113.7;host=a",
                "",
                None,
                "",
            ),
        ] {
            let claims = read(&[("forwarded", list)]);
            assert_eq!(
                said(&claims),
                (address.to_owned(), is_https, host.to_owned()),
                "{list}"
            );
        }
        let open = ("forwarded", "for=1.1.1.1;host=evil;proto=http;x=\"");
        let claims = read(&[open, ("forwarded", "for=203.0.113.7;host=a;proto=https")]);
        assert_eq!(
            said(&claims),
            ("203.0.113.7".to_owned(), Some(true), "a".to_owned())
        );
        let claims = read(&[open, ("forwarded", "for=10.0.0.1;host=b")]);
        assert_eq!(said(&claims), ("10.0.0.1".to_owned(), None, "b".to_owned()));
        let claims = read(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=203.0.113.7;proto=https;host=a"),
        ]);
        assert_eq!(
            said(&claims),
            ("198.51.100.1".to_owned(), Some(false), "a".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_claim_panics_and_a_host_can_be_a_part_of_a_url(text in "[ -~]{0,60}") {
            for name in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"] {
                let claims = read(&[(name, &text)]);
                if let Some(host) = claims.host {
                    let url = format!("http://{}/v2/", host.to_str().unwrap());
                    let url: http::Uri = url.parse().unwrap();
                    prop_assert_eq!(url.path(), "/v2/");
                }
            }
        }
    }
}
