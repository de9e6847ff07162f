//! What a person at a terminal is told of a proxy.

use service::admin::AdminListener;
use service::greeting::{Greeting, url};
use service::listen::ListenAddr;

use crate::aggregate::Aggregate;
use crate::config::ProxyMetricsConfig;

/// The URLs of a proxy with these listeners, each with whether it speaks TLS, and of its metrics, and what
/// to try.
pub(super) fn greeting(
    listening: &[(&ListenAddr, bool)],
    metrics: Option<&ProxyMetricsConfig>,
    listener: Option<&AdminListener<Aggregate>>,
    is_embedded: bool,
) -> Greeting {
    let mut greeting = Greeting::default();
    for (address, is_secured) in listening {
        greeting = greeting.url("registry", address, *is_secured, "");
    }
    let first = listening.first().copied();
    let own = listener.map(|listener| (listener.address(), listener.tls().is_some()));
    let mut scraped = None;
    if let Some(metrics) = metrics {
        let path = &metrics.endpoint.path;
        let on_main = first.filter(|_| metrics.on_main);
        if let Some((address, is_secured)) = own.or(on_main) {
            let has_page = match own {
                Some(_) => metrics.endpoint.page.is_some(),
                None => metrics.has_page_on_main(is_embedded),
            };
            if has_page {
                greeting = greeting.url("status page", address, is_secured, "/");
            }
            greeting = greeting.url("metrics", address, is_secured, path);
            scraped = Some(url(address, is_secured, path));
        }
    }
    let Some((address @ ListenAddr::Tcp(_), is_secured)) = first else {
        return greeting;
    };
    let host = url(address, is_secured, "");
    let host = host.split_once("://").map_or(&*host, |(_, host)| host);
    greeting = if is_embedded {
        greeting.round_trip(host)
    } else {
        greeting.text("try", &format!("docker pull {host}/REPOSITORY:TAG"))
    };
    // What a password or a certificate is needed for would take more words than there is room for.
    let is_open = metrics.is_some_and(|metrics| metrics.endpoint.auth.is_none());
    match scraped.filter(|url| is_open && url.starts_with("http://")) {
        Some(url) => {
            let what = if is_embedded { "{.*team/app/web" } else { "" };
            let family = "octoserve_repository_operations_total";
            greeting.text("", &format!("curl -s {url} | grep '{family}{what}'"))
        }
        None => greeting,
    }
}
