//! File descriptors: as many as the system lets us have, and no more connections than fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside clients' connections: those to the upstream, of which there are as many as
/// requests and not as clients, both their ends where the registry is in this process; files that
/// are read or written; listeners, scrapes and the runtime.
const OTHERS: u64 = 2048;

/// Raises this process's limit as far as it may be, and returns how many of these connections fit.
/// Where they do not all fit it warns, and keeps enough for what they ask for: accepting survives a
/// lack of descriptors, but requests in flight, probes and scrapes would not.
pub fn fit(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "raising the open file limit failed");
    }
    // `None` means that there is no limit.
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return connections;
    };
    let fitting = fitting(connections, limit);
    if fitting < connections {
        tracing::warn!(
            limit,
            connections,
            served = fitting,
            "open file limit too low for limits.connections: serving fewer connections"
        );
    }
    fitting
}

/// A connection's request needs up to two more descriptors.
fn fitting(connections: usize, limit: u64) -> usize {
    let fitting = limit.saturating_sub(OTHERS).max(limit / 3).max(1);
    connections.min(usize::try_from(fitting).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        assert_eq!(fit(1), 1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn connections_leave_descriptors_for_what_they_ask_for() {
        assert_eq!(fitting(10_000, 12_048), 10_000);
        assert_eq!(fitting(10_000, 12_000), 9_952);
        assert_eq!(fitting(10_000, 1_024), 341);
        assert_eq!(fitting(100, 1_024), 100);
        assert_eq!(fitting(usize::MAX, u64::MAX), usize::MAX - 2048);
        assert_eq!(fitting(10, 0), 1);
    }
}
