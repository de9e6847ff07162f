//! The memory that bodies held whole take together: manifests that arrive, and pages of listings
//! that leave.
//!
//! Bodies take from the budget as their bytes come. When it is used up, the body that has moved no
//! byte for longest gives way: its bytes are dropped at once, and its request fails. So a stalled
//! client keeps nobody out for long. A manifest that is whole never gives way; while nothing but
//! those is left, bodies wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// The sizes of the pieces that a body is kept in. What a connection received is copied into them,
/// because a view of its buffer would keep all of the buffer.
const SMALLEST: usize = 4 << 10;
const LARGEST: usize = 64 << 10;

/// The body gave way to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many manifests and listings are under way at once, and this one was the slowest")]
pub(super) struct Evicted;

/// What all bodies together may take.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    state: Mutex<BudgetState>,
    /// Told whenever there is more room than before.
    freed: Notify,
}

#[derive(Debug)]
struct BudgetState {
    free: usize,
    next: u64,
    /// The bodies that hold anything.
    held: HashMap<u64, BodyMemory>,
}

/// What one body holds.
#[derive(Debug)]
struct BodyMemory {
    pieces: VecDeque<Piece>,
    taken: usize,
    moved: Instant,
    /// It gives way to nobody.
    whole: bool,
    evicted: Arc<Notify>,
}

/// Some bytes of a body, and the room that they take of the budget.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    room: usize,
}

/// A body's share, which it returns when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    id: u64,
    length: usize,
    evicted: Arc<Notify>,
}

/// The bytes of a whole body, which keep its share until nobody uses them any more.
struct SealedBody {
    bytes: Vec<u8>,
    _share: MemoryShare,
    _permit: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// Of so many bytes.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(BudgetState {
                free: bytes,
                next: 0,
                held: HashMap::new(),
            }),
            freed: Notify::new(),
        })
    }

    /// The share of a body of which nothing is there yet.
    pub(super) fn share(self: &Arc<Self>) -> MemoryShare {
        let mut state = self.state.lock();
        state.next += 1;
        MemoryShare {
            budget: Arc::clone(self),
            id: state.next,
            length: 0,
            evicted: Arc::default(),
        }
    }

    /// Gives what a body held to others.
    fn release(&self, id: u64) {
        let held = self.state.lock().remove(id);
        if held.is_some() {
            self.freed.notify_waiters();
        }
    }
}

impl BudgetState {
    fn remove(&mut self, id: u64) -> Option<BodyMemory> {
        let held = self.held.remove(&id)?;
        self.free += held.taken;
        Some(held)
    }

    /// Makes room for `bytes` more of the body `id`, if others that give way have so much.
    fn make_room(&mut self, id: u64, bytes: usize) -> bool {
        while self.free < bytes {
            let stalled = self
                .held
                .iter()
                .filter(|(other, held)| **other != id && !held.whole)
                .min_by_key(|(_, held)| held.moved);
            let Some((&stalled, _)) = stalled else {
                return false;
            };
            if let Some(held) = self.remove(stalled) {
                held.evicted.notify_one();
            }
        }
        true
    }
}

impl MemoryShare {
    /// How many bytes were added.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Adds bytes; waits while there is no room for them.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Evicted> {
        while !bytes.is_empty() {
            let budget = Arc::clone(&self.budget);
            let mut freed = std::pin::pin!(budget.freed.notified());
            // What is freed from here on is not missed.
            freed.as_mut().enable();
            match self.push_some(bytes)? {
                0 => tokio::select! {
                    () = freed => {}
                    () = self.evicted() => return Err(Evicted),
                },
                pushed => bytes = &bytes[pushed..],
            }
        }
        Ok(())
    }

    /// Adds as many bytes as fit into one piece. Returns how many, which is none without room.
    fn push_some(&mut self, bytes: &[u8]) -> Result<usize, Evicted> {
        let mut state = self.budget.state.lock();
        let spare = match state.held.get(&self.id) {
            None if self.length > 0 => return Err(Evicted),
            None => 0,
            Some(held) => held.pieces.back().map_or(0, Piece::spare),
        };
        if spare == 0 {
            let size = bytes.len().max(self.length).clamp(SMALLEST, LARGEST);
            if !state.make_room(self.id, size) {
                return Ok(0);
            }
            state.free -= size;
            let held = state.held.entry(self.id).or_insert_with(|| BodyMemory {
                pieces: VecDeque::new(),
                taken: 0,
                moved: Instant::now(),
                whole: false,
                evicted: Arc::clone(&self.evicted),
            });
            held.taken += size;
            held.pieces.push_back(Piece {
                bytes: Vec::with_capacity(size),
                room: size,
            });
        }
        let Some(held) = state.held.get_mut(&self.id) else {
            return Err(Evicted);
        };
        held.moved = Instant::now();
        let Some(piece) = held.pieces.back_mut() else {
            return Err(Evicted);
        };
        let pushed = bytes.len().min(piece.spare());
        piece.bytes.extend_from_slice(&bytes[..pushed]);
        self.length += pushed;
        Ok(pushed)
    }

    /// Waits until the body has given way.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The body is whole: from now on it gives way to nobody.
    pub(super) fn seal(&self) -> Result<(), Evicted> {
        if self.length == 0 {
            return Ok(());
        }
        let mut state = self.budget.state.lock();
        let held = state.held.get_mut(&self.id).ok_or(Evicted)?;
        held.whole = true;
        Ok(())
    }

    /// All bytes in one, which keep the share, and the permit, for as long as anyone has them.
    pub(super) fn into_bytes(self, permit: Option<OwnedSemaphorePermit>) -> Bytes {
        let mut bytes = Vec::with_capacity(self.length);
        while let Some(piece) = self.pop_piece() {
            bytes.extend_from_slice(&piece.bytes);
        }
        Bytes::from_owner(SealedBody {
            bytes,
            _share: self,
            _permit: permit,
        })
    }

    /// The next piece; the room that it took stays the body's.
    fn pop_piece(&self) -> Option<Piece> {
        let mut state = self.budget.state.lock();
        state.held.get_mut(&self.id)?.pieces.pop_front()
    }

    /// The first bytes of what is left, of which there are some; the room that they took is free.
    pub(super) fn pop(&mut self) -> Result<Bytes, Evicted> {
        let mut state = self.budget.state.lock();
        let held = state.held.get_mut(&self.id).ok_or(Evicted)?;
        held.moved = Instant::now();
        let piece = held.pieces.pop_front().ok_or(Evicted)?;
        held.taken -= piece.room;
        state.free += piece.room;
        drop(state);
        self.length -= piece.bytes.len();
        self.budget.freed.notify_waiters();
        Ok(piece.bytes.into())
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.release(self.id);
    }
}

impl AsRef<[u8]> for SealedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Piece {
    fn spare(&self) -> usize {
        self.room - self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A body of so many bytes.
    fn body(budget: &Arc<MemoryBudget>, bytes: usize) -> MemoryShare {
        let mut share = budget.share();
        pushed(&mut share, bytes).unwrap().unwrap();
        share
    }

    /// Adds bytes; `None` if they have to wait.
    fn pushed(share: &mut MemoryShare, bytes: usize) -> Option<Result<(), Evicted>> {
        share.push(&vec![b'x'; bytes]).now_or_never()
    }

    fn free(budget: &MemoryBudget) -> usize {
        budget.state.lock().free
    }

    #[test]
    fn a_body_takes_what_it_has_and_returns_it_at_its_end() {
        let budget = MemoryBudget::new(4 * LARGEST);
        let mut share = body(&budget, 10);
        assert_eq!(free(&budget), 4 * LARGEST - SMALLEST);
        pushed(&mut share, 3 * LARGEST - 10).unwrap().unwrap();
        assert!(free(&budget) <= LARGEST + SMALLEST);
        share.seal().unwrap();
        let bytes = share.into_bytes(None);
        assert_eq!(bytes, vec![b'x'; 3 * LARGEST]);
        let view = bytes.slice(1..2);
        drop(bytes);
        assert!(free(&budget) <= LARGEST + SMALLEST, "a view of it is left");
        drop(view);
        assert_eq!(free(&budget), 4 * LARGEST);
    }

    #[test]
    fn the_body_that_has_moved_no_byte_for_longest_gives_way() {
        let budget = MemoryBudget::new(4 * LARGEST);
        let mut oldest = body(&budget, LARGEST);
        let mut stalled = body(&budget, LARGEST);
        let _other = body(&budget, LARGEST);
        pushed(&mut oldest, LARGEST).unwrap().unwrap();
        let new = body(&budget, 1);
        assert!(stalled.evicted().now_or_never().is_some());
        assert_eq!(stalled.seal(), Err(Evicted));
        assert_eq!(pushed(&mut stalled, 1), Some(Err(Evicted)));
        assert!(oldest.evicted().now_or_never().is_none());
        assert_eq!((oldest.seal(), new.seal()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_whole_body_never_gives_way_and_others_wait_for_it() {
        let budget = MemoryBudget::new(LARGEST);
        let whole = body(&budget, LARGEST);
        whole.seal().unwrap();
        let mut waiting = budget.share();
        assert_eq!(pushed(&mut waiting, 1), None);
        let bytes = whole.into_bytes(None);
        assert_eq!(pushed(&mut waiting, 1), None);
        drop(bytes);
        assert_eq!(pushed(&mut waiting, 1), Some(Ok(())));
    }

    #[tokio::test]
    async fn a_body_that_waits_goes_on_when_there_is_room() {
        let budget = MemoryBudget::new(LARGEST);
        let whole = body(&budget, LARGEST);
        whole.seal().unwrap();
        let mut waiting = budget.share();
        let (pushed, ()) = tokio::join!(waiting.push(b"x"), async { drop(whole) });
        pushed.unwrap();
    }

    #[test]
    fn what_is_sent_makes_room_piece_by_piece() {
        let budget = MemoryBudget::new(4 * LARGEST);
        let mut page = body(&budget, 2 * LARGEST);
        let (mut sent, mut rooms) = (0, vec![]);
        while page.length() > 0 {
            sent += page.pop().unwrap().len();
            rooms.push(free(&budget));
        }
        assert_eq!(sent, 2 * LARGEST);
        assert!(rooms.is_sorted() && rooms.len() > 1, "{rooms:?}");
        let mut stalled = body(&budget, LARGEST);
        let _others = body(&budget, 4 * LARGEST);
        assert_eq!(stalled.pop(), Err(Evicted));
    }

    #[test]
    fn no_share_is_lost_in_any_order_of_ends() {
        let budget = MemoryBudget::new(8 * LARGEST);
        let mut shares: Vec<MemoryShare> = (0..64).map(|n| body(&budget, 1 + n * 999)).collect();
        while let Some(mut share) = shares.pop() {
            let _ = pushed(&mut share, 5 * LARGEST);
            if let Some(other) = shares.first() {
                let _ = other.seal();
            }
            let third = shares.len() / 3;
            shares.rotate_left(third);
        }
        assert_eq!(free(&budget), 8 * LARGEST);
        assert!(budget.state.lock().held.is_empty());
    }
}
