//! The API as clients see it: raw requests over a real socket, to a registry with a store in a directory.

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
