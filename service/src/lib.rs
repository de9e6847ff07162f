//! What any server needs: configuration, listeners, TLS, logs, shutdown, Prometheus metrics.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`program`], [`cli`], [`program_config`], [`greeting`], [`terminal`] | one `main`: command line, start, exit codes |
//! | [`operate`], [`reload`], [`control`] | what an operator does to a server that runs |
//! | [`config`], [`limits`] | flags, environment, YAML file and defaults in layers |
//! | [`listen`], [`connection`], [`tls`], [`timer`], [`seldom`] | sockets, the connection cap, time limits, certificates |
//! | [`doctor`] | tries what is configured, and says what is wrong |
//! | `top` | the state of a running program at a terminal |
//! | [`net`], [`health`] | addresses of servers, one GET, the health probe |
//! | [`auth`], [`hash_password`] | basic authentication of scrapers |
//! | [`log`], [`trace_context`] | JSON and text logs, the access log, the header `traceparent` |
//! | [`metrics`] | families, their cells and the registry |
//! | [`exposition`] | expositions: gather, parse, merge, write |
//! | [`scrape`], [`admin`] | the metrics endpoint, the status page and the probes over HTTP |
//! | [`takeover`], [`control`], [`notify`] | a new process in the place of a running one, the service manager |
//! | [`shutdown`], [`runtime`], [`descriptors`], [`umask`], [`build_info`] | the process |
//! | [`quantity`], [`printable`] | figures for a person, and texts of others |
//!
//! Deliberately not here: anything of OCI, request routing, and connections to upstreams.
//!
//! # Words
//! - *family*: the metrics of one name and type, with HELP.
//! - *cell*: the metric of one combination of label values, resolved once.
//! - *exposition*: the text of all families, in the text format or OpenMetrics.
//! - *scrape*: one request for the exposition.
//! - *source*: an exposition that is merged, from a server or from this process; the label `source` names it.
//! - *listener*: a bound address that accepts connections.
//! - *slot*: a connection's share of the cap.
//! - *drain*: waiting at shutdown until the work in flight has ended.
//! - *probe*: one request that asks whether a server is ready.
//! - *origin*: the file and line, variable or flag that set a configuration value.

pub mod admin;
pub mod auth;
pub mod build_info;
pub mod cli;
pub mod config;
pub mod connection;
pub mod control;
pub mod descriptors;
pub mod doctor;
pub mod exposition;
pub mod greeting;
pub mod hash_password;
pub mod health;
pub mod job;
pub mod limits;
pub mod listen;
pub mod log;
pub mod man;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod operate;
pub mod printable;
pub mod program;
pub mod program_config;
pub mod progress_line;
pub mod quantity;
pub mod reload;
pub mod runtime;
pub mod scrape;
pub mod seldom;
pub mod shutdown;
pub mod small_file;
pub mod takeover;
pub mod terminal;
pub mod timer;
pub mod tls;
#[cfg(feature = "top")]
pub mod top;
pub mod trace_context;
pub mod umask;
