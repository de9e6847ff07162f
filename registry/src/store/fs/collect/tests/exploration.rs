//! Visits all states of a model.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A state of a model, in which threads take steps.
pub(super) trait ModelState: Clone + Debug + Eq + Hash {
    /// How many threads there are.
    fn threads(&self) -> usize;

    /// Whether all of them have ended.
    fn is_over(&self) -> bool;
}

/// Visits each state that the threads can reach in any order of their steps. `step` says what a thread does next;
/// `None` if it waits, or has ended. Returns how many states there are, or one that is wrong.
pub(super) fn explore<S: ModelState>(
    start: S,
    step: impl Fn(&S, usize) -> Option<S>,
    is_wrong: impl Fn(&S) -> bool,
) -> Result<usize, Box<S>> {
    let mut seen = HashSet::from([start.clone()]);
    let mut next = vec![start];
    while let Some(state) = next.pop() {
        if is_wrong(&state) {
            return Err(Box::new(state));
        }
        let steps: Vec<_> = (0..state.threads())
            .filter_map(|thread| step(&state, thread))
            .collect();
        assert!(
            !steps.is_empty() || state.is_over(),
            "they wait for each other: {state:?}"
        );
        for step in steps {
            if seen.insert(step.clone()) {
                next.push(step);
            }
        }
    }
    Ok(seen.len())
}
