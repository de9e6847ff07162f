//! The metrics endpoint of both programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::metrics::label::NAMES;
use crate::oci::{Endpoint, Route};
use service::admin::{StatusPage, StatusPageFields};
use service::auth::{BasicAuth, BasicAuthFields};
use service::config::{Checker, ConfigError, Origins};
use service::listen::{ListenAddr, ListenFields};
use service::scrape::FinalFile;
use service::tls::Tls;

/// The default path of the metrics endpoint.
pub const METRICS_PATH: &str = "/metrics";

const LONGEST_PATH: usize = 255;
const MOST_LABELS: usize = 32;
const LONGEST_LABEL: usize = 255;

/// Where the metrics are served, and who may scrape them.
#[derive(Clone, Debug, Default)]
pub struct MetricsEndpoint {
    /// A listener for metrics and probes alone.
    pub listen: Option<ListenAddr>,
    /// That listener's certificate, if it has TLS.
    pub tls: Option<Tls>,
    /// The path of the metrics endpoint.
    pub path: String,
    /// Where the last exposition is written when the process ends.
    pub final_file: Option<FinalFile>,
    /// Who may scrape; `None`: everybody who reaches the endpoint.
    pub auth: Option<BasicAuth>,
    /// The status page; `None` where there is to be none.
    pub page: Option<Arc<StatusPage>>,
    /// What every sample of our own carries beside its labels.
    pub labels: BTreeMap<String, String>,
}

/// The keys of a [`MetricsEndpoint`], which are in the section `metrics` of either program.
#[derive(Debug)]
pub struct MetricsEndpointFields {
    /// `metrics.listen`.
    pub listen: Option<ListenFields>,
    /// `metrics.path`.
    pub path: String,
    /// `metrics.final_file`.
    pub final_file: Option<PathBuf>,
    /// `metrics.basic_auth`.
    pub basic_auth: Option<BasicAuthFields>,
    /// `metrics.status_page`.
    pub status_page: StatusPageFields,
    /// `metrics.labels`.
    pub labels: BTreeMap<String, String>,
}

impl MetricsEndpointFields {
    /// Checks the keys, and loads the certificate and the password.
    pub fn resolve(self, origins: &Origins) -> Result<MetricsEndpoint, ConfigError> {
        check_path(&self.path, origins)?;
        check_labels(&self.labels, origins)?;
        if let Some(file) = &self.final_file
            && file.file_name().is_none()
        {
            return Err(origins.error("metrics.final_file", "must be the path of a file"));
        }
        // Loaded here, so that a bad certificate stops the start and not the first scrape.
        let tls = match &self.listen {
            Some(listen) => listen.load_tls("metrics.listen", &[b"http/1.1"], origins)?,
            None => None,
        };
        let page = self.status_page.resolve(&self.path, origins)?;
        let auth = self
            .basic_auth
            .map(|auth| auth.resolve("metrics.basic_auth", origins))
            .transpose()?;
        Ok(MetricsEndpoint {
            listen: self.listen.map(|listen| listen.address),
            tls,
            path: self.path,
            final_file: self.final_file.as_deref().map(FinalFile::new),
            auth,
            page: page.map(Arc::new),
            labels: self.labels,
        })
    }
}

impl MetricsEndpoint {
    /// The listener if it has no TLS: the health probe speaks plain HTTP only.
    pub fn plain_listener(&self) -> Option<&ListenAddr> {
        match self.tls {
            Some(_) => None,
            None => self.listen.as_ref(),
        }
    }
}

/// Checks `metrics.path`: a plain path that hides no endpoint of a registry and no probe.
fn check_path(path: &str, origins: &Origins) -> Result<(), ConfigError> {
    let checker = Checker::new(origins, "metrics");
    checker.text("path", path, LONGEST_PATH)?;
    // All of `/v2` is the registry's. Outside of it are the token endpoints of an upstream.
    let is_registry = path == "/v2" || path.starts_with("/v2/");
    let is_token = Route::parse(path).endpoint == Endpoint::Token;
    if is_registry || is_token || matches!(path, "/livez" | "/readyz") {
        let message = "must not hide an endpoint of a registry or a probe";
        return Err(checker.error("path", message));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_component = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    let components = path.strip_prefix('/');
    if !components.is_some_and(|path| path.split('/').all(is_component)) {
        let message = "must begin with a slash and be a plain path, such as /metrics";
        return Err(checker.error("path", message));
    }
    Ok(())
}

/// Checks `metrics.labels`: what every sample carries beside its own labels, whose names are taken.
fn check_labels(labels: &BTreeMap<String, String>, origins: &Origins) -> Result<(), ConfigError> {
    let checker = Checker::new(origins, "metrics");
    checker.entries("labels", labels.len(), MOST_LABELS)?;
    for (name, value) in labels {
        let error = |message: &str| {
            let key = format!("metrics.labels.{name}");
            Err(origins.error(&key, message))
        };
        let first = name.bytes().next();
        if !first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return error("must be a name of letters, digits and underscores");
        }
        if name.starts_with("__") {
            return error("names that begin with two underscores are Prometheus' own");
        }
        if NAMES.contains(&name.as_str()) {
            return error("is a label of our own metrics");
        }
        // To Prometheus a label that is empty is not there.
        let checker = checker.section("labels");
        checker.text(name, value, LONGEST_LABEL)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_hides_something_is_refused() {
        let check = |path| check_path(path, &Origins::default()).is_ok();
        for path in [
            "/metrics",
            "/-/metrics.txt",
            "/v2metrics",
            "/v2.",
            "/a/v2/b",
        ] {
            assert!(check(path), "{path}");
        }
        for path in [
            "",
            "metrics",
            "/",
            "/v2",
            "/v2/",
            "/v2/_metrics",
            "/livez",
            "/readyz",
            "/a b",
            "/a%2f",
            "/a?b",
            "/token",
            "/service/token",
            "/a//b",
            "/a/../b",
            "/metrics/",
            "/ä",
        ] {
            assert!(!check(path), "{path}");
        }
    }

    #[test]
    fn a_label_that_clashes_or_cannot_be_is_refused_by_its_key() {
        let check = |name: &str, value: &str| {
            let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            check_labels(&labels, &Origins::default()).map_err(|error| error.to_string())
        };
        for name in ["region", "_a", "instance", "Zone2"] {
            assert_eq!(check(name, "x"), Ok(()));
        }
        for (name, value) in [
            ("endpoint", "x"),
            ("source", "x"),
            ("le", "x"),
            ("__name__", "x"),
            ("a-b", "x"),
            ("2a", "x"),
            ("region", ""),
        ] {
            let error = check(name, value).unwrap_err();
            assert!(
                error.starts_with(&format!("metrics.labels.{name}: ")),
                "{error}"
            );
        }
        // It has no key of its own to be named by.
        let error = check("", "x").unwrap_err();
        assert!(error.starts_with("metrics.labels: "), "{error}");
    }
}
