//! Addresses of HTTP servers as a configuration writes them, and a client for a single request.
//!
//! Deliberately not here: connections that are kept.

mod address;
mod client;
mod network;
mod url;

pub use address::ServerAddress;
pub use client::{ClientError, GetRequest, Response};
pub use network::{Network, NetworkError};
pub use url::{HttpUrl, Scheme, UrlError};
