//! The certificates of listeners.

use service::metrics::{Gauge, families};

families! {
    /// The `tls_certificate_*` families.
    pub struct CertificateFamilies by "name" {
        /// When a certificate that is loaded expires, in seconds since 1970, by its file as configured;
        /// set when it is loaded.
        pub expiry: Gauge = "tls_certificate_expiry_timestamp_seconds",
    }
}
