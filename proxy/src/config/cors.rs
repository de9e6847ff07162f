//! Which user interfaces in browsers may read the registry's responses.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::config::{self, Checker, ConfigError};
use url::Url;

use crate::cors::{AllowedOrigins, CorsRules};

/// The most entries of a list.
const MOST: usize = 64;

/// The longest origin, in bytes: a host name has at most 253.
const LONGEST_ORIGIN: usize = 300;

/// No browser keeps a response for longer.
const MAX_AGE: RangeInclusive<config::Duration> =
    config::Duration::from_secs(0)..=config::Duration::from_secs(24 * 60 * 60);

/// The request headers that user interfaces for registries set.
const HEADERS: [&str; 9] = [
    "Authorization",
    "Accept",
    "Cache-Control",
    "Content-Type",
    "Content-Range",
    "If-Match",
    "If-None-Match",
    "Range",
    // zot's own user interface.
    "X-ZOT-API-CLIENT",
];

/// The response headers of a registry that say more than its body.
const EXPOSED: [&str; 17] = [
    "Accept-Ranges",
    "Content-Length",
    "Content-Range",
    "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
    "Docker-Upload-UUID",
    "ETag",
    "Link",
    "Location",
    "OCI-Chunk-Min-Length",
    "OCI-Filters-Applied",
    "OCI-Subject",
    "Range",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Retry-After",
    "WWW-Authenticate",
];

/// Which user interfaces in browsers may read the registry's responses.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CorsFields {
    /// The origins of these interfaces, `SCHEME://HOST[:PORT]` each, at most 64, or `*` alone; none: off.
    pub origins: Vec<String>,
    /// Whether browsers may send cookies and stored passwords along; not with the origin `*`.
    pub allow_credentials: bool,
    /// How long browsers may keep the response to a preflight. From 0s to 1day.
    pub max_age: config::Duration,
    /// The request headers that a user interface may set, at most 64.
    pub headers: Vec<String>,
    /// The response headers that a user interface may read, at most 64.
    pub expose_headers: Vec<String>,
}

impl Default for CorsFields {
    fn default() -> CorsFields {
        CorsFields {
            origins: Vec::new(),
            allow_credentials: false,
            max_age: config::Duration::from_secs(10 * 60),
            headers: HEADERS.map(str::to_owned).to_vec(),
            expose_headers: EXPOSED.map(str::to_owned).to_vec(),
        }
    }
}

impl CorsFields {
    /// The rules; `None` where no origin is allowed. What is said in vain is checked, too.
    pub(super) fn resolve(self, checker: &Checker<'_>) -> Result<Option<CorsRules>, ConfigError> {
        checker.range("max_age", self.max_age, &MAX_AGE)?;
        let headers = self.names("headers", &self.headers, checker)?;
        let expose_headers = self.names("expose_headers", &self.expose_headers, checker)?;
        checker.entries("origins", self.origins.len(), MOST)?;
        let origins = if self.origins.iter().any(|origin| origin == "*") {
            if self.origins.len() > 1 {
                return Err(checker.error("origins", "`*` allows every origin: write it alone"));
            }
            if self.allow_credentials {
                let message = "must be false where `origins` is `*`: any site could use the \
                               passwords that a browser has stored; list the origins";
                return Err(checker.error("allow_credentials", message));
            }
            AllowedOrigins::Any
        } else {
            let mut listed = Vec::with_capacity(self.origins.len());
            for (at, text) in self.origins.iter().enumerate() {
                let key = format!("origins[{at}]");
                checker.text(&key, text, LONGEST_ORIGIN)?;
                let origin = origin(text).map_err(|message| checker.error(&key, &message))?;
                listed.push(origin);
            }
            AllowedOrigins::Listed(listed)
        };
        if self.origins.is_empty() {
            return Ok(None);
        }
        Ok(Some(CorsRules {
            origins,
            allow_credentials: self.allow_credentials,
            headers,
            expose_headers,
            max_age: self.max_age.get().as_secs().into(),
        }))
    }

    /// A list of header names as one value; `None` where there are none.
    fn names(
        &self,
        key: &str,
        names: &[String],
        checker: &Checker<'_>,
    ) -> Result<Option<HeaderValue>, ConfigError> {
        checker.entries(key, names.len(), MOST)?;
        for (at, name) in names.iter().enumerate() {
            let refuse = |message: &str| Err(checker.error(&format!("{key}[{at}]"), message));
            // A token, and so a name: but to a browser it is one only where there are credentials.
            if name == "*" && self.allow_credentials {
                return refuse(
                    "`*` covers nothing where `allow_credentials` is true: list the names",
                );
            }
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return refuse(&format!("`{name}` is not a header's name"));
            }
        }
        let list = names.join(", ");
        // Names make a value.
        Ok(HeaderValue::try_from(list)
            .ok()
            .filter(|list| !list.is_empty()))
    }
}

/// An origin as browsers write it: in lower case, without the scheme's own port.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let malformed = |why: &str| {
        format!(
            "`{text}` is not an origin: {why}, as in https://ui.example or http://localhost:8080"
        )
    };
    if text == "null" {
        return Err(
            "`null` is never allowed: any site can send it, from a sandboxed frame".to_owned(),
        );
    }
    let Some((scheme, host)) = text.split_once("://") else {
        return Err(malformed("expected SCHEME://HOST[:PORT]"));
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(malformed("the scheme must be http or https"));
    }
    if host.contains('*') {
        return Err(malformed("it has no wildcards: list each origin"));
    }
    if host.contains(['/', '\\', '?', '#', '@', ' ']) {
        return Err(malformed("it has neither a path nor a user"));
    }
    // As a browser does it: names in other scripts, short forms of addresses.
    let url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
    let origin = url.origin().ascii_serialization();
    HeaderValue::try_from(origin).map_err(|_| malformed("it has a character that none has"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolve;
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        for (text, kept) in [
            ("https://ui.example", "https://ui.example"),
            ("HTTPS://UI.Example:443", "https://ui.example"),
            ("http://ui.example:80", "http://ui.example"),
            ("http://ui.example:443", "http://ui.example:443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(origin(text).unwrap(), kept, "{text}");
        }
    }

    #[test]
    fn wrong_values_are_refused_where_they_were_said() {
        for (yaml, message) in [
            (
                "  origins: [https://a, ui.example]\n",
                "FILE:2: cors.origins[1]: `ui.example` is not an origin: expected SCHEME://HOST",
            ),
            (
                "  origins: ['https://a/ui']\n",
                "FILE:2: cors.origins[0]: `https://a/ui` is not an origin: it has neither a path",
            ),
            (
                "  origins: ['https://a/']\n",
                "FILE:2: cors.origins[0]: `https://a/` is not an origin",
            ),
            (
                "  origins: ['https://*.a']\n",
                "FILE:2: cors.origins[0]: `https://*.a` is not an origin: it has no wildcards",
            ),
            (
                "  origins: ['ftp://a']\n",
                "FILE:2: cors.origins[0]: `ftp://a` is not an origin: the scheme",
            ),
            (
                "  origins: ['https://a:x']\n",
                "FILE:2: cors.origins[0]: `https://a:x` is not an origin: invalid port",
            ),
            (
                "  origins: ['null']\n",
                "FILE:2: cors.origins[0]: `null` is never allowed",
            ),
            (
                "  origins: ['']\n",
                "FILE:2: cors.origins[0]: must be from 1 to 300 bytes",
            ),
            (
                "  origins: ['*', 'https://a']\n",
                "FILE:2: cors.origins: `*` allows every origin",
            ),
            (
                "  origins: ['*']\n  allow_credentials: true\n",
                "FILE:3: cors.allow_credentials: must be false where `origins` is `*`",
            ),
            (
                "  headers: [Accept, 'a b']\n",
                "FILE:2: cors.headers[1]: `a b` is not a header's name",
            ),
            (
                "  allow_credentials: true\n  expose_headers: ['*']\n",
                "FILE:3: cors.expose_headers[0]: `*` covers nothing",
            ),
            (
                "  max_age: 2days\n",
                "FILE:2: cors.max_age: must be from 0s to 1day",
            ),
            ("  origin: a\n", "FILE:2: cors.origin: unknown key"),
        ] {
            let error = resolve(&format!("cors:\n{yaml}"), Vec::new()).unwrap_err();
            assert!(error.starts_with(message), "{error}\n{message}");
        }
    }

    #[test]
    fn no_origin_is_off_and_an_empty_list_of_headers_is_none() {
        let (config, _) = resolve("cors: {allow_credentials: true}", Vec::new()).unwrap();
        assert!(config.cors.is_none());
        let yaml = "cors: {origins: ['*'], headers: [], expose_headers: ['*'], max_age: 1h}";
        let (config, printed) = resolve(yaml, Vec::new()).unwrap();
        let cors = config.cors.unwrap();
        assert_eq!(cors.origins, AllowedOrigins::Any);
        assert_eq!((cors.headers, cors.max_age), (None, 3600.into()));
        assert_eq!(cors.expose_headers.unwrap(), "*");
        let (_, again) = resolve(&printed, Vec::new()).unwrap();
        assert_eq!(again, printed);
    }
}
