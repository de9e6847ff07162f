//! How a client sees the proxy: what the upstream is told of it, and what its responses must name.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;

use super::framing::RequestHead;
use super::local_url::{self, ClientOrigin};
use crate::cors::CrossOrigin;
use crate::forwarded::ClientClaims;
use crate::upstream::{RequestMatch, Upstream, Upstreams};

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
    pub(super) asked: Option<AskedReplica<'r>>,
}

/// The replica that the request is sent to.
#[derive(Clone, Copy)]
pub(super) struct AskedReplica<'r> {
    /// All upstreams, of one of which it is.
    pub(super) among: &'r Upstreams,
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

    /// How the client reaches the proxy.
    pub(super) fn origin(self) -> ClientOrigin<'r> {
        ClientOrigin {
            scheme: self.scheme(),
            host: self.host(),
        }
    }

    /// Lets a response that names the upstream by its own address name the proxy instead, as the client
    /// does: the client may not know that address, and would pass the proxy by. A path loses what the
    /// proxy has put before it, and gets again what the upstream does not know of: the prefix of its
    /// repositories, and the registry by which the upstream was chosen. Everything else stays byte for byte.
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
        let ours = |url: &str| {
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
        let matching = upstream.matching();
        let local = |url: &str| {
            let ours = ours(url);
            let named = self.name_again(ours.as_deref().unwrap_or(url), matching);
            named.or(ours)
        };
        for (name, rewrite) in rewrite {
            // Most responses have none of them, and an entry would make room for one.
            if !headers.contains_key(&name) {
                continue;
            }
            let is_challenge = name == header::WWW_AUTHENTICATE;
            let header::Entry::Occupied(mut values) = headers.entry(name) else {
                continue;
            };
            for value in values.iter_mut() {
                let rewritten = value.to_str().ok().and_then(|text| rewrite(text, &local));
                // Parts of header values make a header value.
                if let Some(Ok(rewritten)) = rewritten.map(HeaderValue::try_from) {
                    *value = rewritten;
                }
                if is_challenge {
                    self.name_scopes_again(value, matching);
                }
            }
        }
    }

    /// A URL of the proxy with what the upstream does not know of; `None` if it stays.
    fn name_again(self, url: &str, matching: &RequestMatch) -> Option<String> {
        if matching.stripped.is_none() && matching.ns.is_empty() {
            return None;
        }
        let (origin, target) = url.split_at(local_url::local_path_start(url, self.origin())?);
        let prefix = matching.stripped.as_ref();
        let added = prefix.and_then(|prefix| prefix.add_to_path(target));
        let named = added.as_deref().unwrap_or(target);
        // A client follows the URL as it is, and would not name the registry again.
        let ns = self.ns().filter(|_| !matching.ns.is_empty());
        let named = ns.and_then(|ns| with_field(named, ns)).or(added)?;
        Some([origin, &named].concat())
    }

    /// The parameter of the request's query by which its upstream was chosen.
    fn ns(self) -> Option<&'r str> {
        let mut fields = self.request.target.query()?.split('&');
        fields.find(|field| is_ns(field))
    }

    /// Gives the scopes of a challenge the names by which the client knows repositories, if the client asks
    /// the proxy for the token. Another realm knows the upstream's names alone.
    fn name_scopes_again(self, challenge: &mut HeaderValue, matching: &RequestMatch) {
        let Some(prefix) = &matching.stripped else {
            return;
        };
        let Ok(text) = challenge.to_str() else {
            return;
        };
        let is_ours = |realm: &str| {
            let is_absolute = realm.contains("://");
            is_absolute && local_url::local_path_start(realm, self.origin()).is_some()
        };
        if parameter(text, REALM, &|realm| is_ours(realm).then(String::new)).is_some()
            && let Some(named) = parameter(text, SCOPE, &|scopes| prefix.add_to_scopes(scopes))
            && let Ok(named) = HeaderValue::try_from(named)
        {
            *challenge = named;
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
const REALM: &str = "realm=\"";

/// So is what a token must allow, which a token's challenge may have.
const SCOPE: &str = "scope=\"";

/// Of Basic, the realm is any text.
fn challenge(value: &str, local: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let realm = |text: &str| text.contains("://").then(|| local(text)).flatten();
    parameter(value, REALM, &realm)
}

/// Replaces each parameter of a challenge that begins like this.
fn parameter(value: &str, name: &str, replaced: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let begin = |rest: &str| {
        let places = 0..rest.len();
        let mut places = places.filter(|at| rest.is_char_boundary(*at));
        let is_named = |at: usize| {
            let found = rest.get(at..at + name.len());
            let is_whole = rest[..at].ends_with([' ', '\t', ',']) || at == 0;
            is_whole && found.is_some_and(|found| found.eq_ignore_ascii_case(name))
        };
        places.find(|at| is_named(*at)).map(|at| at + name.len())
    };
    replace(value, begin, '"', replaced)
}

/// A URL's target with one more field in its query; `None` if it names a registry already.
fn with_field(target: &str, field: &str) -> Option<String> {
    let (target, fragment) = target.split_at(target.find('#').unwrap_or(target.len()));
    let query = target.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|query| query.split('&').any(is_ns)) {
        return None;
    }
    let joint = if query.is_some() { '&' } else { '?' };
    Some(format!("{target}{joint}{field}{fragment}"))
}

/// Whether a field of a query is containerd's, which names a registry.
fn is_ns(field: &str) -> bool {
    let name = field.split('=').next().unwrap_or_default();
    percent_decode_str(name).eq(*b"ns")
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
