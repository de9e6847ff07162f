//! A relay between a client that keeps no books and octoserve. It passes every byte on unchanged, and keeps
//! the books of the requests in them.
//!
//! When the client closes, the relay closes only its sending half and reads the rest: so it knows to the
//! byte what the proxy has sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::books::SharedBooks;
use super::meter::{BodyFraming, MessageEvent, MessageMeter, keep};
use super::observation::{Bounds, Known, Observation};
use super::progress::Progress;
use crate::tls::SecureClient;
use crate::wire::Duplex;

/// What a relay leads to.
#[derive(Clone)]
pub(crate) struct RelayTarget {
    pub(crate) address: SocketAddr,
    /// HTTP/1.1 inside TLS, or plain.
    pub(crate) tls: Option<SecureClient>,
}

/// A relay on a port of its own. Dropping it closes its connections.
pub(crate) struct BookKeepingRelay {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What is known of a connection's requests.
#[derive(Default)]
struct Conversation {
    /// Requests that have no whole response yet, in order.
    open: VecDeque<OpenRequest>,
    /// The request whose body is being sent is the last one, and it is in `open`.
    is_sending: bool,
    /// The proxy has closed: what a client sends now, nobody reads.
    closed: bool,
}

struct OpenRequest {
    seen: Observation,
    sent: u64,
    sent_whole: bool,
    received: u64,
}

impl BookKeepingRelay {
    /// Starts one on 127.0.0.1.
    pub(crate) async fn start(
        target: RelayTarget,
        books: SharedBooks,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        let (target, books) = (target.clone(), books.clone());
                        let progress = Arc::clone(&progress);
                        serving.spawn(async move {
                            if let Err(error) = relay(client, target, books).await {
                                progress.broke(&format!("a relay: {error:#}"));
                            }
                        });
                    }
                    Some(_) = serving.join_next() => {}
                }
            }
        });
        Ok(Self { address, accepting })
    }

    /// Its address, for clients.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for BookKeepingRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The first byte of a client that speaks TLS.
const TLS_HANDSHAKE: u8 = 0x16;

const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";

/// One connection. An error is one that no fault of an upstream explains: the proxy refuses a connection, or
/// does not speak HTTP.
async fn relay(client: TcpStream, target: RelayTarget, books: SharedBooks) -> Result<()> {
    client.set_nodelay(true)?;
    let mut first = [0];
    // They try TLS first, and learn from the answer that there is none. octoserve never sees that.
    if matches!(client.peek(&mut first).await, Ok(1)) && first[0] == TLS_HANDSHAKE {
        client.writable().await?;
        client.try_write(NO_TLS).ok();
        return Ok(());
    }
    let stream = TcpStream::connect(target.address).await;
    let stream = stream.context("octoserve refuses a connection")?;
    stream.set_nodelay(true)?;
    books.count("connections_total", &[]);
    let server: Box<dyn Duplex> = match &target.tls {
        Some(tls) => Box::new(tls.shake(stream, "localhost").await?),
        None => Box::new(stream),
    };
    let conversation = Arc::new(Mutex::new(Conversation::default()));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    let own = Arc::clone(&conversation);
    let requests = async move {
        let mut meter = MessageMeter::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_client.read(&mut buffer).await.unwrap_or_default();
            if read == 0 {
                // Whether the client has left or not, the rest of the response is read.
                to_server.shutdown().await.ok();
                return Ok(());
            }
            let piece = &buffer[..read];
            {
                let mut conversation = lock(&own);
                if conversation.closed {
                    return Ok(());
                }
                meter.feed(piece, |event| conversation.request(event))?;
            }
            // After the books: the response must find its request there.
            if to_server.write_all(piece).await.is_err() {
                // The response tells what became of it.
                return Ok(());
            }
        }
    };
    let own = Arc::clone(&conversation);
    let recorded = books.clone();
    let responses = async move {
        let mut meter = MessageMeter::default();
        let mut buffer = vec![0; 64 << 10];
        let mut client_is_there = true;
        loop {
            let read = from_server.read(&mut buffer).await;
            let read = match read {
                Ok(read) if read > 0 => read,
                ended => {
                    let until_close = meter.lasts_until_close() && ended.is_ok();
                    lock(&own).end(&recorded, until_close, ended.is_err());
                    to_client.shutdown().await.ok();
                    return anyhow::Ok(());
                }
            };
            let piece = &buffer[..read];
            {
                let mut conversation = lock(&own);
                meter.feed(piece, |event| conversation.response(event, &recorded))?;
            }
            client_is_there = client_is_there && to_client.write_all(piece).await.is_ok();
        }
    };
    // Both directions go on to their ends; the client's may outlast the server's by nothing of interest.
    let mut requests = tokio::spawn(requests);
    let responded = responses.await;
    let requested = tokio::select! {
        biased;
        requested = &mut requests => requested?,
        () = tokio::task::yield_now() => Ok(()),
    };
    requests.abort();
    responded.and(requested)
}

fn lock(conversation: &Mutex<Conversation>) -> std::sync::MutexGuard<'_, Conversation> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Conversation {
    fn request(&mut self, event: MessageEvent<'_>) -> Result<BodyFraming> {
        match event {
            MessageEvent::Head(head) => {
                let mut words = head.first_line.split(' ');
                let method = words.next().unwrap_or_default();
                let target = words.next().context("no target in a request")?;
                let agent = head.header("user-agent").unwrap_or_default();
                let mut seen = Observation::new(method, target, &agent);
                if seen.endpoint() == "manifest" && method == "PUT" {
                    let media_type = head.header("content-type").unwrap_or_default();
                    seen.pushed = Some((media_type, Vec::new()));
                }
                self.open.push_back(OpenRequest {
                    seen,
                    sent: 0,
                    sent_whole: false,
                    received: 0,
                });
                self.is_sending = true;
                return Ok(head.framing(BodyFraming::None));
            }
            MessageEvent::Body(piece) => {
                // The response may have come before the end of the request, which is in the books then.
                if let Some(open) = self.open.back_mut().filter(|_| self.is_sending) {
                    open.sent += piece.len() as u64;
                    if let Some((_, body)) = &mut open.seen.pushed {
                        keep(body, piece);
                    }
                }
            }
            MessageEvent::End => {
                if let Some(open) = self.open.back_mut().filter(|_| self.is_sending) {
                    open.sent_whole = true;
                }
                self.is_sending = false;
            }
        }
        Ok(BodyFraming::None)
    }

    fn response(&mut self, event: MessageEvent<'_>, books: &SharedBooks) -> Result<BodyFraming> {
        let front = self.open.front_mut().context("a response to no request")?;
        match event {
            MessageEvent::Head(head) => {
                let status = head.status()?;
                if status < 200 {
                    return Ok(BodyFraming::None);
                }
                front.seen.head(status, |name| head.header(name));
                let is_empty = front.seen.method == "HEAD" || matches!(status, 204 | 304);
                return Ok(if is_empty {
                    BodyFraming::None
                } else {
                    head.framing(BodyFraming::UntilClose)
                });
            }
            MessageEvent::Body(piece) => {
                front.received += piece.len() as u64;
                if front.seen.endpoint() == "manifest" || front.seen.status >= Some(400) {
                    keep(&mut front.seen.body, piece);
                }
            }
            // The end of an interim response is none.
            MessageEvent::End if front.seen.status.is_none() => {}
            MessageEvent::End => {
                if let Some(open) = self.open.pop_front() {
                    self.is_sending &= !self.open.is_empty();
                    open.record(books, Known::Yes, false);
                }
            }
        }
        Ok(BodyFraming::None)
    }

    /// The connection has ended. `is_whole` says that this was the end of the last response's body.
    fn end(&mut self, books: &SharedBooks, is_whole: bool, was_reset: bool) {
        self.closed = true;
        for open in self.open.drain(..) {
            open.record(books, Known::certainly(is_whole), was_reset);
        }
    }
}

impl OpenRequest {
    fn record(mut self, books: &SharedBooks, received_whole: Known, was_reset: bool) {
        let seen = &mut self.seen;
        // Who says that all went well has read everything.
        // A wrong digest is found at the end of the body.
        let is_well = seen
            .status
            .is_some_and(|status| status < 300 || status == 400);
        let is_read = self.sent == 0 || (is_well && self.sent_whole);
        seen.sent = Bounds::between(if is_read { self.sent } else { 0 }, self.sent);
        seen.sent_whole = if is_read {
            Known::certainly(self.sent_whole)
        } else if self.sent_whole {
            Known::Unknown
        } else {
            Known::No
        };
        // A reset throws away what had not been read.
        let lost = if was_reset { 64 << 20 } else { 0 };
        seen.received = Bounds::between(self.received, self.received + lost);
        seen.received_whole = received_whole;
        books.record(seen);
    }
}
