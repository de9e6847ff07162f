//! The API as clients meet it: raw requests over a real socket, against a store in a folder.

mod bodies;
mod bounds;
mod broken;
mod conditions;
pub(crate) mod harness;
mod listing;
mod manifests;
mod memory;
mod pull;
mod refused;
mod uploads;
