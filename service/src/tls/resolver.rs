//! Which certificate a client gets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// The certificates of a listener, by the names that they are for.
pub(super) struct CertificateResolver {
    /// For clients that name no server, or another one. Others may refuse it.
    first: Arc<CertifiedKey>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl CertificateResolver {
    /// Of the first certificate, and all others.
    pub(super) fn new(first: &Certificate, others: &[Certificate]) -> CertificateResolver {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in std::iter::once(first).chain(others) {
            for name in &certificate.names {
                let of_name = by_name.entry(name.clone()).or_default();
                of_name.push(Arc::clone(&certificate.key));
            }
        }
        CertificateResolver {
            first: Arc::clone(&first.key),
            by_name,
        }
    }

    /// Those for a name, or for all names of its domain.
    fn of(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        if let Some(of_name) = self.by_name.get(&name) {
            return of_name;
        }
        // `*` stands for one part of a name (RFC 6125 §6.4.3).
        let of_domain = name.split_once('.').and_then(|(_, domain)| {
            let pattern = format!("*.{domain}");
            self.by_name.get(&pattern)
        });
        of_domain.map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let of_name = hello.server_name().map_or(&[][..], |name| self.of(name));
        // There may be two of different kinds of keys.
        let schemes = hello.signature_schemes();
        let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        let chosen = of_name.iter().find(fits).or(of_name.first());
        Some(Arc::clone(chosen.unwrap_or(&self.first)))
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.by_name.keys();
        f.debug_list().entries(names).finish()
    }
}
