//! Faults for tests: the Nth operation of this thread on the disk fails, or is its last.
//!
//! Compiled for the tests of this crate only. The same faults in the HDF5 library's own
//! writes, and in whole processes, are the business of `tests/faults.c`.

use std::cell::Cell;
use std::io::{self, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One operation fails with an I/O error.
    InputOutput,
    /// From the Nth on nothing can grow any more.
    Full,
    /// The same, and the Nth writes half of its bytes.
    Short,
    /// The Nth and all later operations are never done, and a write is torn.
    Death,
}

pub const KINDS: [Kind; 4] = [Kind::InputOutput, Kind::Full, Kind::Short, Kind::Death];

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Operations that still succeed.
    left: u64,
    kind: Kind,
    struck: bool,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
}

/// What becomes of an operation.
pub enum Fate {
    Done,
    Failed(io::Error),
    /// Half of the bytes are written, then it fails.
    Torn(io::Error),
}

/// Runs `action` with its operation `n` (from 0) struck; whether it came to that.
pub fn with_fault<T>(n: u64, kind: Kind, action: impl FnOnce() -> T) -> (T, bool) {
    PLAN.set(Some(Plan { left: n, kind, struck: false }));
    let outcome = action();
    let struck = PLAN.take().is_some_and(|plan| plan.struck);
    (outcome, struck)
}

/// A folder in memory where there is such a file system: thousands of syncs take time.
pub fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap_or_else(|e| panic!("no temporary folder: {e}"))
}

/// To be asked before every operation; `grows` if it needs space.
pub fn fate(grows: bool) -> Fate {
    let Some(mut plan) = PLAN.get() else { return Fate::Done };
    let first = plan.left == 0 && !plan.struck;
    plan.left = plan.left.saturating_sub(1);
    plan.struck |= first;
    PLAN.set(Some(plan));
    if !plan.struck {
        return Fate::Done;
    }
    let full = || io::Error::new(ErrorKind::StorageFull, "No space left on device (injected)");
    match plan.kind {
        Kind::InputOutput if first => {
            Fate::Failed(io::Error::other("Input/output error (injected)"))
        }
        Kind::Short if grows && first => Fate::Torn(full()),
        Kind::Full | Kind::Short if grows => Fate::Failed(full()),
        Kind::Death if grows && first => Fate::Torn(io::Error::other("dead (injected)")),
        Kind::Death => Fate::Failed(io::Error::other("dead (injected)")),
        _ => Fate::Done,
    }
}
