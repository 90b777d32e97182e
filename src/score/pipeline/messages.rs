//! Messages between the threads of a rank.

use crate::data::schema::columns::ColumnSpec;
use crate::error::{Error, Result};
use crate::score::ScoredFile;
use crate::score::input::Facts;
use crate::score::output::Provenance;
use crate::score::scheduler::Task;
use crate::score::scoring_plan::ScoredRows;
use std::ops::Range;

/// A started task with the specification of its output.
pub(super) struct OpenedTask {
    pub(super) task: Task,
    pub(super) rows: Range<u64>,
    pub(super) specs: Vec<ColumnSpec>,
    pub(super) class: bool,
    pub(super) made_of: Provenance,
    /// Portable and exact stamp of the input.
    pub(super) stamps: [String; 2],
}

/// Message of the reading thread, and then of the preparing thread, in the order of the tasks.
pub(super) enum Read<Rows> {
    Begin(Box<OpenedTask>),
    Rows(Rows, u64), // with the number of the first row in the file
    /// The end of a task, with the warnings of its first rows.
    End(Vec<String>),
    /// A piece that an earlier start has finished.
    Kept(Task),
    Failed(Task, Error),
}

/// Message to the writing thread.
pub(super) enum Write {
    Begin(Box<OpenedTask>),
    Rows(Box<ScoredRows>),
    End(Facts),
    Kept(Task),
    Failed(Task, Error),
}

/// Outcome of a task.
pub(super) struct Done {
    pub(super) task: Task,
    pub(super) outcome: Result<Option<ScoredFile>>,
}
