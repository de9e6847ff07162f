//! How an upstream is asked, whatever its clients ask.

use service::tls::TlsClient;

use super::host::HostHeader;

/// How an upstream is asked, whatever its clients ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedAs {
    /// For which host.
    pub host: HostHeader,
    /// With whom as an authority, and as whom; needed where its URL is `https`.
    pub tls: Option<TlsClient>,
}
