//! The status page: what a browser shows of the metrics. It is one file that loads nothing but the
//! metrics, from where it came from itself, so that it costs a request and a scrape nothing.
//!
//! Deliberately not here: passwords, which the endpoints check for the page as for a scrape, and on
//! which listeners it is served.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

mod fields;

pub use self::fields::{StatusPageFields, StatusPageListeners};

const TEMPLATE: &str = include_str!("status_page/page.html");
const STYLE: &str = include_str!("status_page/style.css");
/// One module of JavaScript, in files of one idea each.
const SCRIPT: &str = concat!(
    include_str!("status_page/exposition.js"),
    include_str!("status_page/series.js"),
    include_str!("status_page/text.js"),
    include_str!("status_page/problems.js"),
    include_str!("status_page/elements.js"),
    include_str!("status_page/figures.js"),
    include_str!("status_page/tables.js"),
    include_str!("status_page/sections.js"),
    include_str!("status_page/poll.js"),
);

/// The headers of programs that forward for others: what has one did not come straight from a browser.
const FORWARDED: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "via",
];

/// What a browser gets that asks by a name which is not permitted.
pub(super) const WRONG_HOST: &str = "Without a password the status page opens by an IP address or by \
     localhost only, and not through another proxy: otherwise a web site could have a visitor's browser \
     read it. Set metrics.basic_auth, or add this name to metrics.status_page.hosts.\n";

/// The page, for one path of the metrics.
#[derive(Debug)]
pub struct StatusPage {
    html: Bytes,
    policy: HeaderValue,
    /// The names by which it may be asked for without a password, in lower case.
    hosts: Vec<String>,
}

impl StatusPage {
    /// The page over the metrics at `path`, which nobody can mistake for markup: it is a plain path.
    pub fn new(path: &str, hosts: &[String]) -> StatusPage {
        let html = TEMPLATE
            .replace("{metrics}", path)
            .replace("{style}", STYLE)
            .replace("{script}", SCRIPT);
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        StatusPage {
            html: html.into(),
            // Always a value: base64 and the text above are visible ASCII.
            policy: HeaderValue::try_from(policy)
                .unwrap_or(HeaderValue::from_static("default-src 'none'")),
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        }
    }

    /// The page itself.
    pub(super) fn html(&self) -> Bytes {
        self.html.clone()
    }

    /// The headers that bound what the page can do, and who can hold it in a frame.
    pub(super) fn headers(&self) -> [(HeaderName, HeaderValue); 4] {
        let corp = HeaderName::from_static("cross-origin-resource-policy");
        [
            (CONTENT_SECURITY_POLICY, self.policy.clone()),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (corp, HeaderValue::from_static("same-origin")),
        ]
    }

    /// Whether a request without a password may have it. A web site can have its own name resolve to
    /// this address, and a terminator on this machine can make a loopback address public; both ask by
    /// a name, and the second often says for whom.
    pub(super) fn permits(&self, request: &Parts) -> bool {
        let Some(authority) = authority(request) else {
            return false;
        };
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        self.hosts.iter().any(|name| name == host)
            || (is_local(host) && !FORWARDED.iter().any(|name| has(&request.headers, name)))
    }
}

fn has(headers: &HeaderMap, name: &str) -> bool {
    headers.contains_key(name)
}

/// The one host that a request is for.
fn authority(request: &Parts) -> Option<Authority> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.clone());
    }
    let mut values = request.headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let authority = Authority::try_from(value.as_bytes()).ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// Whether nobody else can have the name: an address, or this machine's own.
fn is_local(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host == "localhost"
                || host.ends_with(".localhost")
                || host.parse::<std::net::Ipv4Addr>().is_ok()
        }
    }
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn permits(page: &StatusPage, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        page.permits(&parts)
    }

    #[test]
    fn without_a_password_only_names_that_no_web_site_can_have_are_permitted() {
        let page = StatusPage::new("/metrics", &["Status.Example".to_owned()]);
        for host in [
            "127.0.0.1:5001",
            "[::1]:5001",
            "192.0.2.7",
            "localhost:5001",
            "LOCALHOST.",
            "a.localhost",
            "status.example:80",
        ] {
            assert!(permits(&page, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x.status.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "[evil]",
            "",
        ] {
            assert!(!permits(&page, &[("host", host)]), "{host}");
        }
        assert!(!permits(&page, &[]));
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert!(!permits(&page, &twice));
    }

    #[test]
    fn what_was_forwarded_is_permitted_by_a_configured_name_only() {
        let page = StatusPage::new("/metrics", &["status.example".to_owned()]);
        for name in FORWARDED {
            assert!(!permits(&page, &[("host", "127.0.0.1"), (name, "a")]));
            assert!(permits(&page, &[("host", "status.example"), (name, "a")]));
        }
    }

    #[test]
    fn the_policy_permits_this_script_and_this_style_alone() {
        let page = StatusPage::new("/-/figures", &[]);
        let html = String::from_utf8(page.html().to_vec()).unwrap();
        assert!(html.contains("data-metrics=\"/-/figures\""));
        let between = |open: &str, close: &str| {
            let (_, rest) = html.split_once(open).unwrap();
            rest.split_once(close).unwrap().0.to_owned()
        };
        let policy = page.policy.to_str().unwrap();
        for (directive, text) in [
            (
                "script-src",
                between("<script type=\"module\">", "</script>"),
            ),
            ("style-src", between("<style>", "</style>")),
        ] {
            let source = format!("{directive} 'sha256-{}';", hash(&text));
            assert!(policy.contains(&source), "{policy}: {source}");
        }
        assert_eq!(html.matches("<script").count(), 1);
        // What needs the script is not there, or not promised, without it.
        assert!(html.contains("id=\"pause\" aria-pressed=\"false\" hidden>"));
        let (_, body) = html.split_once("<body>").unwrap();
        assert!(!body.split("<script").next().unwrap().contains("Waiting"));
        assert_eq!(html.matches("<style").count(), 1);
        // The name of a namespace, which nobody fetches.
        let svg = "\"http://www.w3.org/2000/svg\"";
        assert_eq!(html.matches(svg).count(), 1);
        let html = html.replace(svg, "");
        for outside in ["http:", "https:", "url(", "@import", "innerHTML", " on"] {
            let is_handler = outside == " on";
            let found = html.match_indices(outside).any(|(at, _)| {
                // An attribute such as `onclick=`, not the word.
                let rest = &html[at + outside.len()..];
                let word = rest.split(|c: char| !c.is_ascii_lowercase()).next();
                !is_handler || word.is_some_and(|w| rest[w.len()..].starts_with("=\""))
            });
            assert!(!found, "{outside}");
        }
    }
}
