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
    /// It and all that follow and write or make anything: a full disk still removes files.
    Writes,
}

/// How a disk fails.
pub(crate) const FAILURES: [(Errno, Extent, ErrorKind); 6] = [
    (Errno::IO, Extent::One, ErrorKind::Io),
    (Errno::IO, Extent::All, ErrorKind::Io),
    (Errno::NOSPC, Extent::One, ErrorKind::NoSpace),
    (Errno::NOSPC, Extent::Writes, ErrorKind::NoSpace),
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
    then: Option<Then>,
    steps: Vec<String>,
}

/// What is done at each step whose text contains this.
type Then = (String, Arc<dyn Fn() + Send + Sync>);

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

    /// Does something at each step whose text contains this.
    pub(crate) fn at(&self, text: &str, then: impl Fn() + Send + Sync + 'static) {
        self.plan.lock().then = Some((text.to_owned(), Arc::new(then)));
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

fn is_removal(step: &Step<'_>) -> bool {
    matches!(
        step,
        Step::RemoveFile(_) | Step::RemoveDirectory(_) | Step::RemoveTree(_)
    )
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
            let (number, text) = (plan.steps.len(), format!("{step:?}"));
            if let Some((_, then)) = plan.then.as_ref().filter(|(at, _)| text.contains(at)) {
                then();
            }
            plan.steps.push(text);
            plan.refusal.filter(|(first, _, extent)| match extent {
                Extent::One => number == *first,
                Extent::All => number >= *first,
                Extent::Writes => number >= *first && is_change(step) && !is_removal(step),
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
