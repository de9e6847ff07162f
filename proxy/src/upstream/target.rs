//! Where an upstream is, as a configuration says it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderValue;
use service::net::{HttpUrl, Scheme, ServerAddress, UrlError};
use url::{Host, Url};

/// The host of what has no name.
pub(super) const LOCAL: HeaderValue = HeaderValue::from_static("localhost");

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(ServerAddress);

/// Why a text names no upstream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is not a URL, or carries a user or a password.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It is a URL of a scheme that the proxy does not speak.
    #[error("`{0}`: only http:// and unix: upstreams are supported")]
    Scheme(String),
    /// It says more than where the registry is.
    #[error("`{0}`: give scheme, host and port only; a registry's paths begin at /v2/")]
    Path(String),
}

impl Target {
    /// The address.
    pub fn address(&self) -> &ServerAddress {
        &self.0
    }

    /// Its name as a `Host` header has it; a socket has none of its own.
    pub(super) fn authority(&self) -> HeaderValue {
        HeaderValue::try_from(self.0.authority()).unwrap_or(LOCAL)
    }

    /// What follows the address in an absolute URL of this target, or of one of its `addresses`;
    /// `None` for every other text.
    pub(super) fn within<'a>(&self, url: &'a str, addresses: &[SocketAddr]) -> Option<&'a str> {
        let ServerAddress::Tcp { host, port } = &self.0 else {
            return None;
        };
        let start = "http://".len();
        let length = url.get(start..)?.find(['/', '?', '#', '\\']);
        let (origin, rest) = url.split_at(length.map_or(url.len(), |length| start + length));
        // The rest is passed on as it is, so it is not parsed: that would normalize it.
        let origin = Url::parse(origin).ok()?;
        let has_user = !origin.username().is_empty() || origin.password().is_some();
        if origin.scheme() != "http" || has_user {
            return None;
        }
        let named_port = origin.port_or_known_default()?;
        let ip: IpAddr = match origin.host()? {
            Host::Domain(name) => {
                let is_own = *port == named_port && host.eq_ignore_ascii_case(name);
                return is_own.then_some(rest);
            }
            Host::Ipv4(ip) => ip.into(),
            Host::Ipv6(ip) => ip.into(),
        };
        let is_own = (*port == named_port && host.parse() == Ok(ip))
            || addresses.contains(&SocketAddr::new(ip, named_port));
        is_own.then_some(rest)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let url: HttpUrl = text.parse()?;
        if url.scheme() == Scheme::Https {
            return Err(TargetError::Scheme(text.to_owned()));
        }
        if url.path().is_some() {
            return Err(TargetError::Path(text.to_owned()));
        }
        Ok(Target(url.address().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_or_a_socket() {
        let tcp = |host: &str, port| {
            Ok(Target(ServerAddress::Tcp {
                host: host.to_owned(),
                port,
            }))
        };
        assert_eq!("http://registry:5000".parse(), tcp("registry", 5000));
        assert_eq!("http://registry/".parse(), tcp("registry", 80));
        assert_eq!("http://[::1]:5000".parse(), tcp("::1", 5000));
        assert_eq!(
            "unix:/run/r.sock".parse(),
            Ok(Target(ServerAddress::Unix("/run/r.sock".into())))
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
        assert!(matches!(reason("registry:5000"), TargetError::Url(_)));
        assert!(matches!(reason(""), TargetError::Url(_)));
        assert!(matches!(reason("unix:r.sock"), TargetError::Url(_)));
        assert!(matches!(reason("http://a:99999"), TargetError::Url(_)));
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
