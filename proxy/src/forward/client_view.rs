//! How a client sees the proxy: what the upstream is told of it, and what its responses must name.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::framing::RequestHead;
use crate::cors::CrossOrigin;
use crate::forwarded::ClientClaims;
use crate::upstream::Upstream;

/// A request, and what a trusted peer says of its client.
#[derive(Clone, Copy)]
pub(super) struct ClientView<'r> {
    pub(super) request: &'r RequestHead,
    /// `None` where the peer is not trusted.
    pub(super) claims: Option<&'r ClientClaims>,
    /// Whether the connection is inside TLS.
    pub(super) is_tls: bool,
    /// Whether another origin may read the response; `None` says nothing of it.
    pub(super) cors: Option<&'r CrossOrigin<'r>>,
    /// `None` before one was chosen, and of the registry in this process.
    pub(super) asked: Option<AskedReplica>,
}

/// The replica that the request is sent to.
#[derive(Clone, Copy)]
pub(super) struct AskedReplica {
    /// The place of the replica among all of them.
    pub(super) index: usize,
    /// The request was for an upload session that it has.
    pub(super) has_session: bool,
}

impl<'r> ClientView<'r> {
    /// The scheme that the client used.
    pub(super) fn scheme(self) -> &'static str {
        let claimed = self.claims.and_then(|claims| claims.is_https);
        scheme(claimed.unwrap_or(self.is_tls))
    }

    /// The scheme of the connection, whose client may be a proxy.
    pub(super) fn peer_scheme(self) -> &'static str {
        scheme(self.is_tls)
    }

    /// The host that the client asked for, if it named one.
    pub(super) fn host(self) -> Option<&'r HeaderValue> {
        let claimed = self.claims.and_then(|claims| claims.host.as_ref());
        claimed.or(self.request.host.as_ref())
    }

    /// Lets a response that names the upstream by its own address name the proxy instead, as the client
    /// does: the client may not know that address, and would pass the proxy by. A path loses what the
    /// proxy has put before it. Everything else stays byte for byte.
    pub(super) fn localize(self, headers: &mut HeaderMap, upstream: &Upstream) {
        let rewrite: [(HeaderName, Rewrite); 3] = [
            (header::LOCATION, |url, local| local(url)),
            (header::LINK, link),
            (header::WWW_AUTHENTICATE, challenge),
        ];
        // The registry in this process knows no address of its own.
        let Some(AskedReplica { index, .. }) = self.asked else {
            return;
        };
        let local = |url: &str| {
            let Some(path) = upstream.below(index, url) else {
                let host = self.host().and_then(|host| host.to_str().ok());
                return Some(self.local(upstream.within(index, url, host)?));
            };
            // It stays relative: to what the client asked for.
            Some(if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            })
        };
        for (name, rewrite) in rewrite {
            // Most responses have none of them, and an entry would make room for one.
            if !headers.contains_key(&name) {
                continue;
            }
            let header::Entry::Occupied(mut values) = headers.entry(name) else {
                continue;
            };
            for value in values.iter_mut() {
                let rewritten = value.to_str().ok().and_then(|text| rewrite(text, &local));
                // Parts of header values make a header value.
                if let Some(Ok(rewritten)) = rewritten.map(HeaderValue::try_from) {
                    *value = rewritten;
                }
            }
        }
    }

    /// The URL by which the client reaches a path of the upstream.
    fn local(self, path: &str) -> String {
        let host = self.host().and_then(|host| host.to_str().ok());
        match host {
            Some(host) => format!("{}://{host}{path}", self.scheme()),
            // HTTP/1.0 need not name a host; a path alone is relative to whatever was asked.
            None if path.starts_with('/') => path.to_owned(),
            None => format!("/{path}"),
        }
    }
}

fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// What becomes of a header's value; `None` if it stays. The function makes a URL of the upstream one of
/// the proxy.
type Rewrite = fn(&str, &dyn Fn(&str) -> Option<String>) -> Option<String>;

/// The targets of a `Link` are in angle brackets (RFC 8288 §3).
fn link(value: &str, local: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    replace(value, |rest| rest.find('<').map(|at| at + 1), '>', local)
}

/// The realm of a challenge is a quoted string (RFC 9110 §11.5); a token's is a URL.
fn challenge(value: &str, local: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    const REALM: &str = "realm=\"";
    let realm = |rest: &str| {
        let places = 0..rest.len();
        let mut places = places.filter(|at| rest.is_char_boundary(*at));
        let is_realm = |at: usize| {
            let name = rest.get(at..at + REALM.len());
            let is_whole = rest[..at].ends_with([' ', '\t', ',']) || at == 0;
            is_whole && name.is_some_and(|name| name.eq_ignore_ascii_case(REALM))
        };
        places.find(|at| is_realm(*at)).map(|at| at + REALM.len())
    };
    replace(value, realm, '"', local)
}

/// Replaces each URL of the upstream that begins where `begin` finds it, and ends at a character.
fn replace(
    value: &str,
    begin: impl Fn(&str) -> Option<usize>,
    end: char,
    local: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let (mut replaced, mut rest) = (None, value);
    while let Some(start) = begin(rest) {
        let Some(length) = rest[start..].find(end) else {
            break;
        };
        let (before, from) = rest.split_at(start);
        let (url, after) = from.split_at(length);
        if let Some(url) = local(url) {
            let replaced: &mut String =
                replaced.get_or_insert_with(|| value[..value.len() - rest.len()].to_owned());
            replaced.push_str(before);
            replaced.push_str(&url);
        } else if let Some(replaced) = &mut replaced {
            replaced.push_str(before);
            replaced.push_str(url);
        }
        rest = after;
    }
    replaced.map(|replaced| replaced + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(url: &str) -> Option<String> {
        let path = url.strip_prefix("http://up:5000")?;
        Some(format!("https://us{path}"))
    }

    #[test]
    fn each_target_of_a_link_that_is_the_upstreams_becomes_ours() {
        for (value, rewritten) in [
            (
                "<http://up:5000/v2/_catalog?last=a&n=1>; rel=\"next\"",
                Some("<https://us/v2/_catalog?last=a&n=1>; rel=\"next\""),
            ),
            (
                "</a>; rel=x, <http://up:5000/b>, <http://else/c>, <http://up:5000/d>; title=\"<\"",
                Some("</a>; rel=x, <https://us/b>, <http://else/c>, <https://us/d>; title=\"<\""),
            ),
            ("</v2/_catalog?last=a>; rel=\"next\"", None),
            ("<http://up:5000/unfinished", None),
            ("http://up:5000/bare", None),
            ("", None),
        ] {
            assert_eq!(link(value, &local).as_deref(), rewritten, "{value}");
        }
    }

    #[test]
    fn the_realm_of_a_challenge_that_is_the_upstreams_becomes_ours() {
        for (value, rewritten) in [
            (
                "Bearer realm=\"http://up:5000/token\",service=\"s\"",
                Some("Bearer realm=\"https://us/token\",service=\"s\""),
            ),
            (
                "Basic realm=\"a\", Bearer service=\"s\", REALM=\"http://up:5000/t\"",
                Some("Basic realm=\"a\", Bearer service=\"s\", REALM=\"https://us/t\""),
            ),
            ("Bearer realm=\"https://auth.example/token\"", None),
            ("Bearer xrealm=\"http://up:5000/t\"", None),
            ("Bearer realm=\"http://up:5000/t", None),
            ("Basic realm=\"ü\"", None),
        ] {
            assert_eq!(challenge(value, &local).as_deref(), rewritten, "{value}");
        }
    }
}
