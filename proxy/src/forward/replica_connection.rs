//! Connects one request to a replica: waits for one below its maximum, reuses a connection or makes
//! one, and tries the other replicas where that fails. The client notices none of it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use service::runtime::WorkerId;
use service::timer::LazyTimer;
use tokio::time::Instant;

use super::client_side::ClientSide;
use super::observed::Observed;
use super::transfer::HALF_CLOSED;
use super::upstream_connection::UpstreamConnection;
use crate::error::Failure;
use crate::exchange::Awaiting;
use crate::metrics::UpstreamError;
use crate::upstream::{Replica, ReplicaRoute, UpstreamAddress};

/// How often a connection to the last replica is tried to be made for one request: at another address
/// each time, where there are several.
const ATTEMPTS: usize = 2;

/// The connections of one request, which is in flight until this is dropped.
pub(super) struct ReplicaConnector<'f> {
    route: ReplicaRoute<'f>,
    worker: WorkerId,
    /// Where no connection was idle, and one is to be made.
    address: Option<Arc<UpstreamAddress>>,
}

/// A connection for one request.
pub(super) struct ConnectedReplica<'f> {
    pub(super) replica: &'f Replica,
    /// The place of the replica among all of them.
    pub(super) index: usize,
    pub(super) address: Arc<UpstreamAddress>,
    pub(super) connection: UpstreamConnection,
}

impl<'f> ReplicaConnector<'f> {
    pub(super) fn new(route: ReplicaRoute<'f>, worker: WorkerId) -> ReplicaConnector<'f> {
        ReplicaConnector {
            route,
            worker,
            address: None,
        }
    }

    /// An idle connection, if the request need not wait for one: nearly always, and without a future.
    pub(super) fn reuse(
        &mut self,
        observed: &mut Observed<'_, Awaiting>,
    ) -> Option<ConnectedReplica<'f>> {
        let replica = self.route.replica()?;
        let address = replica.address()?;
        let Some(stream) = address.take_idle(self.worker) else {
            self.address = Some(address);
            return None;
        };
        observed.attempt(self.route.index());
        observed.connected(None);
        Some(ConnectedReplica {
            replica,
            index: self.route.index()?,
            address,
            connection: UpstreamConnection::new(stream, true),
        })
    }

    /// A connection to the replica that had one before, or to the next one.
    pub(super) async fn connect<'s, C: ClientSide<'s>>(
        &mut self,
        observed: &mut Observed<'_, Awaiting>,
        client: &mut C,
        timer: &mut LazyTimer,
        may_reuse: bool,
    ) -> Result<ConnectedReplica<'f>, Failure> {
        loop {
            let replica = match self.route.replica() {
                Some(replica) => replica,
                None => self.wait(observed, client, timer).await?,
            };
            let index = self.route.index().unwrap_or_default();
            match self.connect_to(replica, observed, may_reuse).await {
                Ok((address, connection)) => {
                    return Ok(ConnectedReplica {
                        replica,
                        index,
                        address,
                        connection,
                    });
                }
                Err(failure) => {
                    if failure == Failure::OutOfDescriptors || !self.route.fail_over() {
                        return Err(failure);
                    }
                }
            }
        }
    }

    /// Waits until the replica has fewer requests in flight, the client leaves, or it takes too long.
    async fn wait<'s, C: ClientSide<'s>>(
        &mut self,
        observed: &mut Observed<'_, Awaiting>,
        client: &mut C,
        timer: &mut LazyTimer,
    ) -> Result<&'f Replica, Failure> {
        if self.route.is_drained() {
            return Err(Failure::Drained);
        }
        let mut queued = self.route.wait().ok_or(Failure::Overloaded)?;
        let began = Instant::now();
        let deadline = began + self.route.patience();
        let mut half_closed = None;
        let admitted = poll_fn(|context| {
            if let Poll::Ready(admitted) = queued.poll(context) {
                return Poll::Ready(Ok(admitted));
            }
            if client.poll_left(context).is_ready() {
                return Poll::Ready(Err(Failure::ClientClosed));
            }
            let (mut at, mut failure) = (deadline, Failure::Overloaded);
            if client.is_half_closed() {
                if !client.is_body_whole() && !client.can_body_arrive(0) {
                    return Poll::Ready(Err(Failure::ClientClosed));
                }
                let left = *half_closed.get_or_insert_with(Instant::now) + HALF_CLOSED;
                if left < at {
                    (at, failure) = (left, Failure::ClientClosed);
                }
            }
            timer.poll(context, at).map(|()| Err(failure))
        });
        let admitted = admitted.await;
        observed.queued(began.elapsed());
        self.route.admit(admitted?);
        self.route.replica().ok_or(Failure::Internal)
    }

    /// Takes an idle connection to a replica, or makes one.
    async fn connect_to(
        &mut self,
        replica: &Replica,
        observed: &mut Observed<'_, Awaiting>,
        may_reuse: bool,
    ) -> Result<(Arc<UpstreamAddress>, UpstreamConnection), Failure> {
        let attempts = if self.route.has_others() { 1 } else { ATTEMPTS };
        let mut attempt = 0;
        loop {
            observed.attempt(self.route.index());
            let known = self.address.take();
            let Some(address) = known.or_else(|| replica.address()) else {
                observed.upstream_failed(Some(UpstreamError::Dns));
                self.route.connect_failed("the name is not resolved");
                return Err(Failure::UpstreamUnreachable(UpstreamError::Dns));
            };
            if may_reuse && let Some(stream) = address.take_idle(self.worker) {
                observed.connected(None);
                return Ok((address, UpstreamConnection::new(stream, true)));
            }
            let started = Instant::now();
            let connected = address.connect().await;
            let took = started.elapsed();
            observed.connecting(took);
            match connected {
                Ok(stream) => {
                    observed.connected(Some(took));
                    return Ok((address, UpstreamConnection::new(stream, false)));
                }
                Err(error) => {
                    let failure = Failure::to_connect(&error);
                    observed.upstream_failed(failure.upstream_error());
                    if failure == Failure::OutOfDescriptors {
                        return Err(failure);
                    }
                    self.route.connect_failed(&error.to_string());
                    attempt += 1;
                    if attempt == attempts {
                        return Err(failure);
                    }
                }
            }
        }
    }
}
