//! A certificate with its key, as files have them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::TlsError;
use super::fields::CertificateFields;
use crate::small_file;

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    /// The file that it was read from.
    pub(super) file: PathBuf,
    pub(super) key: Arc<CertifiedKey>,
    /// The domain names that it is for, in lower case. The first part of one may be `*`.
    pub(super) names: Vec<String>,
    /// When it begins and ends to be valid, in seconds since 1970.
    pub(super) valid: (i64, i64),
}

impl Certificate {
    /// Reads one. `at` is the key of the configuration that names it.
    pub(super) fn read(at: &str, files: &CertificateFields) -> Result<Certificate, TlsError> {
        let in_file = |reason: String| TlsError {
            key: format!("{at}certificate"),
            reason: format!(
                "cannot read a certificate from {}: {reason}",
                files.certificate.display()
            ),
        };
        let chain = certificates(&files.certificate).map_err(|error| in_file(plainly(&error)))?;
        let wrong_key = |reason: String| TlsError {
            key: format!("{at}key"),
            reason,
        };
        let key = private_key(&files.key).map_err(|error| {
            let reason = plainly(&error);
            wrong_key(format!(
                "cannot read a private key from {}: {reason}",
                files.key.display()
            ))
        })?;
        let (names, valid) = facts(&chain).map_err(in_file)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = key.map_err(|error| wrong_key(mismatch(files, &error)))?;
        Ok(Certificate {
            file: files.certificate.clone(),
            key: Arc::new(key),
            names,
            valid,
        })
    }
}

fn mismatch(files: &CertificateFields, error: &tokio_rustls::rustls::Error) -> String {
    use tokio_rustls::rustls::{Error, InconsistentKeys};
    let (certificate, key) = (files.certificate.display(), files.key.display());
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("the key in {key} does not belong to the certificate in {certificate}")
        }
        other => format!(
            "the key in {key} cannot be used with the certificate in {certificate}: {other}"
        ),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, pem::Error> {
    let text = read(path)?;
    if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
        let reason = "it is protected by a passphrase: give it without one";
        return Err(pem::Error::Io(io::Error::other(reason)));
    }
    PrivateKeyDer::from_pem_slice(&text)
}

fn read(path: &Path) -> Result<Vec<u8>, pem::Error> {
    small_file::read(path).map_err(pem::Error::Io)
}

/// All certificates of a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let text = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(pem::Error::NoItemsFound);
    }
    Ok(chain)
}

/// The names of the first certificate, and when it is valid.
fn facts(chain: &[CertificateDer<'static>]) -> Result<(Vec<String>, (i64, i64)), String> {
    let first = chain.first().map_or(&[][..], |first| first);
    let (_, parsed) = X509Certificate::from_der(first).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name();
    let names = names.map_err(|error| error.to_string())?;
    let names = names.map_or_else(Vec::new, |names| {
        let names = names.value.general_names.iter();
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        names.collect()
    });
    let validity = parsed.validity();
    let valid = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    Ok((names, valid))
}

pub(super) fn plainly(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no such file{}", small_file::mend(error))
        }
        pem::Error::Io(error) => format!("{error}{}", small_file::mend(error)),
        other => other.to_string(),
    }
}
