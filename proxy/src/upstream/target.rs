//! Where an upstream is, as a configuration says it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderValue;

/// The host of what has no name.
pub(super) const LOCAL: HeaderValue = HeaderValue::from_static("localhost");

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, by name or address, and a port.
    Tcp {
        /// The host, an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket's path.
    Unix(String),
}

/// Why a text names no upstream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is not a URL at all.
    #[error("`{0}` is no URL: expected http://HOST[:PORT] or unix:/PATH")]
    NotAUrl(String),
    /// It is a URL of a kind that cannot be proxied to.
    #[error("`{0}`: only http:// and unix: upstreams can be reached")]
    Scheme(String),
    /// It says more than where the registry is.
    #[error("`{0}`: give scheme, host and port only; a registry's paths begin at /v2/")]
    Path(String),
    /// It carries a user or a password, which is not repeated here.
    #[error("a URL with a user or password: the proxy sends what the client sends")]
    Credentials,
}

impl Target {
    /// Its name as a `Host` header has it; a socket has none of its own.
    pub(super) fn authority(&self) -> HeaderValue {
        let authority = match self {
            Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port } => format!("{host}:{port}"),
            Target::Unix(_) => return LOCAL,
        };
        HeaderValue::try_from(authority).unwrap_or(LOCAL)
    }

    /// What follows the address in an absolute URL of this target, or of one of its `addresses`;
    /// `None` for every other text.
    pub(super) fn within<'a>(&self, url: &'a str, addresses: &[SocketAddr]) -> Option<&'a str> {
        let Target::Tcp { host, port } = self else {
            return None;
        };
        let (scheme, rest) = url.split_at_checked("http://".len())?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (named, port_text) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let named_port = match port_text {
            "" | ":" => 80,
            _ => port_text.strip_prefix(':')?.parse().ok()?,
        };
        let is_own = match named.parse::<IpAddr>() {
            Ok(ip) => {
                (*port == named_port && host.parse() == Ok(ip))
                    || addresses.contains(&SocketAddr::new(ip, named_port))
            }
            Err(_) => *port == named_port && host.eq_ignore_ascii_case(named),
        };
        is_own.then_some(rest)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        if text.contains('@') {
            return Err(TargetError::Credentials);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let absolute = path.starts_with('/');
            return absolute
                .then(|| Target::Unix(path.to_owned()))
                .ok_or_else(|| TargetError::NotAUrl(text.to_owned()));
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|_| TargetError::NotAUrl(text.to_owned()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(TargetError::NotAUrl(text.to_owned()));
        };
        if scheme != "http" {
            return Err(TargetError::Scheme(text.to_owned()));
        }
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !bare {
            return Err(TargetError::Path(text.to_owned()));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(TargetError::NotAUrl(text.to_owned())),
        };
        Ok(Target::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_or_a_socket() {
        let tcp = |host: &str, port| {
            Ok(Target::Tcp {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!("http://registry:5000".parse(), tcp("registry", 5000));
        assert_eq!("http://registry/".parse(), tcp("registry", 80));
        assert_eq!("http://[::1]:5000".parse(), tcp("::1", 5000));
        assert_eq!(
            "unix:/run/r.sock".parse(),
            Ok(Target::Unix("/run/r.sock".to_owned()))
        );
    }

    #[test]
    fn only_a_url_of_the_targets_own_address_is_within_it() {
        let within = |target: &str, url: &str| {
            let target: Target = target.parse().unwrap();
            target.within(url, &[]).map(str::to_owned)
        };
        for (target, url, rest) in [
            (
                "http://registry:5000",
                "http://registry:5000/v2/?a=b",
                "/v2/?a=b",
            ),
            ("http://registry:5000", "HTTP://Registry:5000/v2/", "/v2/"),
            ("http://registry", "http://registry/v2/", "/v2/"),
            ("http://registry", "http://registry:80/v2/", "/v2/"),
            ("http://registry", "http://registry:/v2/", "/v2/"),
            ("http://registry:80", "http://registry?x", "?x"),
            ("http://registry:5000", "http://registry:5000", ""),
            ("http://[::1]:5000", "http://[0:0::1]:5000/x", "/x"),
            ("http://[::1]", "http://[::1]/x", "/x"),
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1/%2F../x",
                "/%2F../x",
            ),
        ] {
            assert_eq!(within(target, url).as_deref(), Some(rest), "{url}");
        }
        for (target, url) in [
            ("http://registry:5000", "/v2/"),
            ("http://registry:5000", ""),
            ("http://registry:5000", "//registry:5000/v2/"),
            ("http://registry:5000", "https://registry:5000/v2/"),
            ("http://registry:5000", "http://registry/v2/"),
            ("http://registry:5000", "http://registry:5001/v2/"),
            ("http://registry:5000", "http://registry:50000/v2/"),
            ("http://registry:5000", "http://registry.example:5000/v2/"),
            ("http://registry:5000", "http://registry:5000@evil/v2/"),
            ("http://registry:5000", "http://user@registry:5000/v2/"),
            ("http://registry:5000", "http://registry:5000x/v2/"),
            ("http://[::1]:5000", "http://[::1]5000/v2/"),
            ("http://[::1]:5000", "http://::1:5000/v2/"),
            ("unix:/run/r.sock", "http://localhost/v2/"),
            ("unix:/run/r.sock", "http:///run/r.sock/v2/"),
        ] {
            assert_eq!(within(target, url), None, "{url}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_its_reason() {
        let reason = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(matches!(reason("registry:5000"), TargetError::NotAUrl(_)));
        assert!(matches!(reason(""), TargetError::NotAUrl(_)));
        assert!(matches!(reason("unix:r.sock"), TargetError::NotAUrl(_)));
        assert!(matches!(reason("http://a:99999"), TargetError::NotAUrl(_)));
        assert!(matches!(reason("https://registry"), TargetError::Scheme(_)));
        assert!(matches!(
            reason("http://registry/v2/"),
            TargetError::Path(_)
        ));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let error = "http://user:secret@registry".parse::<Target>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
