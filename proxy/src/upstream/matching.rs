//! Which requests an upstream is for, as a configuration says it.

use std::str::FromStr;

use http::uri::Authority;

use super::stripped::StrippedPrefix;

/// The longest host, in bytes: no name of the DNS is longer, and a port may follow.
pub(super) const LONGEST_HOST: usize = 255 + ":65535".len();

/// Which requests an upstream is for: those that fit each of its lists. A list that is empty fits all.
#[derive(Clone, Debug, Default)]
pub struct RequestMatch {
    /// The hosts that clients ask for.
    pub hosts: Vec<HostPattern>,
    /// The first components of repositories.
    pub prefixes: Vec<String>,
    /// The registries that containerd names in `?ns=`.
    pub ns: Vec<HostPattern>,
    /// The prefix that the upstream does not know of.
    pub stripped: Option<StrippedPrefix>,
}

/// A host to compare with, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    text: String,
    /// Where the name ends.
    name: usize,
}

/// A text that is no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no host: give a name or an address such as registry.example or [::1]:5000")]
pub struct HostPatternError(String);

impl RequestMatch {
    /// Whether every request fits.
    pub fn is_for_all(&self) -> bool {
        self.hosts.is_empty() && self.prefixes.is_empty() && self.ns.is_empty()
    }
}

impl HostPattern {
    /// The name, and the port if it has one.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every host that fits the other one fits this one. Without a port, any port fits.
    pub fn covers(&self, other: &HostPattern) -> bool {
        let has_port = self.name < self.text.len();
        self.text == other.text || !has_port && self.text == other.text[..other.name]
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<HostPattern, HostPatternError> {
        let refused = || HostPatternError(text.to_owned());
        let authority: Authority = text.parse().map_err(|_| refused())?;
        let host = authority.host();
        let is_address = |host: &str| {
            let inside = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            inside.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
        };
        // A pattern such as `*.example` would never match: nothing here is a wildcard.
        let is_name = |host: &str| {
            let mut bytes = host.bytes();
            !host.is_empty()
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let port = text.strip_prefix(host).ok_or_else(refused)?;
        let is_port = match port.strip_prefix(':') {
            None => port.is_empty(),
            // As clients write it: a zero before it would never match.
            Some(digits) => {
                digits.parse::<u16>().is_ok()
                    && digits.starts_with(|first| matches!(first, '1'..='9'))
            }
        };
        if !is_port || text.len() > LONGEST_HOST || !(is_name(host) || is_address(host)) {
            return Err(refused());
        }
        Ok(HostPattern {
            text: text.to_ascii_lowercase(),
            name: host.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for text in [
            "registry.example",
            "Registry.Example:5000",
            "10.0.0.1",
            "[::1]:5000",
            "[2001:db8::1]",
            "a_b-c:1",
        ] {
            assert_eq!(pattern(text).text(), text.to_ascii_lowercase());
        }
        for text in [
            "",
            "*",
            "*.example",
            "a b",
            "a/b",
            "http://a",
            "user@a",
            "a:",
            "a:0",
            "a:65536",
            "a:05000",
            "a:+1",
            "a:x",
            "ä",
            "[::1",
            "[x]",
            "::1",
            "a%20b",
            &"a".repeat(LONGEST_HOST + 1),
        ] {
            let refused = HostPatternError(text.to_owned());
            assert_eq!(text.parse::<HostPattern>(), Err(refused));
        }
    }

    #[test]
    fn a_host_without_a_port_covers_the_same_host_with_any() {
        for (one, other, covers) in [
            ("a", "A", true),
            ("a", "a:1", true),
            ("a:1", "a:1", true),
            ("a:1", "a", false),
            ("a:1", "a:11", false),
            ("a", "ab", false),
            ("[::1]", "[::1]:5", true),
            ("[::1]:5", "[::1]", false),
        ] {
            let covered = pattern(one).covers(&pattern(other));
            assert_eq!(covered, covers, "{one} {other}");
        }
    }
}
