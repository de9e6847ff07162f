//! What runs for every request must not allocate.
//!
//! The allocator counts, for the whole process; so this file has one test only.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry::metrics::label::{Client, ErrorCode, Method, OpResult, Pair, ReferenceKind, Status};
use registry::oci::{Endpoint, Route};

/// The system's allocator, with every request for memory counted.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator can't be written without")]
// SAFETY: every call is passed on, unchanged, to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The fewest allocations of several runs: the test harness has a thread of its own, which may
/// allocate in between, but not each time.
fn allocations(run: impl Fn()) -> usize {
    let count = || {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    (0..10).map(|_| count()).min().unwrap_or(usize::MAX)
}

#[test]
fn classifying_a_request_allocates_nothing() {
    let digest = format!("sha256:{}", "0af9".repeat(16));
    let paths = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/app/manifests/latest".to_owned(),
        format!("/v2/team/app/manifests/{digest}"),
        format!("/v2/team/app/blobs/{digest}").replace(':', "%3A"),
        "/v2/team/app/blobs/uploads/".to_owned(),
        "/v2/team/app/blobs/uploads/0b5c/with/a/tail".to_owned(),
        format!("/v2/team/app/referrers/{digest}"),
        "/v2/team/app/_oci/ext".to_owned(),
        "/token".to_owned(),
        "/%00/ä/..".to_owned(),
        "/".repeat(10_000),
        "/v2/a/blobs/uploads".repeat(1_000),
    ];
    assert!(
        allocations(|| drop(black_box(vec![0_u8; 100]))) > 0,
        "the allocator counts"
    );

    assert_eq!(
        0,
        allocations(|| for path in &paths {
            black_box(Route::parse(black_box(path)));
        })
    );
    assert_eq!(
        0,
        allocations(|| for endpoint in Endpoint::ALL {
            for method in ["GET", "PATCH", "BREW"] {
                black_box(Pair::of(endpoint, Method::of(black_box(method))));
            }
        })
    );
    assert_eq!(
        0,
        allocations(|| for status in 0..=u16::MAX {
            black_box((Status::of(status), OpResult::of(status)));
        })
    );
    assert_eq!(
        0,
        allocations(
            || for agent in ["docker/27.3.1 go/go1.22.7", "curl/8.11.0", "ä"] {
                black_box(Client::of(black_box(agent)));
            }
        )
    );
    assert_eq!(
        0,
        allocations(|| for text in ["BLOB_UNKNOWN", "sha256%3A00"] {
            black_box((
                ErrorCode::of(black_box(text)),
                ReferenceKind::of(black_box(text)),
            ));
        })
    );
}
