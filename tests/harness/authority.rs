//! An authority of our own, and the certificates that it signs, in files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority. Dropping it removes the files.
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    signed: AtomicUsize,
}

/// A certificate and its key, in the authority's directory.
pub struct SignedCertificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one of this name.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("octoserve-authority-")?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(directory.path().join("ca.crt"), issuer.pem())?;
        Ok(Self {
            directory,
            issuer,
            signed: AtomicUsize::new(0),
        })
    }

    /// Its own certificate, which clients have to trust.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Signs a certificate for these names.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn sign(&self, names: &[&str]) -> Result<SignedCertificate> {
        self.sign_changed(names, |_| {})
    }

    /// Signs one that has expired.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn sign_expired(&self, names: &[&str]) -> Result<SignedCertificate> {
        self.sign_changed(names, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    fn sign_changed(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<SignedCertificate> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        let write = |kind: &str, text: String| {
            let path = self.directory.path().join(format!("{number}.{kind}"));
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(SignedCertificate {
            certificate: write("crt", certificate.pem())?,
            key: write("key", key.serialize_pem())?,
        })
    }
}

impl SignedCertificate {
    /// The configuration keys that name the files.
    pub fn keys(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        format!(
            "certificate: '{}', key: '{}'",
            path(&self.certificate),
            path(&self.key)
        )
    }
}
