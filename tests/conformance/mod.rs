//! Our own conformance suite: one test for each endpoint and each requirement of the OCI
//! Distribution specification, and for each promise beyond it, for every way in which clients reach
//! a registry.
//!
//! A clause is an `async fn(&Check) -> Result<()>` whose first line names the section that it
//! checks. It does not depend on the registry; `clauses!` runs it against every
//! [`Subject`](subject::Subject):
//!
//! - `memory`: the registry's API over a store in memory;
//! - `registry`: the registry alone, which collects garbage every second;
//! - `embedded`: the proxy with the embedded registry;
//! - `remote`: the proxy in front of the registry, in two processes;
//! - `foreign`: Debian's docker-registry, directly and through the proxy. It may fail a clause,
//!   but the proxy must change nothing;
//! - `guarded`: the same with a password, which the proxy forwards.
//!
//! Tests that run at the same time share the processes of a subject, and each uses its own
//! repositories.

/// Makes a test of each clause for each subject. Clauses after `ours:` skip docker-registry, whose
/// responses to them depend on timing.
macro_rules! clauses {
    ($($clause:ident),+ $(,)? $(; ours: $($own:ident),+ $(,)?)?) => {
        clauses!(@at memory Memory: $($clause),+ $(, $($own),+)?);
        clauses!(@at registry Registry: $($clause),+ $(, $($own),+)?);
        clauses!(@at embedded Embedded: $($clause),+ $(, $($own),+)?);
        clauses!(@at remote Remote: $($clause),+ $(, $($own),+)?);
        clauses!(@at foreign Foreign: $($clause),+);
        clauses!(@at guarded Guarded: $($clause),+);
    };
    (@at $module:ident $subject:ident: $($clause:ident),+) => {
        mod $module {
            use crate::conformance::subject::Subject;

            $(
                #[tokio::test]
                async fn $clause() -> anyhow::Result<()> {
                    Subject::$subject.judge(stringify!($clause), super::$clause).await
                }
            )+
        }
    };
}

mod check;
mod subject;

/// Chunked uploads: order, ranges, status, cancellation (end-4c, end-5, end-6, end-13, end-14).
mod chunks;
/// The garbage collections that run beside all clauses.
mod collections;
/// Conditional requests and ranges (RFC 9110, sections 13 and 14), which the specification points to.
mod conditions;
/// Deletion of tags, manifests and blobs (end-9, end-10).
mod deletes;
/// Refusals: statuses, codes and headers.
mod errors;
/// Pushing manifests and tags (end-7).
mod manifests;
/// Cross-repository mounts (end-11).
mod mounts;
/// The base endpoint, and pulls of blobs and manifests (end-1, end-2, end-3).
mod pull;
/// Referrers and their filter (end-12).
mod referrers;
/// Listing tags and repositories (end-8).
mod tags;
/// Monolithic uploads (end-4a, end-4b, end-6).
mod uploads;
