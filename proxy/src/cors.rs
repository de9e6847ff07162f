//! Cross-origin requests: which user interfaces in browsers may read a registry's responses (the Fetch
//! standard, "CORS protocol").
//!
//! Deliberately not here: access control. A browser asks these rules; any other client passes them by.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Every method that a registry has.
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE");

const ANY: HeaderValue = HeaderValue::from_static("*");

/// What an upstream may say of cross-origin requests itself. A browser refuses a response that has two
/// `Access-Control-Allow-Origin`.
const REPLACED: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

/// Which origins may read responses, and how much of them.
#[derive(Clone, Debug)]
pub struct CorsRules {
    /// The origins that may.
    pub origins: AllowedOrigins,
    /// Whether a browser may send cookies and stored passwords along.
    pub allow_credentials: bool,
    /// The request headers that a user interface may set; `None`: only those that need no permission.
    pub headers: Option<HeaderValue>,
    /// The response headers that a user interface may read beside those that anybody may.
    pub expose_headers: Option<HeaderValue>,
    /// For how many seconds a browser may keep the response to a preflight.
    pub max_age: HeaderValue,
}

/// Whose user interfaces may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Everybody's.
    Any,
    /// Those of these origins, as browsers write them.
    Listed(Vec<HeaderValue>),
}

/// The rules as they apply to one request.
pub(crate) struct CrossOrigin<'r> {
    rules: &'r CorsRules,
    /// What `Access-Control-Allow-Origin` says; `None` where the request's origin is not allowed, or it has
    /// none.
    allowed: Option<HeaderValue>,
}

impl CorsRules {
    /// As they apply to a request with these headers.
    pub(crate) fn of(&self, request: &HeaderMap) -> CrossOrigin<'_> {
        CrossOrigin {
            rules: self,
            allowed: self.allowed(request),
        }
    }

    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = request.get_all(ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else {
            return None;
        };
        match &self.origins {
            // Sandboxed frames and local files have no origin of their own: anybody can be `null`.
            _ if origin == "null" => None,
            AllowedOrigins::Any => Some(ANY),
            AllowedOrigins::Listed(listed) => listed.contains(origin).then(|| origin.clone()),
        }
    }
}

impl CrossOrigin<'_> {
    /// The headers of the response to a preflight; `None` if the request is none, or its origin is not
    /// allowed.
    pub(crate) fn preflight(&self, method: &Method, request: &HeaderMap) -> Option<HeaderMap> {
        if method != Method::OPTIONS || !request.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let origin = self.allowed.clone()?;
        let mut response = HeaderMap::with_capacity(6);
        self.allow(origin, &mut response);
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(headers) = &self.rules.headers {
            response.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        response.insert(ACCESS_CONTROL_MAX_AGE, self.rules.max_age.clone());
        vary(&mut response);
        Some(response)
    }

    /// Lets the origin of the request read its response, if it may. All responses say that they depend on
    /// the origin: a cache must not give one origin's response to another one.
    pub(crate) fn apply(&self, response: &mut HeaderMap) {
        if let Some(origin) = &self.allowed {
            for name in REPLACED {
                response.remove(name);
            }
            self.allow(origin.clone(), response);
            if let Some(headers) = &self.rules.expose_headers {
                response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, headers.clone());
            }
        }
        vary(response);
    }

    fn allow(&self, origin: HeaderValue, response: &mut HeaderMap) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.rules.allow_credentials {
            let yes = HeaderValue::from_static("true");
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

/// Adds `Origin` to `Vary`, where it is not yet.
fn vary(response: &mut HeaderMap) {
    let is_said = response.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| matches!(name.trim_ascii(), b"*") || is_origin(name.trim_ascii()))
    });
    if !is_said {
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
}

fn is_origin(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UI: HeaderValue = HeaderValue::from_static("https://ui.example");

    fn rules(origins: AllowedOrigins, allow_credentials: bool) -> CorsRules {
        CorsRules {
            origins,
            allow_credentials,
            headers: Some(HeaderValue::from_static("Authorization")),
            expose_headers: Some(HeaderValue::from_static("Link")),
            max_age: HeaderValue::from_static("600"),
        }
    }

    fn listed() -> CorsRules {
        rules(AllowedOrigins::Listed(vec![UI]), true)
    }

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let fields = fields.iter().cloned();
        let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
        // Collected, a second field of one name would replace the first.
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_gets_its_response() {
        let request = headers(&[
            (ORIGIN, "https://ui.example"),
            (ACCESS_CONTROL_REQUEST_METHOD, "DELETE"),
        ]);
        let rules = listed();
        let response = rules.of(&request).preflight(&Method::OPTIONS, &request);
        assert_eq!(
            response.unwrap(),
            headers(&[
                (ACCESS_CONTROL_ALLOW_ORIGIN, "https://ui.example"),
                (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
                (
                    ACCESS_CONTROL_ALLOW_METHODS,
                    "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"
                ),
                (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization"),
                (ACCESS_CONTROL_MAX_AGE, "600"),
                (VARY, "Origin"),
            ])
        );
        let rules = self::rules(AllowedOrigins::Any, false);
        let any = rules.of(&request).preflight(&Method::OPTIONS, &request);
        let any = any.unwrap();
        assert_eq!(any[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!any.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn what_is_no_preflight_of_an_allowed_origin_goes_on() {
        let asks = (ACCESS_CONTROL_REQUEST_METHOD, "GET");
        let ui = (ORIGIN, "https://ui.example");
        for (method, fields) in [
            (Method::GET, &[ui.clone(), asks.clone()][..]),
            (Method::OPTIONS, std::slice::from_ref(&ui)),
            (Method::OPTIONS, std::slice::from_ref(&asks)),
            (Method::OPTIONS, &[(ORIGIN, "https://evil"), asks.clone()]),
            (Method::OPTIONS, &[ui.clone(), ui.clone(), asks.clone()]),
        ] {
            let request = headers(fields);
            let response = listed().of(&request).preflight(&method, &request);
            assert_eq!(response, None, "{method} {fields:?}");
        }
    }

    #[test]
    fn an_origin_is_compared_exactly() {
        for origin in [
            "https://ui.example:443",
            "http://ui.example",
            "https://UI.example",
            "https://ui.example.evil",
            "https://ui.example/",
            "null",
            "",
        ] {
            let request = headers(&[(ORIGIN, origin)]);
            assert_eq!(listed().allowed(&request), None, "{origin}");
        }
        let null = headers(&[(ORIGIN, "null")]);
        let any = rules(AllowedOrigins::Any, false);
        assert_eq!(any.allowed(&null), None);
    }

    #[test]
    fn what_the_upstream_said_is_replaced_for_an_allowed_origin_alone() {
        let said = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
            (VARY, "Accept"),
        ];
        let mut response = headers(&said);
        let request = headers(&[(ORIGIN, "https://ui.example")]);
        listed().of(&request).apply(&mut response);
        assert_eq!(
            response,
            headers(&[
                (ACCESS_CONTROL_ALLOW_ORIGIN, "https://ui.example"),
                (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
                (ACCESS_CONTROL_EXPOSE_HEADERS, "Link"),
                (VARY, "Accept"),
                (VARY, "Origin"),
            ])
        );
        for request in [headers(&[]), headers(&[(ORIGIN, "https://evil")])] {
            let mut response = headers(&said);
            listed().of(&request).apply(&mut response);
            assert_eq!(
                response,
                headers(&[&said[..], &[(VARY, "Origin")]].concat())
            );
        }
    }

    #[test]
    fn vary_names_the_origin_once() {
        for said in ["*", "Accept, origin", "Origin"] {
            let mut response = headers(&[(VARY, said)]);
            vary(&mut response);
            assert_eq!(response, headers(&[(VARY, said)]), "{said}");
        }
    }
}
