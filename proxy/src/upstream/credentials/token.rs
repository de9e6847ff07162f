//! One token: how it is asked for, and what the response says.

use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use service::net::{ClientError, GetRequest, HttpUrl};
use service::tls::TlsClient;
use tokio::time::{Instant, timeout};
use url::form_urlencoded;

use super::challenge::TokenServer;
use super::scope::AccessScope;

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of its response.
const MAX_BODY: usize = 64 << 10;

/// The most bytes of a token: more would fit into no server's headers.
const MAX_TOKEN: usize = 16 << 10;

/// How long a token is valid that does not say so itself.
const DEFAULT: u64 = 60;

/// No token is kept longer.
const LONGEST: u64 = 24 * 60 * 60;

/// A token, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    /// When it is no longer sent: some time before it expires.
    pub(super) until: Instant,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The server could not be asked.
    #[error("the token server cannot be asked")]
    Client(#[from] ClientError),
    /// It took too long.
    #[error("the token server did not respond within {TIMEOUT:?}")]
    Timeout,
    /// It refuses.
    #[error("the token server responds {0}")]
    Status(http::StatusCode),
    /// Its response holds no token.
    #[error("the token server's response holds no token")]
    Unreadable,
}

/// What a token's server responds.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    /// In seconds. Some say it as a text, or with a fraction.
    expires_in: Option<serde_json::Value>,
}

/// Asks for a token.
pub(super) async fn fetch(
    server: &TokenServer,
    scope: &AccessScope,
    basic: &HeaderValue,
    tls: Option<TlsClient>,
) -> Result<Token, TokenError> {
    let request = GetRequest::from(url(server, scope))
        .with_header(AUTHORIZATION, basic.clone())
        .with_tls(tls);
    let asked = Instant::now();
    let response = async {
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(TokenError::Status(response.status()));
        }
        Ok(response.read(MAX_BODY).await?)
    };
    let body = timeout(TIMEOUT, response).await;
    read(&body.map_err(|_| TokenError::Timeout)??, asked).ok_or(TokenError::Unreadable)
}

fn url(server: &TokenServer, scope: &AccessScope) -> HttpUrl {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(service) = &server.service {
        query.append_pair("service", service);
    }
    for scope in scope.each() {
        query.append_pair("scope", scope);
    }
    let (path, query) = (server.realm.path().unwrap_or("/"), query.finish());
    let separator = match path {
        _ if query.is_empty() => "",
        path if path.contains('?') => "&",
        _ => "?",
    };
    let path = format!("{path}{separator}{query}");
    server.realm.clone().with_path(&path)
}

fn read(body: &[u8], asked: Instant) -> Option<Token> {
    let response: TokenResponse = serde_json::from_slice(body).ok()?;
    // Some send one of them empty.
    let tokens = [response.token, response.access_token];
    let token = tokens.into_iter().flatten().find(|token| !token.is_empty());
    let token = token.filter(|token| token.len() <= MAX_TOKEN)?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    let seconds = response.expires_in.as_ref().and_then(seconds);
    let seconds = seconds.unwrap_or(DEFAULT).min(LONGEST);
    let valid = Duration::from_secs(seconds);
    // A request may be on its way for a while, and clocks differ.
    let margin = (valid / 4).min(Duration::from_secs(15));
    Some(Token {
        header,
        until: asked + valid.saturating_sub(margin),
    })
}

/// `None` for what is no number of seconds.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // The fraction does not matter.
    text.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_with_service_and_scopes() {
        let asked = |realm: &str, service: Option<&str>, target: &str| {
            let server = TokenServer {
                realm: realm.parse().unwrap(),
                service: service.map(str::to_owned),
            };
            let method = http::Method::POST;
            let target = target.parse().unwrap();
            let scope = AccessScope::of(&method, &target, true).unwrap();
            url(&server, &scope).to_string()
        };
        assert_eq!(
            asked(
                "https://a/token",
                Some("b c&"),
                "/v2/d/blobs/uploads/?mount=x&from=e"
            ),
            "https://a:443/token?service=b+c%26&scope=repository%3Ad%3Apull%2Cpush\
             &scope=repository%3Ae%3Apull"
        );
        assert_eq!(
            asked("https://a/t?x=1", None, "/v2/"),
            "https://a:443/t?x=1"
        );
        let with_service = asked("https://a/t?x=1", Some("s"), "/v2/");
        assert_eq!(with_service, "https://a:443/t?x=1&service=s");
        assert_eq!(
            asked("http://a", Some("s"), "/v2/"),
            "http://a:80/?service=s"
        );
    }

    #[test]
    fn a_response_holds_a_token_and_how_long_it_is_valid() {
        let now = Instant::now();
        let read = |body: &str| {
            let token = read(body.as_bytes(), now)?;
            let seconds = (token.until - now).as_secs();
            Some((token.header.to_str().unwrap().to_owned(), seconds))
        };
        let held = |token: &str, seconds| Some((format!("Bearer {token}"), seconds));
        assert_eq!(read("{\"token\": \"a\"}"), held("a", 45));
        let both = "{\"token\": \"\", \"access_token\": \"b\", \"expires_in\": 300, \"x\": []}";
        assert_eq!(read(both), held("b", 285));
        assert_eq!(read("{\"token\":\"a\",\"expires_in\":0}"), held("a", 0));
        for (said, valid) in [
            ("300.5", 285),
            ("\"300\"", 285),
            ("-1", 45),
            ("null", 45),
            ("[]", 45),
        ] {
            let body = format!("{{\"token\":\"a\",\"expires_in\":{said}}}");
            assert_eq!(read(&body), held("a", valid), "{said}");
        }
        let long = format!("{{\"token\":\"a\",\"expires_in\":{}}}", u64::MAX);
        assert_eq!(read(&long), held("a", LONGEST - 15));
        for bad in [
            "",
            "{}",
            "[]",
            "{\"token\": 1}",
            "{\"token\": \"\"}",
            "{\"token\": \"a\\nb\"}",
            "<html>",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let huge = format!("{{\"token\":\"{}\"}}", "a".repeat(MAX_TOKEN + 1));
        assert_eq!(read(&huge), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = read(b"{\"token\": \"hunter2\"}", Instant::now()).unwrap();
        assert!(!format!("{token:?}").contains("hunter2"));
    }
}
