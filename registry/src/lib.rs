//! A complete OCI Distribution registry on plain files.
//!
//! The modules, from the bottom up; an arrow reads "imports", and none points upward. What any server
//! needs (configuration layers, listeners, TLS, logs, shutdown, metrics) is the crate [`service`].
//!
//! - [`oci`]: the vocabulary of the specifications. No I/O; imports no sibling.
//! - [`metrics`] → `oci`: the labels that both programs share, and the registry's families.
//! - [`store`] → `oci`, `metrics`: where content lives, behind a trait; implemented by a directory
//!   and, for tests, by memory.
//! - [`stats`] → `store`, `metrics`: the background count of what the store holds.
//! - [`retention`] → `store`: which tags and manifests are kept, and the removal of the others.
//! - [`maintenance`] → `store`, `retention`, `metrics`: garbage collection, scrubs and retention, by a
//!   schedule or on request.
//! - [`api`] → `store`, `metrics`, `oci`: the HTTP API, endpoint by endpoint.
//! - [`config`] → `store`, `maintenance`, `retention`: the keys as people write them, and what they mean.
//! - [`server`] → all of these: bind, serve, drain.
//! - [`doctor`] → `store`, `config`: what is tried of a configuration.
//! - [`cli`] → `server`, `doctor`, `maintenance`, `config`: the command line of `octoserve-registry`.
//!
//! What always holds:
//!
//! - Past `config` and the first lines of the handlers in `api` there are no raw texts: a value that
//!   exists is valid.
//! - Bodies stream in both directions in bounded memory. A length that a client promises is not
//!   believed before the bytes are there.
//! - What was acknowledged is on disk (unless `durability` is relaxed); what was not acknowledged is
//!   nowhere to be seen.
//! - A failure becomes a response in one place, `api::error`; a 5xx says nothing about our insides.
//! - Every family is declared on a registry that was handed in; nothing is global but the log.
//!
//! The proxy (the crate `octoserve-proxy`) embeds all this through [`server::bind`], and shares `oci`
//! and [`metrics::label`]. [`server::bind_store`] serves any other store.
//!
//! Glossary, beside the words of the OCI specifications:
//!
//! - **blob link**: the small file that makes a blob part of a repository.
//! - **condition**: an `If-Match` or `If-None-Match` that a change depends on.
//! - **draft**: a small file that is written aside, before it is placed under its name.
//! - **evict**: to end an idle upload session because others need its slot, bytes or files.
//! - **ledger**: the figures of the statistics, in memory.
//! - **listing**: an ordered list of tags or repositories, a page at a time.
//! - **quarantine**: where a scrub moves content that is not what its digest says.
//! - **quota**: what all upload sessions together may take.
//! - **reconcile**: a full count of the store, which corrects the ledger.
//! - **reserve**: the free space that uploads leave.
//! - **shard**: one directory of content, of all digests with the same first byte.

pub mod api;
pub mod cli;
pub mod config;
pub mod doctor;
#[cfg(any(test, fuzzing))]
#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic is how one fails"
)]
pub mod fuzz;
pub mod maintenance;
pub mod metrics;
pub mod oci;
pub mod retention;
pub mod server;
pub mod stats;
pub mod store;
