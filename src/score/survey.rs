//! Surveys the inputs before scoring: their rows, finished outputs, the cost of the rest, and the
//! space that it needs. Each rank surveys a share of the files.

use super::extracted::Extracted;
use super::scheduler::{Costed, Task};
use super::scoring_plan::ScoringPlan;
use super::suspects::Suspects;
use super::{Failure, Format, MANIFEST, Options, ScoredFile, Summary, pieces, resume};
use crate::comm::{Communicator, Work, sync_result};
use crate::data::schema::Schema;
use crate::data::table::InputFile;
use crate::dataset::assignment::{Assignment, Job};
use crate::dataset::failures::or_lack_of_memory;
use crate::dataset::output::ledger::{self, Entries, Ledger, LedgerEntry};
use crate::dataset::output::reading::ReadingNote;
use crate::engine;
use crate::error::{Error, Fault, Result};
use crate::storage;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// Approximate time to score a row at one position [ns]; only ratios matter.
const SCORING_NS: u64 = 500;
const MERGING_NS: u64 = 50;
/// Largest allowed ratio of the longest share of a rank to the mean share.
const EVEN: f64 = 1.05;
/// Files below 1/4 of the mean share of a rank are not split.
const SMALL_SHARE: u64 = 4;

/// Result of the survey of one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum SurveyedFile {
    Finished(ScoredFile),
    Rows(u64),
    Failed(Failure),
}

/// Surveys this rank's share of the files; every rank gets all results, in the order of the files.
pub fn survey(
    comm: &dyn Communicator,
    assignment: &Assignment,
    surveyor: &ScoringSurveyor,
    ledger: &mut Ledger,
    note: &mut ReadingNote,
) -> Result<Vec<SurveyedFile>> {
    let known: Entries<ScoredFile> =
        sync_result(comm, ledger::read(&surveyor.options.output))?.entries;
    assignment.survey(comm, |job| {
        let failure =
            surveyor.suspects.failure(&job.name).or(surveyor.extracted.failure(&job.name));
        if let Some(failure) = failure {
            return Ok(SurveyedFile::Failed(failure.clone()));
        }
        let entries = known.get(&job.name).map_or(&[][..], Vec::as_slice);
        note.begin(job);
        let looked = note.finish(surveyor.look(comm, job, entries, ledger));
        match looked.map_err(or_lack_of_memory) {
            Ok(found) => Ok(found),
            Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                Err(error)
            }
            Err(error) => Ok(SurveyedFile::Failed(Failure::new(&job.input, &error))),
        }
    })
}

/// Settings and records that the survey of a file needs.
pub struct ScoringSurveyor<'a> {
    pub options: &'a Options,
    /// The schema of the option; each file has its own without one.
    pub schema: Option<&'a Arc<Schema>>,
    pub plan: &'a ScoringPlan,
    pub model_blake3: &'a str,
    /// Whether nothing can be written into the output folder.
    pub is_read_only: bool,
    /// Whether an earlier start has begun to replace the outputs: those that it has finished are
    /// kept.
    pub resumes_overwriting: bool,
    pub suspects: &'a Suspects,
    pub extracted: &'a Extracted,
    /// Files of the manifest by output; read when an output without a ledger line is met.
    pub manifest: OnceCell<BTreeMap<String, ScoredFile>>,
}

impl ScoringSurveyor<'_> {
    /// Surveys one file. A finished output that no ledger lists is added to the ledger.
    fn look(
        &self,
        comm: &dyn Communicator,
        job: &Job,
        known: &[LedgerEntry<ScoredFile>],
        ledger: &mut Ledger,
    ) -> Result<SurveyedFile> {
        let input = InputFile::open(&job.input, self.schema)?;
        let exists = std::fs::symlink_metadata(&job.output).is_ok();
        let overwrite = self.options.overwrite;
        if exists && (!overwrite || self.resumes_overwriting) {
            let hashed = || comm.progress(Work::Hashing, 0);
            let hash = input.hash(hashed)?;
            self.extracted.refuse_altered(&job.name, &job.input, &hash)?;
            let (model, format) = (self.model_blake3, self.options.format);
            let settings = resume::settings_hash(model, input.schema(), self.options, self.plan);
            let listed = if known.is_empty() { self.listed(&job.name) } else { None };
            let made_of = (settings.as_str(), hash.as_str());
            let kept = match resume::finished(job, format, made_of, known, listed, &hashed) {
                Ok(kept) if overwrite => kept.filter(|kept| kept.in_ledger),
                Err(Error::Usage(_)) if overwrite => None,
                other => other?,
            };
            if let Some(kept) = kept {
                log::info!("{} is finished already", job.output.display());
                if !kept.in_ledger && !self.is_read_only {
                    let bytes = std::fs::metadata(&job.output).map_or(0, |m| m.len());
                    ledger.add(&LedgerEntry {
                        file: kept.file.clone(),
                        bytes,
                        model_blake3: Some(model.to_string()),
                        settings_blake3: settings,
                        input_stamp: None,
                    })?;
                }
                return Ok(SurveyedFile::Finished(kept.file));
            }
        }
        self.count_rows(comm, input)
    }

    /// Returns the entry of an output in the manifest. Without a readable manifest there is none, and
    /// the file is scored again.
    fn listed(&self, output: &str) -> Option<&ScoredFile> {
        let read = || {
            let manifest = Summary::read(&self.options.output.join(MANIFEST)).ok().flatten();
            let files = manifest.map(|manifest| manifest.files).unwrap_or_default();
            files.into_iter().map(|file| (file.output.clone(), file)).collect()
        };
        self.manifest.get_or_init(read).get(output)
    }

    /// Returns the rows of an input, which must not be of a run that the model was trained on.
    fn count_rows(&self, comm: &dyn Communicator, mut input: InputFile) -> Result<SurveyedFile> {
        let looking = |row| comm.progress(Work::Hashing, row);
        engine::refuse_used_runs(&self.plan.card, &mut input, looking)?;
        Ok(SurveyedFile::Rows(input.rows()))
    }
}

/// Returns the tasks of the remaining files with their costs, and the cost of merging each file in
/// pieces. If whole files would give uneven shares, the longest files of more than `split_rows` rows
/// are split; as few as possible, since a piece is written twice.
pub fn tasks(
    assignment: &Assignment,
    found: &[SurveyedFile],
    plan: &ScoringPlan,
    split_rows: u64,
    ranks: usize,
) -> (Vec<Costed>, BTreeMap<usize, u64>) {
    let positions = plan.width() as u64;
    let left: Vec<Left> = assignment
        .jobs
        .iter()
        .zip(found)
        .enumerate()
        .filter_map(|(job, (of, found))| match found {
            SurveyedFile::Rows(rows) => {
                let cost = rows * positions * SCORING_NS + of.bytes;
                Some(Left { job, rows: *rows, cost })
            }
            _ => None,
        })
        .collect();
    let cut = cut(&left, split_rows, ranks);
    let (mut tasks, mut merges) = (Vec::new(), BTreeMap::new());
    for Left { job, rows, cost } in left {
        if !cut.contains(&job) {
            tasks.push((Task::File { job }, cost));
            continue;
        }
        for piece in pieces::cut(rows, split_rows) {
            let share = cost as f64 * (piece.1 - piece.0) as f64 / rows as f64;
            tasks.push((Task::Piece { job, rows: piece }, share as u64));
        }
        merges.insert(job, rows * positions * MERGING_NS);
    }
    (tasks, merges)
}

/// A file that remains to be scored.
#[derive(Debug, Clone, Copy)]
struct Left {
    job: usize,
    rows: u64,
    cost: u64,
}

/// Returns the files to split: the 0, 1, 2, 4, … longest, until the longest share of a rank is close
/// to the mean share.
fn cut(left: &[Left], split_rows: u64, ranks: usize) -> BTreeSet<usize> {
    let all: u64 = left.iter().map(|l| l.cost).sum();
    let small = all / (SMALL_SHARE * ranks as u64);
    let mut long: Vec<&Left> =
        left.iter().filter(|l| l.rows > split_rows && l.cost > small).collect();
    long.sort_by_key(|l| (Reverse(l.cost), l.job));
    let mut cut = BTreeSet::new();
    while ranks > 1 && cut.len() < long.len() {
        let whole = left.iter().filter(|l| !cut.contains(&l.job)).map(|l| l.cost);
        let of_cut = left.iter().filter(|l| cut.contains(&l.job)).map(|l| l.cost).sum::<u64>();
        if longest_share(whole.collect(), of_cut, ranks) <= EVEN * all as f64 / ranks as f64 {
            break;
        }
        let more = (2 * cut.len()).clamp(1, long.len());
        cut = long[..more].iter().map(|l| l.job).collect();
    }
    cut
}

/// Returns the longest share if whole files are assigned longest first, and split files (cost
/// `of_cut`) fill up the others.
fn longest_share(mut whole: Vec<u64>, of_cut: u64, ranks: usize) -> f64 {
    whole.sort_unstable_by(|a, b| b.cmp(a));
    let mut shares: BinaryHeap<Reverse<u64>> = (0..ranks).map(|_| Reverse(0)).collect();
    for cost in &whole {
        if let Some(Reverse(least)) = shares.pop() {
            shares.push(Reverse(least + cost));
        }
    }
    let longest = shares.iter().map(|share| share.0).max().unwrap_or(0);
    let mean = (whole.iter().sum::<u64>() + of_cut) as f64 / ranks as f64;
    mean.max(longest as f64)
}

/// Refuses to begin if the disk has no space for the outputs even with the best compression; warns
/// if they would not fit without compression.
///
/// # Errors
/// `Environment`.
pub fn check_room(
    assignment: &Assignment,
    found: &[SurveyedFile],
    plan: &ScoringPlan,
    options: &Options,
) -> Result<()> {
    let Some(free) = storage::free_bytes(&options.output) else { return Ok(()) };
    let (mut least, mut most) = (0_u64, 0_u64);
    for (job, found) in assignment.jobs.iter().zip(found) {
        let SurveyedFile::Rows(rows) = found else { continue };
        let [low, high] = plan.row_bytes(options.format == Format::Csv);
        let there = std::fs::metadata(&job.output).map_or(0, |m| m.len());
        least = least.saturating_add((rows * low).saturating_sub(there));
        most = most.saturating_add(rows * high);
    }
    if free < least {
        return Err(Fault::new("disk full: no space for the outputs")
            .file(&options.output)
            .expected(format!("between {least} and {most} bytes of free space"))
            .found(format!("{free} bytes free"))
            .advice("free space, choose another output, or write fewer columns ([score] columns)")
            .environment());
    }
    if free < most {
        log::warn!(
            "the outputs need between {least} and {most} bytes; {free} are free in {}",
            options.output.display()
        );
    }
    Ok(())
}

/// Returns the row ranges of the pieces of each file.
pub fn pieces(assignment: &Assignment, tasks: &[Costed]) -> Vec<Vec<(u64, u64)>> {
    let mut pieces = vec![Vec::new(); assignment.jobs.len()];
    for (task, _) in tasks {
        if let Task::Piece { job, rows } = task {
            pieces[*job].push(*rows);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(costs: &[u64]) -> Vec<Left> {
        costs.iter().enumerate().map(|(job, cost)| Left { job, rows: *cost, cost: *cost }).collect()
    }

    #[test]
    fn files_are_cut_only_where_shares_are_uneven() {
        let cut = |costs: &[u64], ranks: usize| -> Vec<usize> {
            cut(&files(costs), 100, ranks).into_iter().collect()
        };
        assert!(cut(&[1000, 1000], 1).is_empty());
        assert!(cut(&[1000, 1000], 2).is_empty());
        assert_eq!(cut(&[1000, 1000, 1000], 2), [0]);
        assert_eq!(cut(&[10, 1000, 10], 2), [1]);
        // Too short to be cut, however uneven.
        assert!(cut(&[90, 10], 2).is_empty());
        // One is not enough, then two.
        assert_eq!(cut(&[1000, 1000, 1], 4), [0, 1]);
        assert!(cut(&[], 3).is_empty());
    }
}
