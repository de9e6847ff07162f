//! Clients' connections: accepting them, and what bounds them in all.
//!
//! Accepting here is what lets us cap and count connections, survive a shortage of file descriptors,
//! know each bound address before anything is served, and give every worker its share.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::BytesMut;
use service::connection::{ConnectionCap, Requests};
use service::listen::{ClientStream, DetachedStream, Listener, Peer};
use service::runtime::{WorkerId, WorkerSet};
use service::seldom::Seldom;
use service::shutdown::Drain;
use service::tls::{self, Tls};
use tokio::task::JoinSet;

use crate::forward::{self, ClientConnection, Forwarder, Socket};
use crate::metrics::{ConnectionMetrics, ConnectionRefusal};

mod counted;
mod proxy_header;

/// The most clients that shake hands at a time. The one that has taken longest gives way to one more.
const MAX_HANDSHAKES: usize = 1024;

use self::counted::Counted;
use self::proxy_header::ProxyHeaderError;

/// The open connections of all listeners.
#[derive(Clone)]
pub(crate) struct OpenConnections {
    metrics: Option<Arc<ConnectionMetrics>>,
    cap: ConnectionCap,
    handshakes: ConnectionCap,
    /// Tells when the last of them has ended.
    open: Drain,
}

impl OpenConnections {
    /// None yet, of at most `limit` at a time.
    pub(crate) fn new(metrics: Option<Arc<ConnectionMetrics>>, limit: usize) -> OpenConnections {
        OpenConnections {
            metrics,
            cap: ConnectionCap::new(limit),
            handshakes: ConnectionCap::new(MAX_HANDSHAKES.min(limit)),
            open: Drain::default(),
        }
    }

    /// At most so many at a time from now on.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.cap.set_limit(limit);
        self.handshakes.set_limit(MAX_HANDSHAKES.min(limit));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.cap.count()
    }

    /// To wait for their end.
    pub(crate) fn drain(&self) -> &Drain {
        &self.open
    }

    /// A connection was closed because there were as many as are allowed.
    fn count_over_limit(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.rejected.inc(ConnectionRefusal::Limit);
        }
    }
}

/// Accepts connections until the shutdown, each in a task of its own, on one of the workers. At the
/// cap, an idle one is closed for the new one; while there is none the new one is closed at once, so
/// that those that are served keep what they need.
///
/// Returns when the listener is closed, with the connections that are left: whoever drops them cuts
/// them off.
pub(crate) async fn accept(
    mut listener: Listener,
    tls: Option<Tls>,
    forwarder: Arc<Forwarder>,
    connections: OpenConnections,
    workers: WorkerSet,
) -> JoinSet<()> {
    let stopping = forwarder.stopping();
    let mut serving = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            // One that has ended is forgotten; one that panicked has said so.
            Some(_) = serving.join_next() => continue,
            () = stopping.recv() => break,
        };
        let admitted = tokio::select! {
            admitted = connections.cap.admit() => admitted,
            () = stopping.insisted() => break,
        };
        let Some(slot) = admitted else {
            connections.count_over_limit();
            continue;
        };
        let Ok(detached) = DetachedStream::detach(stream) else {
            continue;
        };
        let task = workers.place();
        let runtime = task.runtime().clone();
        let mut counted = Counted::new(connections.metrics.clone());
        let guard = connections.open.guard();
        let (forwarder, connections) = (Arc::clone(&forwarder), connections.clone());
        let tls = tls.clone();
        let connection = async move {
            let Ok(stream) = detached.attach() else {
                return;
            };
            {
                let opened = Opened {
                    stream,
                    peer,
                    tls,
                    handshakes: &connections.handshakes,
                    requests: slot.requests(),
                    worker: task.id(),
                };
                let mut served = pin!(serve(&forwarder, opened, &mut counted));
                let evicted = pin!(slot.evicted());
                let mut evicted = Seldom::new(evicted);
                poll_fn(|context| {
                    let served = served.as_mut().poll(context);
                    if served.is_pending() {
                        ready!(evicted.poll(context, slot.is_closing()));
                        connections.count_over_limit();
                    }
                    Poll::Ready(())
                })
                .await;
            }
            drop((slot, guard, task));
        };
        serving.spawn_on(connection, &runtime);
    }
    serving
}

/// A connection that was accepted.
struct Opened<'c> {
    stream: ClientStream,
    peer: Peer,
    tls: Option<Tls>,
    handshakes: &'c ConnectionCap,
    requests: Requests,
    worker: WorkerId,
}

/// Serves a connection to its end.
async fn serve(forwarder: &Arc<Forwarder>, opened: Opened<'_>, counted: &mut Counted) {
    let Opened {
        mut stream,
        mut peer,
        tls,
        handshakes,
        requests,
        worker,
    } = opened;
    // The peer itself, not whom it speaks for.
    let is_local = match peer {
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Peer::Unix => true,
    };
    let mut first = BytesMut::new();
    if forwarder.expects_proxy_header(peer) {
        let stopping = forwarder.stopping();
        let read = tokio::select! {
            biased;
            read = Box::pin(proxy_header::read(&mut stream, forwarder.limits().header_timeout)) => read,
            // No request has begun.
            () = stopping.insisted() => return,
        };
        match read {
            Ok(header) => {
                peer = header.client.map_or(peer, Peer::Tcp);
                first = header.rest;
            }
            Err(error) => {
                counted.refused(match error {
                    ProxyHeaderError::TimedOut => ConnectionRefusal::Timeout,
                    ProxyHeaderError::Invalid | ProxyHeaderError::Closed => {
                        ConnectionRefusal::ProxyProtocol
                    }
                });
                tracing::warn!(%peer, %error, "connection refused");
                return;
            }
        }
    }
    let socket = match tls {
        None => Socket::new(stream),
        Some(tls) => {
            let stopping = forwarder.stopping();
            // Boxed, as all that is rare: each connection keeps room for the largest that it may await.
            let shake = Box::pin(shake(stream, &tls, &first, handshakes, forwarder));
            let shaken = tokio::select! {
                biased;
                shaken = shake => shaken,
                () = stopping.insisted() => return,
            };
            first.clear();
            match shaken {
                Ok(socket) => socket,
                Err(refusal) => {
                    if let ConnectionRefusal::Tls = refusal.reason {
                        tracing::info!(%peer, error = refusal.error, "TLS handshake failed");
                    }
                    counted.refused(refusal.reason);
                    return;
                }
            }
        }
    };
    let client = ClientConnection {
        // An address prints as visible ASCII.
        address: match peer {
            Peer::Tcp(address) => address.ip().to_canonical().to_string().try_into().ok(),
            Peer::Unix => None,
        },
        is_trusted: forwarder.trusts(peer),
        is_tls: socket.is_tls(),
        may_push: is_local || socket.has_certificate(),
        requests,
        worker,
    };
    let timed_out = || counted.refused(ConnectionRefusal::Timeout);
    forward::serve(forwarder, socket, first, client, timed_out).await;
}

/// A connection that ends with its handshake.
struct HandshakeRefusal {
    reason: ConnectionRefusal,
    error: String,
}

/// Shakes hands, if not too many others do.
async fn shake(
    stream: ClientStream,
    tls: &Tls,
    first: &[u8],
    handshakes: &ConnectionCap,
    forwarder: &Forwarder,
) -> Result<Socket, HandshakeRefusal> {
    // None of them has a request in flight: the cap lets the oldest give way.
    let slot = handshakes.admit_when_free().await;
    let limit = tls::HANDSHAKE.min(forwarder.limits().header_timeout);
    let shaken = tokio::select! {
        biased;
        shaken = forward::handshake(stream, tls, first, limit) => shaken,
        () = slot.evicted() => return Err(HandshakeRefusal {
            reason: ConnectionRefusal::Limit,
            error: String::new(),
        }),
    };
    shaken.map_err(|error| HandshakeRefusal {
        reason: ConnectionRefusal::Tls,
        error: tls::client_failure(&error),
    })
}
