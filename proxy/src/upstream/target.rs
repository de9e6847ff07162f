//! Where an upstream is, as a configuration says it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderValue;
use service::net::{HttpUrl, Scheme, ServerAddress, UrlError};
use url::{Host, Url};

/// The host of what has no name.
pub(super) const LOCAL: HeaderValue = HeaderValue::from_static("localhost");

/// Where an upstream is: its address, and the path under which the registry is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without a path.
    server: HttpUrl,
    /// Begins with a slash and does not end with one; mostly empty.
    prefix: String,
}

/// Why a text names no upstream.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// It is not a URL, or carries a user or a password.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Its path is not one that can precede another.
    #[error(
        "`{0}`: the path must be one that precedes /v2/, without a query, a fragment, or empty and \
         dot segments"
    )]
    Path(String),
    /// Its path has what every request's path has.
    #[error("`{0}`: leave out /v2, with which each path of a registry begins")]
    Version(String),
}

impl Target {
    /// The address.
    pub fn address(&self) -> &ServerAddress {
        self.server.address()
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.server.scheme()
    }

    /// What precedes each path that the upstream is asked for.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of a path of the registry.
    pub fn url(&self, path: &str) -> HttpUrl {
        let path = format!("{}{path}", self.prefix);
        self.server.clone().with_path(&path)
    }

    /// Whether a URL is of the same server.
    pub(super) fn is_at(&self, url: &HttpUrl) -> bool {
        self.server.is_of_server(url)
    }

    /// Whether nobody on the way can read what is sent there.
    pub fn is_private(&self) -> bool {
        self.server.is_private()
    }

    /// Its name as a `Host` header has it; a socket has none of its own.
    pub(super) fn authority(&self) -> HeaderValue {
        HeaderValue::try_from(self.server.authority()).unwrap_or(LOCAL)
    }

    /// What follows the upstream's own address and the prefix in an absolute URL; `None` for every
    /// other text. Its own are the address of this target, its `addresses`, and the host that it is
    /// `asked` for: of that one, it may build URLs with either scheme.
    pub(super) fn within<'a>(
        &self,
        url: &'a str,
        addresses: &[SocketAddr],
        asked: Option<&str>,
    ) -> Option<&'a str> {
        let is_of = |scheme: &&str| {
            let start = url.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let start = ["http://", "https://"]
            .iter()
            .find(|scheme| is_of(scheme))?;
        let start = start.len();
        let length = url.get(start..)?.find(['/', '?', '#', '\\']);
        let (origin, rest) = url.split_at(length.map_or(url.len(), |length| start + length));
        // The rest is passed on as it is, so it is not parsed: that would normalize it.
        let origin = Url::parse(origin).ok()?;
        let has_user = !origin.username().is_empty() || origin.password().is_some();
        if has_user {
            return None;
        }
        if self.is_own(&origin, addresses) || asked.is_some_and(|asked| is_asked(&origin, asked)) {
            return self.below_prefix(rest);
        }
        None
    }

    /// What follows the prefix in a path; `None` if the path has another beginning, or there is no
    /// prefix.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return None;
        }
        // Without the prefix, what follows must not become the name of another host.
        let is_host = |path: &&str| path.starts_with("//") || path.starts_with("/\\");
        self.below_prefix(path).filter(|path| !is_host(path))
    }

    fn below_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.prefix.as_str())?;
        // `/docker2` is not below `/docker`.
        let is_whole =
            self.prefix.is_empty() || rest.is_empty() || rest.starts_with(['/', '?', '#']);
        is_whole.then_some(rest)
    }

    fn is_own(&self, origin: &Url, addresses: &[SocketAddr]) -> bool {
        let ServerAddress::Tcp { host, port } = self.address() else {
            return false;
        };
        let is_https = origin.scheme() == "https";
        if is_https != (self.scheme() == Scheme::Https) {
            return false;
        }
        let (Some(named), Some(named_port)) = (origin.host(), origin.port_or_known_default())
        else {
            return false;
        };
        let ip: IpAddr = match named {
            Host::Domain(name) => {
                return *port == named_port && host.eq_ignore_ascii_case(name);
            }
            Host::Ipv4(ip) => ip.into(),
            Host::Ipv6(ip) => ip.into(),
        };
        (*port == named_port && host.parse() == Ok(ip))
            || addresses.contains(&SocketAddr::new(ip, named_port))
    }
}

/// Whether a URL's origin has the host of a `Host` header. The header names no scheme: the upstream
/// takes the one that it believes to be the client's.
fn is_asked(origin: &Url, asked: &str) -> bool {
    let asked = Url::parse(&format!("{}://{asked}", origin.scheme()));
    asked.is_ok_and(|asked| {
        asked.host() == origin.host()
            && asked.port_or_known_default() == origin.port_or_known_default()
    })
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let url: HttpUrl = text.parse()?;
        let path = url.path().unwrap_or_default();
        let prefix = path.strip_suffix('/').unwrap_or(path);
        let mut segments = prefix.split('/').skip(1);
        let is_plain = |segment: &str| {
            // An encoded dot is one, too, for servers that decode before they resolve.
            let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
            !matches!(decoded.as_str(), "" | "." | "..")
        };
        let is_fit = segments.all(is_plain) && !prefix.contains(['?', '#', '\\']);
        // A socket's path may have a `#`; a parsed URL has lost its fragment.
        if !is_fit || (url.scheme() != Scheme::Unix && text.contains('#')) {
            return Err(TargetError::Path(text.to_owned()));
        }
        if prefix.ends_with("/v2") {
            return Err(TargetError::Version(text.to_owned()));
        }
        Ok(Target {
            prefix: prefix.to_owned(),
            server: url.with_path(""),
        })
    }
}

#[cfg(test)]
mod tests;
