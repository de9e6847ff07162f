//! What is counted of an exchange once it has ended.

use std::time::Duration;

use registry::metrics::label::{OpResult, Status};
use registry::oci::Kind;

use super::operation::{Operation, Outcome};
use super::{By, Exchange, Unread};
use crate::metrics::label::{BlobOperation, Side, Transfer};

/// The size from which a blob's transfer tells how fast the way is, in bytes.
const SPEED_FROM: u64 = 1 << 20;

impl Exchange {
    /// Counts what ended in this way, but for what is returned: that is counted when it was read.
    pub(super) fn record(&mut self, outcome: Outcome, side: Option<Side>) -> Option<Unread> {
        let lasted = self.started.elapsed();
        self.count_request(outcome, lasted);
        self.count_repository(outcome, self.started + lasted);
        if let Some(side) = side {
            self.count_abortion(side, outcome.whole);
        }
        self.count_operation(outcome)
    }

    fn count_request(&self, outcome: Outcome, lasted: Duration) {
        let metrics = &self.recorder.metrics;
        let (pair, endpoint) = (self.pair, self.pair.endpoint());
        let http = &metrics.http;
        http.requests.inc((pair, Status::of(outcome.status)));
        http.duration.observe(pair, lasted.as_secs_f64());
        if self.request.last && self.request.moved > 0 {
            http.request_size
                .observe(endpoint, self.request.moved as f64);
        }
        if outcome.whole && self.response.moved > 0 {
            http.response_size
                .observe(endpoint, self.response.moved as f64);
        }
        http.in_flight.sub(endpoint, 1.0);
        let purpose = self.operation.purpose();
        metrics.clients.requests.inc((self.client, purpose));
        if outcome.whole
            && let Some(code) = self.code.found()
        {
            metrics.oci.errors.inc(code);
        }
        self.count_speed(outcome, lasted);
    }

    fn count_speed(&self, outcome: Outcome, lasted: Duration) {
        let (transfer, bytes, time) = match (self.head, self.request.timed) {
            (Some(head), _) if self.operation == Operation::Blob(BlobOperation::Pull) => {
                let whole = outcome.whole && head.status == 200;
                let bytes = if whole { self.response.moved } else { 0 };
                (Transfer::Download, bytes, lasted.saturating_sub(head.after))
            }
            (Some(head), Some((first, last))) if (200..300).contains(&head.status) => {
                let bytes = if self.request.last {
                    self.request.moved
                } else {
                    0
                };
                (Transfer::Upload, bytes, last.saturating_sub(first))
            }
            _ => return,
        };
        if bytes > SPEED_FROM {
            // No clock is as fine as to tell nothing from something.
            let seconds = time.as_secs_f64().max(1e-9);
            let speed = &self.recorder.metrics.transfers.speed;
            speed.observe(transfer, bytes as f64 / seconds);
        }
    }

    /// A body was cut if it had begun and had not ended; not if the upstream's answer made the rest
    /// of it pointless.
    fn count_abortion(&self, side: Side, response_whole: bool) {
        let by_upstream = self.head.is_some_and(|head| head.by == By::Upstream);
        let upload_cut = self.request.moved > 0 && !self.request.last;
        let cut = if by_upstream {
            !response_whole
        } else {
            upload_cut
        };
        if cut {
            let aborted = &self.recorder.metrics.transfers.aborted;
            aborted.inc((self.pair.endpoint(), side));
        }
    }

    fn count_operation(&mut self, outcome: Outcome) -> Option<Unread> {
        let oci = &self.recorder.metrics.oci;
        if let Some(operation) = self.operation.on_blob(outcome) {
            oci.blobs.inc(operation);
        }
        if let Some(result) = self.operation.mount(outcome) {
            oci.mounts.inc(result);
        }
        let (operation, reference, result) = self.operation.on_manifest(outcome)?;
        let kind = match self.reading.take() {
            Some(reading) if result == OpResult::Ok => reading.end(),
            _ => Ok(Kind::Other),
        };
        match kind {
            Ok(kind) => {
                oci.manifests.inc((operation, reference, kind, result));
                None
            }
            Err(body) => Some(Unread {
                operation,
                reference,
                body,
            }),
        }
    }
}
