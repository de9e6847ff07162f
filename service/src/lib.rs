//! What any server of ours needs: metric cells and the exposition page, layered configuration,
//! listeners, connections and their cap, TLS and passwords, logs, the runtime, shutdown.
//!
//! Deliberately not here: anything of OCI. Both programs build on this.

pub mod auth;
pub mod build;
pub mod cells;
pub mod config;
pub mod connection;
pub mod connection_cap;
pub mod descriptors;
pub mod exposition;
pub mod expositions;
pub mod health;
pub mod limits;
pub mod listen;
pub mod log;
pub mod page;
pub mod runtime;
pub mod shutdown;
pub mod tls;
pub mod umask;
