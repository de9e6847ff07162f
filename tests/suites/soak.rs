//! Everything at once: what `make soak` does for minutes or hours, for one short round in which each fault
//! comes once.

use anyhow::{Result, ensure};
use harness::soak::{self, SoakPlan};

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_once_is_all_that_clients_notice_and_every_counter_equals_their_books()
-> Result<()> {
    let plan = SoakPlan {
        seed: 1,
        duration: None,
        raw_clients: 8,
        built: None,
    };
    let outcome = soak::run(&plan).await?;
    ensure!(outcome.failures.is_empty(), "{}", outcome.report);
    Ok(())
}
