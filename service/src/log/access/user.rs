//! The name of a user, read from credentials that nobody here has verified.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// The longest credentials that a name is looked for in, in bytes.
const LONGEST: usize = 8 << 10;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASIC: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const JWT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What is read of a token.
#[derive(Deserialize)]
struct TokenClaims {
    sub: Option<String>,
}

/// The name in a value of `Authorization`: that of basic credentials (RFC 7617), or the subject of a
/// token that is a JWT (RFC 7519). `None` if there is none, or if it may be a secret itself.
pub(super) fn name(credentials: &[u8]) -> Option<String> {
    if credentials.len() > LONGEST {
        return None;
    }
    let at = credentials.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&credentials[..at], credentials[at..].trim_ascii());
    let name = if scheme.eq_ignore_ascii_case(b"basic") {
        basic(rest)
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        subject(rest)
    } else {
        None
    };
    name.filter(|name| !name.is_empty())
}

fn basic(encoded: &[u8]) -> Option<String> {
    let decoded = BASIC.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
    // With such a password, some servers take a token as the name.
    if password.is_empty() || password == b"x-oauth-basic" {
        return None;
    }
    Some(String::from_utf8_lossy(name).into_owned())
}

fn subject(token: &[u8]) -> Option<String> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = JWT.decode(payload).ok()?;
    serde_json::from_slice::<TokenClaims>(&payload).ok()?.sub
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(text: &str) -> String {
        format!("Basic {}", BASIC.encode(text))
    }

    fn bearer(payload: &str) -> String {
        format!("Bearer eyJhbGciOiJub25lIn0.{}.c2ln", JWT.encode(payload))
    }

    #[test]
    fn the_name_is_that_of_basic_credentials_or_the_subject_of_a_token() {
        for (credentials, expected) in [
            (basic("ann:secret"), Some("ann")),
            (basic("ann:a:b").replace("Basic", "bASIC"), Some("ann")),
            (
                basic("ann:secret").trim_end_matches('=').to_owned(),
                Some("ann"),
            ),
            (basic("ann"), None),
            (basic(":secret"), None),
            // The name may be the secret.
            (basic("ghp_token:"), None),
            (basic("ghp_token:x-oauth-basic"), None),
            ("Basic !!".to_owned(), None),
            ("Basic".to_owned(), None),
            (bearer(r#"{"sub":"ci/deploy","exp":1}"#), Some("ci/deploy")),
            (bearer(r#"{"sub":""}"#), None),
            (bearer(r#"{"exp":1}"#), None),
            (bearer(r#"{"sub":7}"#), None),
            (bearer("no json"), None),
            ("Bearer opaque".to_owned(), None),
            ("Bearer a.b.c.d".to_owned(), None),
            ("Digest username=\"ann\"".to_owned(), None),
            (basic(&format!("ann:{}", "x".repeat(LONGEST))), None),
        ] {
            let found = name(credentials.as_bytes());
            assert_eq!(found.as_deref(), expected, "{credentials}");
        }
        assert_eq!(name(b"\xff\xfe \xff"), None);
        let hostile = [b"Basic ".to_vec(), BASIC.encode(b"\xff\n:x").into_bytes()].concat();
        assert_eq!(name(&hostile).as_deref(), Some("\u{fffd}\n"));
    }
}
