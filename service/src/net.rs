//! Addresses of HTTP servers as a configuration writes them, and a client for a single request.
//!
//! Deliberately not here: connections that are kept.

mod address;
mod client;
mod network;
mod tls_client;
mod tls_failure;
mod url;

pub use address::ServerAddress;
pub use client::{ClientError, GetRequest, Response};
pub use network::{Network, NetworkError};
pub use tls_client::{TlsClient, TlsClientError, TlsClientFields};
pub use tls_failure::TlsFailure;
pub use url::{HttpUrl, Scheme, UrlError};
