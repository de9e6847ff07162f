//! Bodies in both directions, early responses, and callers that leave.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::{BodyExt as _, Full};

use super::*;

/// Calls what is made of a handler and a request's body in place of the registry.
fn call<F>(
    length: SizeHint,
    handle: impl Fn(Request<IncomingBody>) -> F + Send + Sync + 'static,
) -> InProcessCall
where
    F: Future<Output = Vec<u8>> + Send + 'static,
{
    let registry = InProcess(Arc::new(move |request| {
        let response = handle(request);
        Box::pin(async move {
            let body = Full::new(Bytes::from(response.await));
            let body = body.map_err(|never: Infallible| -> ResponseBodyError { match never {} });
            Response::new(Box::pin(body) as AnyBody)
        })
    }));
    let (head, ()) = Request::new(()).into_parts();
    registry.call(head, length)
}

/// Sends the pieces, and returns the response.
async fn exchange(call: &mut InProcessCall, pieces: &[&[u8]]) -> Vec<u8> {
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match poll_fn(|context| call.poll_send(context, rest)).await {
                Some(sent) => rest = &rest[sent..],
                None => break,
            }
        }
    }
    call.end();
    poll_fn(|context| call.poll_head(context)).await;
    let mut received = Vec::new();
    loop {
        let read = poll_fn(|context| {
            call.poll_body(context).map(|piece| {
                let piece = piece.unwrap();
                received.extend_from_slice(piece);
                piece.len()
            })
        });
        match read.await {
            0 => return received,
            read => call.consume(read),
        }
    }
}

#[tokio::test]
async fn a_large_body_is_echoed() {
    let content: Vec<u8> = (0..10_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut call = call(SizeHint::new(), async |request| {
        request
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec()
    });
    let pieces: Vec<&[u8]> = content.chunks(100_001).collect();
    assert!(exchange(&mut call, &pieces).await == content);
}

#[tokio::test]
async fn work_that_waits_for_another_thread_is_woken() {
    let mut call = call(SizeHint::with_exact(0), async |_| {
        let late = tokio::task::spawn_blocking(|| b"late".to_vec());
        late.await.unwrap()
    });
    assert_eq!(exchange(&mut call, &[]).await, b"late");
}

#[tokio::test]
async fn a_body_that_another_task_reads_is_sent() {
    let mut call = call(SizeHint::new(), async |request| {
        let read = tokio::spawn(async move { request.into_body().collect().await });
        read.await.unwrap().unwrap().to_bytes().to_vec()
    });
    assert_eq!(
        exchange(&mut call, &[b"one", b"two", b"three"]).await,
        b"onetwothree"
    );
}

#[tokio::test]
async fn a_sender_waits_for_its_reader() {
    let mut call = call(SizeHint::new(), async |request| {
        let _unread = request;
        pending().await
    });
    let mut offer = async || poll_fn(|context| Poll::Ready(call.poll_send(context, b"some"))).await;
    assert_eq!(offer().await, Poll::Ready(Some(4)));
    assert!(offer().await.is_pending());
    assert!(!call.wants_body());
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_ends_the_upload() {
    let mut call = call(SizeHint::new(), async |_| b"enough".to_vec());
    assert_eq!(
        exchange(&mut call, &[&[0_u8; 1000][..]; 10]).await,
        b"enough"
    );
    let offered = poll_fn(|context| call.poll_send(context, b"more")).await;
    assert_eq!(offered, None);
}

#[tokio::test]
async fn dropping_a_call_ends_its_work_and_cuts_its_body() {
    let cut = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&cut);
    let (done, mut is_done) = tokio::sync::mpsc::channel(1);
    let mut call = call(SizeHint::new(), move |request| {
        let (seen, done) = (Arc::clone(&seen), done.clone());
        async move {
            // A task of the store, which reads on.
            tokio::spawn(async move {
                let failed = request.into_body().collect().await.is_err();
                seen.store(failed, Ordering::Relaxed);
                drop(done);
            });
            pending().await
        }
    });
    assert!(poll_fn(|context| Poll::Ready(call.poll_head(context).is_pending())).await);
    drop(call);
    assert_eq!(is_done.recv().await, None::<()>);
    assert!(cut.load(Ordering::Relaxed));
}
