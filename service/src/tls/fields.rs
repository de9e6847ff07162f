//! The keys of a listener's TLS as people write them.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use tokio_rustls::rustls::{SupportedProtocolVersion, version};

/// The most certificates beside the first.
pub(super) const MOST_CERTIFICATES: usize = 64;

/// The keys of a listener that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFields {
    /// A PEM file: the certificate, and those that lead to the authority that signed it.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
    /// More certificates, for clients that ask for one of their names (SNI). All others get the first. At
    /// most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFields>,
    /// A PEM file: the authorities that sign clients' certificates; null: clients need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether a client must have a certificate, where there is a `client_ca`; null: it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFields {
    /// A PEM file: the certificate, and those that lead to the authority that signed it.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// A client without one is refused.
    Required,
    /// A client may have none. One that is wrong is refused.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// 1.3 (RFC 8446).
    Tls13,
}

impl TlsFields {
    /// Whether a client must have a certificate; `None` where none is asked for.
    pub fn asks_for(&self) -> Option<ClientCertificates> {
        self.client_ca.as_ref()?;
        Some(
            self.client_certificates
                .unwrap_or(ClientCertificates::Required),
        )
    }

    /// All certificates, each with the key of the configuration that names it.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, CertificateFields)> + '_ {
        let first = CertificateFields {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        let more = self.certificates.iter().cloned().enumerate();
        let more = more.map(|(at, fields)| (format!("certificates[{at}]."), fields));
        std::iter::once((String::new(), first)).chain(more)
    }
}

impl TlsVersion {
    /// This version and all that are newer.
    pub(super) fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            TlsVersion::Tls12 => &ALL,
            TlsVersion::Tls13 => &ALL[..1],
        }
    }

    fn text(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

impl JsonSchema for TlsVersion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "tls_version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["1.2", "1.3", 1.2, 1.3]})
    }
}

impl Serialize for TlsVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TlsVersionVisitor)
    }
}

/// `1.2` in a YAML file is a number, and a text in quotes or in the environment.
struct TlsVersionVisitor;

impl Visitor<'_> for TlsVersionVisitor {
    type Value = TlsVersion;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1.2 or 1.3")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TlsVersion, E> {
        match text {
            "1.2" => Ok(TlsVersion::Tls12),
            "1.3" => Ok(TlsVersion::Tls13),
            _ => Err(E::custom(format_args!("`{text}` is not 1.2 or 1.3"))),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<TlsVersion, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_or_a_text() {
        let parse = |yaml: &str| serde_yaml::from_str::<TlsVersion>(yaml);
        for (yaml, version) in [
            ("1.2", TlsVersion::Tls12),
            ("'1.2'", TlsVersion::Tls12),
            ("1.3", TlsVersion::Tls13),
        ] {
            assert_eq!(parse(yaml).unwrap(), version);
            let printed = serde_yaml::to_string(&version).unwrap();
            assert_eq!(parse(&printed).unwrap(), version);
        }
        for yaml in ["1.1", "'1.0'", "1", "tls", "[]"] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
    }
}
