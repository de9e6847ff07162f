//! A certificate for `localhost`, in files as a server wants them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

/// A certificate and its key. The files go with it.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Errors
    /// If there is no place for the files.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-certificate-")?;
        let certificate = Self { directory };
        certificate.renew()?;
        Ok(certificate)
    }

    /// Puts another one in the place of the files, each at once.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn renew(&self) -> Result<()> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        self.replace(&self.path(), &made.cert.pem())?;
        self.replace(&self.key(), &made.signing_key.serialize_pem())
    }

    /// The certificate, which signed itself: also what a client has to trust.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("tls.crt")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("tls.key")
    }

    /// Puts a text in the place of one of the files, at once.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn replace(&self, path: &Path, text: &str) -> Result<()> {
        let beside = self.directory.path().join("new");
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(beside, path)?)
    }

    /// The keys of a configuration that name the files.
    pub fn keys(&self) -> String {
        format!(
            "{{certificate: '{}', key: '{}'}}",
            self.path().display(),
            self.key().display()
        )
    }
}
