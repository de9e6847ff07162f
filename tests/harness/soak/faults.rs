//! The faults of a soak, and which errors they explain.

use std::time::Duration;

use super::progress::Mishap;

/// What happens to a replica or to octoserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// A replica is killed, and started again.
    Kill,
    /// A replica is stopped (SIGSTOP), and continued.
    Freeze,
    /// Connections to a replica are reset.
    Reset,
    /// A replica responds slowly.
    Slow,
    /// A replica responds with garbage.
    Garbage,
    /// octoserve reads a changed configuration.
    Reload,
    /// octoserve is asked to read a configuration that is wrong.
    RefusedReload,
    /// The certificate of octoserve's clients is renewed.
    Renewal,
    /// A new process takes over from octoserve.
    Takeover,
}

/// The faults of replicas.
pub(crate) const OF_REPLICAS: [FaultKind; 5] = [
    FaultKind::Kill,
    FaultKind::Freeze,
    FaultKind::Reset,
    FaultKind::Slow,
    FaultKind::Garbage,
];

/// What an operator does to octoserve.
pub(crate) const OF_THE_PROXY: [FaultKind; 4] = [
    FaultKind::Reload,
    FaultKind::RefusedReload,
    FaultKind::Renewal,
    FaultKind::Takeover,
];

/// A fault that was.
#[derive(Clone, Debug)]
pub(crate) struct FaultEpisode {
    pub(crate) kind: FaultKind,
    /// The replica, or the process.
    pub(crate) of: String,
    pub(crate) began: Duration,
    /// Once all was well again, as far as the proxy's probes know.
    pub(crate) ended: Duration,
}

impl FaultKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "replica killed",
            Self::Freeze => "replica stopped (SIGSTOP)",
            Self::Reset => "connections to a replica reset",
            Self::Slow => "replica slow",
            Self::Garbage => "garbage from a replica",
            Self::Reload => "reload",
            Self::RefusedReload => "reload of a bad file",
            Self::Renewal => "certificate renewed",
            Self::Takeover => "takeover",
        }
    }

    /// Whether clients may notice it. They never may where nothing has failed: a reload, a takeover and a
    /// new certificate explain nothing.
    fn explains(self) -> bool {
        OF_REPLICAS.contains(&self)
    }
}

impl FaultEpisode {
    /// Whether it was there while a request ran that failed.
    pub(crate) fn explains(&self, mishap: &Mishap) -> bool {
        // The other upstream is never disturbed.
        self.kind.explains()
            && mishap.upstream == "main"
            && self.began <= mishap.ended
            && mishap.began <= self.ended
    }
}

/// The first fault that explains each mishap.
pub(crate) fn explain<'e>(
    episodes: &'e [FaultEpisode],
    mishaps: &[Mishap],
) -> Vec<(Mishap, Option<&'e FaultEpisode>)> {
    let explained = mishaps.iter().map(|mishap| {
        let fault = episodes.iter().find(|episode| episode.explains(mishap));
        (mishap.clone(), fault)
    });
    explained.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_explained_only_by_a_fault_of_its_upstream_at_its_time() {
        let seconds = Duration::from_secs;
        let fault = |kind, began, ended| FaultEpisode {
            kind,
            of: String::new(),
            began: seconds(began),
            ended: seconds(ended),
        };
        let mishap = |upstream, began, ended| Mishap {
            client: String::new(),
            upstream,
            began: seconds(began),
            ended: seconds(ended),
            what: String::new(),
        };
        let kill = fault(FaultKind::Kill, 10, 20);
        assert!(kill.explains(&mishap("main", 5, 11)));
        assert!(kill.explains(&mishap("main", 19, 30)));
        assert!(!kill.explains(&mishap("main", 5, 9)));
        assert!(!kill.explains(&mishap("main", 21, 22)));
        assert!(!kill.explains(&mishap("other", 11, 12)));
        for kind in OF_THE_PROXY {
            assert!(
                !fault(kind, 10, 20).explains(&mishap("main", 11, 12)),
                "{kind:?}"
            );
        }
    }
}
