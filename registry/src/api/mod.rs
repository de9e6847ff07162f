//! The registry's HTTP: one match from endpoint and method to handler.
//!
//! Paths are classified by [`Route`] and their parts parsed into types here; past a handler's first
//! lines no raw text of a client travels. Bodies stream in both directions. What a failure is in
//! HTTP's and the specification's terms is decided in `error`, and nowhere else.
//!
//! What is deliberately not here: sockets and time limits of connections (`server`), and any
//! knowledge of how content is kept (`store`).

mod blob;
mod body;
mod error;
mod listings;
mod manifest;
mod memory_budget;
mod multipart;
mod observation;
mod precondition;
mod query;
mod redirect;
mod referrers;
mod response;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use self::body::RequestBody;
use self::error::ApiError;
use self::memory_budget::{Evicted, MemoryBudget};
use self::observation::Observation;
use self::query::Query;
use self::response::{ApiResponse, ResponseContent};
pub use self::response::{ResponseBody, ResponseBodyError};
use crate::metrics::http::Http;
use crate::oci::{Endpoint, Name, Route};
use crate::store::Store;

/// What the registry lets its clients do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether all that would change anything is refused.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete: bool,
    /// The most bytes a manifest may have.
    pub manifest_limit: u64,
    /// Whether a manifest may name blobs and manifests that its repository does not hold (yet).
    pub sparse_manifests: bool,
    /// How long a request's body may pause.
    pub body_stall: Duration,
}

/// Where requests are recorded.
#[derive(Clone, Debug, Default)]
pub struct Recorders {
    /// The request metrics, if there are any.
    pub metrics: Option<Arc<Http>>,
    /// Whether each request is an event in the log.
    pub access_log: bool,
}

/// The memory, in bytes, that manifests being received, parsed and written and large listings being
/// sent take together; a manifest of the largest size that the policy allows always fits.
const BODIES: u64 = 32 << 20;

/// How many large manifests are parsed and written at once: what parsing makes of one may take many
/// times its size.
const LARGE_MANIFESTS: usize = 2;

/// How many listings are gathered at once. Each may hold a page, and one that scans a large folder
/// some MiB more.
const LISTINGS: usize = 4;

/// The largest page that takes nothing from the budget.
const SMALL_PAGE: usize = 64 << 10;

/// The registry's API over a store.
pub struct Api<S> {
    store: Arc<S>,
    policy: Policy,
    recorders: Recorders,
    budget: Arc<MemoryBudget>,
    large_manifests: Arc<Semaphore>,
    listings: Semaphore,
}

/// A request, taken apart.
struct ApiRequest<'a> {
    version: Version,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    query: Query<'a>,
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
        let bodies = BODIES.max(policy.manifest_limit.saturating_mul(2));
        Self {
            store: Arc::new(store),
            policy,
            recorders,
            budget: MemoryBudget::new(usize::try_from(bodies).unwrap_or(usize::MAX)),
            large_manifests: Arc::new(Semaphore::new(LARGE_MANIFESTS)),
            listings: Semaphore::new(LISTINGS),
        }
    }

    /// Answers a request; whatever goes wrong is a response, too. A handler that panics ends its own
    /// request only.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody<S::Reader>> {
        let (head, incoming) = request.into_parts();
        let route = Route::parse(head.uri.path());
        let mut observation = Observation::begin(&self.recorders, &head, &route);
        let request = ApiRequest {
            version: head.version,
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            query: Query::new(head.uri.query()),
            route,
            body: RequestBody::new(incoming, self.policy.body_stall),
        };
        let response = AssertUnwindSafe(self.dispatch(&request))
            .catch_unwind()
            .await;
        let mut response = response
            .unwrap_or(Err(ApiError::Panicked))
            .unwrap_or_else(ApiError::into_response);
        if head.version < Version::HTTP_2 && !settle(&request).await {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if head.method == Method::HEAD {
            leave_body_out(&mut response);
        }
        observation.received(request.body.received());
        observation.answered(response.status());
        response.map(|content| ResponseBody::new(content, observation))
    }

    /// A response of JSON that is made whole before it is sent. A large one takes from the budget, and
    /// gives way to others while its client reads nothing.
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
            let pushed = share.push(&body);
            let pushed = tokio::time::timeout(self.policy.body_stall, pushed).await;
            pushed.unwrap_or(Err(Evicted))?;
            ResponseContent::Shared(share)
        };
        Ok(response)
    }

    async fn dispatch(&self, request: &ApiRequest<'_>) -> Result<ApiResponse<S::Reader>, ApiError> {
        check_host(request.version, request.headers)?;
        if !is_framed(request.headers) {
            return Err(ApiError::TransferCoding);
        }
        if let Some(target) = redirect::target(request.method, request.uri) {
            return Ok(response::moved(&target));
        }
        let writes = !self.policy.read_only;
        let deletes = writes && self.policy.delete;
        match (request.route.endpoint, request.method) {
            (Endpoint::Base, &Method::GET | &Method::HEAD) => {
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
            (Endpoint::Token | Endpoint::Extension | Endpoint::Other, _) => {
                Err(ApiError::NoSuchEndpoint)
            }
            (endpoint, method) => Err(self.policy.refusal(endpoint, method)),
        }
    }
}

impl Policy {
    /// Why an endpoint does not take a method: it never does, or the configuration says so.
    fn refusal(&self, endpoint: Endpoint, method: &Method) -> ApiError {
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

/// The methods of an endpoint, as `Allow` has them (RFC 9110, section 10.2.1).
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

/// end-1: the API is here.
fn base<R>() -> ApiResponse<R> {
    response::json(StatusCode::OK, "application/json", b"{}".to_vec())
}

/// HTTP/1.1 names its host, and nothing names two (RFC 9112, section 3.2); hyper looks at neither.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err(ApiError::NoHost),
        (_, Some(_)) => Err(ApiError::ManyHosts),
        _ => Ok(()),
    }
}

/// Whether everybody on the way reads the same end of the body (RFC 9112, section 6.1): there is no
/// transfer coding, or `chunked` once. Of others hyper sees to it only that `chunked` is the last.
fn is_framed(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => line.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Makes the connection ready for the next request, by reading away what is left of a body that
/// was refused. Returns whether it is. A client that waits to be asked for its body is not asked.
async fn settle(request: &ApiRequest<'_>) -> bool {
    if !is_framed(request.headers) {
        return false;
    }
    if request.headers.contains_key(EXPECT) && request.body.received() == 0 {
        return request.body.is_read();
    }
    request.body.drain().await
}

/// A HEAD is answered with the headers of a GET, its length included, and nothing more.
fn leave_body_out<R>(response: &mut ApiResponse<R>) {
    let length = match response.body() {
        ResponseContent::Whole(bytes) => bytes.len(),
        ResponseContent::Shared(share) => share.length(),
        ResponseContent::Stream { .. } | ResponseContent::Multipart(_) => return,
    };
    *response.body_mut() = ResponseContent::Whole(Bytes::new());
    if length > 0 {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}
