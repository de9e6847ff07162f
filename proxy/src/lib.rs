//! A reverse proxy in front of any OCI registry, which records what the registry is doing.
//!
//! The life of a request, and where each part of it lives:
//!
//! ```text
//! downstream   a connection is accepted and counted
//! forward      the forwarding loop: a request goes to the upstream, and its response comes back
//!   exchange     one request under observation: the only place that moves request metrics
//!   forwarded    what an upstream is told about the client, and who is believed about it
//!   sessions     the open upload sessions, by the Locations that registries hand out
//!   upstream     where the request goes: the registry's replicas, which of them is asked, and connections
//!   error        what a failure means for the client
//! admin        /metrics, /livez, /readyz: served here, never forwarded, never counted
//!   aggregate    merges our own families with those of the sources
//! ```
//!
//! [`server`] binds and starts all of it, with the registry of [`embedded`] where no upstream is
//! configured. What any server needs (configuration layers, listeners, TLS, logs, shutdown, metrics)
//! is the crate [`service`].
//!
//! What always holds: a client's text becomes a label only through a closed enum, or through the
//! bounded table of repositories; a failure of the metrics never fails a request; bodies stream in
//! bounded memory; no secret is logged.
//!
//! What is deliberately not here: knowledge of how a registry stores anything, caching, and any change
//! to what the upstream says.
//!
//! Glossary, beside the words of the OCI specifications:
//!
//! - **downstream**: the client's side of the proxy; **upstream**: the registry's side.
//! - **embedded registry**: the registry in this process, reached without a socket.
//! - **endpoint**: what a path means to a registry, a closed set; a label.
//! - **exchange**: one request and its response, from the headers to the last byte.
//! - **exposition**: the text of all metrics; a **scrape** is a request for it.
//! - **healthy**: a replica responds to `/v2/` with 200 or 401; a **probe** asks.
//! - **location key**: the key of an upload session in the table, derived from its Location.
//! - **replica**: one of several registries that serve the same repositories, as one upstream.
//! - **round**: one fetch of all sources, shared by all scrapes that arrive during it.
//! - **slot**: an entry of the bounded table of repositories that are shown by name.
//! - **session tag**: the query parameter that binds an upload session to its upstream and replica.
//! - **source**: a metrics endpoint, or families in this process, merged into the exposition.

pub mod admin;
pub mod aggregate;
pub mod cli;
pub mod config;
pub mod cors;
mod doctor;
mod downstream;
pub mod embedded;
mod error;
pub mod exchange;
mod forward;
pub mod forwarded;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use forward::fuzz;
pub mod metrics;
pub mod server;
pub mod sessions;
pub mod upstream;
