//! How an upstream is reached: for which host, and with whom as an authority.

use service::config::{Checker, ConfigError};
use service::net::{HttpUrl, Scheme};
use service::tls::{TlsClient, TlsClientFields, TlsError};

use crate::upstream::{HostHeader, HostHeaderError};

/// TLS towards an upstream, and towards other servers that it needs.
#[derive(Default)]
pub(super) struct UpstreamTls {
    pub(super) upstream: Option<TlsClient>,
    pub(super) others: Option<TlsClient>,
}

/// Reads the files of TLS where one of the URLs needs it.
pub(super) fn tls<'u>(
    fields: Option<&TlsClientFields>,
    mut urls: impl Iterator<Item = &'u HttpUrl>,
    checker: &Checker<'_>,
) -> Result<UpstreamTls, ConfigError> {
    if !urls.any(|url| url.scheme() == Scheme::Https) {
        // Refused and not ignored: the operator would believe that TLS is spoken.
        return match fields {
            Some(_) => Err(checker.error("tls", "there is no https URL that it could be for")),
            None => Ok(UpstreamTls::default()),
        };
    }
    let default = TlsClientFields::default();
    let loaded = fields.unwrap_or(&default).load();
    let (upstream, others) = loaded
        .map_err(|error: TlsError| checker.section("tls").error(&error.key, &error.to_string()))?;
    Ok(UpstreamTls {
        upstream: Some(upstream),
        others: Some(others),
    })
}

/// The host that the upstream is asked for.
pub(super) fn host(text: &str, checker: &Checker<'_>) -> Result<HostHeader, ConfigError> {
    text.parse()
        .map_err(|error: HostHeaderError| checker.error("host", &error.to_string()))
}
