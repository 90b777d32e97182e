//! Before anything is scored: what each file is, whether its output is there already, how
//! long all will take, and whether there is room for it. Each rank looks at its share.

use super::deal::{Costed, Task};
use super::ledger::{Entry, Ledger};
use super::recipe::Recipe;
use super::{Failure, Format, Options, ScoredFile, pieces, resume};
use crate::data::assign::{Assignment, Job};
use crate::data::catalog;
use crate::data::durable;
use crate::data::schema::Schema;
use crate::data::table::Table;
use crate::error::{Error, Fault, Result};
use crate::world::{Work, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Time of a row at one position [ns], about; only proportions matter.
const SCORING_NS: u64 = 500;
const MERGING_NS: u64 = 50;
/// A file that is less than this part of a rank's share is never cut.
const SMALL_SHARE: u64 = 4;

/// What a file was found to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Found {
    Finished(ScoredFile),
    Rows(u64),
    Failed(Failure),
}

/// Looks at this rank's share of the files, and gets what the others found.
pub fn survey(
    world: &dyn World,
    assignment: &Assignment,
    known: &BTreeMap<String, Vec<Entry>>,
    see: &Surveyor,
    ledger: &mut Ledger,
) -> Result<Vec<Found>> {
    let broken = |e: serde_json::Error| Fault::new("cannot exchange findings").found(e).internal();
    let mut mine: Vec<(usize, Found)> = Vec::new();
    for (i, job) in assignment.jobs.iter().enumerate() {
        if i % world.size() != world.rank() {
            continue;
        }
        world.progress(Work::Reading, i as u64);
        let entries = known.get(&job.name).map_or(&[][..], Vec::as_slice);
        let found = match see.look(world, job, entries, ledger) {
            Ok(found) => found,
            Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                return Err(error);
            }
            Err(error) => Found::Failed(Failure::new(&job.input, &error)),
        };
        mine.push((i, found));
    }
    let mut all: BTreeMap<usize, Found> = BTreeMap::new();
    for bytes in world.all_gather(&serde_json::to_vec(&mine).map_err(broken)?)? {
        let found: Vec<(usize, Found)> = serde_json::from_slice(&bytes).map_err(broken)?;
        all.extend(found);
    }
    Ok(all.into_values().collect())
}

/// What a file is looked at with.
pub struct Surveyor<'a> {
    pub options: &'a Options,
    pub recipe: &'a Recipe,
    pub model_blake3: &'a str,
}

impl Surveyor<'_> {
    fn look(
        &self,
        world: &dyn World,
        job: &Job,
        known: &[Entry],
        ledger: &mut Ledger,
    ) -> Result<Found> {
        let schema = Schema::for_file(&job.input, self.options.schema.as_deref())?;
        let exists = std::fs::symlink_metadata(&job.output).is_ok();
        if exists && !self.options.overwrite {
            let hashed = || world.progress(Work::Hashing, 0);
            let input = catalog::hash_text(&catalog::hash_file_telling(&job.input, hashed)?);
            let (model, format) = (self.model_blake3, self.options.format);
            let settings = resume::settings_hash(model, &schema, self.options, self.recipe);
            if let Some(kept) = resume::finished(job, format, &settings, &input, known)? {
                log::info!("{} is finished already", job.output.display());
                if !kept.in_ledger {
                    let bytes = std::fs::metadata(&job.output).map_or(0, |m| m.len());
                    ledger.add(&Entry {
                        file: kept.file.clone(),
                        bytes,
                        model_blake3: model.to_string(),
                        settings_blake3: settings,
                    })?;
                }
                return Ok(Found::Finished(kept.file));
            }
        }
        Table::open(&job.input, &schema).map(|table| Found::Rows(table.rows()))
    }
}

/// The tasks of what is left, with their cost, and that of putting files together. Files
/// of more than `split_rows` rows are cut where there are several ranks, unless they are too
/// small a part of all to keep ranks waiting for them.
pub fn tasks(
    assignment: &Assignment,
    found: &[Found],
    recipe: &Recipe,
    split_rows: u64,
    ranks: usize,
) -> (Vec<Costed>, BTreeMap<usize, u64>) {
    let (mut tasks, mut merges) = (Vec::new(), BTreeMap::new());
    let positions = recipe.width() as u64;
    let cost = |job: &Job, rows: u64| rows * positions * SCORING_NS + job.bytes;
    let left = assignment.jobs.iter().zip(found).filter_map(|(job, found)| match found {
        Found::Rows(rows) => Some(cost(job, *rows)),
        _ => None,
    });
    let small = left.sum::<u64>() / (SMALL_SHARE * ranks as u64);
    for (job, (of, found)) in assignment.jobs.iter().zip(found).enumerate() {
        let Found::Rows(rows) = found else { continue };
        let whole = cost(of, *rows);
        if ranks == 1 || *rows <= split_rows || whole <= small {
            tasks.push((Task::File { job }, whole));
            continue;
        }
        for piece in pieces::cut(*rows, split_rows) {
            let share = whole as f64 * (piece.1 - piece.0) as f64 / *rows as f64;
            tasks.push((Task::Piece { job, rows: piece }, share as u64));
        }
        merges.insert(job, rows * positions * MERGING_NS);
    }
    (tasks, merges)
}

/// Refuses to begin where the outputs cannot have room. What compression leaves of them is
/// not known before: refused is what would not fit at its best, and warned of what would
/// not fit without.
pub fn check_room(
    assignment: &Assignment,
    found: &[Found],
    recipe: &Recipe,
    options: &Options,
) -> Result<()> {
    let Some(free) = durable::free_bytes(&options.output) else { return Ok(()) };
    let (mut least, mut most) = (0_u64, 0_u64);
    for (job, found) in assignment.jobs.iter().zip(found) {
        let Found::Rows(rows) = found else { continue };
        let [low, high] = recipe.row_bytes(options.format == Format::Csv);
        let there = std::fs::metadata(&job.output).map_or(0, |m| m.len());
        least = least.saturating_add((rows * low).saturating_sub(there));
        most = most.saturating_add(rows * high);
    }
    if free < least {
        return Err(Fault::new("disk full: there is no room for the outputs")
            .file(&options.output)
            .expected(format!("room for {least} bytes at the least, {most} at the most"))
            .found(format!("{free} bytes free"))
            .advice("free space, choose another output, or write fewer columns ([score] columns)")
            .environment());
    }
    if free < most {
        log::warn!(
            "the outputs need up to {most} bytes, {least} at the least; {free} are free in {}",
            options.output.display()
        );
    }
    Ok(())
}

/// The pieces of each file.
pub fn pieces(assignment: &Assignment, tasks: &[Costed]) -> Vec<Vec<(u64, u64)>> {
    let mut pieces = vec![Vec::new(); assignment.jobs.len()];
    for (task, _) in tasks {
        if let Task::Piece { job, rows } = task {
            pieces[*job].push(*rows);
        }
    }
    pieces
}
