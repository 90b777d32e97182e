//! Injects faults for tests: the Nth disk operation of this thread fails, or is its last.
//!
//! Compiled only for the tests of this crate. `tests/faults.c` injects the same faults into the
//! writes of the HDF5 library, and into whole processes.

use std::cell::Cell;
use std::io::{self, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// One operation fails with an I/O error.
    InputOutput,
    /// From the Nth operation on, nothing can grow.
    Full,
    /// The same, and the Nth operation writes half of its bytes.
    Short,
    /// The Nth and all later operations do not happen, and a write is torn.
    Death,
}

pub(crate) const KINDS: [FaultKind; 4] =
    [FaultKind::InputOutput, FaultKind::Full, FaultKind::Short, FaultKind::Death];

#[derive(Debug, Clone, Copy)]
struct FaultPlan {
    /// Number of operations that still succeed.
    left: u64,
    kind: FaultKind,
    struck: bool,
}

thread_local! {
    static PLAN: Cell<Option<FaultPlan>> = const { Cell::new(None) };
}

/// Outcome of an operation.
pub(crate) enum FaultOutcome {
    Done,
    Failed(io::Error),
    /// Half of the bytes are written before the failure.
    Torn(io::Error),
}

/// Runs `action` with a fault at its operation `n` (from 0); returns also whether it was reached.
pub(crate) fn with_fault<T>(n: u64, kind: FaultKind, action: impl FnOnce() -> T) -> (T, bool) {
    PLAN.set(Some(FaultPlan { left: n, kind, struck: false }));
    let outcome = action();
    let struck = PLAN.take().is_some_and(|plan| plan.struck);
    (outcome, struck)
}

/// Returns a folder in memory, if there is such a file system: thousands of syncs take time.
pub(crate) fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap_or_else(|e| panic!("no temporary folder: {e}"))
}

/// Returns the outcome of the next operation; `grows` if it needs space.
pub(crate) fn next_outcome(grows: bool) -> FaultOutcome {
    let Some(mut plan) = PLAN.get() else { return FaultOutcome::Done };
    let first = plan.left == 0 && !plan.struck;
    plan.left = plan.left.saturating_sub(1);
    plan.struck |= first;
    PLAN.set(Some(plan));
    if !plan.struck {
        return FaultOutcome::Done;
    }
    let full = || io::Error::new(ErrorKind::StorageFull, "No space left on device (injected)");
    match plan.kind {
        FaultKind::InputOutput if first => {
            FaultOutcome::Failed(io::Error::other("Input/output error (injected)"))
        }
        FaultKind::Short if grows && first => FaultOutcome::Torn(full()),
        FaultKind::Full | FaultKind::Short if grows => FaultOutcome::Failed(full()),
        FaultKind::Death if grows && first => {
            FaultOutcome::Torn(io::Error::other("dead (injected)"))
        }
        FaultKind::Death => FaultOutcome::Failed(io::Error::other("dead (injected)")),
        _ => FaultOutcome::Done,
    }
}
