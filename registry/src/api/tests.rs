//! The API as clients meet it: raw requests over a real socket, against a store in a folder.

pub(crate) mod harness;
mod invalid_requests;
mod listings;
mod manifest_bodies;
mod manifests;
mod memory_budget;
mod preconditions;
mod pull;
mod store_failures;
mod upload_limits;
mod uploads;
