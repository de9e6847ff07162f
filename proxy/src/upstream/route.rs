//! The way of one request to a replica: which one it is for, and which were tried.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::balance::TriedReplicas;
use super::in_flight::{InFlight, WaitingRequest};
use super::replica::Replica;
use super::replica_set::{QueuePlace, ReplicaSet};

/// The way of one request to a replica. The request is in flight to it until this is dropped.
pub struct ReplicaRoute<'s> {
    set: &'s ReplicaSet,
    /// The replica that alone has the request's upload session.
    only: Option<usize>,
    tried: TriedReplicas,
    chosen: Option<ChosenReplica<'s>>,
}

struct ChosenReplica<'s> {
    index: usize,
    replica: &'s Replica,
    /// `None` until it is in flight.
    in_flight: Option<InFlight<'s>>,
}

/// A request that waits for its replica, until it is dropped.
pub struct QueuedRequest<'s> {
    waiting: WaitingRequest<'s>,
    _place: QueuePlace<'s>,
}

/// A request that may be sent.
pub struct AdmittedRequest<'s>(InFlight<'s>);

impl<'s> ReplicaRoute<'s> {
    /// The way of a request to any replica, or to the one that has its upload session.
    pub fn new(set: &'s ReplicaSet, only: Option<usize>) -> ReplicaRoute<'s> {
        ReplicaRoute {
            set,
            only,
            tried: 0,
            chosen: None,
        }
    }

    /// The replica to send the request to: the one that was chosen, or the next one. `None` where the
    /// request has to wait for it.
    pub fn replica(&mut self) -> Option<&'s Replica> {
        if self.chosen.is_none() {
            let index = self.only.or_else(|| self.set.choose(self.tried))?;
            let replica = self.set.all().get(index)?;
            self.chosen = Some(ChosenReplica {
                index,
                replica,
                in_flight: None,
            });
        }
        let chosen = self.chosen.as_mut()?;
        if chosen.in_flight.is_none() {
            chosen.in_flight = chosen.replica.in_flight.begin();
        }
        chosen.in_flight.as_ref().map(|_| chosen.replica)
    }

    /// Waits for the replica that was chosen; `None` if too many do.
    pub fn wait(&self) -> Option<QueuedRequest<'s>> {
        let place = self.set.queue()?;
        Some(QueuedRequest {
            waiting: self.chosen.as_ref()?.replica.in_flight.wait(),
            _place: place,
        })
    }

    /// Whether there is no replica to wait for: all of them drain.
    pub fn is_drained(&self) -> bool {
        self.chosen.is_none() && self.tried == 0
    }

    /// How long it may wait.
    pub fn patience(&self) -> Duration {
        self.set.queue_rules().timeout
    }

    /// The request need not wait any more.
    pub fn admit(&mut self, admitted: AdmittedRequest<'s>) {
        if let Some(chosen) = &mut self.chosen {
            chosen.in_flight = Some(admitted.0);
        }
    }

    /// The place of the replica that was chosen among all of them.
    pub(crate) fn index(&self) -> Option<usize> {
        self.chosen.as_ref().map(|chosen| chosen.index)
    }

    /// No connection to the replica could be made.
    pub(crate) fn connect_failed(&self, error: &str) {
        if let Some(chosen) = &self.chosen {
            self.set.connect_failed(chosen.replica, error);
        }
    }

    /// Whether another replica can get the request.
    pub(crate) fn has_others(&self) -> bool {
        let tried = self.tried_with_chosen();
        let mut all = self.set.all().iter().enumerate();
        self.only.is_none()
            && all.any(|(index, replica)| tried & (1 << index) == 0 && !replica.is_draining())
    }

    /// Leaves the replica that was chosen for another one; `false` if there is none.
    pub(crate) fn fail_over(&mut self) -> bool {
        if !self.has_others() {
            return false;
        }
        self.tried = self.tried_with_chosen();
        self.chosen = None;
        true
    }

    fn tried_with_chosen(&self) -> TriedReplicas {
        self.tried | self.index().map_or(0, |index| 1 << index)
    }
}

impl<'s> QueuedRequest<'s> {
    /// Ready once the request may be sent. Not to be polled again then.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<AdmittedRequest<'s>> {
        Poll::Ready(AdmittedRequest(ready!(self.waiting.poll(context))))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::upstream::settings::{QueueRules, ReplicaRules, ReplicaSettings};

    /// Replicas of which the last one drains.
    fn set(count: usize, queue: usize) -> ReplicaSet {
        let all = (0..count).map(|at| {
            let name = format!("http://replica-{at}");
            ReplicaSettings {
                target: name.parse().unwrap(),
                name,
                is_draining: at + 1 == count && count > 1,
            }
        });
        let rules = ReplicaRules {
            max_connections: 1,
            queue: QueueRules {
                length: queue,
                ..QueueRules::default()
            },
            ..ReplicaRules::default()
        };
        ReplicaSet::new("main", all.collect(), rules)
    }

    fn index(route: &mut ReplicaRoute<'_>) -> Option<usize> {
        route.replica()?;
        route.index()
    }

    #[test]
    fn each_replica_that_does_not_drain_is_tried_once() {
        let set = set(4, 1);
        let mut route = ReplicaRoute::new(&set, None);
        let mut tried = Vec::new();
        loop {
            tried.push(index(&mut route).unwrap());
            assert_eq!(index(&mut route), tried.last().copied(), "it stays");
            assert_eq!(route.has_others(), tried.len() < 3);
            if !route.fail_over() {
                break;
            }
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2]);
        drop(route);
        assert!(set.all().iter().all(|replica| replica.load() == 0));
    }

    #[test]
    fn a_request_of_a_session_reaches_its_replica_alone_although_it_drains() {
        let set = set(3, 1);
        let mut route = ReplicaRoute::new(&set, Some(2));
        assert_eq!(index(&mut route), Some(2));
        assert!(!route.has_others());
        assert!(!route.fail_over());
        assert_eq!(index(&mut route), Some(2));
    }

    #[test]
    fn the_queue_is_bounded_for_all_replicas_together() {
        let set = set(3, 2);
        let mut routes: Vec<_> = (0..5).map(|_| ReplicaRoute::new(&set, None)).collect();
        let begun: Vec<_> = routes
            .iter_mut()
            .map(|route| index(route).is_some())
            .collect();
        assert_eq!(begun, [true, true, false, false, false]);
        let mut queued = routes[2].wait().unwrap();
        let leaving = routes[3].wait().unwrap();
        assert!(routes[4].wait().is_none(), "the queue is full");
        drop(leaving);
        assert!(routes[4].wait().is_some(), "a place is free again");
        let mut context = Context::from_waker(Waker::noop());
        assert!(queued.poll(&mut context).is_pending());
        let last = routes.split_off(2).remove(0);
        // Both end.
        drop(routes);
        let Poll::Ready(admitted) = queued.poll(&mut context) else {
            panic!("it still waits");
        };
        drop(queued);
        let mut route = last;
        route.admit(admitted);
        assert!(route.replica().is_some());
        let load = || set.all().iter().map(|one| one.load()).sum::<usize>();
        assert_eq!(load(), 1);
        drop(route);
        assert_eq!(load(), 0);
    }
}
