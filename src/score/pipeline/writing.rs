//! Thread that writes the outputs and the ledger.

use super::context::PipelineContext;
use super::messages::{Done, OpenedTask, Write};
use crate::data::files::stamp;
use crate::dataset::output::ledger::{Ledger, LedgerEntry};
use crate::error::{Error, Result};
use crate::score::input::Facts;
use crate::score::output::ScoreOutput;
use crate::score::scheduler::Task;
use crate::score::scoring_plan::ScoredRows;
use crate::score::{Format, ScoredFile, pieces};
use crate::storage;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

/// Writes outputs in the order of their tasks (writing thread).
pub(super) fn write_all(
    shared: &PipelineContext,
    writes: &Receiver<Write>,
    done: &Sender<Done>,
    used: &Sender<Box<ScoredRows>>,
    mut ledger: Ledger,
) -> Result<()> {
    // The current output; an error if it has failed.
    let mut current: Option<(Box<OpenedTask>, Result<ScoreOutput>)> = None;
    for write in writes {
        shared.progress.fetch_add(1, Ordering::Relaxed);
        let (task, outcome) = match write {
            Write::Begin(opened) => {
                let output = shared.create(&opened);
                current = Some((opened, output));
                continue;
            }
            Write::Rows(rows) => {
                if let Some((_, output)) = &mut current {
                    let appended = match output {
                        Ok(open) => open.append(shared.plan, &rows),
                        Err(_) => Ok(()),
                    };
                    match appended {
                        Err(error @ Error::Environment(_)) => return Err(error),
                        Err(error) => *output = Err(error),
                        Ok(()) => {}
                    }
                }
                let _ = used.send(rows);
                continue;
            }
            Write::End(facts) => {
                let Some((opened, output)) = current.take() else { continue };
                let outcome = output.and_then(|o| shared.finish(&opened, o, facts, &mut ledger));
                (opened.task, outcome)
            }
            Write::Kept(task) => (task, Ok(None)),
            Write::Failed(task, error) => {
                let begun = current.take();
                let earlier = begun.and_then(|(_, output)| output.err());
                (task, Err(earlier.unwrap_or(error)))
            }
        };
        let _ = done.send(Done { task, outcome });
    }
    Ok(())
}

impl PipelineContext<'_> {
    /// Creates the output of a task; existing files with its name were checked before.
    fn create(&self, opened: &OpenedTask) -> Result<ScoreOutput> {
        let PipelineContext { assignment, options, .. } = self;
        let job = &assignment.jobs[opened.task.job()];
        match &opened.task {
            Task::Piece { .. } => {
                let path = pieces::path_of(&options.output, &job.name, &opened.rows);
                ScoreOutput::create(&path, Format::Hdf5, &opened.specs, opened.class, true)
            }
            _ => {
                ScoreOutput::create(&job.output, options.format, &opened.specs, opened.class, true)
            }
        }
    }

    fn finish(
        &self,
        opened: &OpenedTask,
        mut output: ScoreOutput,
        facts: Facts,
        ledger: &mut Ledger,
    ) -> Result<Option<ScoredFile>> {
        let PipelineContext { assignment, options, plan, .. } = self;
        let job = &assignment.jobs[opened.task.job()];
        let (rows, made_of) = (opened.rows.end - opened.rows.start, &opened.made_of);
        let report_progress = || {
            self.progress.fetch_add(1, Ordering::Relaxed);
        };
        self.folder.check()?;
        let facts = match &opened.task {
            Task::Piece { .. } => {
                let stamps = opened.stamps.each_ref().map(String::as_str);
                output.finish_piece(rows, &made_of.settings, stamps, &facts)?;
                let path = pieces::path_of(&options.output, &job.name, &opened.rows);
                pieces::record_hash(&path, report_progress)?;
                return Ok(None);
            }
            Task::File { .. } => facts,
            Task::Merge { job: index } => {
                self.merge_pieces(*index, opened, &mut output, report_progress)?
            }
        };
        facts.refuse_wrong_geometry(&job.input)?;
        let counts = output.counts.clone();
        output.finish(plan, rows, made_of, &facts)?;
        let output_blake3 =
            stamp::hash_text(&stamp::hash_file_with_progress(&job.output, report_progress)?);
        let file = ScoredFile {
            output: job.name.clone(),
            rows,
            input_blake3: made_of.input.clone(),
            output_blake3,
            unusable: counts.unusable,
            outside: counts.outside,
            implausible_times: counts.implausible_times,
            warnings: facts.warnings,
            status: counts.by_name(),
        };
        let bytes = std::fs::metadata(&job.output).map_or(0, |m| m.len());
        ledger.add(&LedgerEntry {
            file: file.clone(),
            bytes,
            model_blake3: Some(made_of.model.clone()),
            settings_blake3: made_of.settings.clone(),
            input_stamp: None,
        })?;
        if matches!(opened.task, Task::Merge { .. }) {
            storage::remove_folder(&pieces::folder_of(&options.output, &job.name))?;
        }
        Ok(Some(file))
    }

    /// Appends all pieces of a long file to its output.
    fn merge_pieces(
        &self,
        job: usize,
        opened: &OpenedTask,
        output: &mut ScoreOutput,
        report_progress: impl Fn() + Copy,
    ) -> Result<Facts> {
        let name = &self.assignment.jobs[job].name;
        let path = |(start, end): &(u64, u64)| -> (PathBuf, Range<u64>) {
            (pieces::path_of(&self.options.output, name, &(*start..*end)), *start..*end)
        };
        let paths: Vec<_> = self.pieces[job].iter().map(path).collect();
        let made = (opened.made_of.settings.as_str(), opened.stamps[0].as_str());
        pieces::merge(&paths, made, &opened.specs, output, report_progress)
    }
}
