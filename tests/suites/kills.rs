//! A registry is killed fifty times while clients push, mount, move tags and delete, and while it collects
//! garbage: it has all that it acknowledged. `make soak` kills it five hundred times.

use anyhow::{Result, ensure};
use harness::{kills, report};

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_while_it_collects_loses_nothing_acknowledged() -> Result<()> {
    let done = kills::rounds(50, 17, None).await?;
    report(&format!("{done:?}"));
    ensure!(
        done.kills == 50 && done.acknowledged > 50 && done.checked > 50,
        "{done:?}"
    );
    ensure!(done.collections > 0 && done.referrers > 0, "{done:?}");
    Ok(())
}
