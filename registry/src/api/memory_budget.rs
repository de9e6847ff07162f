//! One memory budget for all bodies that are held whole: manifests that arrive, and pages of listings
//! that are sent.
//!
//! A body takes memory from the budget as its bytes arrive. When the budget is used up, the body that
//! has made no progress for longest is evicted: its memory is freed at once, and its request fails. A
//! stalled client therefore blocks nobody for long. A complete manifest is never evicted; while only
//! such manifests hold memory, other bodies wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// The sizes, in bytes, of the pieces that hold a body. Received bytes are copied into them: a view of
/// the connection's buffer would keep the whole buffer alive, and the budget would not know its size.
const SMALLEST: usize = 4 << 10;
const LARGEST: usize = 64 << 10;

/// The body's memory was given to other bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the registry is out of memory for manifests and listings, and this one was the slowest: try \
     again later"
)]
pub(super) struct Evicted;

/// The memory that all bodies share.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    state: Mutex<BudgetState>,
    /// Notified whenever memory is freed.
    freed: Notify,
}

#[derive(Debug)]
struct BudgetState {
    /// The free memory, in bytes.
    free: usize,
    /// The last identifier given to a share.
    last_id: u64,
    /// The bodies that hold memory, by the identifier of their share.
    bodies: HashMap<u64, BodyMemory>,
}

/// The memory of one body.
#[derive(Debug)]
struct BodyMemory {
    pieces: VecDeque<Piece>,
    taken: usize,
    /// When a byte was last added or sent.
    last_progress: Instant,
    /// The body is complete, and therefore never evicted.
    complete: bool,
    evicted: Arc<Notify>,
}

/// Some bytes of a body, and the memory that the budget counts for them.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    size: usize,
}

/// A body's share of the budget. Dropping it frees the memory.
#[derive(Debug)]
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    id: u64,
    length: usize,
    evicted: Arc<Notify>,
}

/// The bytes of a complete body. They keep its share until the last view of them is dropped.
struct SealedBody {
    bytes: Vec<u8>,
    _share: MemoryShare,
    _permit: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(BudgetState {
                free: bytes,
                last_id: 0,
                bodies: HashMap::new(),
            }),
            freed: Notify::new(),
        })
    }

    /// A share for a body that has no bytes yet.
    pub(super) fn share(self: &Arc<Self>) -> MemoryShare {
        let mut state = self.state.lock();
        state.last_id += 1;
        MemoryShare {
            budget: Arc::clone(self),
            id: state.last_id,
            length: 0,
            evicted: Arc::default(),
        }
    }

    /// Frees the memory of a body.
    fn release(&self, id: u64) {
        // Bound to a name, so that the pieces are deallocated after the lock is released.
        let held = self.state.lock().remove(id);
        if held.is_some() {
            self.freed.notify_waiters();
        }
    }
}

impl BudgetState {
    fn remove(&mut self, id: u64) -> Option<BodyMemory> {
        let held = self.bodies.remove(&id)?;
        self.free += held.taken;
        Some(held)
    }

    /// Frees `bytes` for the body `id` by evicting others, the one without progress for longest first.
    /// Returns whether there is that much free memory now.
    fn evict_for(&mut self, id: u64, bytes: usize) -> bool {
        while self.free < bytes {
            // A scan of all bodies, which happens only while the budget is used up. Each body holds at least
            // one of the smallest pieces, so that the budget bounds their number.
            let stalled = self
                .bodies
                .iter()
                .filter(|(other, held)| **other != id && !held.complete)
                .min_by_key(|(_, held)| held.last_progress);
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
    /// How many bytes the share holds.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Adds bytes. Waits while the budget has no memory for them.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Evicted> {
        while !bytes.is_empty() {
            let budget = Arc::clone(&self.budget);
            let mut freed = std::pin::pin!(budget.freed.notified());
            // Enabled before the attempt: memory that is freed between the attempt and the wait would
            // otherwise go unnoticed.
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

    /// Adds as many bytes as fit into one piece. Returns how many: 0 if no memory is free.
    fn push_some(&mut self, bytes: &[u8]) -> Result<usize, Evicted> {
        let mut state = self.budget.state.lock();
        let spare = match state.bodies.get(&self.id) {
            // A share that has bytes is in the map until it is evicted.
            None if self.length > 0 => return Err(Evicted),
            None => 0,
            Some(held) => held.pieces.back().map_or(0, Piece::spare),
        };
        if spare == 0 {
            // Pieces grow with the body, so that a small manifest takes little, and a large one few pieces.
            let size = bytes.len().max(self.length).clamp(SMALLEST, LARGEST);
            if !state.evict_for(self.id, size) {
                return Ok(0);
            }
            state.free -= size;
            let held = state.bodies.entry(self.id).or_insert_with(|| BodyMemory {
                pieces: VecDeque::new(),
                taken: 0,
                last_progress: Instant::now(),
                complete: false,
                evicted: Arc::clone(&self.evicted),
            });
            held.taken += size;
            held.pieces.push_back(Piece {
                bytes: Vec::with_capacity(size),
                size,
            });
        }
        let Some(held) = state.bodies.get_mut(&self.id) else {
            return Err(Evicted);
        };
        held.last_progress = Instant::now();
        let Some(piece) = held.pieces.back_mut() else {
            return Err(Evicted);
        };
        let pushed = bytes.len().min(piece.spare());
        piece.bytes.extend_from_slice(&bytes[..pushed]);
        self.length += pushed;
        Ok(pushed)
    }

    /// Waits until the body is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Marks the body as complete: from now on it is never evicted.
    pub(super) fn seal(&self) -> Result<(), Evicted> {
        if self.length == 0 {
            return Ok(());
        }
        let mut state = self.budget.state.lock();
        let held = state.bodies.get_mut(&self.id).ok_or(Evicted)?;
        held.complete = true;
        Ok(())
    }

    /// Joins all bytes. They keep the share and the permit until the last view of them is dropped.
    pub(super) fn into_bytes(self, permit: Option<OwnedSemaphorePermit>) -> Bytes {
        let mut bytes = Vec::with_capacity(self.length);
        // Piece by piece, so that the body is in memory twice for one piece only.
        while let Some(piece) = self.pop_piece() {
            bytes.extend_from_slice(&piece.bytes);
        }
        Bytes::from_owner(SealedBody {
            bytes,
            _share: self,
            _permit: permit,
        })
    }

    /// Takes the next piece. The budget still counts its memory for the body.
    fn pop_piece(&self) -> Option<Piece> {
        let mut state = self.budget.state.lock();
        state.bodies.get_mut(&self.id)?.pieces.pop_front()
    }

    /// Takes the next piece, of at least one byte, and frees its memory in the budget. Fails if the body
    /// was evicted, or is empty.
    pub(super) fn pop(&mut self) -> Result<Bytes, Evicted> {
        let mut state = self.budget.state.lock();
        let held = state.bodies.get_mut(&self.id).ok_or(Evicted)?;
        held.last_progress = Instant::now();
        let piece = held.pieces.pop_front().ok_or(Evicted)?;
        held.taken -= piece.size;
        state.free += piece.size;
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
        self.size - self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A body of `bytes` bytes.
    fn body(budget: &Arc<MemoryBudget>, bytes: usize) -> MemoryShare {
        let mut share = budget.share();
        pushed(&mut share, bytes).unwrap().unwrap();
        share
    }

    /// Adds bytes. `None` if they have to wait.
    fn pushed(share: &mut MemoryShare, bytes: usize) -> Option<Result<(), Evicted>> {
        share.push(&vec![b'x'; bytes]).now_or_never()
    }

    fn free(budget: &MemoryBudget) -> usize {
        budget.state.lock().free
    }

    #[test]
    fn a_body_takes_memory_as_it_grows_and_frees_it_at_its_end() {
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
    fn the_body_without_progress_for_longest_is_evicted() {
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
    fn a_complete_body_is_never_evicted_and_others_wait_for_it() {
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
    async fn a_waiting_body_continues_when_memory_is_freed() {
        let budget = MemoryBudget::new(LARGEST);
        let whole = body(&budget, LARGEST);
        whole.seal().unwrap();
        let mut waiting = budget.share();
        let (pushed, ()) = tokio::join!(waiting.push(b"x"), async { drop(whole) });
        pushed.unwrap();
    }

    #[test]
    fn sending_frees_memory_piece_by_piece() {
        let budget = MemoryBudget::new(4 * LARGEST);
        let mut page = body(&budget, 2 * LARGEST);
        let (mut sent, mut freed) = (0, vec![]);
        while page.length() > 0 {
            sent += page.pop().unwrap().len();
            freed.push(free(&budget));
        }
        assert_eq!(sent, 2 * LARGEST);
        assert!(freed.is_sorted() && freed.len() > 1, "{freed:?}");
        let mut stalled = body(&budget, LARGEST);
        let _others = body(&budget, 4 * LARGEST);
        assert_eq!(stalled.pop(), Err(Evicted));
    }

    #[test]
    fn shares_free_all_memory_in_any_order_of_drops() {
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
        assert!(budget.state.lock().bodies.is_empty());
    }
}
