//! A connection as the metrics see it.

use std::fmt;
use std::sync::Arc;

use crate::metrics::{ConnectionMetrics, ConnectionRefusal};

/// Counts a connection as open for as long as it is there.
pub(super) struct Counted {
    metrics: Option<Arc<ConnectionMetrics>>,
    is_refused: bool,
}

impl Counted {
    pub(super) fn new(metrics: Option<Arc<ConnectionMetrics>>) -> Counted {
        if let Some(metrics) = &metrics {
            metrics.total.inc(());
            metrics.active.add((), 1.0);
        }
        Counted {
            metrics,
            is_refused: false,
        }
    }

    /// The proxy closes the connection for this reason. Counted once.
    pub(super) fn refused(&mut self, reason: ConnectionRefusal) {
        if let Some(metrics) = &self.metrics
            && !std::mem::replace(&mut self.is_refused, true)
        {
            metrics.rejected.inc(reason);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.active.sub((), 1.0);
        }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use service::metrics::MetricsRegistry;

    use super::*;

    #[test]
    fn a_connection_is_active_while_it_is_there_and_refused_once() {
        let metrics = Arc::new(ConnectionMetrics::new(&MetricsRegistry::new("")));
        let active = || metrics.active.value(()).to_bits();
        let mut first = Counted::new(Some(Arc::clone(&metrics)));
        let second = Counted::new(Some(Arc::clone(&metrics)));
        assert_eq!(active(), 2_f64.to_bits());
        first.refused(ConnectionRefusal::Timeout);
        first.refused(ConnectionRefusal::Timeout);
        drop((first, second));
        assert_eq!(active(), 0_f64.to_bits());
        assert_eq!(metrics.total.value(()), 2);
        assert_eq!(metrics.rejected.value(ConnectionRefusal::Timeout), 1);
    }
}
