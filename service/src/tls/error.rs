//! What is wrong with a certificate, and whose it is, in words.

use tokio_rustls::rustls::server::VerifierBuilderError;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

use super::codec::HandshakeError;

/// A listener's TLS that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TlsError {
    /// Which of the [`TlsFields`](super::TlsFields) is wrong.
    pub key: String,
    /// Why.
    pub(super) reason: String,
}

impl TlsError {
    pub(super) fn new(key: &str, reason: &impl ToString) -> TlsError {
        TlsError {
            key: key.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn verifier(error: &VerifierBuilderError) -> TlsError {
        TlsError::new("client_ca", &format_args!("it cannot be used: {error}"))
    }
}

/// Why a client's handshake failed, for the operator.
pub fn client_failure(error: &HandshakeError) -> String {
    let HandshakeError::Refused(error) = error else {
        return error.to_string();
    };
    match error {
        rustls::Error::NoCertificatesPresented => {
            "the client has no certificate, and tls.client_certificates requires one".to_owned()
        }
        rustls::Error::InvalidCertificate(error) => {
            format!(
                "the client's certificate is refused: {}",
                certificate(error)
            )
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            // What it trusts has the name of the authority, and another key.
            | AlertDescription::DecryptError => {
                "the client does not trust this server's certificate: give the client the \
                 certificate of the authority that signed it"
                    .to_owned()
            }
            AlertDescription::CertificateExpired => {
                "the client says that this server's certificate has expired: renew it".to_owned()
            }
            alert => format!("the client refuses: {alert:?}"),
        },
        rustls::Error::PeerIncompatible(reason) => {
            format!("the client and this server have nothing in common: {reason:?}")
        }
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        // The second, where an authority of the same name has not signed it.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no authority in tls.client_ca has signed it".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        other => other.to_string(),
    }
}
