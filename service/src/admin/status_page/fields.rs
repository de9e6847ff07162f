//! The keys of the status page as people write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StatusPage;
use crate::config::{Checker, ConfigError, Origins};

const MOST_HOSTS: usize = 64;
const LONGEST_HOST: usize = 255;

/// The status page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatusPageFields {
    /// Which listeners serve the status page, at `/`: `auto` is the metrics listener, and the main listeners
    /// if `metrics.basic_auth` guards it and the embedded registry is behind them.
    pub listeners: StatusPageListeners,
    /// The names by which it may be opened without a password, beside IP addresses and `localhost`; at most
    /// 64.
    pub hosts: Vec<String>,
}

/// Which listeners serve the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusPageListeners {
    /// None.
    None,
    /// The metrics listener; the main listeners, too, if `metrics.basic_auth` guards it and the
    /// embedded registry, which has no page of its own, is behind them.
    #[default]
    Auto,
    /// All listeners that serve the metrics.
    All,
}

impl StatusPageFields {
    /// Checks the keys, and makes the page over the metrics at `path`, unless there is to be none.
    pub fn resolve(
        &self,
        path: &str,
        origins: &Origins,
    ) -> Result<Option<StatusPage>, ConfigError> {
        let checker = Checker::new(origins, "metrics.status_page");
        checker.entries("hosts", self.hosts.len(), MOST_HOSTS)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        for (at, host) in self.hosts.iter().enumerate() {
            let key = format!("hosts[{at}]");
            checker.text(&key, host, LONGEST_HOST)?;
            if !host.bytes().all(plain) || host.ends_with('.') {
                let message = "must be a host name without a scheme and a port";
                return Err(checker.error(&key, message));
            }
        }
        let is_served = self.listeners != StatusPageListeners::None;
        Ok(is_served.then(|| StatusPage::new(path, &self.hosts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_alone() {
        let resolve = |host: &str| {
            let fields = StatusPageFields {
                hosts: vec!["status.example".to_owned(), host.to_owned()],
                ..StatusPageFields::default()
            };
            let page = fields.resolve("/metrics", &Origins::default());
            page.map(|page| page.is_some())
                .map_err(|error| error.to_string())
        };
        assert_eq!(resolve("registry_1.lan"), Ok(true));
        for host in ["", "a:80", "http://a", "a/b", "*.a", "a b", "a.", "[::1]"] {
            let error = resolve(host).unwrap_err();
            let key = "metrics.status_page.hosts[1]: ";
            assert!(error.starts_with(key), "{error}");
        }
        let none = StatusPageFields {
            listeners: StatusPageListeners::None,
            ..StatusPageFields::default()
        };
        let page = none.resolve("/metrics", &Origins::default()).unwrap();
        assert!(page.is_none());
    }
}
