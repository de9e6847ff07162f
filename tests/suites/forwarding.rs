//! The forwarding loop from outside: which requests and responses are forwarded and in what form,
//! what a client that leaves or stalls costs, and how loops and shutdowns end.
//!
//! Most tests run over HTTP/1.1 and over HTTP/2, because the two share the rules and not the parser.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::h2::H2;
use harness::octoserve::Server;
use harness::poll;
use harness::scrape::metric;
use harness::scripted::Caller;
use harness::wire::{Head, Wire};
use tokio::time::timeout;

use crate::scene::{Scene, response};

/// Clients that leave while their request waits, over HTTP/1.1.
mod departures;
/// A request that reaches the proxy again.
mod loops;
/// Responses of the upstream whose framing is ambiguous, and what is sent after them.
mod raw_responses;
/// Requests that are forwarded in one form, or refused.
mod requests;
/// Responses that are forwarded in one form, or replaced by 502.
mod responses;
/// Signals that do not end the process, and one that does.
mod signals;
/// The streams of HTTP/2: their windows, their memory, and the end of their connection.
mod streams;

/// Far less than any timeout of the proxy that these tests do not shorten.
const SOON: Duration = Duration::from_secs(20);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http10,
    Http11,
    Http2,
}

/// A complete response, of any protocol.
#[derive(Debug)]
struct Whole {
    status: u16,
    /// The names are in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Whole {
    fn new(head: &Head, body: Vec<u8>) -> Self {
        let headers = head.headers();
        Self {
            status: head.status,
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body,
        }
    }

    /// All values of a field.
    fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.headers.iter();
        fields
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    fn is_oci_error(&self, code: &str) -> Result<bool> {
        let body: serde_json::Value = serde_json::from_slice(&self.body)?;
        Ok(body["errors"][0]["code"] == code)
    }
}

/// A GET, POST or HEAD without a body over a new connection: the response, or `None` if it is cut.
async fn ask(scene: &Scene, protocol: Protocol, method: &str, path: &str) -> Result<Option<Whole>> {
    let asked = async {
        let version = match protocol {
            Protocol::Http10 => "1.0",
            Protocol::Http11 => "1.1",
            Protocol::Http2 => {
                let mut client = H2::connect(scene.address(), false).await?;
                return over_http2(&mut client, method, path).await;
            }
        };
        let mut client = scene.client().await?;
        let request = format!("{method} {path} HTTP/{version}\r\nHost: a\r\n\r\n");
        client.send(request.as_bytes()).await?;
        over_wire(&mut client, method).await
    };
    let asked = timeout(SOON, asked).await;
    Ok(asked
        .with_context(|| format!("{protocol:?}, {method} {path}: neither whole nor cut"))?
        .ok())
}

/// The next response on this connection.
async fn over_wire(client: &mut Wire, method: &str) -> Result<Whole> {
    let response = client.response(method).await?;
    Ok(Whole::new(&response.head, response.body))
}

async fn over_http2(client: &mut H2, method: &str, path: &str) -> Result<Whole> {
    let response = client
        .send(method, path, &[], true)
        .await?
        .response()
        .await?;
    let headers = response.headers.iter();
    let headers = headers
        .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
        .collect::<Result<_>>()?;
    Ok(Whole {
        status: response.status,
        headers,
        body: response.read().await?,
    })
}

/// An upstream that responds to every request with 200, once it has read its body of known length.
async fn polite(mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?.to_ascii_lowercase();
        let length = head.split("\r\ncontent-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next());
        caller.exactly(length.map_or(Ok(0), str::parse)?).await?;
        caller.send(OK).await?;
    }
}

/// Reads the head of a request, and nothing more.
async fn deaf(mut caller: Caller) -> Result<()> {
    caller.head().await?;
    std::future::pending().await
}

/// An upstream that sends this to every request without a body, and closes after it or not.
async fn saying(said: &str, closes: bool) -> Result<Scene> {
    let said = said.to_owned();
    Scene::of(move |mut caller: Caller| {
        let said = said.clone();
        async move {
            loop {
                caller.head().await?;
                caller.send(&said).await?;
                if closes {
                    return Ok(());
                }
            }
        }
    })
    .await
}

/// Waits until nothing is in flight, also where nothing ever was: the family has no series then.
async fn nothing_in_flight(server: &Server) -> Result<()> {
    let in_flight = metric("octoserve_http_requests_in_flight");
    poll::until("nothing is in flight", SOON, async || {
        let sum = server.scrape().await?.sum(&in_flight);
        Ok((sum.unwrap_or_default() == 0.0).then_some(()))
    })
    .await
}

/// A response with this body.
fn ok(body: &str) -> String {
    response("200 OK", body.len(), body)
}

fn is_502(whole: &Whole) -> Result<()> {
    ensure!(whole.status == 502, "{whole:?}");
    ensure!(whole.is_oci_error("UNAVAILABLE")?, "{whole:?}");
    Ok(())
}
