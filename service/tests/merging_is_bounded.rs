//! Reading, merging and writing a large exposition takes less than three times its size in memory,
//! all included: counted by the allocator itself, in a process of its own.
#![expect(
    clippy::print_stdout,
    reason = "the figure is of interest, not only that it is small"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use service::exposition::{DroppedSamples, Exposition, ParseLimits};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "there is no other way to count memory")]
// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hundred_thousand_samples_are_merged_in_less_than_three_times_their_exposition() {
    let mut text = String::new();
    for family in 0..20 {
        let _ = writeln!(
            text,
            "# HELP test_{family}_total Moves.\n# TYPE test_{family}_total counter"
        );
        for sample in 0..5_000 {
            let _ = writeln!(
                text,
                "test_{family}_total{{endpoint=\"manifest\",method=\"GET\",item=\"{sample}\"}} 12345"
            );
        }
    }
    text.shrink_to_fit();
    let size = text.len();
    let before = NOW.load(Relaxed) - size;
    PEAK.store(NOW.load(Relaxed), Relaxed);

    let (exposition, dropped) = Exposition::parse(text, &ParseLimits::default());
    assert_eq!(dropped, DroppedSamples::default());
    let mut merged = Exposition::default();
    merged.merge(exposition, "registry");
    let mut out = String::new();
    merged.write_text(&mut out);

    assert_eq!(merged.sample_count(), 100_000);
    let peak = PEAK.load(Relaxed) - before;
    println!(
        "exposition {size} B, written {} B, at most {peak} B, {:.2} ×",
        out.len(),
        peak as f64 / size as f64
    );
    assert!(peak < 3 * size, "{peak} of {size}");
}
