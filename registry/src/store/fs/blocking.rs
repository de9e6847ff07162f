//! The results of jobs on blocking threads.

use tokio::task::JoinError;

use crate::store::{Result, StoreError};

/// Turns the outcome of a blocking job into a result. A panic in the job continues in the task that
/// waited for it.
pub(super) fn unwind<T>(joined: std::result::Result<T, JoinError>) -> Result<T> {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(value) => Ok(value),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime drops jobs that have not begun when it shuts down.
        Err(Err(_)) => Err(StoreError::Interrupted),
    }
}
