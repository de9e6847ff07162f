//! How exact the times are at which clients were told of items.

use std::fs::Metadata;
use std::time::Duration;

/// For how long at most a time is not written anew.
const LONGEST: Duration = Duration::from_mins(10);

/// How exact the times are.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldTimes {
    again: Duration,
}

impl ToldTimes {
    /// For a collection that keeps items for so long.
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            again: (grace / 8).min(LONGEST),
        }
    }

    /// For how long a time is not written anew: the client may have been told so much later.
    pub(super) fn again(self) -> Duration {
        self.again
    }

    /// Whether the time of a file has to be written anew. Never if nothing is promised.
    pub(super) fn is_old(self, metadata: &Metadata) -> bool {
        let told = metadata.modified().ok();
        // A time in the future, after a clock was set back, is old as well: it says nothing.
        let age = told.and_then(|told| told.elapsed().ok());
        !self.again.is_zero() && age.is_none_or(|age| age >= self.again)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use super::super::disk::touch;
    use super::*;

    #[test]
    fn a_time_is_written_anew_once_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let file = File::create(&path).unwrap();
        let is_old = |grace| ToldTimes::new(grace).is_old(&fs::metadata(&path).unwrap());
        let hours = Duration::from_hours;
        assert!(!is_old(hours(1)));
        for time in [hours(1), hours(100)] {
            file.set_modified(SystemTime::now() - time).unwrap();
            assert!(is_old(hours(1)));
            assert!(!is_old(Duration::ZERO));
        }
        file.set_modified(SystemTime::now() + hours(1)).unwrap();
        assert!(is_old(hours(1)));
        touch(&path).unwrap();
        assert!(!is_old(hours(1)));
    }
}
