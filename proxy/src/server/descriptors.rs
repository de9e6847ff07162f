//! File descriptors: as many as the system lets us have, and a word where those are too few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside clients' connections: those to the upstream, of which there are as many as
/// requests and not as clients, both their ends where the registry is in this process; files that are
/// read or written; listeners, scrapes and the runtime.
const OTHERS: u64 = 2048;

/// Raises this process's limit as far as it may be, and warns if `connections` can't fit. Accepting
/// survives a lack of descriptors; requests under way, and their files, would not.
pub(super) fn make_room(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let needed = needed(connections);
    // No limit at all is told as `None`.
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < needed
    {
        tracing::warn!(
            limit,
            needed,
            connections,
            "limits.connections does not fit into the limit of open files"
        );
    }
}

fn needed(connections: usize) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        make_room(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn any_number_of_connections_can_be_asked_for() {
        assert_eq!(needed(10_000), 12_048);
        assert_eq!(needed(usize::MAX), u64::MAX);
    }
}
