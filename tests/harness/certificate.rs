//! A certificate for `localhost` and its key, in files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// A certificate and its key. Dropping it removes the files.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Errors
    /// If the files cannot be created.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-certificate-")?;
        let certificate = Self { directory };
        certificate.renew()?;
        Ok(certificate)
    }

    /// Replaces both files with a new certificate and key, each atomically.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn renew(&self) -> Result<()> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        self.replace(&self.path(), &made.cert.pem())?;
        self.replace(&self.key(), &made.signing_key.serialize_pem())
    }

    /// The self-signed certificate, which clients have to trust.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("tls.crt")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("tls.key")
    }

    /// Replaces one of the files atomically.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn replace(&self, path: &Path, text: &str) -> Result<()> {
        let beside = self.directory.path().join("new");
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(beside, path)?)
    }

    /// The configuration keys that name the files.
    pub fn keys(&self) -> String {
        format!(
            "{{certificate: '{}', key: '{}'}}",
            self.path().display(),
            self.key().display()
        )
    }
}
