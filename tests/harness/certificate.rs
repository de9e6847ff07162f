//! A certificate and its key, in files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use tempfile::TempDir;

use crate::authority::SignedCertificate;

/// A certificate and its key. Dropping it removes the files.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one for `localhost`.
    ///
    /// # Errors
    /// If the files cannot be created.
    pub fn new() -> Result<Self> {
        Self::of("localhost")
    }

    /// Makes one for this name.
    ///
    /// # Errors
    /// If the files cannot be created.
    pub fn of(name: &str) -> Result<Self> {
        Self::made(&params(name)?)
    }

    /// Makes one for `localhost` that has expired long ago.
    ///
    /// # Errors
    /// If the files cannot be created.
    pub fn expired() -> Result<Self> {
        let mut params = params("localhost")?;
        params.not_after = date_time_ymd(2001, 2, 3);
        params.not_before = date_time_ymd(2000, 1, 1);
        Self::made(&params)
    }

    fn made(params: &CertificateParams) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-certificate-")?;
        let certificate = Self { directory };
        certificate.write(params)?;
        Ok(certificate)
    }

    /// Replaces both files with a new certificate and key, each atomically.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn renew(&self) -> Result<()> {
        self.write(&params("localhost")?)
    }

    /// Replaces both files with those of another certificate.
    ///
    /// # Errors
    /// If they can't be read or written.
    pub fn become_like(&self, other: &Self) -> Result<()> {
        self.replace(&self.path(), &std::fs::read_to_string(other.path())?)?;
        self.replace(&self.key(), &std::fs::read_to_string(other.key())?)
    }

    /// Replaces both files with those of a certificate that an authority has signed.
    ///
    /// # Errors
    /// If they can't be read or written.
    pub fn become_signed(&self, signed: &SignedCertificate) -> Result<()> {
        self.replace(&self.path(), &std::fs::read_to_string(&signed.certificate)?)?;
        self.replace(&self.key(), &std::fs::read_to_string(&signed.key)?)
    }

    fn write(&self, params: &CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        self.replace(&self.path(), &params.self_signed(&key)?.pem())?;
        self.replace(&self.key(), &key.serialize_pem())
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

fn params(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    // Otherwise all would be of one authority, by name.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
