//! What an exchange counts when it ends.

use std::time::Duration;

use crate::metrics::label::OpResult;
use registry::metrics::label::Status;
use registry::oci::Kind;

use std::sync::Arc;

use super::ExchangeRecording;
use crate::exchange::deferred_count::{DeferredCount, EndedOperation};
use crate::exchange::manifest_kind::UnparsedManifest;
use crate::exchange::operation::{ExchangeOutcome, RequestOperation};
use crate::exchange::{Facts, Responder};
use crate::metrics::label::{BlobOperation, Side, Transfer};

/// The size in bytes from which a blob's transfer shows the speed of the network. Smaller ones show
/// its latency.
const SPEED_FROM: u64 = 1 << 20;

impl ExchangeRecording {
    /// Counts the exchange. If the kind of its manifest is not known yet, its operation is returned,
    /// to be counted after the manifest is parsed.
    pub(in crate::exchange) fn record(
        mut self,
        facts: &Facts,
        outcome: ExchangeOutcome,
        side: Option<Side>,
    ) -> Option<DeferredCount> {
        let lasted = facts.started.elapsed();
        self.count_request(facts, outcome, lasted);
        if let Some(side) = side {
            self.count_abortion(facts, side, outcome.whole);
        }
        self.count_operation(facts, outcome, lasted)
    }

    fn count_request(&self, facts: &Facts, outcome: ExchangeOutcome, lasted: Duration) {
        let metrics = &self.recorder.metrics;
        let (pair, endpoint) = (facts.pair, facts.pair.endpoint());
        let http = &metrics.http;
        http.requests.inc((pair, Status::of(outcome.status)));
        http.duration.observe(pair, lasted.as_secs_f64());
        // Requests without a body would only fill the lowest bucket.
        if facts.request.ended && facts.request.moved > 0 {
            http.request_size
                .observe(endpoint, facts.request.moved as f64);
        }
        if outcome.whole && facts.response.moved > 0 {
            http.response_size
                .observe(endpoint, facts.response.moved as f64);
        }
        http.in_flight.sub(endpoint, 1.0);
        let purpose = facts.operation.purpose();
        metrics.clients.requests.inc((facts.client, purpose));
        // If the body was cut off, the client may not have received the code.
        if outcome.whole
            && let Some(code) = self.code.found()
        {
            metrics.oci.errors.inc(code);
        }
        self.count_speed(facts, outcome, lasted);
    }

    fn count_speed(&self, facts: &Facts, outcome: ExchangeOutcome, lasted: Duration) {
        let (transfer, bytes, time) = match (facts.head, self.timed) {
            (Some(head), _) if facts.operation == RequestOperation::Blob(BlobOperation::Pull) => {
                let whole = outcome.whole && head.status == 200;
                let bytes = if whole { facts.response.moved } else { 0 };
                (Transfer::Download, bytes, lasted.saturating_sub(head.after))
            }
            (Some(head), Some((first, last))) if (200..300).contains(&head.status) => {
                let bytes = if facts.request.ended {
                    facts.request.moved
                } else {
                    0
                };
                (Transfer::Upload, bytes, last.saturating_sub(first))
            }
            _ => return,
        };
        if bytes > SPEED_FROM {
            // The clock may be too coarse to see any time pass: no division by zero.
            let seconds = time.as_secs_f64().max(1e-9);
            let speed = &self.recorder.metrics.transfers.speed;
            speed.observe(transfer, bytes as f64 / seconds);
        }
    }

    /// Counts an aborted transfer: a body that had begun and had not ended. An upload that the
    /// upstream responded to early was not aborted: its rest had become pointless.
    fn count_abortion(&self, facts: &Facts, side: Side, response_whole: bool) {
        let by_upstream = facts
            .head
            .is_some_and(|head| head.responder == Responder::Upstream);
        let upload_cut = facts.request.moved > 0 && !facts.request.ended;
        let cut = if by_upstream {
            !response_whole
        } else {
            upload_cut
        };
        if cut {
            let aborted = &self.recorder.metrics.transfers.aborted;
            aborted.inc((facts.pair.endpoint(), side));
        }
    }

    fn count_operation(
        &mut self,
        facts: &Facts,
        outcome: ExchangeOutcome,
        lasted: Duration,
    ) -> Option<DeferredCount> {
        let kind = self.kind(facts.operation, outcome);
        let metrics = &self.recorder.metrics;
        if let Some(operation) = facts.operation.on_blob(outcome) {
            metrics.oci.blobs.inc(operation);
        }
        if let Some(result) = facts.operation.mount_result(outcome) {
            metrics.oci.mounts.inc(result);
        }
        // Bytes are counted now, even if the operation waits for the manifest's kind.
        if let Some(repository) = &mut self.repository {
            metrics.repositories.finish(repository);
        }
        let ended = EndedOperation {
            operation: facts.operation,
            outcome,
            from_start: self.from_start,
            repository: self.repository.take(),
            at: facts.started + lasted,
        };
        match kind {
            Ok(kind) => {
                ended.count(metrics, kind);
                None
            }
            Err(body) => Some(DeferredCount {
                ended,
                body,
                recorder: Arc::clone(&self.recorder),
                _pending: self.recorder.deferred.guard(),
            }),
        }
    }

    /// The kind of the manifest that was moved, or the manifest that must be parsed first.
    fn kind(
        &mut self,
        operation: RequestOperation,
        outcome: ExchangeOutcome,
    ) -> Result<Kind, UnparsedManifest> {
        if operation.result(outcome) == OpResult::Ok
            && let Some(kind_reader) = self.kind_reader.take()
        {
            return kind_reader.end();
        }
        // An operation that failed moved no manifest whose kind could count.
        Ok(Kind::Other)
    }
}
