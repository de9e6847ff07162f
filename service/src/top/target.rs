//! What to scrape, and as whom.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;

use crate::config::Secret;
use crate::net::{GetRequest, HttpUrl, Scheme, UrlError};
use crate::small_file::mend;
use crate::tls::{TlsClientFields, TlsError};

/// The path where a URL names none.
const METRICS: &str = "/metrics";

/// What to scrape, and as whom.
#[derive(Clone, Debug)]
pub struct TopTarget {
    pub(super) request: GetRequest,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopTargetError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A file cannot be read.
    #[error("{path}: {error}{}", mend(error))]
    File {
        /// Its path.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The certificates of authorities cannot be used.
    #[error("--ca: {0}")]
    Tls(#[from] TlsError),
    /// A user without a password.
    #[error("--user wants --password-file, too")]
    NoPassword,
}

impl TopTarget {
    /// This request, as it is.
    pub fn of(request: GetRequest) -> Self {
        Self { request }
    }

    /// A URL, which may hold a user and a password. They are sent, and never shown.
    pub fn parse(url: &str, ca: Option<&Path>) -> Result<Self, TopTargetError> {
        let (url, login) = split_login(url);
        let url: HttpUrl = url.parse()?;
        let url = url.with_default_path(METRICS);
        let tls = if url.scheme() == Scheme::Https {
            let fields = TlsClientFields {
                ca: ca.map(Path::to_owned),
                ..TlsClientFields::default()
            };
            Some(fields.load()?.0)
        } else {
            None
        };
        let target = Self::of(GetRequest::from(url).with_tls(tls));
        Ok(match login {
            Some((user, password)) => target.with_login(&user, &password),
            None => target,
        })
    }

    /// The same, as this user, whose password is in a file.
    pub fn with_user(self, user: &str, file: Option<&Path>) -> Result<Self, TopTargetError> {
        let file = file.ok_or(TopTargetError::NoPassword)?;
        let text = std::fs::read_to_string(file).map_err(|error| TopTargetError::File {
            path: file.display().to_string(),
            error,
        })?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        Ok(self.with_login(user, &Secret::new(password)))
    }

    fn with_login(self, user: &str, password: &Secret) -> Self {
        let pair = format!("{user}:{}", password.expose());
        // Base64 is made of characters that a header may have.
        let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)));
        let mut value = value.unwrap_or(HeaderValue::from_static("Basic"));
        value.set_sensitive(true);
        Self::of(self.request.with_header(AUTHORIZATION, value))
    }

    /// What is shown: the URL, which holds no secret.
    pub(super) fn shown(&self) -> String {
        self.request.url().to_string()
    }
}

/// A URL without its user and password, and these (RFC 3986, section 3.2.1).
fn split_login(url: &str) -> (String, Option<(String, Secret)>) {
    let plain = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else {
        return plain();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((login, host)) = authority.rsplit_once('@') else {
        return plain();
    };
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let login = (decoded(user), Secret::new(decoded(password)));
    (format!("{scheme}://{host}{path}"), Some(login))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_a_url_is_sent_and_not_shown() {
        let target = TopTarget::parse("http://us%40er:hunter2@h:1/m?x=ab", None).unwrap();
        assert_eq!(target.shown(), "http://h:1/m?x=ab");
        assert!(!format!("{target:?}").contains("hunter2"));
        let (_, login) = split_login("http://us%40er:hun%3ater2@h:1/m");
        let (user, password) = login.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("us@er", "hun:ter2"));
        let error = TopTarget::parse("http://user:hunter2@h:x/", None).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn the_path_is_that_of_metrics_by_default() {
        for (url, shown) in [
            ("http://h", "http://h:80/metrics"),
            ("http://h:1/x", "http://h:1/x"),
            ("unix:/run/m", "unix:/run/m"),
        ] {
            assert_eq!(TopTarget::parse(url, None).unwrap().shown(), shown);
        }
        assert!(TopTarget::parse("h:1", None).is_err());
        let target = TopTarget::parse("http://h", None).unwrap();
        assert!(matches!(
            target.with_user("a", None),
            Err(TopTargetError::NoPassword)
        ));
    }
}
