//! Forwards one request: begins its exchange, refuses or forwards it, and ends the exchange.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use registry::oci::{Endpoint, Route};
use service::limits::Limits;
use service::listen::Peer;
use service::shutdown::Shutdown;
use service::timer::LazyTimer;
use service::trace_context::NewTraceparent;

use super::affinity::{self, Destination};
use super::bounds::Http2Bounds;
use super::client_connection::ClientConnection;
use super::client_side::ClientSide;
use super::client_view::{AskedReplica, ClientView};
use super::download::TransferOutcome;
use super::framing::{BodyLength, RequestHead, ResponseHead};
use super::headers::{self, Forwarded};
use super::held::Held;
use super::http1::HeadTimeouts;
use super::logged_request::LoggedRequest;
use super::observed::Observed;
use super::own_credentials::OwnCredentials;
use super::own_response::{self, OwnResponse};
use super::replica_connection::{ConnectedReplica, ReplicaConnector};
use super::settings::ForwardSettings;
use super::shared::Shared;
use super::splice::Pipes;
use super::transfer::BodyTransfer;
use super::upstream_side::{InProcessSide, UpstreamSide};
use crate::cors::CrossOrigin;
use crate::error::{Failure, Refusal};
use crate::exchange::Awaiting;
use crate::forwarded::ClientClaims;
use crate::metrics::UpstreamError;
use crate::upstream::{ReplicaRoute, Upstream};

/// Forwards requests to the upstream, and serves the endpoints of the proxy itself.
pub(crate) struct Forwarder {
    shared: Shared,
    settings: ArcSwap<ForwardSettings>,
    pub(super) http2: Http2Bounds,
    pipes: Pipes,
    /// The name of this proxy in `Via` (RFC 9110 §7.6.3). No other instance has it, so that a request
    /// which comes back is known.
    name: String,
    #[cfg(test)]
    pub(super) on_request: Option<fn()>,
}

/// The settings, as one connection keeps them.
pub(super) type CachedSettings<'f> = Cache<&'f ArcSwap<ForwardSettings>, Arc<ForwardSettings>>;

/// What goes with a request.
struct Asked<'r> {
    settings: &'r ForwardSettings,
    upstream: &'r Upstream,
    /// The request's target as the upstream knows it, where that is another one.
    target: Option<PathAndQuery>,
    id: &'r HeaderValue,
    /// The trace that begins with it.
    traceparent: Option<&'r NewTraceparent>,
    connection: &'r ClientConnection,
    claims: Option<&'r ClientClaims>,
    cors: Option<&'r CrossOrigin<'r>>,
    /// The replica that has its upload session, if one must.
    session_at: Option<usize>,
}

impl Deref for Forwarder {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Forwarder {
    pub(crate) fn new(shared: Shared, settings: ForwardSettings) -> Forwarder {
        let id = headers::random_hex();
        Forwarder {
            pipes: Pipes::new(shared.splices),
            http2: Http2Bounds::new(settings.limits.streams),
            name: format!("octoserve-{}", String::from_utf8_lossy(&id)),
            shared,
            settings: ArcSwap::from_pointee(settings),
            #[cfg(test)]
            on_request: None,
        }
    }

    /// The shutdown at which connections end after their requests.
    pub(crate) fn stopping(&self) -> Shutdown {
        self.stopping.clone()
    }

    /// What the configuration says of requests that begin now.
    pub(crate) fn settings(&self) -> Arc<ForwardSettings> {
        self.settings.load_full()
    }

    /// Requests that begin from now on see these settings.
    pub(crate) fn replace_settings(&self, settings: ForwardSettings) {
        self.http2.set_streams(settings.limits.streams);
        self.settings.store(Arc::new(settings));
    }

    /// The same for one connection: as cheap as a reference, but for the first request after a reload.
    pub(super) fn cached_settings(&self) -> CachedSettings<'_> {
        Cache::new(&self.settings)
    }

    /// Whether connections between two requests have to end.
    pub(crate) fn closes_idle(&self) -> bool {
        self.stopping.is_insisted()
    }

    /// Whether this peer's connections begin with a header of the PROXY protocol.
    pub(crate) fn expects_proxy_header(&self, peer: Peer) -> bool {
        self.settings.load().forwarded.expects_proxy_header(peer)
    }

    /// Whether what this peer says of others is believed.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        self.settings.load().forwarded.trusts(peer)
    }

    /// What one client may take.
    pub(crate) fn limits(&self) -> Limits {
        self.settings.load().limits
    }

    pub(super) fn head_timeouts(&self) -> HeadTimeouts {
        let limits = self.limits();
        HeadTimeouts {
            header: limits.header_timeout,
            idle: limits.idle_timeout,
        }
    }

    /// Counts a request that could not be parsed.
    pub(super) fn count_rejected(&self) {
        if let Some(metrics) = &self.rejected {
            metrics.rejected.inc(());
        }
    }

    /// Serves one request: forwards it, or responds itself.
    pub(super) async fn forward<'s, C: ClientSide<'s>>(
        &self,
        settings: &ForwardSettings,
        request: &mut RequestHead,
        refusal: Option<Refusal>,
        connection: &ClientConnection,
        client: &mut C,
        timer: &mut LazyTimer,
    ) {
        let body_stall = settings.limits.body_stall;
        if refusal.is_none()
            && (settings.admin.owns(request.target.path())
                || own_response::is_for_root(request, &settings.admin))
        {
            // Neither observed nor logged: a scrape is not the registry's traffic. A client that leaves
            // meanwhile is no failure.
            let own = OwnResponse::new(client, timer, body_stall);
            if Box::pin(own.serve_admin(&settings.admin, request))
                .await
                .is_err()
            {
                client.abort();
            }
            return;
        }
        let cors = settings.cors.as_ref();
        let cors = cors.map(|rules| rules.of(&request.headers));
        if refusal.is_none()
            && let Some(cors) = &cors
            && let Some(allowed) = cors.preflight(&request.method, &request.headers)
        {
            // No more the registry's traffic than a scrape is. It has no password with it, so the upstream
            // might refuse it.
            let head = ResponseHead::own(StatusCode::NO_CONTENT, allowed, BodyLength::None);
            let own = OwnResponse::new(client, timer, body_stall);
            if own.send(head, &[]).await.is_err() {
                client.abort();
            }
            return;
        }
        let id = headers::request_id(&request.headers);
        let is_trusted = connection.is_trusted;
        let claims = is_trusted.then(|| settings.forwarded.claims(&request.headers));
        let claims = claims.as_ref();
        let claimed = claims.and_then(|claims| claims.host.as_ref());
        let destination = affinity::take(request, claimed, &settings.upstreams);
        let upstream = match &destination {
            Ok(destination) => Some(destination.upstream),
            Err((_, upstream)) => *upstream,
        };
        let access_log = settings.access_log.as_ref().filter(|log| log.is_on());
        let logged = access_log.map(|_| {
            let is_told = upstream.is_some_and(|upstream| upstream.in_process().is_none());
            let begins_trace = settings.forwarded.added.traceparent && is_told;
            LoggedRequest::new(request, connection, claims, begins_trace)
        });
        let traceparent = logged.as_ref().and_then(|logged| logged.begun_trace());
        let observed = Observed::begin((settings, upstream), request, &id, logged);
        #[cfg(test)]
        if let Some(on_request) = self.on_request {
            on_request();
        }
        let refusal = refusal
            .or_else(|| request.has_passed(&self.name).then_some(Refusal::Loop))
            .or_else(|| is_forbidden(request, upstream?).then_some(Refusal::ReadOnly));
        let destination = match (refusal, destination) {
            (Some(refusal), _) | (None, Err((refusal, _))) => Err(refusal),
            (None, Ok(found)) => target(request, found.upstream).map(|target| (found, target)),
        };
        let outcome = match destination {
            Err(refusal) => TransferOutcome::BeforeResponse(Failure::Refused(refusal), observed),
            Ok((Destination { upstream, replica }, target)) => {
                let asked = Asked {
                    settings,
                    upstream,
                    target,
                    id: &id,
                    traceparent: traceparent.as_ref(),
                    connection,
                    claims,
                    cors: cors.as_ref(),
                    session_at: replica,
                };
                self.exchange(request, &asked, client, observed, timer)
                    .await
            }
        };
        match outcome {
            TransferOutcome::Whole(observed) => observed.end(None),
            TransferOutcome::BeforeResponse(failure, observed) => {
                respond_with(
                    failure,
                    (request, cors.as_ref()),
                    (client, timer, body_stall),
                    observed,
                )
                .await;
            }
            TransferOutcome::DuringResponse(failure, observed) => {
                client.abort();
                observed.end(Some(failure));
            }
        }
    }

    /// Exchanges the request for a response, by one attempt or, where that is safe, by more.
    async fn exchange<'s, 'f, C: ClientSide<'s>>(
        &'f self,
        request: &mut RequestHead,
        asked: &Asked<'f>,
        client: &mut C,
        mut observed: Observed<'f, Awaiting>,
        timer: &mut LazyTimer,
    ) -> TransferOutcome<'f> {
        if let Some(registry) = asked.upstream.in_process() {
            let host = Upstream::local_authority();
            let side = InProcessSide::call(registry, request, &host);
            let mut side = UpstreamSide::InProcess(side);
            observed.request_sent();
            let mut held = Held::new(false);
            let view = asked.view(request);
            let transfer = self.transfer(client, &mut side, observed, (asked, view), &mut held);
            return transfer.run(timer).await;
        }
        let Some(replicas) = asked.upstream.replicas() else {
            return TransferOutcome::BeforeResponse(Failure::Internal, observed);
        };
        let worker = asked.connection.worker;
        let route = ReplicaRoute::new(replicas, asked.session_at);
        let mut connector = ReplicaConnector::new(route, worker);
        let mut view = asked.view(request);
        let mut held = Held::new(is_repeatable(&view.request.method));
        let mut may_reuse = true;
        let target = asked.target.as_ref().unwrap_or(&view.request.target);
        let credentials = OwnCredentials::of(
            asked.upstream,
            view.request,
            target,
            asked.connection.may_push,
        );
        // Before a replica is chosen: a request that waits for a token takes no place there.
        let authorization = match (&credentials, replicas.any()) {
            (Some(credentials), Some(replica)) => {
                Box::pin(credentials.authorization(replica)).await
            }
            _ => None,
        };
        loop {
            let reused = if may_reuse {
                connector.reuse(&mut observed)
            } else {
                None
            };
            let ConnectedReplica {
                replica,
                index,
                address,
                mut connection,
            } = if let Some(connected) = reused {
                connected
            } else {
                // Boxed, as it is rare: each connection keeps room for the largest that it may await.
                let connect = connector.connect(&mut observed, client, timer, may_reuse);
                match Box::pin(connect).await {
                    Ok(connected) => connected,
                    Err(failure) => return TransferOutcome::BeforeResponse(failure, observed),
                }
            };
            view.asked = Some(AskedReplica {
                among: &asked.settings.upstreams,
                index,
                has_session: asked.session_at.is_some(),
            });
            let added = Forwarded {
                peer: asked.connection.address.as_ref(),
                proxy: &self.name,
                request_id: asked.id,
                traceparent: asked.traceparent,
                host: replica.host(view.request.host.as_ref()),
                prefix: replica.prefix(),
                target: target.as_str(),
                authorization: authorization.as_ref(),
                headers: asked.settings.forwarded.added,
            };
            headers::write_request(connection.outgoing.head(), view, &added);
            connection.begin_body(view.request.body);
            observed.request_sent();
            if !connection.is_reused {
                held.keep_no_more();
            }
            let mut side = UpstreamSide::Connection(connection);
            let transfer = self.transfer(client, &mut side, observed, (asked, view), &mut held);
            let outcome = transfer.run(timer).await;
            if let Some(credentials) = &credentials {
                credentials.responded(&side, authorization.is_some());
            }
            match outcome {
                TransferOutcome::Whole(_) => {
                    if client.is_body_whole()
                        && let UpstreamSide::Connection(connection) = side
                        && let Some(stream) = connection.into_idle()
                    {
                        address.keep(stream, worker);
                    }
                    return outcome;
                }
                // The upstream may have hung up just before it was asked.
                TransferOutcome::BeforeResponse(
                    Failure::UpstreamFailed(UpstreamError::Reset),
                    again,
                ) if side.may_be_stale()
                    && is_repeatable(&view.request.method)
                    && held.rewind() =>
                {
                    observed = again;
                }
                outcome => return outcome,
            }
            may_reuse = false;
        }
    }

    fn transfer<'t, 'f, C>(
        &'t self,
        client: &'t mut C,
        side: &'t mut UpstreamSide,
        observed: Observed<'f, Awaiting>,
        (asked, view): (&Asked<'t>, ClientView<'t>),
        held: &'t mut Held,
    ) -> BodyTransfer<'t, 'f, C> {
        BodyTransfer::new(
            client,
            side,
            observed,
            view,
            held,
            (asked.upstream, asked.settings.limits.body_stall),
            &self.pipes,
        )
    }
}

impl Asked<'_> {
    fn view<'r>(&'r self, request: &'r RequestHead) -> ClientView<'r> {
        ClientView {
            request,
            claims: self.claims,
            cors: self.cors,
            is_tls: self.connection.is_tls,
            asked: None,
        }
    }
}

/// Whether the request would change an upstream that is to be read only. To ask for a token changes
/// nothing.
fn is_forbidden(request: &RequestHead, upstream: &Upstream) -> bool {
    let is_forbidden = || match request.method {
        Method::GET | Method::HEAD | Method::OPTIONS => false,
        Method::POST => Route::parse(request.target.path()).endpoint != Endpoint::Token,
        _ => true,
    };
    upstream.is_read_only() && is_forbidden()
}

/// The target as the upstream knows it; `None` if it is the client's.
fn target(request: &RequestHead, upstream: &Upstream) -> Result<Option<PathAndQuery>, Refusal> {
    let Some(prefix) = &upstream.matching().stripped else {
        return Ok(None);
    };
    let stripped = prefix.strip_target(request.target.path(), request.target.query());
    let Some(stripped) = stripped.map_err(|_| Refusal::NoUpstream)? else {
        return Ok(None);
    };
    stripped.try_into().map(Some).map_err(|_| Refusal::Target)
}

/// Responds with the OCI error of a failure, if the client can still read a response.
async fn respond_with<'s, C: ClientSide<'s>>(
    failure: Failure,
    (request, cors): (&RequestHead, Option<&CrossOrigin<'_>>),
    (client, timer, stall): (&mut C, &mut LazyTimer, Duration),
    observed: Observed<'_, Awaiting>,
) {
    let Some(error) = failure.response() else {
        client.abort();
        observed.end(Some(failure));
        return;
    };
    let body = Bytes::from(error.to_json());
    let headers = own_response::error_headers(failure, body.len(), cors);
    let body = match request.method {
        Method::HEAD => Bytes::new(),
        _ => body,
    };
    let mut observed = observed.own_response(failure, &error, body.len());
    let status = StatusCode::from_u16(failure.status()).unwrap_or_default();
    let head = ResponseHead::own(status, headers, BodyLength::Known(body.len() as u64));
    let own = OwnResponse::new(client, timer, stall);
    match own.send(head, &body).await {
        Ok(()) => observed.own_response_sent(body.len()),
        Err(_) => client.abort(),
    }
    observed.end(Some(failure));
}

/// Whether a request may be sent twice: it changes nothing, or leaves the same behind (RFC 9110
/// §9.2.2). A DELETE that was done would be 404 the second time.
fn is_repeatable(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT
    )
}
