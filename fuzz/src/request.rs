//! Any bytes as a client's request: what goes on is one request with the same body for hyper.
#![no_main]

mod forwarded;

use std::cell::RefCell;
use std::convert::Infallible;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use proxy::fuzz::{Message, forward_request};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

/// The bodies of the requests that hyper sees, and that it sees nothing else.
async fn bodies(written: &[u8]) -> Vec<Bytes> {
    let (mut ours, theirs) = tokio::io::duplex(written.len() + (1 << 16));
    ours.write_all(written).await.unwrap();
    ours.shutdown().await.unwrap();
    let bodies = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| {
        let bodies = &bodies;
        async move {
            let body = request.into_body().collect().await.unwrap();
            bodies.borrow_mut().push(body.to_bytes());
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(theirs), service)
        .await;
    served.unwrap_or_else(|error| panic!("{error}: {}", written.escape_ascii()));
    bodies.into_inner()
}

async fn check(message: &Message) {
    let bodies = bodies(&message.written).await;
    assert_eq!(
        bodies,
        [&message.body],
        "{}",
        message.written.escape_ascii()
    );
    forwarded::record("request", message);
}

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            if let Some(message) = forward_request(bytes).await {
                check(&message).await;
            }
        });
    });
});
