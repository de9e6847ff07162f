//! Failures of work that is done again and again.

use parking_lot::Mutex;

/// How the last run of some repeated work ended, so that a failure is logged when it comes, when it
/// becomes another one and when it is over, and not at every run.
#[derive(Debug, Default)]
pub struct Repeated(Mutex<Option<String>>);

/// What there is to log of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It failed, and not as the last one did.
    Failed,
    /// It succeeded, and the last one failed.
    Recovered,
    /// It ended as the last one did.
    Nothing,
}

impl Repeated {
    /// Notes how a run ended: with this failure, or well.
    pub fn note(&self, failure: Option<&str>) -> News {
        let mut last = self.0.lock();
        if last.as_deref() == failure {
            return News::Nothing;
        }
        *last = failure.map(str::to_owned);
        if failure.is_some() {
            News::Failed
        } else {
            News::Recovered
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_so_is_its_end() {
        let runs = Repeated::default();
        for (failure, news) in [
            (None, News::Nothing),
            (Some("gone"), News::Failed),
            (Some("gone"), News::Nothing),
            (Some("full"), News::Failed),
            (Some("full"), News::Nothing),
            (None, News::Recovered),
            (None, News::Nothing),
            (Some("full"), News::Failed),
        ] {
            assert_eq!(runs.note(failure), news, "{failure:?}");
        }
    }
}
