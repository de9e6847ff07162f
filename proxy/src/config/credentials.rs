//! The keys of the proxy's own credentials for an upstream, and who may cause that they are used.

use std::env;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::config::{Checker, ConfigError, Secret};
use service::listen::ListenAddr;
use service::net::{HttpUrl, UrlError};
use service::small_file;
use service::tls::TlsClient;

use crate::upstream::{CredentialsConfig, Target};

/// The longest name of a user or a variable, in bytes.
const LONGEST_NAME: usize = 256;

/// The variables that are keys of the configuration.
const OWN_VARIABLES: &str = "OCTOSERVE_";

/// The proxy's own credentials for an upstream.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialsFields {
    /// The user's name, without a colon. At most 256 bytes.
    pub username: Option<String>,
    /// A file that holds the password. The line ending is not part of it. Excludes `password_env`.
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds the password, of a name that does not begin with `OCTOSERVE_`.
    /// Excludes `password_file`.
    pub password_env: Option<String>,
    /// The URL where the upstream's tokens are issued; null: at the upstream's own address.
    pub realm: Option<String>,
    /// Whether pushes are sent with them, too.
    pub allow_push: bool,
    /// What clients without credentials of their own may do with these, where others reach a listener.
    pub anonymous: AnonymousUse,
}

/// What clients without credentials may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousUse {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Pull,
}

/// A listener that others than this machine reach.
#[derive(Clone, Debug)]
pub(super) struct ExposedListener {
    pub(super) address: ListenAddr,
    /// Whether its clients must show a certificate.
    pub(super) requires_certificate: bool,
}

impl CredentialsFields {
    /// Where the upstream's tokens are issued.
    pub(super) fn realm(&self, checker: &Checker<'_>) -> Result<Option<HttpUrl>, ConfigError> {
        let Some(text) = &self.realm else {
            return Ok(None);
        };
        let realm: HttpUrl = text
            .parse()
            .map_err(|error: UrlError| checker.error("realm", &error.to_string()))?;
        if !realm.is_private() {
            let message = "the password would be sent there without TLS: use https, or a server on this \
                           machine";
            return Err(checker.error("realm", message));
        }
        Ok(Some(realm))
    }

    /// Reads the password. The URL is where tokens are issued.
    pub(super) fn resolve(
        self,
        realm: Option<HttpUrl>,
        tls: Option<TlsClient>,
        checker: &Checker<'_>,
    ) -> Result<CredentialsConfig, ConfigError> {
        let Some(username) = self.username else {
            return Err(checker.error("", "the key username is missing"));
        };
        checker.text("username", &username, LONGEST_NAME)?;
        // The first colon ends the name (RFC 7617, section 2), so a name cannot contain one.
        if username.contains(':') {
            return Err(checker.error("username", "must be a name without a colon"));
        }
        let password = match (self.password_file, self.password_env) {
            (None, None) => {
                let message = "the key password_file or password_env is missing";
                return Err(checker.error("", message));
            }
            (Some(_), Some(_)) => {
                let message = "the keys password_file and password_env exclude each other";
                return Err(checker.error("", message));
            }
            (Some(path), None) => {
                read(&path).map_err(|message| checker.error("password_file", &message))?
            }
            (None, Some(name)) => {
                checker.text("password_env", &name, LONGEST_NAME)?;
                variable(&name).map_err(|message| checker.error("password_env", &message))?
            }
        };
        Ok(CredentialsConfig {
            username,
            password,
            realm,
            allow_push: self.allow_push,
            tls,
        })
    }

    /// Refuses what would show the credentials, or open a private registry, without the operator's word.
    pub(super) fn check_use(
        &self,
        targets: &[Target],
        exposed: &[ExposedListener],
        checker: &Checker<'_>,
    ) -> Result<(), ConfigError> {
        if targets.iter().any(|target| !target.is_private()) {
            let message = "would be sent without TLS to the upstream: use https, a loopback address or a \
                           socket";
            return Err(checker.error("", message));
        }
        let Some(first) = exposed.first() else {
            return Ok(());
        };
        if self.anonymous != AnonymousUse::Pull {
            let message = format!(
                "others reach {}, and these credentials open the upstream to all of them: if they may \
                 pull, set anonymous: pull",
                first.address
            );
            return Err(checker.error("", &message));
        }
        let open = exposed.iter().find(|exposed| !exposed.requires_certificate);
        if let Some(open) = open.filter(|_| self.allow_push) {
            let message = format!(
                "others reach {}, and all of them could push with these credentials: require client \
                 certificates there",
                open.address
            );
            return Err(checker.error("allow_push", &message));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Secret, String> {
    let text = small_file::read_text(path).map_err(|error| {
        let mend = small_file::mend(&error);
        format!("cannot read {}: {error}{mend}", path.display())
    })?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(Secret::new(password))
}

fn variable(name: &str) -> Result<Secret, String> {
    if name.starts_with(OWN_VARIABLES) {
        return Err(format!(
            "variables that begin with {OWN_VARIABLES} are keys of the configuration: give it another name"
        ));
    }
    match env::var(name) {
        Ok(password) if !password.is_empty() => Ok(Secret::new(password)),
        Ok(_) | Err(env::VarError::NotPresent) => Err(format!("the variable {name} is not set")),
        // Without the value, which is a password.
        Err(env::VarError::NotUnicode(_)) => Err(format!("the variable {name} is not UTF-8")),
    }
}
