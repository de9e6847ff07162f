//! The collections beside the clauses: that they remove something while all of these pass.

use std::time::Duration;

use anyhow::Result;
use harness::poll;

use super::check::Check;

clauses!(@at registry Registry: what_nothing_needs_is_collected);
clauses!(@at embedded Embedded: what_nothing_needs_is_collected);
clauses!(@at remote Remote: what_nothing_needs_is_collected);

/// More than the grace, what is added to it, and a collection.
const DEADLINE: Duration = Duration::from_mins(5);

/// A blob that no manifest names goes once the grace is over. While this waits, other clauses run.
async fn what_nothing_needs_is_collected(at: &Check) -> Result<()> {
    let digest = at.push(&at.bytes(1, 1000)).await?;
    let path = at.path(&format!("blobs/{digest}"));
    at.get(&path).await?.is(200)?;
    // A GET is no promise: it does not begin the grace anew.
    poll::until("the blob is collected", DEADLINE, async || {
        Ok(at.get(&path).await?.is(404).is_ok().then_some(()))
    })
    .await
}
