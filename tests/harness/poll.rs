//! Polls a condition with a deadline, instead of sleeping.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// The time between two probes.
const EVERY: Duration = Duration::from_millis(10);

/// Calls `probe` until it returns `Some`, and fails with `what` after `deadline`.
///
/// An error of the probe ends the wait at once: a condition that is not met yet is `Ok(None)`.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + deadline;
    loop {
        tick.tick().await;
        let response = timeout_at(end, probe())
            .await
            .with_context(|| format!("{what}: not within {deadline:?}"))?;
        if let Some(value) = response.with_context(|| what.to_owned())? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {deadline:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_is_asked_until_it_holds() {
        let mut asked = 0;
        let response = until("three", Duration::from_secs(5), async || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(response.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_condition_that_never_holds_fails_with_its_name() {
        let response = until::<()>("the moon", Duration::from_millis(30), async || Ok(None));
        assert!(response.await.unwrap_err().to_string().contains("the moon"));
    }
}
