//! The scheme of a request's credentials, and whether the upstream accepted them. Nothing else of
//! the credentials is read.

use http::{HeaderMap, header};

use crate::metrics::label::{AuthResult, Scheme};

/// The scheme of a request's credentials.
pub(super) fn scheme(headers: &HeaderMap) -> Scheme {
    let Some(credentials) = headers.get(header::AUTHORIZATION) else {
        return Scheme::None;
    };
    let mut words = credentials.as_bytes().split(|&byte| byte == b' ');
    // RFC 9110 §11.1: case does not matter.
    match words.next() {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"basic") => Scheme::Basic,
        Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer") => Scheme::Bearer,
        _ => Scheme::Other,
    }
}

/// Whether the upstream accepted the credentials; `None` if it failed, which says nothing about
/// them.
pub(super) fn result(scheme: Scheme, status: u16) -> Option<AuthResult> {
    match status {
        401 if scheme == Scheme::None => Some(AuthResult::Challenge),
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
        assert_eq!(scheme(&HeaderMap::new()), Scheme::None);
        for (credentials, expected) in [
            ("Basic dTpw", Scheme::Basic),
            ("basic dTpw", Scheme::Basic),
            ("Bearer eyJ0.e30.x", Scheme::Bearer),
            ("BEARER", Scheme::Bearer),
            ("Digest username=\"u\"", Scheme::Other),
            ("BasicdTpw", Scheme::Other),
            ("", Scheme::Other),
        ] {
            let value = HeaderValue::from_static(credentials);
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            assert_eq!(scheme(&headers), expected, "{credentials:?}");
        }
    }

    #[test]
    fn a_401_without_credentials_is_a_challenge_and_not_a_failure() {
        for (scheme, status, expected) in [
            (Scheme::None, 401, Some(AuthResult::Challenge)),
            (Scheme::Basic, 401, Some(AuthResult::Unauthorized)),
            (Scheme::Bearer, 401, Some(AuthResult::Unauthorized)),
            (Scheme::Bearer, 403, Some(AuthResult::Forbidden)),
            (Scheme::None, 403, Some(AuthResult::Forbidden)),
            (Scheme::None, 200, Some(AuthResult::Ok)),
            (Scheme::Basic, 404, Some(AuthResult::Ok)),
            (Scheme::Basic, 500, None),
            (Scheme::None, 503, None),
        ] {
            assert_eq!(result(scheme, status), expected, "{scheme:?} {status}");
        }
    }
}
