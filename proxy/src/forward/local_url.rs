//! URLs in responses that lead a client back to the proxy.

use http::HeaderValue;
use url::Url;

/// How a client reaches the proxy.
#[derive(Clone, Copy)]
pub(super) struct ClientOrigin<'r> {
    pub(super) scheme: &'static str,
    /// `None` where the client named none.
    pub(super) host: Option<&'r HeaderValue>,
}

/// Where the path of a URL begins that leads a client back to the proxy; `None` if it leads elsewhere.
/// The path may be relative to that of the request.
pub(super) fn local_path_start(url: &str, ours: ClientOrigin<'_>) -> Option<usize> {
    let authority = match url.find(['/', '?', '#', '\\', ':']) {
        // Another scheme, such as `mailto:`, has no path of ours either.
        Some(colon) if url[colon..].starts_with("://") => colon + "://".len(),
        Some(colon) if url[colon..].starts_with(':') => return None,
        Some(0) if url.starts_with("//") => 2,
        // Browsers take a backslash for a slash, and what follows two of them for a host.
        _ if url.starts_with('\\') || url.starts_with("/\\") => return None,
        _ => return Some(0),
    };
    let length = url[authority..].find(['/', '?', '#', '\\']);
    let start = length.map_or(url.len(), |length| authority + length);
    let host = ours.host?.to_str().ok()?;
    let base = Url::parse(&format!("{}://{host}", ours.scheme)).ok()?;
    let origin = base.join(&url[..start]).ok()?;
    // The scheme may be another one: a proxy in front may speak TLS and not tell.
    let is_local = matches!(origin.scheme(), "http" | "https")
        && origin.host() == base.host()
        && origin.port() == base.port();
    is_local.then_some(start)
}

/// The path and the query that a client asks the proxy for who follows a URL in a response to a request for
/// `path`; `None` if it is elsewhere.
pub(super) fn local_target(
    url: &str,
    path: &str,
    ours: ClientOrigin<'_>,
) -> Option<(String, Option<String>)> {
    let start = local_path_start(url, ours)?;
    let target = &url[start..];
    // The authority does not matter any more, and HTTP/1.0 names none.
    let followed = if start > 0 || target.starts_with('/') {
        Url::parse(&format!("http://-{target}")).ok()?
    } else {
        let mut base = Url::parse("http://-").ok()?;
        base.set_path(path);
        base.join(target).ok()?
    };
    Some((
        followed.path().to_owned(),
        followed.query().map(str::to_owned),
    ))
}
