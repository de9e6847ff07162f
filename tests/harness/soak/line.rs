//! A client's line to octoserve: HTTP/1.1 or HTTP/2, plain or inside TLS. Each request that is sent over it
//! is in the books.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::books::SharedBooks;
use super::meter::{BodyFraming, keep};
use super::observation::{Bounds, Known, Observation};
use crate::h2::H2;
use crate::tls::SecureClient;
use crate::wire::{Head, Wire};

/// How a client reaches octoserve.
#[derive(Clone)]
pub(crate) enum LineKind {
    Plain,
    H2c,
    /// HTTP/1.1 or HTTP/2, by what the client offers.
    Tls(SecureClient),
    H2Tls(SecureClient),
}

/// One request to send.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineRequest {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Send the body in chunks, without saying its length.
    pub(crate) chunked: bool,
    pub(crate) leave: Leave,
}

/// When a client leaves before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leave {
    #[default]
    Never,
    /// Once the registry wants the body, and so many bytes are sent. Over HTTP/1.1 alone: a stream of HTTP/2
    /// that is reset may vanish before the proxy has seen it.
    Upload(usize),
    /// After so many bytes of the response.
    Download(usize),
}

/// A response.
#[derive(Debug)]
pub(crate) struct LineResponse {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// Whole, unless the client has left.
    pub(crate) body: Vec<u8>,
}

/// The line, with a connection that is kept.
pub(crate) struct BookedLine {
    kind: LineKind,
    plain: SocketAddr,
    secure: SocketAddr,
    agent: &'static str,
    books: SharedBooks,
    connection: Option<LineConnection>,
}

enum LineConnection {
    One(Wire),
    Two(H2),
}

impl BookedLine {
    pub(crate) fn new(
        kind: LineKind,
        (plain, secure): (SocketAddr, SocketAddr),
        agent: &'static str,
        books: SharedBooks,
    ) -> Self {
        Self {
            kind,
            plain,
            secure,
            agent,
            books,
            connection: None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            LineKind::Plain => "HTTP/1.1",
            LineKind::H2c => "h2c",
            LineKind::Tls(_) => "HTTP/1.1 over TLS",
            LineKind::H2Tls(_) => "h2 over TLS",
        }
    }

    /// Sends a request and reads the response. What came of it is in the books, whatever it was. The
    /// response to a client that leaves is what it read before.
    pub(crate) async fn ask(&mut self, request: &LineRequest) -> Result<LineResponse> {
        // A server that ends its HTTP/2 connection says so, and the request goes over another one.
        for _ in 0..3 {
            let connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await.context("no connection")?,
            };
            let mut seen = Observation::new(request.method, &request.target, self.agent);
            if seen.endpoint() == "manifest" && request.method == "PUT" {
                let media_type = request
                    .headers
                    .iter()
                    .find(|(name, _)| *name == "content-type");
                let media_type = media_type.map(|(_, value)| value.clone());
                seen.pushed = Some((media_type.unwrap_or_default(), request.body.clone()));
            }
            let asked = match connection {
                LineConnection::One(wire) => {
                    let asked = one(wire, request, self.agent, &mut seen).await;
                    asked.map(|(response, kept)| (response, kept.map(LineConnection::One)))
                }
                LineConnection::Two(mut h2) => {
                    let Ok(stream) = send(&mut h2, request, self.agent).await else {
                        continue;
                    };
                    let asked = two(stream, request, &mut seen).await;
                    if asked.as_ref().is_err_and(is_refused) {
                        continue;
                    }
                    let kept = asked.is_ok().then_some(LineConnection::Two(h2));
                    asked.map(|response| (response, kept))
                }
            };
            self.books.record(&seen);
            let (response, kept) = asked?;
            self.connection = kept;
            return Ok(response);
        }
        bail!("a new HTTP/2 connection takes no request")
    }

    async fn connect(&mut self) -> Result<LineConnection> {
        let connection = match &self.kind {
            LineKind::Plain => LineConnection::One(Wire::connect(self.plain).await?),
            LineKind::H2c => LineConnection::Two(H2::connect(self.plain, false).await?),
            LineKind::Tls(tls) => {
                LineConnection::One(Wire::inside(tls.connect(self.secure).await?))
            }
            LineKind::H2Tls(tls) => {
                LineConnection::Two(H2::inside(tls.connect(self.secure).await?).await?)
            }
        };
        self.books.count("connections_total", &[]);
        Ok(connection)
    }
}

/// Whether a stream was opened while the server's last GOAWAY was on its way. The server has not seen it, and
/// every client sends it again (RFC 9113 §6.8).
fn is_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<h2::Error>().is_some_and(|error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// No error of the proxy's own, which a client may have missed, has a longer body.
const OWN_ERROR: u64 = 4 << 10;

/// Notes what the proxy may have read of a request's body, of which so many bytes were sent.
fn sent(seen: &mut Observation, bytes: usize, is_all: bool) {
    // A wrong digest is found at the end of the body.
    let is_well = seen
        .status
        .is_some_and(|status| status < 300 || status == 400);
    let is_read = bytes == 0 || (is_well && is_all);
    let bytes = bytes as u64;
    seen.sent = Bounds::between(if is_read { bytes } else { 0 }, bytes);
    seen.sent_whole = if is_read {
        Known::certainly(is_all)
    } else if is_all {
        Known::Unknown
    } else {
        Known::No
    };
}

/// A body that ended early: so much was read, of so much at most.
fn cut(seen: &mut Observation, read: usize, length: Option<u64>) {
    // Of a chunked body the client does not know the length; no body of a soak is longer.
    let most = length.unwrap_or(64 << 20);
    seen.received = Bounds::between(read as u64, most);
}

/// A request over HTTP/1.1. Returns the connection, too, if it can be used again.
async fn one(
    mut wire: Wire,
    request: &LineRequest,
    agent: &str,
    seen: &mut Observation,
) -> Result<(LineResponse, Option<Wire>)> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: localhost\r\nuser-agent: {agent}\r\n",
        request.method, request.target
    );
    for (name, value) in &request.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let waits = matches!(request.leave, Leave::Upload(_));
    if waits {
        head += "expect: 100-continue\r\n";
    }
    let length = request.body.len().to_string();
    match (request.chunked, request.method) {
        (true, _) => head += "transfer-encoding: chunked\r\n",
        (false, "POST" | "PUT" | "PATCH") => {
            head.extend(["content-length: ", &length, "\r\n"]);
        }
        (false, _) => {}
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    let mut length = request.body.len();
    if request.chunked {
        for chunk in request.body.chunks(10_000) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else if !waits {
        bytes.extend_from_slice(&request.body);
    }
    // What the proxy has not read when it responds early is reset, and so may be the response.
    let is_sent = wire.send(&bytes).await.is_ok();
    if let Leave::Upload(most) = request.leave {
        let interim = wire.interim().await;
        let wanted = interim.as_ref().is_ok_and(|head| head.status == 100);
        if !wanted {
            // Refused, or cut: nothing of the body was sent.
            let head = interim.inspect_err(|_| sent(seen, 0, false))?;
            seen.head(head.status, |name| head.header(name).map(ToOwned::to_owned));
            sent(seen, 0, false);
            let (response, _) = body(wire, head, seen, request).await?;
            return Ok((response, None));
        }
        length = most.min(length);
        wire.send(&request.body[..length]).await.ok();
        sent(seen, length, false);
        seen.left = true;
        // How far the proxy is, nobody knows: it may have responded with an error of its own.
        seen.received = Bounds::between(0, OWN_ERROR);
        return Ok((LineResponse::left(), None));
    }
    let head = match wire.head().await {
        Ok(head) => head,
        Err(error) => {
            sent(seen, length, is_sent);
            seen.received = Bounds::between(0, OWN_ERROR);
            return Err(error);
        }
    };
    seen.head(head.status, |name| head.header(name).map(ToOwned::to_owned));
    sent(seen, length, is_sent);
    let (response, wire) = body(wire, head, seen, request).await?;
    Ok((response, wire.filter(|_| is_sent)))
}

/// Reads the body of a response over HTTP/1.1.
async fn body(
    mut wire: Wire,
    head: Head,
    seen: &mut Observation,
    request: &LineRequest,
) -> Result<(LineResponse, Option<Wire>)> {
    let header = |name: &str| head.header(name).map(ToOwned::to_owned);
    let is_empty = request.method == "HEAD" || matches!(head.status, 204 | 304);
    let framing = if is_empty {
        BodyFraming::None
    } else if header("transfer-encoding").is_some() {
        BodyFraming::Chunked
    } else {
        match header("content-length").and_then(|length| length.parse().ok()) {
            Some(0) => BodyFraming::None,
            Some(length) => BodyFraming::Length(length),
            None => BodyFraming::UntilClose,
        }
    };
    let length = match framing {
        BodyFraming::None => Some(0),
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked | BodyFraming::UntilClose => None,
    };
    let mut whole = Vec::new();
    loop {
        if let Leave::Download(most) = request.leave
            && whole.len() >= most
            && length != Some(whole.len() as u64)
        {
            cut(seen, whole.len(), length);
            seen.left = true;
            return Ok((LineResponse::left(), None));
        }
        let read = match framing {
            BodyFraming::None => Ok(Vec::new()),
            BodyFraming::Chunked => wire.chunk().await,
            BodyFraming::Length(length) => {
                let left = usize::try_from(length)?.saturating_sub(whole.len());
                wire.some(left).await
            }
            BodyFraming::UntilClose => wire.some(1 << 20).await,
        };
        match read {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => whole.extend(piece),
            Err(error) => {
                cut(seen, whole.len(), length);
                seen.received_whole = Known::Unknown;
                return Err(error);
            }
        }
        if length == Some(whole.len() as u64) {
            break;
        }
    }
    let read = whole.len() as u64;
    seen.received = Bounds::exactly(read);
    let is_whole = length.is_none_or(|length| length == read);
    seen.received_whole = Known::certainly(is_whole);
    keep(&mut seen.body, &whole);
    if !is_whole {
        bail!("a response was cut after {read} bytes");
    }
    let is_kept = framing != BodyFraming::UntilClose
        && head
            .header("connection")
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    let response = LineResponse {
        status: head.status,
        location: header("location"),
        body: whole,
    };
    Ok((response, is_kept.then_some(wire)))
}

/// Opens a stream. An error says that nothing was sent.
async fn send(h2: &mut H2, request: &LineRequest, agent: &str) -> Result<crate::h2::H2Stream> {
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .map(|(n, v)| (*n, v.as_str()))
        .collect();
    headers.push(("user-agent", agent));
    let length = request.body.len().to_string();
    let has_body = !request.body.is_empty();
    if !request.chunked && matches!(request.method, "POST" | "PUT" | "PATCH") {
        headers.push(("content-length", &length));
    }
    let uri = format!("http://localhost{}", request.target);
    h2.send_to(&uri, request.method, &headers, !has_body).await
}

/// A request over HTTP/2.
async fn two(
    mut stream: crate::h2::H2Stream,
    request: &LineRequest,
    seen: &mut Observation,
) -> Result<LineResponse> {
    let body = &request.body;
    let length = body.len();
    if length > 0 {
        // An error here is the response's, too.
        stream.push_bytes(Bytes::copy_from_slice(body), true).ok();
    }
    let mut response = match stream.response().await {
        Ok(response) => response,
        Err(error) => {
            sent(seen, length, true);
            seen.received = Bounds::between(0, OWN_ERROR);
            return Err(error);
        }
    };
    let headers = response.headers.clone();
    let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    seen.head(response.status, header);
    sent(seen, length, true);
    let promised: Option<u64> = header("content-length").and_then(|length| length.parse().ok());
    let promised = promised.filter(|_| request.method != "HEAD");
    let mut whole = Vec::new();
    loop {
        if let Leave::Download(most) = request.leave
            && whole.len() >= most
        {
            cut(seen, whole.len(), promised);
            seen.left = true;
            return Ok(LineResponse::left());
        }
        match response.piece().await {
            Ok(None) => break,
            Ok(Some(piece)) => whole.extend_from_slice(&piece),
            Err(error) => {
                cut(seen, whole.len(), promised);
                return Err(error);
            }
        }
    }
    seen.received = Bounds::exactly(whole.len() as u64);
    seen.received_whole = Known::Yes;
    keep(&mut seen.body, &whole);
    Ok(LineResponse {
        status: response.status,
        location: header("location"),
        body: whole,
    })
}

impl LineResponse {
    /// What a client has that left.
    fn left() -> Self {
        Self {
            status: 0,
            location: None,
            body: Vec::new(),
        }
    }
}
