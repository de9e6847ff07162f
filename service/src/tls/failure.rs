//! Why a TLS handshake with a server failed: what is wrong, whose, and what to do about it.

use std::fmt;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

const NOT_TLS: &str = "the server does not speak TLS on this port; use http:// or the port for TLS";

/// Why a TLS handshake with a server failed, in an operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure(String);

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        Self(plainly(error))
    }
}

impl TlsFailure {
    /// What an error of a connection inside TLS means; `None` if it is not one of TLS, but of the
    /// connection below.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::from)
    }

    /// What an error during the handshake means, of TLS or of the connection below.
    pub fn during(error: &io::Error) -> Self {
        Self::of(error).unwrap_or_else(|| {
            Self(match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    "the server closed the connection during the TLS handshake".to_owned()
                }
                io::ErrorKind::TimedOut => {
                    "the server did not finish the TLS handshake in time".to_owned()
                }
                _ => error.to_string(),
            })
        })
    }

    /// Whether an error holds one.
    pub fn is_in(error: &io::Error) -> bool {
        let inner = error.get_ref();
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }

    /// The server speaks something else.
    pub fn not_tls() -> Self {
        Self(NOT_TLS.to_owned())
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsFailure {}

fn plainly(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => refused(*alert),
        // The first bytes of a server that speaks plain HTTP are no TLS record.
        Error::InvalidMessage(_) => NOT_TLS.to_owned(),
        Error::PeerIncompatible(error) => {
            format!("the server speaks no version or cipher of TLS that is safe: {error:?}")
        }
        Error::NoCertificatesPresented => "the server shows no certificate".to_owned(),
        error => format!("the TLS handshake failed: {error}"),
    }
}

/// What is wrong with the server's certificate.
fn certificate(error: &CertificateError) -> String {
    match error {
        // A bad signature: an authority of the same name is known, but it has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is not signed by a known authority; set tls.ca to the file of \
             the authority that signed it"
                .to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() {
                "no name".to_owned()
            } else {
                names.join(", ")
            };
            format!(
                "the server's certificate is for {names}, and not for {}; if it is the right server, \
                 set tls.server_name to a name of the certificate",
                expected.to_str()
            )
        }
        CertificateError::NotValidForName => {
            "the server's certificate is for another name; if it is the right server, set \
             tls.server_name to a name of the certificate"
                .to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the server's certificate expired at {}; renew it there, or set this machine's clock",
            time(*not_after)
        ),
        CertificateError::Expired => {
            "the server's certificate has expired; renew it there, or set this machine's clock"
                .to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid before {}; set this machine's clock, or that of \
             the machine that made it",
            time(*not_before)
        ),
        error if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is one of an authority (CA:TRUE), which no server may use; \
             make one without that"
                .to_owned()
        }
        error => format!("the server's certificate cannot be used: {error}"),
    }
}

/// What the server does not like about us.
fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server asks for a client certificate; set tls.certificate and tls.key".to_owned()
        }
        AlertDescription::HandshakeFailure => {
            "the server refuses the TLS handshake: it may ask for a client certificate \
             (tls.certificate and tls.key), or speak other versions of TLS"
                .to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => format!(
            "the server refuses our client certificate ({alert:?}); set tls.certificate and tls.key \
             to one that it accepts"
        ),
        AlertDescription::UnrecognisedName => {
            "the server has no certificate for this name; set tls.server_name".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "the server does not speak HTTP/1.1 here".to_owned()
        }
        alert => format!("the server refuses the TLS handshake: {alert:?}"),
    }
}

/// A name that a certificate has, without its kind: `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn time(at: UnixTime) -> String {
    // The year 9999 is the last that the format has.
    let since = Duration::from_secs(at.as_secs().min(253_402_300_799));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(error: Error) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        TlsFailure::of(&error).unwrap().to_string()
    }

    #[test]
    fn an_expired_certificate_is_reported_with_its_time() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let error = plain(Error::InvalidCertificate(
            CertificateError::ExpiredContext {
                time: at(2_000_000_000),
                not_after: at(1_000_000_000),
            },
        ));
        assert!(error.contains("expired at 2001-09-09T01:46:40Z"), "{error}");
        let error = plain(Error::InvalidCertificate(
            CertificateError::NotValidYetContext {
                time: at(1),
                not_before: at(u64::MAX),
            },
        ));
        assert!(error.contains("not valid before 9999-12-31"), "{error}");
    }

    #[test]
    fn a_wrong_name_is_reported_with_those_of_the_certificate() {
        let error = plain(Error::InvalidCertificate(
            CertificateError::NotValidForNameContext {
                expected: "b.example".try_into().unwrap(),
                presented: vec!["DnsName(\"a.example\")".into(), "IpAddress(::1)".into()],
            },
        ));
        let message = "is for a.example, ::1, and not for b.example; ";
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn an_error_of_the_connection_is_none_of_tls() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(TlsFailure::of(&error), None);
        let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
        let closed = TlsFailure::during(&closed).to_string();
        assert!(closed.contains("closed the connection"), "{closed}");
    }

    #[test]
    fn a_client_certificate_that_is_wanted_is_told_from_one_that_is_refused() {
        let error = plain(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert!(error.contains("asks for a client certificate"), "{error}");
        let error = plain(Error::AlertReceived(AlertDescription::UnknownCA));
        assert!(error.contains("refuses our client certificate"), "{error}");
    }
}
