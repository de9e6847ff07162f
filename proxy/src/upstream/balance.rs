//! Which replica a request goes to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::replica::Replica;
use super::settings::Balance;

/// Which replicas were tried for one request: a bit for each.
pub(super) type TriedReplicas = u64;

/// The most replicas of an upstream: a bit for each fits in [`TriedReplicas`].
pub const MAX_REPLICAS: usize = TriedReplicas::BITS as usize;

/// Chooses replicas.
pub(super) struct Balancer {
    balance: Balance,
    next: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Balancer {
        Balancer {
            balance,
            next: AtomicUsize::new(0),
        }
    }

    /// The replica for the next request, among those that do not drain and were not tried: a healthy
    /// one, or any of them if none is. A request that would fail without being tried gains nothing.
    pub(super) fn choose(&self, replicas: &[Arc<Replica>], tried: TriedReplicas) -> Option<usize> {
        if let ([only], 0) = (replicas, tried) {
            return (!only.is_draining()).then_some(0);
        }
        let may =
            |index: usize, replica: &Replica| tried & (1 << index) == 0 && !replica.is_draining();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.among(replicas, turn, |index, replica| {
            may(index, replica) && replica.is_healthy()
        })
        .or_else(|| self.among(replicas, turn, may))
    }

    fn among(
        &self,
        replicas: &[Arc<Replica>],
        turn: usize,
        may: impl Fn(usize, &Replica) -> bool,
    ) -> Option<usize> {
        let candidates = || {
            let all = replicas.iter().enumerate();
            all.filter(|(index, replica)| may(*index, replica))
        };
        // Among these only: a replica that is left out must not double its successor's share.
        let first = turn.checked_rem(candidates().count())?;
        if self.balance == Balance::RoundRobin {
            let (index, replica) = candidates().nth(first)?;
            if !replica.is_full() {
                return Some(index);
            }
        }
        let rotated = candidates().skip(first).chain(candidates().take(first));
        // The first of those that are equal, which is another one each time.
        let least = rotated.min_by_key(|(_, replica)| replica.load());
        least.map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::in_flight::InFlight;
    use crate::upstream::settings::{ReplicaRules, ReplicaSettings};

    /// Replicas that are healthy (`h`), unhealthy (`u`), or healthy and draining (`d`).
    fn replicas(states: &str, max_connections: usize) -> Vec<Arc<Replica>> {
        let rules = ReplicaRules {
            max_connections,
            ..ReplicaRules::default()
        };
        let all = states.chars().enumerate().map(|(at, state)| {
            let name = format!("http://replica-{at}");
            let settings = ReplicaSettings {
                target: name.parse().unwrap(),
                name,
                is_draining: state == 'd',
            };
            let replica = Replica::new("main".to_owned(), settings, &rules);
            replica.health.probed(state != 'u');
            Arc::new(replica)
        });
        all.collect()
    }

    fn begin(replica: &Replica) -> InFlight<'_> {
        replica.in_flight.begin().unwrap()
    }

    /// How many of twelve requests, one at a time, each replica gets.
    fn shares(balance: Balance, states: &str) -> Vec<usize> {
        let (replicas, balancer) = (replicas(states, 10), Balancer::new(balance));
        let mut shares = vec![0; replicas.len()];
        for _ in 0..12 {
            shares[balancer.choose(&replicas, 0).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn idle_replicas_share_requests_and_the_others_get_none() {
        for balance in [Balance::LeastConnections, Balance::RoundRobin] {
            for (states, expected) in [
                ("hhh", &[4, 4, 4][..]),
                ("h", &[12]),
                ("u", &[12]),
                ("hud", &[12, 0, 0]),
                ("uuu", &[4, 4, 4]),
                ("uud", &[6, 6, 0]),
                ("du", &[0, 12]),
            ] {
                assert_eq!(shares(balance, states), expected, "{balance:?} {states}");
            }
        }
        assert_eq!(shares(Balance::RoundRobin, "huhdh"), [4, 0, 4, 0, 4]);
    }

    #[test]
    fn the_replica_with_the_fewest_requests_in_flight_gets_the_next() {
        let replicas = replicas("hhh", 10);
        let balancer = Balancer::new(Balance::LeastConnections);
        let _first = [begin(&replicas[0]), begin(&replicas[0])];
        let _second = begin(&replicas[1]);
        for _ in 0..3 {
            assert_eq!(balancer.choose(&replicas, 0), Some(2));
        }
        let _third = [begin(&replicas[2]), begin(&replicas[2])];
        for _ in 0..3 {
            assert_eq!(balancer.choose(&replicas, 0), Some(1));
        }
    }

    #[test]
    fn a_replica_that_is_full_is_passed_over_in_its_turn() {
        let replicas = replicas("hhh", 1);
        let balancer = Balancer::new(Balance::RoundRobin);
        let _full = [begin(&replicas[0]), begin(&replicas[2])];
        for _ in 0..6 {
            assert_eq!(balancer.choose(&replicas, 0), Some(1));
        }
        let _all = begin(&replicas[1]);
        assert!(balancer.choose(&replicas, 0).is_some(), "it will wait");
    }

    #[test]
    fn what_was_tried_is_not_chosen_again_and_an_unhealthy_one_comes_last() {
        for balance in [Balance::LeastConnections, Balance::RoundRobin] {
            let (replicas, balancer) = (replicas("uhdh", 10), Balancer::new(balance));
            for _ in 0..4 {
                let (mut tried, mut order) = (0, Vec::new());
                while let Some(index) = balancer.choose(&replicas, tried) {
                    tried |= 1 << index;
                    order.push(index);
                }
                assert_eq!(order.len(), 3, "{order:?}");
                assert_eq!(order[2], 0, "{order:?}");
                assert!(!order.contains(&2), "{order:?}");
            }
        }
    }

    #[test]
    fn the_last_of_as_many_replicas_as_there_may_be_is_chosen_and_tried() {
        let replicas = replicas(&"h".repeat(MAX_REPLICAS), 10);
        let balancer = Balancer::new(Balance::RoundRobin);
        let last = MAX_REPLICAS - 1;
        assert_eq!(balancer.choose(&replicas, !(1 << last)), Some(last));
        assert_eq!(balancer.choose(&replicas, TriedReplicas::MAX), None);
    }
}
