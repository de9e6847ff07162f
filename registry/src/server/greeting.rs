//! What a person at a terminal is told of a registry.

use service::greeting::{Greeting, url};
use service::listen::ListenAddr;

use crate::config::endpoint::MetricsEndpoint;

/// The URLs of a registry with these listeners, and of its metrics, and what to try.
pub(super) fn greeting(
    addresses: &[ListenAddr],
    metrics: Option<(&MetricsEndpoint, &ListenAddr)>,
) -> Greeting {
    let mut greeting = Greeting::default();
    for address in addresses {
        greeting = greeting.url("registry", address, false, "");
    }
    if let Some((endpoint, address)) = metrics {
        if endpoint.page.is_some() {
            greeting = greeting.url("status page", address, endpoint.tls.is_some(), "/");
        }
        greeting = greeting.url("metrics", address, endpoint.tls.is_some(), &endpoint.path);
    }
    match addresses.first() {
        Some(address @ ListenAddr::Tcp(_)) => {
            let host = url(address, false, "");
            greeting.round_trip(host.trim_start_matches("http://"))
        }
        _ => greeting,
    }
}
