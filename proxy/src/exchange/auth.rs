//! The scheme of a request's credentials, and whether the upstream accepted them. Nothing else of
//! the credentials is read.

use http::{HeaderMap, header};

use crate::metrics::label::{AuthResult, AuthScheme};

/// The scheme of a request's credentials.
pub(super) fn scheme(headers: &HeaderMap) -> AuthScheme {
    let Some(credentials) = headers.get(header::AUTHORIZATION) else {
        return AuthScheme::None;
    };
    let mut words = credentials.as_bytes().split(|&byte| byte == b' ');
    // RFC 9110 §11.1: case does not matter.
    match words.next() {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"basic") => AuthScheme::Basic,
        Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer") => AuthScheme::Bearer,
        _ => AuthScheme::Other,
    }
}

/// Whether the upstream accepted the credentials; `None` if it failed, which says nothing about
/// them.
pub(super) fn result(scheme: AuthScheme, status: u16) -> Option<AuthResult> {
    match status {
        401 if scheme == AuthScheme::None => Some(AuthResult::Challenge),
        401 => Some(AuthResult::Unauthorized),
        403 => Some(AuthResult::Forbidden),
        ..500 => Some(AuthResult::Ok),
        500.. => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_scheme_of_the_credentials_is_read() {
        assert_eq!(scheme(&HeaderMap::new()), AuthScheme::None);
        for (credentials, expected) in [
            ("Basic dTpw", AuthScheme::Basic),
            ("basic dTpw", AuthScheme::Basic),
            ("Bearer eyJ0.e30.x", AuthScheme::Bearer),
            ("BEARER", AuthScheme::Bearer),
            ("Digest username=\"u\"", AuthScheme::Other),
            ("BasicdTpw", AuthScheme::Other),
            ("", AuthScheme::Other),
        ] {
            let value = HeaderValue::from_static(credentials);
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            assert_eq!(scheme(&headers), expected, "{credentials:?}");
        }
    }

    #[test]
    fn a_401_without_credentials_is_a_challenge_and_not_a_failure() {
        for (scheme, status, expected) in [
            (AuthScheme::None, 401, Some(AuthResult::Challenge)),
            (AuthScheme::Basic, 401, Some(AuthResult::Unauthorized)),
            (AuthScheme::Bearer, 401, Some(AuthResult::Unauthorized)),
            (AuthScheme::Bearer, 403, Some(AuthResult::Forbidden)),
            (AuthScheme::None, 403, Some(AuthResult::Forbidden)),
            (AuthScheme::None, 200, Some(AuthResult::Ok)),
            (AuthScheme::Basic, 404, Some(AuthResult::Ok)),
            (AuthScheme::Basic, 500, None),
            (AuthScheme::None, 503, None),
        ] {
            assert_eq!(result(scheme, status), expected, "{scheme:?} {status}");
        }
    }
}
