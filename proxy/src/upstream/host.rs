//! The `Host` that an upstream is asked for.

use std::str::FromStr;

use http::HeaderValue;
use http::uri::Authority;

/// The `Host` that an upstream is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Keep,
    /// The upstream's own, as its URL names it.
    Upstream,
    /// This one.
    Name(HeaderValue),
}

impl HostHeader {
    /// The host that an upstream of this name is asked for; `None` if the client's is kept.
    pub(super) fn of(&self, upstream: &HeaderValue) -> Option<HeaderValue> {
        match self {
            HostHeader::Keep => None,
            HostHeader::Upstream => Some(upstream.clone()),
            HostHeader::Name(name) => Some(name.clone()),
        }
    }
}

/// A text that is no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no host: give `keep`, `upstream`, or a name such as registry.example:5000")]
pub struct HostHeaderError(String);

impl FromStr for HostHeader {
    type Err = HostHeaderError;

    fn from_str(text: &str) -> Result<HostHeader, HostHeaderError> {
        let refused = || HostHeaderError(text.to_owned());
        match text {
            "keep" => return Ok(HostHeader::Keep),
            "upstream" => return Ok(HostHeader::Upstream),
            _ => {}
        }
        let authority: Authority = text.parse().map_err(|_| refused())?;
        let has_port = authority.port().is_some();
        // A user is no part of a host, and a port must be one.
        if text.contains('@')
            || authority.host().is_empty()
            || has_port && authority.port_u16().is_none()
            || !has_port && authority.as_str() != authority.host()
        {
            return Err(refused());
        }
        HeaderValue::try_from(text)
            .map(HostHeader::Name)
            .map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_kept_the_upstreams_or_a_name() {
        assert_eq!("keep".parse(), Ok(HostHeader::Keep));
        assert_eq!("upstream".parse(), Ok(HostHeader::Upstream));
        for name in [
            "registry.example",
            "registry:5000",
            "[::1]:5000",
            "10.0.0.1",
        ] {
            let value = HeaderValue::from_static(name);
            assert_eq!(name.parse(), Ok(HostHeader::Name(value)));
        }
        for text in [
            "", "a b", "a/b", "http://a", "user@a", "a:", "a:99999", "a:x", "ä",
        ] {
            let error = text.parse::<HostHeader>().unwrap_err();
            assert_eq!(error, HostHeaderError(text.to_owned()));
        }
    }
}
