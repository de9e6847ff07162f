//! What the fuzz targets run: one message through the code that forwards it, from the bytes that arrive
//! to the bytes that go on.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use service::timer::LazyTimer;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio_util::either::Either;

use super::client_side::ClientSide as _;
use super::client_view::ClientView;
use super::framing::{BodyLength, RequestHead};
use super::headers::{self, Forwarded};
use super::http1::{HeadTimeouts, Http1, Next};
use super::socket::Socket;
use super::upstream_connection::UpstreamConnection;
use super::wire::{Io, Outgoing};
use crate::forwarded::ForwardHeaders;
use crate::upstream::UpstreamStream;

/// The most bytes of a message: more may not fit into the buffer of a socket at once.
const MAX: usize = 100 << 10;

/// No test waits for so long.
const LONG: Duration = Duration::from_hours(1);

/// The name of the proxy in `Via`.
const NAME: &str = "octoserve-fuzz";

/// What goes on of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its bytes.
    pub written: Vec<u8>,
    /// Its body, as it was understood.
    pub body: Vec<u8>,
}

/// What the upstream gets of a client that sends these bytes; `None` if nothing, or not all of it.
pub async fn forward_request(bytes: &[u8]) -> Option<Message> {
    let socket = Socket::new(Either::Right(sent(bytes)?));
    let is_draining = AtomicBool::new(false);
    let mut client = Http1::new(&socket, BytesMut::new(), timeouts(), &is_draining);
    let request = next_request(&mut client).await?;
    let name = HeaderValue::from_static("192.0.2.1");
    let registry = HeaderValue::from_static("registry");
    let added = Forwarded {
        peer: Some(&name),
        proxy: NAME,
        request_id: &HeaderValue::from_static("1"),
        traceparent: None,
        host: request.host.as_ref().unwrap_or(&registry),
        prefix: "",
        target: request.target.as_str(),
        authorization: None,
        headers: ForwardHeaders::default(),
    };
    let view = ClientView {
        is_tls: false,
        cors: None,
        request: &request,
        claims: None,
        asked: None,
    };
    let mut upstream = Outgoing::new();
    headers::write_request(&mut upstream.buffer, view, &added);
    upstream.begin(request.body == BodyLength::Chunked);
    let (mut written, mut body) = (Written(Vec::new()), Vec::new());
    loop {
        let sent = poll_fn(|context| {
            let piece = match client.poll_body(context) {
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            if piece.is_empty() {
                return Poll::Ready(Some(0));
            }
            let sent = upstream.poll_send(&mut written, context, piece);
            sent.map(|sent| {
                let sent = sent.ok()?;
                body.extend_from_slice(&piece[..sent]);
                Some(sent)
            })
        });
        match sent.await? {
            0 => break,
            sent => client.consume_body(sent),
        }
    }
    upstream.end();
    let flushed = poll_fn(|context| upstream.poll_flush(&mut written, context));
    flushed.await.ok()?;
    let written = written.0;
    Some(Message { written, body })
}

/// What a client that sent this request gets of an upstream that sends these bytes and closes; `None`
/// if nothing, or not all of it.
pub async fn forward_response(bytes: &[u8], request: &str) -> Option<Message> {
    let (ours, mut theirs) = UnixStream::pair().ok()?;
    theirs.try_write(request.as_bytes()).ok()?;
    let mut written = Vec::new();
    let reading = theirs.read_to_end(&mut written);
    let (body, read) = tokio::join!(respond(bytes, ours), reading);
    read.ok()?;
    let body = body?;
    Some(Message { written, body })
}

async fn respond(bytes: &[u8], client: UnixStream) -> Option<Vec<u8>> {
    let socket = Socket::new(Either::Right(client));
    let is_draining = AtomicBool::new(false);
    let mut client = Http1::new(&socket, BytesMut::new(), timeouts(), &is_draining);
    let request = next_request(&mut client).await?;
    let mut upstream = UpstreamConnection::new(UpstreamStream::Unix(sent(bytes)?), false);
    let head = loop {
        let head = poll_fn(|context| upstream.poll_head(context, &request.method));
        let head = head.await.ok()?;
        if !head.status.is_informational() {
            break head;
        }
        client.interim(&head);
    };
    let has_body = head.body != BodyLength::None;
    client.begin_response(head).ok()?;
    let mut body = Vec::new();
    loop {
        let sent = poll_fn(|context| {
            if !has_body {
                return Poll::Ready(Some(0));
            }
            let piece = match upstream.poll_body(context) {
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            if piece.is_empty() || !has_body {
                return Poll::Ready(Some(0));
            }
            let sent = client.poll_send(context, piece);
            sent.map(|sent| {
                let sent = sent.ok()?;
                body.extend_from_slice(&piece[..sent]);
                Some(sent)
            })
        });
        match sent.await? {
            0 => break,
            sent => upstream.incoming.consume(sent),
        }
    }
    client.end().ok()?;
    poll_fn(|context| client.poll_flush(context)).await.ok()?;
    Some(body)
}

/// The first request, if it goes on.
async fn next_request(client: &mut Http1<'_>) -> Option<Box<RequestHead>> {
    let mut timer = LazyTimer::default();
    let next = poll_fn(|context| client.poll_next(context, &mut timer, |_| {}));
    match next.await {
        Next::Request(request, None) => Some(request).filter(|request| !request.has_passed(NAME)),
        _ => None,
    }
}

fn timeouts() -> HeadTimeouts {
    HeadTimeouts {
        header: LONG,
        idle: LONG,
    }
}

/// A stream that these bytes, and then its end, can be read from.
fn sent(bytes: &[u8]) -> Option<UnixStream> {
    if bytes.len() > MAX {
        return None;
    }
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().ok()?;
    theirs.write_all(bytes).ok()?;
    ours.set_nonblocking(true).ok()?;
    // The other end is closed, and what it sent can still be read. Nothing is ever written to it.
    UnixStream::from_std(ours).ok()
}

/// A connection that takes everything.
struct Written(Vec<u8>);

impl Io for Written {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write_vectored(slices))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn a_request_goes_on_with_what_the_proxy_adds() {
        let request = "PUT http://A/v2/?n HTTP/1.1\r\nHost: a\r\nConnection: x\r\nX: y\r\nVia: 1.0 b\r\n\
            X-Forwarded-For: z\r\nTransfer-Encoding: chunked\r\n\r\n\
            4;x\r\nbody\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n";
        let message = forward_request(request.as_bytes()).await.unwrap();
        assert_eq!(message.body, b"body");
        assert_eq!(
            String::from_utf8(message.written).unwrap(),
            "PUT /v2/?n HTTP/1.1\r\nHost: a\r\nvia: 1.0 b\r\ntransfer-encoding: chunked\r\n\
             via: 1.1 octoserve-fuzz\r\nx-request-id: 1\r\nx-forwarded-for: 192.0.2.1\r\n\
             x-forwarded-host: a\r\nx-forwarded-proto: http\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn a_request_that_is_refused_or_cut_does_not_go_on() {
        for request in [
            "",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 octoserve-fuzz\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbody",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        ] {
            assert_eq!(
                forward_request(request.as_bytes()).await,
                None,
                "{request:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_response_goes_on_in_the_clients_version() {
        let response = "HTTP/1.1 103 x\r\nLink: a\r\n\r\n\
            HTTP/1.1 200 Right\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        let message = forward_response(response.as_bytes(), GET).await.unwrap();
        assert_eq!(message.body, b"a");
        assert_eq!(
            String::from_utf8(message.written).unwrap(),
            "HTTP/1.1 103 x\r\nlink: a\r\n\r\nHTTP/1.1 200 Right\r\n\
             transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        );
        let old = "GET / HTTP/1.0\r\n\r\n";
        let message = forward_response(response.as_bytes(), old).await.unwrap();
        assert_eq!(
            String::from_utf8(message.written).unwrap(),
            "HTTP/1.1 200 Right\r\nconnection: close\r\n\r\na"
        );
    }

    #[tokio::test]
    async fn a_response_that_is_refused_or_cut_does_not_go_on() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let many = |count| format!("{}{last}", interim.repeat(count));
        assert!(forward_response(many(16).as_bytes(), GET).await.is_some());
        for response in [
            "",
            "220 mail\r\n\r\n",
            &format!("\r\n{last}"),
            &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(65 << 10)),
            interim,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
            &many(17),
        ] {
            let forwarded = forward_response(response.as_bytes(), GET).await;
            assert_eq!(forwarded, None, "{response:?}");
        }
    }
}
