//! The tutorial does what it says: whoever follows it sees their own pull.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::poll;

use super::commands::{Shell, commands};
use super::pages::Page;

/// How long it may take until Prometheus has scraped.
const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn whoever_follows_the_tutorial_sees_their_own_pull() -> Result<()> {
    let shell = Shell::start().await?;
    let page = Page::read("docs/tutorial/five-minutes.md")?;
    let steps = page.blocks().filter(|block| block.language == "sh");
    let mut steps = steps
        .flat_map(|block| commands(&block.text))
        .collect::<Vec<_>>();
    // Downloads and programs that run on: the test has them already.
    let have = ["make run", "docker pull busybox", "prometheus "];
    for here in have {
        let before = steps.len();
        steps.retain(|step| !step.starts_with(here));
        ensure!(steps.len() + 1 == before, "the tutorial has no {here}");
    }
    let last = steps.pop().context("no steps")?;
    ensure!(last.contains("/api/v1/query"), "{last}");
    for step in steps {
        let printed = shell.run(&step).await.with_context(|| step.clone())?;
        if step.contains("octoserve_repository_operations_total") {
            for operation in ["pull", "push"] {
                let shown = format!("{{operation=\"{operation}\",repository=\"team/app/web\"}} 1");
                let other = format!("{{repository=\"team/app/web\",operation=\"{operation}\"}} 1");
                ensure!(
                    printed.contains(&shown) || printed.contains(&other),
                    "{printed}"
                );
            }
        }
    }
    poll::until("Prometheus shows the pull", DEADLINE, async || {
        let printed = shell.run(&last).await?;
        Ok(printed
            .contains("\"repository\":\"team/app/web\"")
            .then_some(()))
    })
    .await
}
