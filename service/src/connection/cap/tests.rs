use futures_util::FutureExt as _;

use super::*;

/// Whether the connection is to be closed.
fn is_evicted(slot: &ConnectionSlot) -> bool {
    slot.evicted().now_or_never().is_some()
}

/// Opens that many connections, one after the other.
async fn open(cap: &ConnectionCap, count: usize) -> Vec<ConnectionSlot> {
    let mut slots = Vec::new();
    for _ in 0..count {
        slots.push(cap.admit().await.unwrap());
    }
    slots
}

#[tokio::test]
async fn the_longest_idle_connection_is_closed() {
    let cap = ConnectionCap::new(3);
    let mut slots = open(&cap, 3).await;
    // The first one has just had a request: the second one is idle for longer.
    drop(slots[0].requests().begin());
    let mut admitted = pin!(cap.admit());
    assert!(admitted.as_mut().now_or_never().is_none());
    assert!(is_evicted(&slots[1]));
    assert!(!is_evicted(&slots[0]) && !is_evicted(&slots[2]));
    // Never more than the cap: the new one is admitted once the other has ended.
    assert!(admitted.as_mut().now_or_never().is_none());
    drop(slots.remove(1));
    assert!(admitted.await.is_some());
}

#[tokio::test]
async fn a_connection_with_a_request_in_flight_is_never_closed() {
    let cap = ConnectionCap::new(2);
    let mut slots = open(&cap, 2).await;
    let first = slots[0].requests().begin();
    let second = slots[1].requests();
    second.set_busy();
    assert!(cap.admit().await.is_none());
    assert!(cap.admit().await.is_none());
    second.set_idle(Instant::now());
    let mut waiting = pin!(cap.admit_when_free());
    assert!(waiting.as_mut().now_or_never().is_none());
    // The search comes back to it after a moment.
    tokio::select! {
        _ = waiting.as_mut() => panic!("no connection has ended"),
        () = slots[1].evicted() => {}
    }
    assert!(!is_evicted(&slots[0]));
    drop(slots.pop());
    waiting.await;
    assert_eq!(cap.count(), 1);
    drop(first);
}

#[tokio::test]
async fn a_request_that_begins_keeps_its_connection_and_another_is_closed() {
    let cap = ConnectionCap::new(2);
    let mut slots = open(&cap, 2).await;
    let mut admitted = pin!(cap.admit());
    assert!(admitted.as_mut().now_or_never().is_none());
    // It is to be closed, but a request begins first.
    let request = slots[0].requests().begin();
    assert!(!is_evicted(&slots[0]));
    assert!(admitted.as_mut().now_or_never().is_none());
    assert!(is_evicted(&slots[1]));
    drop(slots.pop());
    assert!(admitted.await.is_some());
    drop(request);
}

#[tokio::test]
async fn a_cancelled_admission_leaks_no_slot() {
    let cap = ConnectionCap::new(1);
    let slots = open(&cap, 1).await;
    assert!(cap.admit().now_or_never().is_none());
    assert!(is_evicted(&slots[0]));
    drop(slots);
    assert_eq!(cap.count(), 0);
    assert!(cap.admit().await.is_some());
    assert!(cap.0.table.lock().order.is_empty());
}

#[tokio::test]
async fn two_waiting_connections_are_both_admitted() {
    let cap = ConnectionCap::new(2);
    let slots = open(&cap, 2).await;
    let evictions = slots.into_iter().map(|slot| async move {
        slot.evicted().await;
        drop(slot);
    });
    let (first, second, _) = tokio::join!(
        cap.admit(),
        cap.admit(),
        futures_util::future::join_all(evictions)
    );
    assert!(first.is_some() && second.is_some());
}

#[tokio::test]
async fn busy_connections_are_not_searched_for_each_new_one() {
    const BUSY: usize = 1_000;
    let cap = ConnectionCap::new(BUSY + 1);
    let busy = open(&cap, BUSY).await;
    let guards: Vec<_> = busy.iter().map(|slot| slot.requests().begin()).collect();
    let mut silent = cap.admit().await.unwrap();
    for _ in 0..100 {
        let mut admitted = pin!(cap.admit());
        assert!(admitted.as_mut().now_or_never().is_none());
        assert!(is_evicted(&silent));
        // All busy ones come later in the order: none was searched or moved.
        let now = cap.now();
        let is_later = |(key, _): &OrderKey| *key > now;
        assert!(cap.0.table.lock().order.keys().all(is_later));
        drop(silent);
        silent = admitted.await.unwrap();
    }
    drop(guards);
}

#[tokio::test]
async fn a_limit_that_is_raised_admits_who_waits_and_a_lower_one_keeps_who_is_served() {
    let cap = ConnectionCap::new(1);
    let mut slots = open(&cap, 1).await;
    let busy = slots[0].requests().begin();
    assert!(cap.admit().await.is_none());
    cap.set_limit(2);
    slots.extend(open(&cap, 1).await);
    cap.set_limit(1);
    assert_eq!(cap.count(), 2);
    assert!(!is_evicted(&slots[1]));
    // The new one needs the slot of an idle one, and one more to end.
    let mut admitted = pin!(cap.admit());
    assert!(admitted.as_mut().now_or_never().is_none());
    assert!(is_evicted(&slots[1]));
    slots.remove(1);
    assert!(
        admitted
            .as_mut()
            .now_or_never()
            .is_none_or(|slot| slot.is_none())
    );
    drop(busy);
}
