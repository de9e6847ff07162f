//! What `doctor` tries of the proxy: its listeners, its upstreams, and their metrics.
//!
//! It asks as the proxy itself does, with the same connections, credentials and parsers.

use service::doctor::{self, Examination, ExaminedListener};
use service::listen::ListenAddr;

use crate::aggregate::Origin;
use crate::config::{ProxyConfig, UpstreamsConfig};

mod replica;
mod source;
mod tokens;

/// What is tried of a configuration.
pub(crate) fn examinations(config: &ProxyConfig) -> Vec<Examination> {
    let listen = config.listen.iter().enumerate();
    let clients = listen.map(|(at, listen)| ExaminedListener {
        key: format!("listen[{at}]"),
        address: listen.address.clone(),
        tls: listen.tls.clone(),
        path: service::admin::LIVE,
        other: None,
    });
    let metrics = config.metrics.iter().filter_map(|metrics| {
        Some(ExaminedListener {
            key: "metrics.listen".to_owned(),
            address: metrics.endpoint.listen.clone()?,
            tls: metrics.endpoint.tls.clone(),
            path: service::admin::LIVE,
            other: None,
        })
    });
    let mut all: Vec<_> = clients.chain(metrics).map(doctor::listener).collect();
    let is_remote = config
        .listen
        .iter()
        .any(|listen| is_reached_from_elsewhere(&listen.address));
    match &config.upstreams {
        UpstreamsConfig::Embedded(storage) => all.push(registry::doctor::data_directory(storage)),
        UpstreamsConfig::Remote(upstreams) => {
            for upstream in upstreams {
                let replicas = upstream.replicas.iter();
                all.extend(replicas.map(|one| replica::examination(upstream, one, is_remote)));
            }
        }
    }
    if let Some(metrics) = &config.metrics {
        for source in &metrics.sources {
            if let Origin::Endpoint(request) = &source.origin {
                all.push(source::examination(&source.name, request, metrics.limits));
            }
        }
    }
    all
}

/// Whether clients on other machines reach a listener.
fn is_reached_from_elsewhere(address: &ListenAddr) -> bool {
    match address {
        ListenAddr::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        ListenAddr::Unix(_) => false,
    }
}
