//! The health of one replica: how many checks in a row change it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::settings::HealthRules;

/// How often a replica is probed while its state may change, unless it is probed more often anyway.
const UNSETTLED_INTERVAL: Duration = Duration::from_secs(1);

/// The health of one replica.
pub(super) struct ReplicaHealth {
    rise: u32,
    fall: u32,
    interval: Duration,
    /// What a request reads.
    is_healthy: AtomicBool,
    record: Mutex<HealthRecord>,
}

#[derive(Default)]
struct HealthRecord {
    state: HealthState,
    /// How many checks in a row contradict the state.
    against: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HealthState {
    /// No probe has ended yet.
    #[default]
    Unknown,
    Healthy,
    Unhealthy {
        since: Instant,
    },
}

/// A change of the health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// The first probe has succeeded.
    FirstHealthy,
    /// Healthy again, after so long.
    Recovered(Duration),
    Unhealthy,
}

impl ReplicaHealth {
    pub(super) fn new(rules: &HealthRules) -> ReplicaHealth {
        ReplicaHealth {
            rise: rules.rise,
            fall: rules.fall,
            interval: rules.interval,
            is_healthy: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }

    /// Whether it is healthy: not before the first probe.
    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Whether no probe has ended yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.record.lock().state == HealthState::Unknown
    }

    /// A probe has ended. The first one decides alone.
    pub(super) fn probed(&self, is_success: bool) -> Option<HealthChange> {
        self.record.lock().note(self, is_success, true)
    }

    /// A request could not be sent, because no connection was made.
    pub(super) fn connect_failed(&self) -> Option<HealthChange> {
        self.record.lock().note(self, false, false)
    }

    /// How long to wait until the next probe.
    pub(super) fn pause(&self) -> Duration {
        let record = self.record.lock();
        if record.state == HealthState::Healthy && record.against == 0 {
            self.interval
        } else {
            self.interval.min(UNSETTLED_INTERVAL)
        }
    }
}

impl HealthRecord {
    fn note(
        &mut self,
        health: &ReplicaHealth,
        is_success: bool,
        is_probe: bool,
    ) -> Option<HealthChange> {
        let needed = match self.state {
            // A replica that was never probed is not known by requests that fail: it may be starting.
            HealthState::Unknown if !is_probe => return None,
            HealthState::Unknown => 1,
            HealthState::Healthy if is_success => {
                self.against = 0;
                return None;
            }
            HealthState::Healthy => health.fall,
            HealthState::Unhealthy { .. } if !is_success => {
                self.against = 0;
                return None;
            }
            HealthState::Unhealthy { .. } => health.rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        let now = Instant::now();
        let before = self.state;
        self.state = if is_success {
            HealthState::Healthy
        } else {
            HealthState::Unhealthy { since: now }
        };
        health.is_healthy.store(is_success, Ordering::Relaxed);
        Some(match before {
            HealthState::Unhealthy { since } => HealthChange::Recovered(now - since),
            _ if is_success => HealthChange::FirstHealthy,
            _ => HealthChange::Unhealthy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(rise: u32, fall: u32) -> ReplicaHealth {
        ReplicaHealth::new(&HealthRules {
            rise,
            fall,
            ..HealthRules::default()
        })
    }

    #[test]
    fn the_first_probe_decides_alone() {
        let health_of = health(3, 3);
        assert!(health_of.is_unknown() && !health_of.is_healthy());
        assert_eq!(health_of.probed(true), Some(HealthChange::FirstHealthy));
        assert!(!health_of.is_unknown() && health_of.is_healthy());
        let health_of = health(3, 3);
        assert_eq!(health_of.connect_failed(), None, "it was not probed yet");
        assert!(health_of.is_unknown());
        assert_eq!(health_of.probed(false), Some(HealthChange::Unhealthy));
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy_and_successes_healthy() {
        let health = health(2, 3);
        health.probed(true);
        for _ in 0..5 {
            assert_eq!(health.probed(false), None);
            assert_eq!(health.connect_failed(), None);
            assert!(health.is_healthy());
            assert_eq!(health.probed(true), None, "not in a row");
        }
        assert_eq!(health.probed(false), None);
        assert_eq!(health.connect_failed(), None);
        assert_eq!(health.connect_failed(), Some(HealthChange::Unhealthy));
        assert!(!health.is_healthy());
        for _ in 0..5 {
            assert_eq!(health.probed(true), None);
            assert_eq!(health.connect_failed(), None, "not in a row");
            assert!(!health.is_healthy());
        }
        assert_eq!(health.probed(true), None);
        let change = health.probed(true);
        assert!(
            matches!(change, Some(HealthChange::Recovered(_))),
            "{change:?}"
        );
        assert!(health.is_healthy());
    }

    #[test]
    fn a_replica_in_doubt_is_probed_sooner_and_never_later() {
        let health = health(2, 3);
        assert_eq!(health.pause(), UNSETTLED_INTERVAL);
        health.probed(true);
        assert_eq!(health.pause(), Duration::from_secs(5));
        health.connect_failed();
        assert_eq!(health.pause(), UNSETTLED_INTERVAL);
        health.probed(true);
        assert_eq!(health.pause(), Duration::from_secs(5));
        let often = ReplicaHealth::new(&HealthRules {
            interval: Duration::from_millis(100),
            ..HealthRules::default()
        });
        assert_eq!(often.pause(), Duration::from_millis(100));
    }
}
