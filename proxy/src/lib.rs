//! A reverse proxy that stands in front of any OCI registry and tells what it is doing.
//!
//! The life of a request, and where each part of it lives:
//!
//! ```text
//! downstream   a connection is accepted, capped and handed to pingora
//! proxy        pingora calls the phases, about a line each
//!   exchange     one request under observation: the only place that moves request metrics
//!   sessions     the upload sessions that are open, by the Locations that registries hand out
//!   upstream     where the request goes: the addresses of the registry
//!   error        what a failure means for the client
//! admin        /metrics, /livez, /readyz: answered here, never forwarded, never counted
//!   aggregate    the page: our own families and those of the registries behind
//! ```
//!
//! [`server`] binds and starts all of it, with the registry of [`embedded`] behind it where no
//! upstream is configured.
//!
//! Invariants: nothing that a client sends becomes a label except through a closed enum; a metrics
//! failure never fails a request; bodies stream in bounded memory; no secret is logged.
//!
//! What is deliberately not here: knowledge of how a registry stores anything, caching, and any
//! change to what the upstream says.

pub mod admin;
pub mod aggregate;
pub mod cli;
pub mod config;
mod downstream;
pub mod embedded;
mod error;
pub mod exchange;
pub mod metrics;
mod proxy;
pub mod server;
pub mod sessions;
pub mod upstream;
