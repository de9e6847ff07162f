//! The registry called from within its own process: no socket, no HTTP/1.1, no task.
//!
//! The task that holds an [`InProcessCall`] runs the registry, too: when it polls for the response, and
//! when it sends the request's body.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, Entry};
use http::{HeaderValue, Method, Request, Response, StatusCode, request, response};
use http_body::{Body, SizeHint};

use crate::api::{Api, BodySender, IncomingBody, ResponseBodyError, in_process};
use crate::store::Store;

type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = ResponseBodyError> + Send>>;
type Handling = Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>;

/// Calls the registry in this process.
#[derive(Clone)]
pub struct InProcess(Arc<dyn Fn(Request<IncomingBody>) -> Handling + Send + Sync>);

impl InProcess {
    pub(super) fn new<S: Store>(api: Arc<Api<S>>) -> Self {
        Self(Arc::new(move |request| {
            let api = Arc::clone(&api);
            Box::pin(async move {
                let response = api.handle(request, None).await;
                response.map(|body| Box::pin(body) as AnyBody)
            })
        }))
    }

    /// Calls with a request whose body has this length, as far as it is known.
    pub fn call(&self, head: request::Parts, length: SizeHint) -> InProcessCall {
        let is_head = head.method == Method::HEAD;
        let (sender, body) = in_process(length);
        let request = Request::from_parts(head, IncomingBody::InProcess(body));
        InProcessCall {
            state: CallState::Handling((self.0)(request)),
            sender,
            is_head,
        }
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

/// A call in progress. Dropping it ends the work.
pub struct InProcessCall {
    // Before the sender: the work ends before its body is cut.
    state: CallState,
    sender: BodySender,
    is_head: bool,
}

enum CallState {
    Handling(Handling),
    Responding {
        /// Until it is fetched.
        head: Option<Box<response::Parts>>,
        body: AnyBody,
        /// Bytes of the body that were not used yet.
        piece: Bytes,
    },
}

impl InProcessCall {
    /// Sends some of a piece of the request's body. `None` if the registry takes no more of it.
    pub fn poll_send(&mut self, context: &mut Context<'_>, piece: &[u8]) -> Poll<Option<usize>> {
        if let sent @ Poll::Ready(_) = self.sender.poll_offer(context, piece) {
            return sent;
        }
        // There is room again once the registry has read what it was sent.
        self.drive(context);
        self.sender.poll_offer(context, piece)
    }

    /// The request's body has ended.
    pub fn end(&self) {
        self.sender.end();
    }

    /// Whether the registry has asked for the request's body: what `100 Continue` says.
    pub fn wants_body(&self) -> bool {
        self.sender.is_wanted()
    }

    /// The head of the response, once.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<response::Parts> {
        self.drive(context);
        let CallState::Responding { head, .. } = &mut self.state else {
            return Poll::Pending;
        };
        head.take().map_or(Poll::Pending, |head| Poll::Ready(*head))
    }

    /// Runs the registry until it responds, or has to wait.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let CallState::Handling(handling) = &mut self.state
            && let Poll::Ready(response) = handling.as_mut().poll(context)
        {
            let (mut head, body) = response.into_parts();
            complete(&mut head, body.size_hint(), self.is_head);
            self.sender.close();
            self.state = CallState::Responding {
                head: Some(Box::new(head)),
                body,
                piece: Bytes::new(),
            };
        }
    }

    /// The next bytes of the response's body; none at its end.
    pub fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<&[u8], ResponseBodyError>> {
        let CallState::Responding { body, piece, .. } = &mut self.state else {
            return Poll::Pending;
        };
        while piece.is_empty() {
            match ready!(body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => *piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => break,
            }
        }
        Poll::Ready(Ok(piece))
    }

    /// So many bytes of the last piece were used.
    pub fn consume(&mut self, used: usize) {
        if let CallState::Responding { piece, .. } = &mut self.state {
            let used = used.min(piece.len());
            drop(piece.split_to(used));
        }
    }
}

/// Adds what hyper adds to a response over a connection: its length (RFC 9110, section 8.6) and its date
/// (section 6.6.1).
fn complete(head: &mut response::Parts, length: SizeHint, is_head: bool) {
    let is_bodiless = is_head
        || head.status.is_informational()
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if let Some(length) = length.exact().filter(|_| !is_bodiless)
        && let Entry::Vacant(place) = head.headers.entry(CONTENT_LENGTH)
    {
        place.insert(length.into());
    }
    if let Entry::Vacant(place) = head.headers.entry(DATE) {
        place.insert(date());
    }
}

/// The current time, formatted once a second by each thread.
fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> =
            const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second
            && let Ok(formatted) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*last, *text) = (second, formatted);
        }
        text.clone()
    })
}

impl fmt::Debug for InProcessCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessCall").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
