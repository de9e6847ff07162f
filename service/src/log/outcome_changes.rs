//! Failures of work that is done again and again.

use parking_lot::Mutex;

/// How the last run of some repeated work ended, so that a failure is logged when it comes, when it
/// becomes another one and when it is over, and not at every run.
#[derive(Debug, Default)]
pub struct OutcomeChanges(Mutex<Option<String>>);

/// What there is to log of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeChange {
    /// It failed, and not as the last one did.
    Failed,
    /// It succeeded, and the last one failed.
    Recovered,
    /// It ended as the last one did.
    None,
}

impl OutcomeChanges {
    /// Notes how a run ended: with this failure, or with success.
    pub fn note(&self, failure: Option<&str>) -> OutcomeChange {
        let mut last = self.0.lock();
        if last.as_deref() == failure {
            return OutcomeChange::None;
        }
        *last = failure.map(str::to_owned);
        if failure.is_some() {
            OutcomeChange::Failed
        } else {
            OutcomeChange::Recovered
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_so_is_its_end() {
        let runs = OutcomeChanges::default();
        for (failure, news) in [
            (None, OutcomeChange::None),
            (Some("gone"), OutcomeChange::Failed),
            (Some("gone"), OutcomeChange::None),
            (Some("full"), OutcomeChange::Failed),
            (Some("full"), OutcomeChange::None),
            (None, OutcomeChange::Recovered),
            (None, OutcomeChange::None),
            (Some("full"), OutcomeChange::Failed),
        ] {
            assert_eq!(runs.note(failure), news, "{failure:?}");
        }
    }
}
