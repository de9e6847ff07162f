//! The registry's HTTP: one match from endpoint and method to handler.
//!
//! [`Route`] classifies a path, and the first lines of a handler parse its parts into types: no raw
//! text of a client goes further. Bodies stream in both directions. Only `error` maps a failure to a
//! status and a code.
//!
//! What is deliberately not here: sockets and connection timeouts (`server`), and how content is
//! stored (`store`).

mod blob;
mod body;
mod body_reader;
mod error;
mod incoming;
mod listings;
mod manifest;
mod memory_budget;
mod multipart;
mod observation;
mod precondition;
mod precondition_error;
mod query;
mod redirect;
mod referrers;
mod request_body_error;
mod response;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use service::listen::Peer;
use tokio::sync::Semaphore;

use self::body::RequestBody;
pub use self::body_reader::ResponseBodyError;
use self::error::ApiError;
pub use self::incoming::{BodySender, InProcessBody, IncomingBody, IncomingError, in_process};
use self::memory_budget::{Evicted, MemoryBudget};
use self::observation::Observation;
pub use self::observation::Recorders;
use self::query::Query;
pub use self::response::ResponseBody;
use self::response::{ApiResponse, ResponseContent};
use crate::oci::{Endpoint, Name, Route};
use crate::store::Store;

/// What the registry allows its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether every request that would change anything is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes a manifest may have.
    pub manifest_limit: u64,
    /// Whether a manifest may reference blobs and manifests that its repository lacks.
    pub sparse_manifests: bool,
    /// How long a request's body may pause before the request fails.
    pub body_stall: Duration,
}

/// The memory, in bytes, that all whole bodies share: manifests that are received, parsed and written,
/// and large listings that are sent. It is raised where the policy allows larger manifests.
const BODIES: u64 = 32 << 20;

/// How many large manifests are parsed and written at once. A parsed manifest may take many times the
/// memory of its bytes.
const LARGE_MANIFESTS: usize = 2;

/// How many listings are collected at once. Each holds up to a page, and some MiB more while it scans a
/// large directory.
const LISTINGS: usize = 4;

/// The largest page, in bytes, that takes nothing from the memory budget.
const SMALL_PAGE: usize = 64 << 10;

/// The registry's API over a store.
pub struct Api<S> {
    store: Arc<S>,
    /// Shared with those who replace it while requests run.
    policy: Arc<ArcSwap<Policy>>,
    recorders: Recorders,
    budget: Arc<MemoryBudget>,
    large_manifests: Arc<Semaphore>,
    listings: Semaphore,
}

/// A request's parts, as the handlers use them.
struct ApiRequest<'a> {
    version: Version,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    query: Query<'a>,
    /// As it was when the request came.
    policy: Policy,
    route: Route<'a>,
    body: RequestBody,
}

impl ApiRequest<'_> {
    /// The repository that the path names.
    fn name(&self) -> Result<Name, ApiError> {
        Ok(Name::parse(self.route.repository.unwrap_or_default())?)
    }
}

impl<S: Store> Api<S> {
    /// The API over `store`.
    pub fn new(store: S, policy: Policy, recorders: Recorders) -> Self {
        // Twice the limit: other bodies need memory while one of the largest manifests is written.
        let bodies = BODIES.max(policy.manifest_limit.saturating_mul(2));
        Self {
            store: Arc::new(store),
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            recorders,
            budget: MemoryBudget::new(usize::try_from(bodies).unwrap_or(usize::MAX)),
            large_manifests: Arc::new(Semaphore::new(LARGE_MANIFESTS)),
            listings: Semaphore::new(LISTINGS),
        }
    }

    /// What clients may do, to be replaced while the API serves. A request in flight keeps the old one.
    pub fn policy(&self) -> &Arc<ArcSwap<Policy>> {
        &self.policy
    }

    /// Handles a request of a connection's peer, if it came by one. Every failure becomes a response. A handler that panics fails its own request
    /// and no other.
    pub async fn handle(
        &self,
        request: Request<impl Into<IncomingBody>>,
        peer: Option<Peer>,
    ) -> Response<ResponseBody<S::Reader>> {
        let (head, incoming) = request.into_parts();
        let route = Route::parse(head.uri.path());
        let mut observation = Observation::begin(&self.recorders, &head, &route, peer);
        let policy = **self.policy.load();
        let request = ApiRequest {
            policy,
            version: head.version,
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            query: Query::new(head.uri.query()),
            route,
            body: RequestBody::new(incoming.into(), policy.body_stall),
        };
        // Unwind safe: the request's state is its own, and each change of the store is one atomic step.
        let response = AssertUnwindSafe(self.dispatch(&request))
            .catch_unwind()
            .await;
        let response = response.unwrap_or(Err(ApiError::Panicked));
        if let Some(metrics) = &self.recorders.metrics
            && let Err(error) = &response
            && let Some(reason) = error.upload_refusal(request.route.endpoint)
        {
            metrics.refused(reason);
        }
        let mut response = response.unwrap_or_else(ApiError::into_response);
        // An HTTP/1.1 connection with an unread body cannot carry another request, and the client learns
        // that it closes. HTTP/2 resets the one stream instead.
        if head.version < Version::HTTP_2 && !settle(&request).await {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        // After errors became responses, because a HEAD that fails has no body, either.
        if head.method == Method::HEAD {
            leave_body_out(&mut response);
        }
        // After `settle`, which may have received more of the body.
        observation.received(request.body.received());
        observation.responded(response.status());
        response.map(|content| ResponseBody::new(content, observation))
    }

    /// A JSON response that is complete before it is sent. A large one takes from the memory budget, and
    /// may be evicted while its client reads nothing.
    async fn page(
        &self,
        media_type: &'static str,
        body: Vec<u8>,
    ) -> Result<ApiResponse<S::Reader>, ApiError> {
        let mut response = response::json(StatusCode::OK, media_type, Vec::new());
        *response.body_mut() = if body.len() <= SMALL_PAGE {
            ResponseContent::Whole(body.into())
        } else {
            let mut share = self.budget.share();
            // Bounded, because complete manifests are never evicted: while they fill the budget, this
            // waits for them.
            let pushed = share.push(&body);
            let pushed = tokio::time::timeout(self.policy.load().body_stall, pushed).await;
            pushed.unwrap_or(Err(Evicted))?;
            ResponseContent::Shared(share)
        };
        Ok(response)
    }

    async fn dispatch(&self, request: &ApiRequest<'_>) -> Result<ApiResponse<S::Reader>, ApiError> {
        // First: a request whose host or end is ambiguous must reach no handler.
        check_host(request.version, request.headers)?;
        if !is_framed(request.headers) {
            return Err(ApiError::TransferCoding);
        }
        if let Some(target) = redirect::target(request.method, request.uri) {
            return Ok(response::moved(&target));
        }
        let writes = !request.policy.read_only;
        let deletes = writes && request.policy.delete;
        match (request.route.endpoint, request.method) {
            (Endpoint::Base, &Method::GET | &Method::HEAD) => {
                // Clients read a 200 as a registry that works: it must not hide a lost directory.
                self.store.available()?;
                Ok(base())
            }
            (Endpoint::Catalog, &Method::GET | &Method::HEAD) => self.catalog(request).await,
            (Endpoint::Tags, &Method::GET | &Method::HEAD) => self.tags_list(request).await,
            (Endpoint::Referrers, &Method::GET | &Method::HEAD) => self.referrers(request).await,
            (Endpoint::Manifest, &Method::GET | &Method::HEAD) => self.manifest_get(request).await,
            (Endpoint::Manifest, &Method::PUT) if writes => self.manifest_put(request).await,
            (Endpoint::Manifest, &Method::DELETE) if deletes => self.manifest_delete(request).await,
            (Endpoint::Blob, &Method::GET | &Method::HEAD) => self.blob_get(request).await,
            (Endpoint::Blob, &Method::DELETE) if deletes => self.blob_delete(request).await,
            (Endpoint::UploadStart, &Method::POST) if writes => self.upload_start(request).await,
            (Endpoint::UploadSession, &Method::GET | &Method::HEAD) => {
                self.upload_get(request).await
            }
            (Endpoint::UploadSession, &Method::PATCH) if writes => self.upload_patch(request).await,
            (Endpoint::UploadSession, &Method::PUT) if writes => self.upload_put(request).await,
            (Endpoint::UploadSession, &Method::DELETE) if writes => {
                self.upload_delete(request).await
            }
            // A 404 rather than a 405: no method makes these paths exist here.
            (Endpoint::Token | Endpoint::Extension | Endpoint::Other, _) => {
                Err(ApiError::NoSuchEndpoint)
            }
            (endpoint, method) => Err(request.policy.refusal(endpoint, method)),
        }
    }
}

impl Policy {
    /// Why an endpoint refuses a method: it never supports it, or the configuration disables it.
    fn refusal(&self, endpoint: Endpoint, method: &Method) -> ApiError {
        // `Allow` lists what the endpoint supports now, not what another configuration allows.
        let allow = allowed(endpoint, !self.read_only, self.delete);
        let ever = allowed(endpoint, true, true);
        if !ever.split(", ").any(|allowed| allowed == method.as_str()) {
            ApiError::Method { allow }
        } else if self.read_only {
            ApiError::ReadOnly { allow }
        } else {
            ApiError::DeleteDisabled { allow }
        }
    }
}

/// The methods of an endpoint, as the value of `Allow` (RFC 9110, section 10.2.1).
fn allowed(endpoint: Endpoint, writes: bool, deletes: bool) -> &'static str {
    match (endpoint, writes, deletes) {
        (Endpoint::Base | Endpoint::Catalog | Endpoint::Tags | Endpoint::Referrers, ..)
        | (Endpoint::Manifest | Endpoint::Blob | Endpoint::UploadSession, false, _)
        | (Endpoint::Blob, true, false) => "GET, HEAD",
        (Endpoint::Manifest, true, true) => "GET, HEAD, PUT, DELETE",
        (Endpoint::Manifest, true, false) => "GET, HEAD, PUT",
        (Endpoint::Blob, true, true) => "GET, HEAD, DELETE",
        (Endpoint::UploadStart, true, _) => "POST",
        (Endpoint::UploadSession, true, _) => "GET, HEAD, PATCH, PUT, DELETE",
        (Endpoint::UploadStart, false, _)
        | (Endpoint::Token | Endpoint::Extension | Endpoint::Other, ..) => "",
    }
}

/// end-1: the response that says that the API exists.
fn base<R>() -> ApiResponse<R> {
    response::json(StatusCode::OK, "application/json", b"{}".to_vec())
}

/// Checks the `Host` header (RFC 9112, section 3.2), which hyper does not: HTTP/1.1 requires one, and
/// no version allows two.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        // HTTP/2 has `:authority` in its place, and HTTP/1.0 requires neither.
        (None, _) if version == Version::HTTP_11 => Err(ApiError::NoHost),
        (_, Some(_)) => Err(ApiError::ManyHosts),
        _ => Ok(()),
    }
}

/// Whether every hop sees the same end of the body (RFC 9112, section 6.1): the request has no transfer
/// coding, or `chunked` once. hyper only checks that `chunked` comes last. A proxy that reads another
/// list of codings differently could be made to smuggle a request.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => line.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Reads and discards the rest of a refused body. Returns whether the connection can take another
/// request.
async fn settle(request: &ApiRequest<'_>) -> bool {
    if !is_framed(request.headers) {
        return false;
    }
    // Reading would make hyper send `100 Continue`, and so ask for a body that is already refused.
    if request.headers.contains_key(EXPECT) && request.body.received() == 0 {
        return request.body.is_read();
    }
    request.body.drain().await
}

/// Removes the body of a response to HEAD, but keeps its length: the headers are those of a GET.
fn leave_body_out<R>(response: &mut ApiResponse<R>) {
    let length = match response.body() {
        ResponseContent::Whole(bytes) => bytes.len(),
        ResponseContent::Shared(share) => share.length(),
        // Handlers open no reader for a HEAD: `describe` has set the length already.
        ResponseContent::Stream { .. } | ResponseContent::Multipart(_) => return,
    };
    *response.body_mut() = ResponseContent::Whole(Bytes::new());
    // A body that was empty already must not replace the length that `describe` set.
    if length > 0 {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}
