//! Threads that read tasks block by block, and prepare the blocks for the engine.

use super::context::PipelineContext;
use super::messages::{OpenedTask, Read};
use crate::data::schema::columns::refuse_equal_names;
use crate::data::table::{Block, InputFile};
use crate::dataset::output::reading::ReadingNote;
use crate::engine::Preparation;
use crate::error::{Fault, Result};
use crate::score::input::ScoringInput;
use crate::score::output::Provenance;
use crate::score::scheduler::{Costed, Task};
use crate::score::scoring_plan::ScoredRows;
use crate::score::{pieces, resume};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

/// Reads tasks in their order until the channel closes (reading thread).
pub(super) fn read_all(
    shared: &PipelineContext,
    tasks: &Receiver<Costed>,
    read: &SyncSender<(Read<Block>, u64)>,
    spare: &Receiver<Block>,
    mut note: ReadingNote,
) {
    for (task, cost) in tasks {
        let mut reading = TaskReader { shared, read, spare, cost, wanted: true };
        note.begin(&shared.assignment.jobs[task.job()]);
        let outcome = note.finish(reading.task(&task));
        let end = match outcome {
            Ok(None) => Read::Kept(task),
            Ok(Some(warnings)) => Read::End(warnings),
            Err(error) => Read::Failed(task, error),
        };
        // The end carries the remaining cost.
        let rest = reading.cost;
        reading.hand_over(end, rest);
        if !reading.wanted {
            return;
        }
    }
}

struct TaskReader<'a, 'b> {
    shared: &'a PipelineContext<'b>,
    read: &'a SyncSender<(Read<Block>, u64)>,
    spare: &'a Receiver<Block>,
    cost: u64, // that has not been handed over
    wanted: bool,
}

impl TaskReader<'_, '_> {
    fn hand_over(&mut self, read: Read<Block>, cost: u64) {
        let cost = cost.min(self.cost);
        self.cost -= cost;
        self.wanted &= self.read.send((read, cost)).is_ok();
    }

    /// Reads all rows of a task and returns the warnings of the first ones; `None` if an earlier
    /// start has finished it.
    fn task(&mut self, task: &Task) -> Result<Option<Vec<String>>> {
        let PipelineContext {
            assignment, options, plan, model_blake3, extracted, progress, ..
        } = self.shared;
        let job = &assignment.jobs[task.job()];
        let file = InputFile::open(&job.input, self.shared.schema)?;
        let mut input = ScoringInput::new(file, plan)?;
        let settings = resume::settings_hash(model_blake3, input.file.schema(), options, plan);
        let stamps = input.stamps();
        let rows = task.rows(input.rows());
        if rows.end > input.rows() {
            return Err(Fault::new("the file is shorter than it was")
                .file(&job.input)
                .expected(format!("{} rows", rows.end))
                .found(input.rows())
                .input());
        }
        let piece = pieces::path_of(&options.output, &job.name, &rows);
        let is_piece = matches!(task, Task::Piece { .. });
        let hashed = || {
            progress.fetch_add(1, Ordering::Relaxed);
        };
        let made_of_piece = (settings.as_str(), stamps[0].as_str());
        if is_piece && pieces::is_finished(&piece, made_of_piece, &rows, hashed) {
            return Ok(None);
        }
        // The input of pieces is hashed once, when they are merged.
        let hash = if is_piece { String::new() } else { input.file.hash(hashed)? };
        if !is_piece {
            extracted.refuse_altered(&job.name, &job.input, &hash)?;
        }
        let specs = plan.specs(&input.keys, input.class);
        refuse_equal_names(&specs, &job.input)?;
        let made_of = Provenance {
            name: job.relative.clone(),
            input: hash,
            model: (*model_blake3).to_string(),
            settings,
        };
        self.hand_over(
            Read::Begin(Box::new(OpenedTask {
                task: task.clone(),
                rows: if matches!(task, Task::Merge { .. }) {
                    0..input.rows()
                } else {
                    rows.clone()
                },
                specs,
                class: input.class,
                made_of,
                stamps,
            })),
            0,
        );
        self.read_rows(&mut input, rows)?;
        Ok(Some(input.warnings))
    }

    /// Reads rows in blocks and hands them over.
    fn read_rows(&mut self, input: &mut ScoringInput, rows: Range<u64>) -> Result<()> {
        let block_rows = self.shared.options.block_rows;
        let blocks = (rows.end - rows.start).div_ceil(block_rows).max(1);
        let cost = self.cost / blocks;
        let mut first = rows.start;
        while first < rows.end && self.wanted {
            let next = (first + block_rows).min(rows.end);
            let mut block = self.spare.try_recv().unwrap_or_default();
            input.read(first..next, &mut block)?;
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            self.hand_over(Read::Rows(block, first), cost);
            first = next;
        }
        Ok(())
    }
}

/// Prepares blocks for the engine and returns spare memory (preparing thread).
pub(super) fn prepare_all(
    shared: &PipelineContext,
    preparation: &Preparation,
    blocks: &Receiver<(Read<Block>, u64)>,
    ready: &SyncSender<(Read<Box<ScoredRows>>, u64)>,
    (spare_rows, used_blocks): &(Receiver<Box<ScoredRows>>, Sender<Block>),
) {
    for (read, cost) in blocks {
        let read = match read {
            Read::Rows(block, first) => {
                let mut rows = spare_rows.try_recv().unwrap_or_default();
                // A closed channel needs no spare blocks.
                let _ = used_blocks.send(std::mem::replace(&mut rows.block, block));
                shared.plan.prepare(preparation, &mut rows);
                Read::Rows(rows, first)
            }
            Read::Begin(opened) => Read::Begin(opened),
            Read::End(warnings) => Read::End(warnings),
            Read::Kept(task) => Read::Kept(task),
            Read::Failed(task, error) => Read::Failed(task, error),
        };
        if ready.send((read, cost)).is_err() {
            return;
        }
    }
}
