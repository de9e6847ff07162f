//! A complete OCI Distribution registry on plain files.
//!
//! The map, from the bottom up; an arrow reads "imports", and there is none upward. What any server
//! needs (configuration, listeners, logs, shutdown, the exposition page) is the crate [`service`].
//!
//! - [`oci`]: the specifications' vocabulary. No I/O; imports no sibling.
//! - [`metrics`] → `oci`: the labels both programs share and the registry's families.
//! - [`store`] → `oci`, `metrics`: where content lives, behind a trait; a folder implements it, and
//!   memory, for tests.
//! - [`stats`] → `store`, `metrics`: the background count of what there is.
//! - [`api`] → `store`, `metrics`, `oci`: the specification's HTTP, endpoint by endpoint.
//! - [`config`] → `store`: the keys and flags as people write them, and what they come
//!   to.
//! - [`server`] → all of these: bind, announce, serve, drain.
//!
//! What always holds:
//!
//! - Past `config` and the first lines of `api`'s handlers no raw text travels: a value that exists
//!   is valid.
//! - Bodies stream in both directions in bounded memory; no length that a client tells is believed
//!   before it is true.
//! - What was acknowledged is on disk (unless the configuration wants it otherwise), and what was
//!   not acknowledged is nowhere to be seen.
//! - A failure becomes an answer in one place, `api::error`; a 5xx says nothing of our insides.
//! - Every metric is declared on a registry that was handed in; nothing is global but the log.
//!
//! The proxy (the crate `octoserve-proxy`) embeds all this through [`server::bind`], and shares
//! `oci` and [`metrics::label`] with it. [`server::bind_store`] serves any other store.

pub mod api;
pub mod cli;
pub mod config;
pub mod metrics;
pub mod oci;
pub mod server;
pub mod stats;
pub mod store;
