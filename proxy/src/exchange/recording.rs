//! What an exchange counts while it runs.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use registry::metrics::label::Pair;
use registry::oci::ErrorCode;

use super::auth;
use super::error_code::BodyErrorCode;
use super::facts::{Facts, Request, ResponseStart};
use super::manifest_kind::KindReader;
use super::operation::RequestOperation;
use super::recorder::Recorder;
use crate::metrics::RepositoryHandle;
use crate::metrics::label::{AuthScheme, BlobOperation, ManifestOperation, Transfer};

mod end;

/// Counts one exchange. The exchange updates its facts before it calls any method of this.
pub(super) struct ExchangeRecording {
    pub(super) recorder: Arc<Recorder>,
    scheme: AuthScheme,
    /// For a manifest that is pulled, resolved or pushed.
    pub(super) kind_reader: Option<KindReader>,
    pub(super) code: BodyErrorCode,
    /// For a request whose path names a repository.
    pub(super) repository: Option<RepositoryHandle>,
    /// Whether the response begins with the first byte of the content.
    pub(super) from_start: bool,
    /// When the first and the last piece of a pushed blob arrived, since the request's headers.
    pub(super) timed: Option<(Duration, Duration)>,
}

impl ExchangeRecording {
    pub(super) fn begin(
        recorder: &Arc<Recorder>,
        pair: Pair,
        operation: RequestOperation,
        repository: Option<&str>,
        headers: &HeaderMap,
    ) -> ExchangeRecording {
        let metrics = &recorder.metrics;
        // Lowered in `count_request`, which runs once: at the end, or when the exchange is dropped.
        metrics.http.in_flight.add(pair.endpoint(), 1.0);
        let is_push = operation.manifest_operation() == Some(ManifestOperation::Push);
        ExchangeRecording {
            recorder: Arc::clone(recorder),
            scheme: auth::scheme(headers),
            kind_reader: is_push.then(|| KindReader::with_body(&recorder.kinds, headers)),
            code: BodyErrorCode::None,
            repository: repository.map(|name| metrics.repositories.find(name)),
            from_start: false,
            timed: None,
        }
    }

    /// More bytes of the request's body arrived.
    pub(super) fn request_moved(&mut self, facts: &Facts, bytes: u64) {
        let metrics = &self.recorder.metrics;
        metrics.http.request_body_bytes.add(facts.pair, bytes);
        if let Some(repository) = &mut self.repository {
            let repositories = &metrics.repositories;
            repositories.bytes(repository, Transfer::Upload, bytes);
        }
        if facts.operation.carries_blob() {
            let now = facts.started.elapsed();
            let first = self.timed.map_or(now, |(first, _)| first);
            self.timed = Some((first, now));
        }
    }

    /// A piece of the request's body.
    pub(super) fn request_piece(&mut self, piece: &[u8]) {
        if let Some(kind_reader) = &mut self.kind_reader {
            kind_reader.piece(piece);
        }
    }

    pub(super) fn reads_request(&self) -> bool {
        self.kind_reader.is_some()
    }

    pub(super) fn reads_response(&self, facts: &Facts) -> bool {
        let reads_kind = self.kind_reader.is_some()
            && facts.operation.manifest_operation() == Some(ManifestOperation::Pull);
        reads_kind || self.code.is_read()
    }

    pub(super) fn response_head(
        &mut self,
        facts: &Facts,
        request: &Request<'_>,
        headers: &HeaderMap,
    ) {
        let Some(head) = facts.head else {
            return;
        };
        self.observe_ttfb(facts, head);
        // Before the body: the bytes of an admitted repository are counted as they move.
        self.admit_repository(facts, request, head);
        let metrics = &self.recorder.metrics;
        if matches!(head.status, 301 | 302 | 303 | 307 | 308) {
            metrics.transfers.redirects.inc(facts.pair.endpoint());
        }
        if let Some(result) = auth::result(self.scheme, head.status) {
            metrics.clients.auth.inc((self.scheme, result));
        }
        // A response that has ended with its head has no body, and so no error code.
        if !facts.response.ended {
            self.code = BodyErrorCode::of(head.status, headers);
        }
        self.from_start = match (facts.operation, head.status) {
            (RequestOperation::Blob(BlobOperation::Pull), 206) => begins_at_0(headers),
            (_, status) => status == 200,
        };
        self.prepare_kind_reader(facts.operation, head.status, headers);
    }

    /// Prepares to find the kind of the manifest, if one is moved.
    fn prepare_kind_reader(
        &mut self,
        operation: RequestOperation,
        status: u16,
        headers: &HeaderMap,
    ) {
        let recorder = &self.recorder;
        match operation.manifest_operation() {
            Some(ManifestOperation::Pull) if status == 200 => {
                self.kind_reader = Some(KindReader::pulled(&recorder.kinds, headers));
            }
            // A HEAD, a 304 or a redirect has the manifest's headers at most.
            Some(ManifestOperation::Pull | ManifestOperation::Resolve) => {
                self.kind_reader = (status < 400).then(|| KindReader::without_body(headers));
            }
            Some(ManifestOperation::Push) => {
                if let Some(kind_reader) = &mut self.kind_reader {
                    kind_reader.pushed(&recorder.kinds, headers);
                }
            }
            Some(ManifestOperation::Delete) | None => {}
        }
    }

    pub(super) fn proxy_response(&mut self, facts: &Facts, code: ErrorCode) {
        if let Some(head) = facts.head {
            self.observe_ttfb(facts, head);
        }
        // The response to a HEAD has no body to carry a code.
        if facts.response.seen > 0 {
            self.code = BodyErrorCode::Known(code.into());
        }
    }

    fn observe_ttfb(&self, facts: &Facts, head: ResponseStart) {
        let ttfb = &self.recorder.metrics.http.ttfb;
        ttfb.observe(facts.pair, head.after.as_secs_f64());
    }

    pub(super) fn response_body(&mut self, facts: &Facts, piece: &[u8]) {
        self.code.piece(piece);
        // The response to a push has a body that is not the manifest.
        if let Some(kind_reader) = &mut self.kind_reader
            && facts.operation.manifest_operation() == Some(ManifestOperation::Pull)
        {
            kind_reader.piece(piece);
        }
    }

    /// More bytes of the response's body were sent.
    pub(super) fn sent(&mut self, facts: &Facts, bytes: u64) {
        let metrics = &self.recorder.metrics;
        metrics.http.response_body_bytes.add(facts.pair, bytes);
        if let Some(repository) = &mut self.repository {
            let repositories = &metrics.repositories;
            repositories.bytes(repository, Transfer::Download, bytes);
        }
    }
}

/// Whether a partial response (RFC 9110 §14.4) has the first byte. A multipart
/// response has no `Content-Range`, so the result is false.
fn begins_at_0(headers: &HeaderMap) -> bool {
    let range = headers.get(header::CONTENT_RANGE);
    range.is_some_and(|range| range.as_bytes().starts_with(b"bytes 0-"))
}
