//! Our own conformance suite: one test per endpoint and per requirement of the OCI Distribution
//! specification, and per promise that goes beyond it, at every place where clients meet a registry
//! of ours.
//!
//! A clause is an `async fn(&Check) -> Result<()>` whose first line says which section it checks. It
//! knows nothing of what it talks to; `clauses!` runs it at every [`Subject`](subject::Subject):
//!
//! - `memory`: the registry's API over a store in memory;
//! - `registry`: the registry alone;
//! - `embedded`: the proxy with the registry in it;
//! - `remote`: the proxy in front of the registry, each a process of its own;
//! - `foreign`: Debian's docker-registry, directly and through the proxy. What it makes of a clause
//!   is its own business; that the proxy changes nothing of it is ours;
//! - `guarded`: the same with a password, which the proxy passes on.
//!
//! The tests of a chapter share one process a subject, and keep to repositories of their own.

/// Makes a test of each clause at each subject. Those after `ours:` depend on what docker-registry
/// does at its leisure, so that two runs of it need not be alike.
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
/// Conditional requests and ranges (RFC 9110, sections 13 and 14), which the specification points to.
mod conditions;
/// Deletion of tags, manifests and blobs (end-9, end-10).
mod deletes;
/// What is refused, with which status, code and headers.
mod errors;
/// Pushing manifests and tags (end-7).
mod manifests;
/// Cross-repository mounts (end-11).
mod mounts;
/// Base, blobs and manifests, read (end-1, end-2, end-3).
mod pull;
/// Referrers and their filter (end-12).
mod referrers;
/// Listing tags and repositories (end-8).
mod tags;
/// Monolithic uploads (end-4a, end-4b, end-6).
mod uploads;
