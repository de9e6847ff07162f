//! A disk that refuses chosen steps.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::store::ErrorKind;
use crate::store::fs::disk::Step;
use crate::store::fs::disk::observer::{Observation, Observer, observe};

/// Which steps are refused, from the chosen one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// That one alone.
    One,
    /// It and all that follow.
    All,
    /// It and all that follow and change anything.
    Changes,
}

/// How a disk fails.
pub(crate) const FAILURES: [(Errno, Extent, ErrorKind); 6] = [
    (Errno::IO, Extent::One, ErrorKind::Io),
    (Errno::IO, Extent::All, ErrorKind::Io),
    (Errno::NOSPC, Extent::One, ErrorKind::NoSpace),
    (Errno::NOSPC, Extent::Changes, ErrorKind::NoSpace),
    (Errno::ACCESS, Extent::One, ErrorKind::Permission),
    (Errno::ROFS, Extent::Changes, ErrorKind::Permission),
];

/// Refuses steps below a directory, until it is dropped.
pub(crate) struct Refuser {
    plan: Arc<Mutex<Plan>>,
    _observation: Observation,
}

#[derive(Default)]
struct Plan {
    panics: bool,
    refusal: Option<(usize, Errno, Extent)>,
    steps: Vec<String>,
}

impl Refuser {
    /// Begins to count the steps below a directory.
    pub(crate) fn of(directory: &Path) -> Self {
        let plan = Arc::<Mutex<Plan>>::default();
        let observer = Arc::new(PlannedRefusals(Arc::clone(&plan)));
        Self {
            plan,
            _observation: observe(directory, observer),
        }
    }

    /// Begins to count steps anew, and refuses some.
    pub(crate) fn begin(&self, refusal: Option<(usize, Errno, Extent)>) {
        *self.plan.lock() = Plan {
            refusal,
            ..Plan::default()
        };
    }

    /// From now on each step panics.
    pub(crate) fn panic(&self) {
        self.plan.lock().panics = true;
    }

    /// The steps since the last call, after which none is refused.
    pub(crate) fn end(&self) -> Vec<String> {
        let mut plan = self.plan.lock();
        plan.refusal = None;
        std::mem::take(&mut plan.steps)
    }
}

struct PlannedRefusals(Arc<Mutex<Plan>>);

fn is_change(step: &Step<'_>) -> bool {
    !matches!(
        step,
        Step::Open(_) | Step::ReadDirectory(_) | Step::Metadata(_)
    )
}

impl Observer for PlannedRefusals {
    fn around(&self, step: &Step<'_>, call: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let refused = {
            let mut plan = self.0.lock();
            assert!(!plan.panics, "a step panics");
            let number = plan.steps.len();
            plan.steps.push(format!("{step:?}"));
            plan.refusal.filter(|(first, _, extent)| match extent {
                Extent::One => number == *first,
                Extent::All => number >= *first,
                // A full disk still removes files.
                Extent::Changes => number >= *first && is_change(step),
            })
        };
        let Some((_, errno, _)) = refused else {
            return call();
        };
        // A write that fails has written a part.
        if let Step::Write(path, offset, bytes) = step
            && let Ok(file) = fs::OpenOptions::new().write(true).open(path)
        {
            file.write_all_at(&bytes[..bytes.len() / 2], *offset)
                .unwrap();
        }
        Err(errno.into())
    }
}
