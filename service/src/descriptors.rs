//! File descriptors: as many as the system lets us have, and no more connections than fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside the connections of clients and their requests: listeners, scrapes and probes,
/// pipes, and the runtime.
const OTHERS: usize = 1024;

/// Raises this process's limit as far as it may be, and returns how many of these connections, and of
/// these HTTP/2 requests in flight, fit. Where they do not all fit it warns, and keeps enough for what
/// they ask for: accepting survives a lack of descriptors, but requests in flight, probes and scrapes
/// would not.
pub fn fit(connections: usize, streams: usize) -> (usize, usize) {
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
        return (connections, streams);
    };
    let (served, served_streams) = fitting(connections, streams, limit);
    if (served, served_streams) != (connections, streams) {
        tracing::warn!(
            limit,
            connections,
            streams,
            served,
            served_streams,
            "open file limit too low for limits.connections and limits.streams: serving fewer"
        );
    }
    (served, served_streams)
}

/// The highest limit that this process may have, `None` if there is none, and how many of these
/// connections and streams fit into it. Nothing is changed.
pub fn would_fit(connections: usize, streams: usize) -> (Option<u64>, (usize, usize)) {
    let limit = getrlimit(Resource::Nofile).maximum;
    let fits = limit.map(|limit| fitting(connections, streams, limit));
    (limit, fits.unwrap_or((connections, streams)))
}

/// A connection has a descriptor, and so has what its request asks for: a connection to the upstream, or
/// a file. A stream has only the latter.
fn fitting(connections: usize, streams: usize, limit: u64) -> (usize, usize) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let needed = connections
        .saturating_mul(2)
        .saturating_add(streams)
        .saturating_add(OTHERS);
    if needed <= limit {
        return (connections, streams);
    }
    let others = OTHERS.min(limit / 4);
    let streams = streams.min(limit / 4).max(1);
    let left = limit.saturating_sub(others + streams);
    (connections.min(left / 2).max(1), streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        assert_eq!(fit(1, 1), (1, 1));
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn connections_and_streams_leave_descriptors_for_what_they_ask_for() {
        assert_eq!(fitting(10_000, 2_000, 23_024), (10_000, 2_000));
        assert_eq!(fitting(10_000, 2_000, 23_000), (9_988, 2_000));
        assert_eq!(fitting(10_000, 2_000, 1_024), (256, 256));
        assert_eq!(fitting(100, 50, 1_024), (100, 50));
        assert_eq!(fitting(usize::MAX, 1, u64::MAX).1, 1);
        assert_eq!(fitting(10, 10, 0), (1, 1));
        for limit in 100..5_000 {
            let (connections, streams) = fitting(10_000, 2_000, limit);
            let used = u64::try_from(2 * connections + streams).unwrap();
            assert!(
                used + limit / 5 <= limit,
                "{limit}: {connections} {streams}"
            );
        }
    }
}
