//! Moves both bodies of one exchange at once, and the response's head between them.
//!
//! One poll moves all that can be moved, in both directions. Each direction knows which side it waits
//! for, so that a timeout blames the right one.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use service::timer::LazyTimer;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::affinity;
use super::client_side::ClientSide;
use super::client_view::ClientView;
use super::download::{Download, TransferOutcome};
use super::held::Held;
use super::observed::Observed;
use super::splice::{Pipes, SPLICE_FROM, Splice, SpliceError, Spliced};
use super::upstream_side::UpstreamSide;
use crate::error::Failure;
use crate::exchange::Awaiting;
use crate::metrics::UpstreamError;
use crate::upstream::{Timeouts, Upstream};

/// How long an upstream that takes no more of a body may still take to respond.
const ABANDONED: Duration = Duration::from_secs(5);

/// How long a client that has closed its sending half waits for an upstream that is silent. Most have
/// left, and only bytes that are sent to them would tell.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(5);

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadState {
    Body,
    Ending,
    Whole,
    /// The upstream takes no more: it has responded, or it will not.
    Abandoned,
}

/// Who has to act before a direction can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Client,
    Upstream,
}

/// A direction that stands still, and since when.
#[derive(Debug, Default)]
struct Standstill {
    awaits: Option<Awaits>,
    since: Option<Instant>,
}

impl Standstill {
    fn moved(&mut self) {
        self.since = None;
    }

    fn awaits(&mut self, side: Awaits) {
        if self.awaits != Some(side) {
            self.awaits = Some(side);
            self.since = None;
        }
    }
}

/// One exchange between a client and the upstream.
pub(super) struct BodyTransfer<'t, 'f, C> {
    client: &'t mut C,
    upstream: &'t mut UpstreamSide,
    view: ClientView<'t>,
    held: &'t mut Held,
    of: &'t Upstream,
    pipes: &'t Pipes,
    /// Through which each body is spliced, if it is.
    upload_pipe: Option<Splice>,
    download_pipe: Option<Splice>,
    body_stall: Duration,
    timeouts: Timeouts,
    upload: UploadState,
    download: Download<'f>,
    up: Standstill,
    down: Standstill,
    /// Since when the client sends nothing more.
    half_closed: Option<Instant>,
}

impl<'t, 'f, C> BodyTransfer<'t, 'f, C> {
    pub(super) fn new(
        client: &'t mut C,
        upstream: &'t mut UpstreamSide,
        observed: Observed<'f, Awaiting>,
        view: ClientView<'t>,
        held: &'t mut Held,
        (of, body_stall): (&'t Upstream, Duration),
        pipes: &'t Pipes,
    ) -> BodyTransfer<'t, 'f, C> {
        BodyTransfer {
            client,
            upstream,
            view,
            held,
            of,
            pipes,
            upload_pipe: None,
            download_pipe: None,
            body_stall,
            timeouts: of.timeouts(),
            upload: UploadState::Body,
            download: Download::Head(observed),
            up: Standstill::default(),
            down: Standstill::default(),
            half_closed: None,
        }
    }

    /// Moves everything, until the response has ended.
    pub(super) async fn run<'s>(mut self, timer: &mut LazyTimer) -> TransferOutcome<'f>
    where
        C: ClientSide<'s>,
    {
        let result = std::future::poll_fn(|context| self.poll(context, timer)).await;
        self.download.finish(result)
    }

    fn poll<'s>(
        &mut self,
        context: &mut Context<'_>,
        timer: &mut LazyTimer,
    ) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        if let Poll::Ready(Err(failure)) = self.poll_upload(context) {
            return Poll::Ready(Err(failure));
        }
        if let Poll::Ready(result) = self.poll_download(context) {
            return Poll::Ready(result);
        }
        if self.client.poll_left(context).is_ready() {
            return Poll::Ready(Err(Failure::ClientClosed));
        }
        let mut now = None;
        let mut clock = || *now.get_or_insert_with(Instant::now);
        if self.half_closed.is_none() && self.client.is_half_closed() {
            self.half_closed = Some(clock());
        }
        if self.half_closed.is_some()
            && matches!(self.upload, UploadState::Body)
            && !self
                .client
                .can_body_arrive(self.upload_pipe.as_ref().map_or(0, Splice::held))
        {
            return Poll::Ready(Err(Failure::ClientClosed));
        }
        for direction in [&mut self.up, &mut self.down] {
            if direction.awaits.is_some() {
                direction.since.get_or_insert_with(&mut clock);
            }
        }
        let Some((deadline, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        ready!(timer.poll(context, deadline));
        Poll::Ready(Err(failure))
    }

    /// When the exchange is given up, and why.
    fn deadline(&self) -> Option<(Instant, Failure)> {
        let mut first: Option<(Instant, Failure)> = None;
        let mut at = |deadline: Instant, failure| {
            if first.is_none_or(|(known, _)| deadline < known) {
                first = Some((deadline, failure));
            }
        };
        let upload = self.up.awaits.zip(self.up.since);
        // Once the response has begun, the rest of the request does not matter.
        if let (Some((awaits, since)), Download::Head(_)) = (upload, &self.download) {
            match awaits {
                Awaits::Client => at(since + self.body_stall, Failure::ClientStalled),
                Awaits::Upstream => at(since + self.timeouts.stall, Failure::UpstreamTimeout),
            }
        }
        if let Some((awaits, since)) = self.down.awaits.zip(self.down.since) {
            let is_clients_turn = upload.is_some_and(|(awaits, _)| awaits == Awaits::Client);
            match (&self.download, awaits) {
                (_, Awaits::Client) => at(since + self.body_stall, Failure::ClientNotReading),
                (Download::Head(_), _) if self.upload == UploadState::Whole => {
                    at(since + self.timeouts.response, Failure::UpstreamTimeout);
                }
                (Download::Head(_), _) if self.upload == UploadState::Abandoned => {
                    at(
                        since + ABANDONED,
                        Failure::UpstreamFailed(UpstreamError::Reset),
                    );
                }
                // The upload's own limit holds.
                (Download::Head(_), _) => {}
                (_, Awaits::Upstream) if is_clients_turn => {
                    at(since + self.body_stall, Failure::ClientStalled);
                }
                (_, Awaits::Upstream) => {
                    at(since + self.timeouts.response, Failure::UpstreamTimeout);
                }
            }
            if let (Some(closed), Awaits::Upstream) = (self.half_closed, awaits) {
                at(since.max(closed) + HALF_CLOSED, Failure::ClientClosed);
            }
        }
        first
    }

    fn poll_upload<'s>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        loop {
            match self.upload {
                UploadState::Body => ready!(self.poll_upload_piece(context))?,
                UploadState::Ending => {
                    self.up.awaits(Awaits::Upstream);
                    self.upload = match ready!(self.upstream.poll_flush(context)) {
                        Ok(()) => UploadState::Whole,
                        Err(_) => UploadState::Abandoned,
                    };
                }
                UploadState::Whole | UploadState::Abandoned => {
                    self.up.awaits = None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Moves one piece of the request's body, or finds its end.
    fn poll_upload_piece<'s>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        if !self.held.left().is_empty() {
            self.up.awaits(Awaits::Upstream);
            match ready!(self.upstream.poll_send(context, self.held.left())) {
                Ok(sent) => self.held.replayed(sent),
                Err(_) => self.upload = UploadState::Abandoned,
            }
            self.up.moved();
            return Poll::Ready(Ok(()));
        }
        if let Some((from, left)) = self.client.body_source()
            && left > 0
            && (self.upload_pipe.is_some() || self.begin_upload_splice(left))
        {
            return self.poll_upload_splice(context, from, left);
        }
        let piece = match self.client.poll_body(context) {
            Poll::Ready(piece) => piece?,
            Poll::Pending => {
                self.up.awaits(Awaits::Client);
                // The upstream gets what there is before more of it is waited for.
                if let Poll::Ready(Err(_)) = self.upstream.poll_flush(context) {
                    self.upload = UploadState::Abandoned;
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
        };
        if piece.is_empty() {
            self.upstream.end();
            self.download.request_ended();
            self.upload = UploadState::Ending;
            return Poll::Ready(Ok(()));
        }
        self.up.awaits(Awaits::Upstream);
        match ready!(self.upstream.poll_send(context, piece)) {
            Ok(sent) => {
                let piece = &piece[..sent];
                self.download.request_body(piece);
                self.held.push(piece);
                self.client.consume_body(sent);
                self.up.moved();
            }
            Err(_) => self.upload = UploadState::Abandoned,
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a pipe for the rest of a long request's body, if it need not be looked at.
    fn begin_upload_splice(&mut self, left: u64) -> bool {
        if left >= SPLICE_FROM
            && self.upstream.body_sink().is_some()
            && !self.download.reads_request()
        {
            self.upload_pipe = self.pipes.take();
        }
        self.upload_pipe.is_some()
    }

    fn poll_upload_splice<'s>(
        &mut self,
        context: &mut Context<'_>,
        from: &TcpStream,
        left: u64,
    ) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        let (Some(pipe), Some(to)) = (&mut self.upload_pipe, self.upstream.body_sink()) else {
            return Poll::Ready(Err(Failure::Internal));
        };
        let moved = pipe.poll_move(context, from, to, left);
        if pipe.held() > 0 || matches!(moved, Ok(Spliced::Moved(_))) {
            // What is in the pipe is no longer in the client's socket: the request can't be sent again.
            self.held.forget();
        }
        match moved {
            Ok(Spliced::Moved(bytes)) => {
                self.download.request_moved(bytes);
                self.client.body_moved(bytes);
                self.up.moved();
            }
            Ok(Spliced::AwaitsFrom) => {
                self.up.awaits(Awaits::Client);
                return Poll::Pending;
            }
            Ok(Spliced::AwaitsTo) => {
                self.up.awaits(Awaits::Upstream);
                return Poll::Pending;
            }
            Err(SpliceError::From) => return Poll::Ready(Err(Failure::ClientClosed)),
            Err(SpliceError::To) => self.upload = UploadState::Abandoned,
        }
        Poll::Ready(Ok(()))
    }

    fn poll_download<'s>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        loop {
            match &mut self.download {
                Download::Head(_) => {
                    self.down.awaits(Awaits::Upstream);
                    ready!(self.poll_response_head(context))?;
                }
                Download::Body(_) => ready!(self.poll_download_piece(context))?,
                Download::Ending(observed) => {
                    self.down.awaits(Awaits::Client);
                    ready!(self.client.poll_flush(context))?;
                    observed.response_ended();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_response_head<'s>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        let method = &self.view.request.method;
        let head = match self.upstream.poll_head(context, method) {
            Poll::Ready(head) => head.map_err(Failure::UpstreamFailed)?,
            Poll::Pending => {
                // An interim response may be held back.
                let _ = self.client.poll_flush(context)?;
                return Poll::Pending;
            }
        };
        self.down.moved();
        if head.status.is_informational() {
            self.client.interim(&head);
            return Poll::Ready(Ok(()));
        }
        let mut head = head;
        self.view.localize(&mut head.headers, self.of);
        if let Some(cors) = self.view.cors {
            cors.apply(&mut head.headers);
        }
        self.download.begin(&head);
        // After the sessions' table has seen the Location: it knows sessions without their tags.
        affinity::tag(self.view, head.status, &mut head.headers, self.of);
        self.client.begin_response(head)?;
        Poll::Ready(Ok(()))
    }

    /// Moves one piece of the response's body, or finds its end.
    fn poll_download_piece<'s>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>>
    where
        C: ClientSide<'s>,
    {
        if let Some((_, left)) = self.upstream.body_source()
            && left > 0
            && let Some(to) = self.client.body_sink()
            && (self.download_pipe.is_some() || self.begin_download_splice(left))
        {
            return self.poll_download_splice(context, to, left);
        }
        let piece = match self.upstream.poll_body(context) {
            Poll::Ready(piece) => piece.map_err(Failure::UpstreamFailed)?,
            Poll::Pending => {
                // The client gets what there is before more of it is waited for.
                if self.client.poll_flush(context)?.is_pending() {
                    self.down.awaits(Awaits::Client);
                } else {
                    self.down.awaits(Awaits::Upstream);
                }
                return Poll::Pending;
            }
        };
        if piece.is_empty() {
            self.client.end()?;
            self.download.end();
            return Poll::Ready(Ok(()));
        }
        self.down.awaits(Awaits::Client);
        let sent = ready!(self.client.poll_send(context, piece))?;
        if let Some(observed) = self.download.responding() {
            observed.response_body(&piece[..sent]);
        }
        self.upstream.consume(sent);
        self.down.moved();
        Poll::Ready(Ok(()))
    }
}

impl<C> BodyTransfer<'_, '_, C> {
    /// Takes a pipe for the rest of a long response's body, if it need not be looked at.
    fn begin_download_splice(&mut self, left: u64) -> bool {
        let observed = self.download.responding();
        if left >= SPLICE_FROM && observed.is_some_and(|observed| !observed.reads_response()) {
            self.download_pipe = self.pipes.take();
        }
        self.download_pipe.is_some()
    }

    fn poll_download_splice(
        &mut self,
        context: &mut Context<'_>,
        to: &TcpStream,
        left: u64,
    ) -> Poll<Result<(), Failure>> {
        let (Some(pipe), Some((from, _))) = (&mut self.download_pipe, self.upstream.body_source())
        else {
            return Poll::Ready(Err(Failure::Internal));
        };
        match pipe.poll_move(context, from, to, left) {
            Ok(Spliced::Moved(bytes)) => {
                if let Some(observed) = self.download.responding() {
                    observed.response_moved(bytes);
                }
                self.upstream.body_moved(bytes);
                self.down.moved();
                Poll::Ready(Ok(()))
            }
            Ok(Spliced::AwaitsFrom) => {
                self.down.awaits(Awaits::Upstream);
                Poll::Pending
            }
            Ok(Spliced::AwaitsTo) => {
                self.down.awaits(Awaits::Client);
                Poll::Pending
            }
            Err(SpliceError::From) => {
                Poll::Ready(Err(Failure::UpstreamFailed(UpstreamError::Reset)))
            }
            Err(SpliceError::To) => Poll::Ready(Err(Failure::ClientClosed)),
        }
    }
}
