//! What any server of ours needs: metric cells and the exposition page, layered configuration,
//! listeners, connections and their cap, TLS and passwords, logs, the runtime, shutdown.
//!
//! Deliberately not here: anything of OCI. Both programs build on this.

pub mod admin;
pub mod auth;
pub mod build_info;
pub mod cli;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod exposition;
pub mod health;
pub mod limits;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod net;
pub mod program;
pub mod program_config;
pub mod runtime;
pub mod scrape;
pub mod shutdown;
pub mod timer;
pub mod tls;
pub mod umask;
