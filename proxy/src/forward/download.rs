//! How far a response is, and the exchange that counts it.

use super::framing::{BodyLength, ResponseHead};
use super::observed::Observed;
use crate::error::Failure;
use crate::exchange::{Awaiting, Responding};

/// How far a response is. What can be said of the exchange depends on it.
pub(super) enum Download<'f> {
    /// No final response has begun.
    Head(Observed<'f, Awaiting>),
    Body(Observed<'f, Responding>),
    Ending(Observed<'f, Responding>),
}

/// What became of an exchange.
pub(super) enum TransferOutcome<'f> {
    /// The client has the whole response.
    Whole(Observed<'f, Responding>),
    /// It failed, and the client has seen nothing of a response.
    BeforeResponse(Failure, Observed<'f, Awaiting>),
    /// It failed after the response had begun.
    DuringResponse(Failure, Observed<'f, Responding>),
}

macro_rules! each {
    ($download:expr, $observed:ident => $do:expr) => {
        match $download {
            Download::Head($observed) => $do,
            Download::Body($observed) | Download::Ending($observed) => $do,
        }
    };
}

impl<'f> Download<'f> {
    /// The head of the final response arrived.
    pub(super) fn begin(&mut self, head: &ResponseHead) {
        if let Download::Head(observed) = self {
            let observed = std::mem::take(observed).response_head(head);
            *self = if head.body == BodyLength::None {
                Download::Ending(observed)
            } else {
                Download::Body(observed)
            };
        }
    }

    /// The whole body was taken by the client's connection.
    pub(super) fn end(&mut self) {
        if let Download::Body(observed) = self {
            *self = Download::Ending(std::mem::take(observed));
        }
    }

    /// The exchange, once the response has begun.
    pub(super) fn responding(&mut self) -> Option<&mut Observed<'f, Responding>> {
        match self {
            Download::Head(_) => None,
            Download::Body(observed) | Download::Ending(observed) => Some(observed),
        }
    }

    /// Bytes of the request's body were taken by the upstream.
    pub(super) fn request_body(&mut self, piece: &[u8]) {
        each!(self, observed => observed.request_body(piece));
    }

    /// Bytes of the request's body were taken by the upstream, unseen.
    pub(super) fn request_moved(&mut self, bytes: usize) {
        each!(self, observed => observed.request_moved(bytes));
    }

    /// The request's body is whole.
    pub(super) fn request_ended(&mut self) {
        each!(self, observed => observed.request_ended());
    }

    /// Whether the request's body has to be looked at.
    pub(super) fn reads_request(&mut self) -> bool {
        each!(self, observed => observed.reads_request())
    }

    /// What became of the exchange. An upstream that failed is recorded.
    pub(super) fn finish(self, result: Result<(), Failure>) -> TransferOutcome<'f> {
        match (self, result) {
            (Download::Head(mut observed), result) => {
                let failure = result.err().unwrap_or(Failure::Internal);
                observed.upstream_failed(failure.upstream_error());
                TransferOutcome::BeforeResponse(failure, observed)
            }
            (Download::Body(observed) | Download::Ending(observed), Ok(())) => {
                TransferOutcome::Whole(observed)
            }
            (Download::Body(mut observed) | Download::Ending(mut observed), Err(failure)) => {
                observed.upstream_failed(failure.upstream_error());
                TransferOutcome::DuringResponse(failure, observed)
            }
        }
    }
}
