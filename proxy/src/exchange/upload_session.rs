//! Reports responses to the table of upload sessions.

use std::time::Instant;

use http::{HeaderMap, header};
use registry::oci::{Endpoint, Route};

use super::{OpenExchange, Request};
use crate::sessions::SessionResponse;

impl OpenExchange {
    /// Reports the response to a request that opens an upload session or is for one.
    pub(super) fn report_to_session(
        &self,
        request: &Request<'_>,
        status: u16,
        headers: &HeaderMap,
        now: Instant,
    ) {
        let facts = &self.facts;
        let endpoint = facts.pair.endpoint();
        if !matches!(endpoint, Endpoint::UploadStart | Endpoint::UploadSession) {
            return;
        }
        let sessions = &self.sessions;
        let location = headers.get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        let repository = Route::parse(request.path).repository;
        if endpoint == Endpoint::UploadSession {
            let response = SessionResponse {
                method: facts.pair.method(),
                path: request.path,
                query: request.query,
                repository,
                status,
                location,
            };
            sessions.responded(&facts.session, response, now);
        } else if status == 202
            && let Some(location) = location
        {
            sessions.opened(request.path, location, repository, now);
        }
    }
}
