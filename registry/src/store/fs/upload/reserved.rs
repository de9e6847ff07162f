//! The bytes that upload sessions hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::{Result, StoreError};

/// The bytes that all open sessions hold, and those that are being written right now. Clones are the
/// same counter.
#[derive(Clone, Debug, Default)]
pub(in crate::store::fs) struct ReservedBytes(Arc<AtomicU64>);

impl ReservedBytes {
    /// Reserves `bytes` more. Fails if all of them together would exceed `limit`.
    pub(in crate::store::fs) fn reserve(&self, bytes: u64, limit: u64) -> Result<()> {
        // Read and written in one step: two appends that ask at once never both get the last bytes.
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let more = |held: u64| held.checked_add(bytes).filter(|&held| held <= limit);
        match self.0.fetch_update(set, fetch, more) {
            Ok(_) => Ok(()),
            Err(held) => Err(StoreError::TooManyBytes {
                limit,
                missing: held.saturating_add(bytes).saturating_sub(limit),
            }),
        }
    }

    /// The bytes that are reserved at this moment.
    pub(in crate::store::fs) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Returns bytes that were reserved.
    pub(in crate::store::fs) fn release(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}
