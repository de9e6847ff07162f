//! Any bytes as an upstream's response to a request that the first byte chooses: what goes on is one
//! response with the same body for hyper.
#![no_main]

mod forwarded;

use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use proxy::fuzz::{Message, forward_response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

/// The method and the request of a client.
const REQUESTS: [(&str, &str); 4] = [
    ("GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("GET", "GET / HTTP/1.0\r\n\r\n"),
    (
        "GET",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ),
];

/// The body that hyper sees, and that it sees nothing else.
async fn body(method: &str, written: &[u8]) -> Bytes {
    let (ours, theirs) = tokio::io::duplex(written.len() + (1 << 16));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(200)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(ours))
        .await
        .unwrap();
    let upstream = async {
        let mut theirs = theirs;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(theirs.read_buf(&mut request).await.unwrap(), 0);
        }
        theirs.write_all(written).await.unwrap();
        theirs.shutdown().await.unwrap();
        theirs
    };
    let client = async {
        let request = Request::builder()
            .method(method)
            .header("host", "a")
            .uri("/");
        let request = request.body(Empty::new()).unwrap();
        let response = sender.send_request(request).await?;
        let body = response.into_body().collect().await?;
        // A connection that may carry another request would report bytes that nobody asked for.
        Ok::<_, hyper::Error>((sender, body.to_bytes()))
    };
    let (body, ended, _) = tokio::join!(client, connection, upstream);
    let fail = |error| panic!("{error}: {}", written.escape_ascii());
    ended.unwrap_or_else(fail);
    body.map_or_else(
        |error| panic!("{error}: {}", written.escape_ascii()),
        |(_, body)| body,
    )
}

async fn check(method: &str, message: &Message) {
    let body = body(method, &message.written).await;
    assert_eq!(body, message.body, "{}", message.written.escape_ascii());
    forwarded::record(method, message);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let (method, request) = REQUESTS[usize::from(*first) % REQUESTS.len()];
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            if let Some(message) = forward_response(bytes, request).await {
                check(method, &message).await;
            }
        });
    });
});
