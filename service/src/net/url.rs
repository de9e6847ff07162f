//! The one parser of `http[s]://HOST[:PORT][/PATH]` and `unix:/PATH`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

use super::address::ServerAddress;

/// Where an HTTP server is, and what to ask it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    scheme: Scheme,
    address: ServerAddress,
    /// Path and query; empty where the text has none or `/`.
    path: String,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP over TCP.
    Http,
    /// HTTP inside TLS.
    Https,
    /// Plain HTTP over a Unix socket.
    Unix,
}

impl Scheme {
    /// The port of a URL that names none.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Unix => None,
        }
    }
}

/// A text that is not an [`HttpUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It has another form.
    #[error("`{0}` is not a URL: expected http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH")]
    Malformed(String),
    /// It carries a user or a password, which is not repeated here.
    #[error("a URL must not contain a user or a password")]
    Credentials,
}

impl HttpUrl {
    /// A URL of these parts, without TLS.
    pub fn new(address: ServerAddress, path: &str) -> Self {
        let scheme = match address {
            ServerAddress::Tcp { .. } => Scheme::Http,
            ServerAddress::Unix(_) => Scheme::Unix,
        };
        let path = path.to_owned();
        Self {
            scheme,
            address,
            path,
        }
    }

    /// The same server with this path and query.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The server as a `Host` header has it: with its port, unless that is the scheme's own.
    pub fn authority(&self) -> String {
        let authority = self.address.authority();
        let own = self.scheme.default_port().map(|port| format!(":{port}"));
        match own.and_then(|own| authority.strip_suffix(&own)) {
            Some(host) => host.to_owned(),
            None => authority,
        }
    }

    /// The same URL, inside TLS.
    #[must_use]
    pub fn inside_tls(mut self) -> Self {
        self.scheme = Scheme::Https;
        self
    }

    /// How the server is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where the server is.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The same URL without its query, which may hold a secret, for a log.
    #[must_use]
    pub fn without_query(&self) -> Self {
        let path = self.path.split('?').next().unwrap_or_default();
        self.clone().with_path(path)
    }

    /// Whether nobody on the way can read what is sent there: it is inside TLS, or stays on this machine.
    pub fn is_private(&self) -> bool {
        match (self.scheme, &self.address) {
            (Scheme::Https | Scheme::Unix, _) | (_, ServerAddress::Unix(_)) => true,
            (Scheme::Http, ServerAddress::Tcp { host, .. }) => {
                let ip: Result<IpAddr, _> = host.parse();
                let is_loopback = ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
                is_loopback || host.eq_ignore_ascii_case("localhost")
            }
        }
    }

    /// Whether both are of the same server, as far as their texts tell.
    pub fn is_of_server(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && match (&self.address, &other.address) {
                (
                    ServerAddress::Tcp { host, port },
                    ServerAddress::Tcp {
                        host: other_host,
                        port: other_port,
                    },
                ) => port == other_port && host.eq_ignore_ascii_case(other_host),
                (one, other) => one == other,
            }
    }

    /// Whether it is the other one, or one of the same server whose path continues the other's, and does
    /// not leave it again by dots.
    pub fn is_below(&self, other: &Self) -> bool {
        let rest = self.path.strip_prefix(other.path.as_str());
        let is_whole = |rest: &str| {
            rest.is_empty() || rest.starts_with(['/', '?']) || other.path.ends_with(['/', '?'])
        };
        // Servers decode what is encoded, some of them twice.
        let may_leave = |rest: &str| {
            let path = rest.split('?').next().unwrap_or_default();
            let is_dots = |part: &str| matches!(part, "." | "..");
            path.contains(['%', '\\']) || path.split(['/', ';']).any(is_dots)
        };
        self.is_of_server(other) && rest.is_some_and(|rest| is_whole(rest) && !may_leave(rest))
    }

    /// Path and query; `None` where the URL names none, or only `/`.
    pub fn path(&self) -> Option<&str> {
        (!self.path.is_empty()).then_some(self.path.as_str())
    }

    /// The same URL with this path where it names none.
    #[must_use]
    pub fn with_default_path(mut self, path: &str) -> Self {
        if self.path.is_empty() {
            path.clone_into(&mut self.path);
        }
        self
    }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let malformed = || UrlError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel would end a path at NUL.
            let is_path = path.starts_with('/') && !path.contains('\0');
            let address = is_path.then(|| ServerAddress::Unix(path.into()));
            return address
                .map(|address| Self::new(address, ""))
                .ok_or_else(malformed);
        }
        // Before the text is parsed: no error may repeat a password.
        if text.contains('@') {
            return Err(UrlError::Credentials);
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let (scheme, default) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            _ => return Err(malformed()),
        };
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => default,
            // There is a port, and it is none: 99999, or nothing after the colon.
            None => return Err(malformed()),
        };
        let host = authority.host();
        // To connect takes an IPv6 address without its brackets.
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(malformed());
        }
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        Ok(Self {
            scheme,
            address: ServerAddress::Tcp {
                host: host.to_owned(),
                port,
            },
            path: if path == "/" { "" } else { path }.to_owned(),
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Http => write!(f, "{}{}", self.address, self.path),
            Scheme::Https => write!(f, "https://{}{}", self.address.authority(), self.path),
            Scheme::Unix => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        let host = host.to_owned();
        ServerAddress::Tcp { host, port }
    }

    #[test]
    fn a_url_has_a_scheme_an_address_and_perhaps_a_path() {
        for (text, scheme, address, path) in [
            (
                "http://registry:5000",
                Scheme::Http,
                tcp("registry", 5000),
                None,
            ),
            ("http://registry/", Scheme::Http, tcp("registry", 80), None),
            (
                "http://[::1]:5001/m?x=1",
                Scheme::Http,
                tcp("::1", 5001),
                Some("/m?x=1"),
            ),
            (
                "https://192.0.2.7",
                Scheme::Https,
                tcp("192.0.2.7", 443),
                None,
            ),
            (
                "unix:/run/m.sock",
                Scheme::Unix,
                ServerAddress::Unix("/run/m.sock".into()),
                None,
            ),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!(
                (url.scheme(), url.address(), url.path()),
                (scheme, &address, path)
            );
        }
    }

    #[test]
    fn a_port_that_is_none_is_not_the_default_port() {
        for text in [
            "http://h:99999/",
            "http://h:/",
            "http://h:0x50/",
            "https://h:65536",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "registry:5000",
            "127.0.0.1:5001",
            "/readyz",
            "unix:m.sock",
            "unix:",
            "unix:/a\0b",
            "ftp://h/",
            "http://",
            "http:///x",
            "http://[]:1/",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_authority_has_the_port_unless_it_is_the_schemes_own() {
        for (text, authority) in [
            ("http://h", "h"),
            ("http://h:443", "h:443"),
            ("https://h:443/x", "h"),
            ("https://h:80", "h:80"),
            ("http://[::1]:80", "[::1]"),
            ("http://h:8080", "h:8080"),
            ("unix:/h:80", "localhost"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().authority(), authority);
        }
    }

    #[test]
    fn what_is_sent_over_tls_or_to_this_machine_is_private() {
        let is_private = |text: &str| text.parse::<HttpUrl>().unwrap().is_private();
        for text in [
            "https://h",
            "unix:/h",
            "http://localhost:1",
            "http://127.9.0.1",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]/x",
        ] {
            assert!(is_private(text), "{text}");
        }
        for text in [
            "http://h",
            "http://localhost.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
        ] {
            assert!(!is_private(text), "{text}");
        }
    }

    #[test]
    fn a_url_is_below_another_of_its_server_whose_path_it_continues() {
        let is_below = |text: &str, other: &str| {
            let other = other.parse().unwrap();
            text.parse::<HttpUrl>().unwrap().is_below(&other)
        };
        for (text, other) in [
            ("https://h/token", "https://H:443/token"),
            ("https://h/token?x", "https://h/token"),
            ("https://h/token/x", "https://h/token"),
            ("https://h/token/x.y?z=../%2e", "https://h/token"),
            ("https://h/token", "https://h"),
            ("https://h/token", "https://h/"),
            ("unix:/h", "unix:/h"),
        ] {
            assert!(is_below(text, other), "{text} {other}");
        }
        for (text, other) in [
            ("https://h/token", "http://h/token"),
            ("https://h/token", "https://h:444/token"),
            ("https://h.evil/token", "https://h/token"),
            ("https://h/token2", "https://h/token"),
            ("https://h/", "https://h/token"),
            ("https://h/token/../x", "https://h/token"),
            ("https://h/token/%2e%2e/x", "https://h/token"),
            ("https://h/token/..;a/x", "https://h/token"),
            ("https://h/token/a%2f..%2f../x", "https://h/token"),
            ("https://h/../x", "https://h/"),
            ("unix:/h2", "unix:/h"),
        ] {
            assert!(!is_below(text, other), "{text} {other}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = "http://user:secret@h:99999/"
            .parse::<HttpUrl>()
            .unwrap_err();
        assert_eq!(error, UrlError::Credentials);
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_url_is_printed_as_it_is_read() {
        for text in [
            "http://127.0.0.1:5001/readyz",
            "http://[::1]:5001/readyz",
            "http://registry:80/v2/?x",
            "https://registry:443/v2/",
            "unix:/run/metrics.sock",
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().to_string(), text);
        }
    }
}
