//! Responses whose framing is ambiguous: the client gets 502, one well-framed message, or a part that
//! does not look whole. The next request is never answered with what was left over, neither on the
//! client's connection nor on the upstream's.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use harness::h2::H2;
use harness::scrape::metric;
use harness::scripted::Caller;
use harness::wire::Wire;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{OK, Protocol, SOON, Whole, is_502, ok, over_http2, over_wire};
use crate::scene::Scene;

/// What a response brings along that nobody asked for.
const LEFT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nleft";

/// What the client gets.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// 502.
    Refused,
    /// This status and this body.
    Passes(u16, &'static str),
    /// A part that does not look whole, or 502.
    Cut,
}

use Expected::{Cut, Passes, Refused};

/// How an upstream responds to a request.
#[derive(Clone, Debug)]
struct Case {
    method: &'static str,
    said: String,
    /// The upstream closes afterwards; otherwise it sends [`LEFT`].
    closes: bool,
    expected: Expected,
}

/// A response of 200 to a GET, with these header lines and this body.
fn case(lines: &str, body: &str, expected: Expected) -> Case {
    said(
        &format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}"),
        expected,
    )
}

fn said(said: &str, expected: Expected) -> Case {
    Case {
        method: "GET",
        said: said.to_owned(),
        closes: false,
        expected,
    }
}

impl Case {
    fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked";
const HELLO: &str = "5\r\nhello\r\n0\r\n\r\n";

/// Heads that leave the length of the body in doubt.
fn ambiguous_heads() -> Vec<Case> {
    let length = "Content-Length: 5";
    let mut cases: Vec<_> = [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding: ",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
    ]
    .map(|lines| case(lines, HELLO, Refused))
    .into();
    cases.extend(
        [
            "Content-Length: 5\r\nContent-Length: 0",
            "Content-Length: 0\r\nContent-Length: 5",
            "Content-Length: 5, 0",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 0",
            "Content-Length: 5.0",
            "Content-Length: ",
            "Content-Length: 18446744073709551621",
            "Content-Length : 5",
            " Content-Length: 5",
            "X: y\r\n Content-Length: 5",
            "X: y\r\n\tz\r\nContent-Length: 5",
            "X: y\nContent-Length: 5",
            "X: y\rContent-Length: 5",
            "X: \0\r\nContent-Length: 5",
            "X\0: y\r\nContent-Length: 5",
            ": y\r\nContent-Length: 5",
            "X\r\nContent-Length: 5",
        ]
        .map(|lines| case(lines, "hello", Refused)),
    );
    cases.extend(
        [
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/11 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 +20 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 O\0K\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        ]
        .map(|text| said(text, Refused)),
    );
    let fields = "X: y\r\n".repeat(200);
    cases.push(case(&format!("{fields}{length}"), "hello", Refused));
    let long = "x".repeat(70_000);
    cases.push(case(&format!("X: {long}\r\n{length}"), "hello", Refused));
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    cases.push(said(&format!("{}{OK}", early.repeat(17)), Refused));
    cases.push(said(
        &format!("{}{OK}", early.repeat(16)),
        Passes(200, "ok"),
    ));
    cases
}

/// Bodies that end elsewhere than their head says, or go on after their end.
fn ambiguous_bodies() -> Vec<Case> {
    let length = "Content-Length: 5";
    let mut cases: Vec<_> = [
        "\r\n\r\n",
        "5\r\nhello\r\n\r\n\r\n",
        "5\r\nhello\r\n;x\r\n\r\n",
        "3\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ]
    .map(|body| case(CHUNKED, body, Cut))
    .into();
    cases.extend(
        [
            "",
            "5",
            "5\r\nhel",
            "5\r\nhello",
            "5\r\nhello\r\n",
            "5\r\nhello\r\n0",
            "5\r\nhello\r\n0\r\n",
        ]
        .map(|body| case(CHUNKED, body, Cut).closing()),
    );
    let trailers = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    cases.extend([
        case(CHUNKED, &trailers, Cut),
        case(length, "hell", Cut).closing(),
        case(length, "hello", Passes(200, "hello")),
        case("Content-Length: 0", "", Passes(200, "")),
        case("Content-Length: 5, 5", "hello", Passes(200, "hello")),
        case("Connection: Content-Length\r\nContent-Length: 5", "hello", Passes(200, "hello")),
        case("Connection: close\r\nContent-Length: 5", "hello", Passes(200, "hello")),
        case(CHUNKED, HELLO, Passes(200, "hello")),
        case("transfer-encoding:\tCHUNKED\t", HELLO, Passes(200, "hello")),
        case("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", HELLO, Passes(200, "hello")),
        case("X: y", "hello", Passes(200, "hello")).closing(),
        said("HTTP/1.0 200 OK\r\n\r\nhello", Passes(200, "hello")).closing(),
        said("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Passes(204, "")),
        said("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes(204, "")),
        said("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes(304, "")),
        said("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", Passes(304, "")),
        case(length, "hello", Passes(200, "")).to("HEAD"),
        case(CHUNKED, HELLO, Passes(200, "")).to("HEAD"),
        case("X: y", "hello", Passes(200, "")).to("HEAD").closing(),
        case("Content-Length: 5\r\nTransfer-Encoding: chunked", HELLO, Refused).to("HEAD"),
        case("Content-Length: 5\r\nContent-Length: 6", "", Refused).to("HEAD"),
    ]);
    cases
}

/// An upstream that responds by the query: `?case=0`, or `?next=0` with that number.
async fn upstream(cases: Arc<Vec<Case>>, mut caller: Caller) -> Result<()> {
    loop {
        let head = caller.head().await?;
        let query = head.split([' ', '?']).nth(2).unwrap_or_default();
        if let Some(number) = query.strip_prefix("next=") {
            caller.send(ok(number)).await?;
            continue;
        }
        let number = query.strip_prefix("case=").context("neither")?;
        let case = cases
            .get(number.parse::<usize>()?)
            .context("no such case")?;
        if case.closes {
            return caller.send(&case.said).await;
        }
        caller.send(format!("{}{LEFT}", case.said)).await?;
    }
}

/// A client, over one connection for as long as the proxy keeps it.
enum Client<'s> {
    Http1(&'s Scene, Option<Wire>),
    Http2(H2),
}

impl<'s> Client<'s> {
    async fn connect(scene: &'s Scene, protocol: Protocol) -> Result<Self> {
        Ok(match protocol {
            Protocol::Http2 => Self::Http2(H2::connect(scene.address(), false).await?),
            _ => Self::Http1(scene, None),
        })
    }

    /// The response to this request, or `None` if it is cut. After the last response of a connection
    /// nothing may follow.
    async fn ask(&mut self, method: &str, path: &str) -> Result<Option<Whole>> {
        match self {
            Self::Http2(client) => {
                let asked = timeout(SOON, over_http2(client, method, path)).await;
                Ok(asked.context("neither whole nor cut")?.ok())
            }
            Self::Http1(scene, connection) => {
                let mut wire = match connection.take() {
                    Some(wire) => wire,
                    None => scene.client().await?,
                };
                let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                wire.send(request.as_bytes()).await?;
                let asked = timeout(SOON, over_wire(&mut wire, method)).await;
                let Ok(whole) = asked.context("neither whole nor cut")? else {
                    return Ok(None);
                };
                if whole.values("connection") == ["close"] {
                    let rest = timeout(SOON, wire.rest()).await??;
                    ensure!(rest.is_empty(), "after the last response: {rest:?}");
                } else {
                    *connection = Some(wire);
                }
                Ok(Some(whole))
            }
        }
    }
}

async fn check(scene: &Scene, cases: &[Case], protocol: Protocol) -> Result<()> {
    let mut next = 0;
    for (number, case) in cases.iter().enumerate() {
        let checked = async {
            let mut client = Client::connect(scene, protocol).await?;
            let whole = client
                .ask(case.method, &format!("/v2/?case={number}"))
                .await?;
            match (case.expected, whole) {
                (Refused, Some(whole)) if case.method == "HEAD" => {
                    ensure!(whole.status == 502, "{whole:?}");
                }
                (Refused, Some(whole)) => is_502(&whole)?,
                (Cut, Some(whole)) => ensure!(whole.status == 502, "it looks whole: {whole:?}"),
                (Cut, None) => {}
                (Passes(status, body), Some(whole)) => {
                    let got = (whole.status, String::from_utf8_lossy(&whole.body));
                    ensure!(got == (status, body.into()), "{whole:?}");
                    ensure!(status != 204 || whole.values("content-length").is_empty());
                }
                (Refused | Passes(..), None) => bail!("the response is cut"),
            }
            let mut other = Client::connect(scene, protocol).await?;
            for client in [&mut client, &mut other] {
                for _ in 0..2 {
                    next += 1;
                    let whole = client.ask("GET", &format!("/v2/?next={next}")).await?;
                    let whole = whole.with_context(|| format!("the response {next} is cut"))?;
                    let got = (whole.status, String::from_utf8_lossy(&whole.body));
                    ensure!(got == (200, next.to_string().into()), "{next}: {whole:?}");
                }
            }
            Ok(())
        };
        checked
            .await
            .with_context(|| format!("{protocol:?}: {:?}, {:?}", case.method, shown(&case.said)))?;
    }
    scene.nothing_in_flight().await
}

/// The start of a long text.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

async fn table(cases: Vec<Case>) -> Result<()> {
    let shared = Arc::new(cases.clone());
    let scene = Scene::of(move |caller| upstream(Arc::clone(&shared), caller)).await?;
    for protocol in [Protocol::Http11, Protocol::Http2] {
        check(&scene, &cases, protocol).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_response_with_an_ambiguous_head_is_502_and_leaves_nothing_over() -> Result<()> {
    table(ambiguous_heads()).await
}

#[tokio::test]
async fn a_response_with_an_ambiguous_body_is_one_message_or_cut_and_leaves_nothing_over()
-> Result<()> {
    table(ambiguous_bodies()).await
}

#[tokio::test]
async fn what_an_upstream_sends_between_two_requests_is_no_response() -> Result<()> {
    for unasked in [
        LEFT,
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\n",
        "\r\n",
    ] {
        let go_on = Arc::new(Notify::new());
        let was_sent = Arc::new(Notify::new());
        let (started, sent) = (Arc::clone(&go_on), Arc::clone(&was_sent));
        let scene = Scene::of(move |mut caller: Caller| {
            let (go_on, was_sent) = (Arc::clone(&started), Arc::clone(&sent));
            async move {
                let name = ok(&format!("connection {}", caller.number()));
                caller.head().await?;
                caller.send(&name).await?;
                if caller.number() == 0 {
                    go_on.notified().await;
                    caller.send(unasked).await?;
                    was_sent.notify_one();
                }
                loop {
                    caller.head().await?;
                    caller.send(&name).await?;
                }
            }
        })
        .await?;
        let mut client = Client::connect(&scene, Protocol::Http11).await?;
        let whole = client.ask("GET", "/v2/").await?.context("cut")?;
        assert_eq!(whole.body, b"connection 0");
        // The connection to the upstream is back in the pool once its request has ended.
        let ended = metric("octoserve_http_requests_total");
        ended.value(1).assert_in(&scene.server).await?;
        go_on.notify_one();
        timeout(SOON, was_sent.notified()).await?;
        let whole = client.ask("POST", "/v2/").await?.context("cut")?;
        assert_eq!(whole.status, 200, "{unasked:?}: {whole:?}");
        assert_eq!(whole.body, b"connection 1", "{unasked:?}: {whole:?}");
    }
    Ok(())
}
