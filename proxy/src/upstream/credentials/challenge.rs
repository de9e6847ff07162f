//! How an upstream wants to be told who asks: the challenges of a 401 (RFC 9110 §11.3).

use service::net::HttpUrl;

/// How an upstream wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// It does not.
    Open,
    /// By user name and password with each request (RFC 7617).
    Basic,
    /// By a token that this server issues.
    Bearer(TokenServer),
}

/// A server that issues tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenServer {
    /// Where it is.
    pub(crate) realm: HttpUrl,
    /// For whom the token is.
    pub(super) service: Option<String>,
}

/// A challenge that nothing can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChallengeError {
    /// It has none, or asks for other things than a password or a token.
    #[error("the upstream asks neither for a password (Basic) nor for a token (Bearer)")]
    Scheme,
    /// The place where tokens are issued is no URL.
    #[error("the upstream's realm for tokens is no URL")]
    Realm,
}

impl Challenge {
    /// What the values of `WWW-Authenticate` ask for. A token is preferred to a password: it is of use for
    /// less, and for a shorter time.
    pub(crate) fn of<'v>(
        values: impl Iterator<Item = &'v str>,
    ) -> Result<Challenge, ChallengeError> {
        let all: Vec<_> = values.flat_map(parse).collect();
        let find = |scheme: &str| {
            let mut all = all.iter();
            all.find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        if let Some(bearer) = find("bearer") {
            let realm = bearer.parameter("realm").ok_or(ChallengeError::Realm)?;
            return Ok(Challenge::Bearer(TokenServer {
                realm: realm.parse().map_err(|_| ChallengeError::Realm)?,
                service: bearer.parameter("service").map(str::to_owned),
            }));
        }
        find("basic")
            .map(|_| Challenge::Basic)
            .ok_or(ChallengeError::Scheme)
    }
}

/// One challenge as it is written.
struct WrittenChallenge<'v> {
    scheme: &'v str,
    parameters: Vec<(&'v str, String)>,
}

impl WrittenChallenge<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let found = parameters.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The challenges of one value. What has no meaning is skipped.
fn parse(mut rest: &str) -> Vec<WrittenChallenge<'_>> {
    let mut all: Vec<WrittenChallenge<'_>> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(first) = rest.chars().next() else {
            return all;
        };
        let (token, after) = split_token(rest);
        if token.is_empty() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            rest = after;
            all.push(WrittenChallenge {
                scheme: token,
                parameters: Vec::new(),
            });
            continue;
        };
        let (value, after) = split_value(value.trim_start_matches([' ', '\t']));
        rest = after;
        if let Some(challenge) = all.last_mut() {
            challenge.parameters.push((token, value));
        }
    }
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '"'));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token, or a quoted string without its quotes.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = split_token(text);
        return (token.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::*;

    fn of(values: &[&str]) -> Result<Challenge, ChallengeError> {
        Challenge::of(values.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer(TokenServer {
            realm: realm.parse().unwrap(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn a_challenge_asks_for_a_token_or_a_password() {
        let realm = "https://auth.example/token?x=1";
        for value in [
            "Bearer realm=\"https://auth.example/token?x=1\",service=\"a, b\",scope=\"c\"",
            "bearer  REALM = \"https://auth.example/token?x=1\" , Service=\"a\\, b\"",
            "Basic realm=\"x\", Bearer realm=\"https://auth.example/token?x=1\", service=\"a, b\"",
            "Negotiate abc==, Bearer realm=\"https://auth.example/token?x=1\", service=\"a, b\", Basic",
        ] {
            assert_eq!(of(&[value]), Ok(bearer(realm, Some("a, b"))), "{value}");
        }
        let bare = "Bearer realm=\"https://auth.example/token?x=1\"";
        assert_eq!(of(&["Basic realm=\"a\"", bare]), Ok(bearer(realm, None)));
        for value in ["Basic realm=\"a\"", "basic", "Negotiate, Basic realm=a"] {
            assert_eq!(of(&[value]), Ok(Challenge::Basic), "{value}");
        }
    }

    #[test]
    fn another_challenge_is_told_from_a_realm_that_is_no_url() {
        for value in [
            "",
            "Negotiate",
            "realm=\"https://a\"",
            ",,=\"",
            "Digest realm=\"Basic\"",
        ] {
            assert_eq!(of(&[value]), Err(ChallengeError::Scheme), "{value}");
        }
        for value in [
            "Bearer",
            "Bearer realm=\"a\"",
            "Bearer service=\"https://a\"",
        ] {
            assert_eq!(of(&[value]), Err(ChallengeError::Realm), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic_or_loop(value in "[ -~ä\t]{0,40}", other in "[\",=\\\\ Ba]{0,20}") {
            let _ = of(&[&value, &other]);
        }
    }
}
