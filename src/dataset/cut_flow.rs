//! Cut flows: the numbers of rows that each cut removes, alone and after the cuts before it.
//!
//! Ranks share windows of rows. Counts are integers, so a flow is the same on any number of ranks.
//! A flow needs a pass over the files, so it is made only where it is shown.

use super::event_store::{OpenedSource, class_of};
use super::source::{RowUse, Source};
use crate::comm::{Communicator, Work, sync_result};
use crate::config::Class;
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::selection::cut_flow::{CutCount, CutFlow};
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN, Selection, SelectionOutcome, Which};
use crate::data::table::{Block, Request};
use crate::error::{Error, Result};

/// Classes that rows are counted by.
const CLASSES: [&str; 3] = ["gamma", "hadron", "unknown"];
const FINITE: &str = "finite values";
const DOMAIN: &str = "domain of transforms";
const OFF_SOURCE: &str = "away from the source";

/// Counts of one class, one entry per cut.
#[derive(Debug, Clone)]
struct ClassCutCounts {
    rows: u64,
    fails: Vec<u64>,
    alone: Vec<u64>,
    first: Vec<u64>,
}

impl ClassCutCounts {
    fn new(cuts: usize) -> ClassCutCounts {
        ClassCutCounts { rows: 0, fails: vec![0; cuts], alone: vec![0; cuts], first: vec![0; cuts] }
    }

    /// Adds a row; bit c of `failed` is set if it fails cut c.
    fn add(&mut self, failed: u128) {
        self.rows += 1;
        if failed == 0 {
            return;
        }
        let first = failed.trailing_zeros() as usize;
        self.first[first] += 1;
        self.alone[first] += u64::from(failed.is_power_of_two());
        for (cut, fails) in self.fails.iter_mut().enumerate() {
            *fails += (failed >> cut & 1) as u64;
        }
    }

    fn words(&mut self) -> impl Iterator<Item = &mut u64> {
        let lists = self.fails.iter_mut().chain(&mut self.alone).chain(&mut self.first);
        std::iter::once(&mut self.rows).chain(lists)
    }
}

/// Counts the rows that the cuts remove, class by class, in at most `rows_per_file` rows of each
/// file. A collective.
///
/// # Errors
/// Those of opening and reading the files, on every rank.
pub fn count(
    comm: &dyn Communicator,
    sources: &[Source],
    selection: &Selection,
    rows_per_file: Option<u64>,
) -> Result<Vec<CutFlow>> {
    let mut names = selection.bounds();
    names.extend([FINITE, DOMAIN].map(str::to_string));
    if sources.iter().any(|source| source.view.is_some()) {
        names.push(OFF_SOURCE.to_string());
    }
    let mut counts = vec![ClassCutCounts::new(names.len()); CLASSES.len()];
    sync_result(comm, read(comm, sources, selection, rows_per_file, &mut counts))?;
    let mut words: Vec<i64> =
        counts.iter_mut().flat_map(ClassCutCounts::words).map(|word| *word as i64).collect();
    comm.all_reduce_sum(&mut words)?;
    let sums = counts.iter_mut().flat_map(ClassCutCounts::words).zip(words);
    sums.for_each(|(word, sum)| *word = sum as u64);
    let flows = CLASSES.into_iter().zip(counts).filter(|(_, counts)| counts.rows > 0);
    Ok(flows.map(|(class, counts)| flow(class, rows_per_file, &names, &counts)).collect())
}

fn flow(
    class: &'static str,
    rows_per_file: Option<u64>,
    names: &[String],
    counts: &ClassCutCounts,
) -> CutFlow {
    let mut left = counts.rows;
    let cuts = names.iter().enumerate().map(|(c, name)| {
        left -= counts.first[c];
        CutCount {
            cut: name.clone(),
            fails: counts.fails[c],
            fails_only_this: counts.alone[c],
            left,
        }
    });
    CutFlow { class, rows: counts.rows, rows_per_file, cuts: cuts.collect() }
}

/// Reads the windows of this rank in all files.
fn read(
    comm: &dyn Communicator,
    sources: &[Source],
    selection: &Selection,
    rows_per_file: Option<u64>,
    counts: &mut [ClassCutCounts],
) -> Result<()> {
    let (mut window, mut first) = (0, 0);
    let mut block = Block::default();
    for source in sources {
        let rows = source.rows.min(rows_per_file.unwrap_or(u64::MAX));
        let mut starts = Vec::new();
        for start in (0..rows).step_by(CHUNK_ROWS) {
            if window % comm.size() == comm.rank() {
                starts.push(start);
            }
            window += 1;
        }
        if !starts.is_empty() {
            let mut opened = OpenedSource::open(source, request(source, selection))?;
            for start in starts {
                comm.progress(Work::Reading, first + start);
                let end = rows.min(start + CHUNK_ROWS as u64);
                let notes = opened.read(start..end, first + start, &mut block)?;
                let verdict = |row: usize| notes.get(row).map_or(RowUse::Use, |note| note.row_use);
                add(source, selection, &block, verdict, counts);
            }
        }
        first += source.rows;
    }
    Ok(())
}

fn request(source: &Source, selection: &Selection) -> Request {
    Request {
        quantities: selection.quantities().to_vec(),
        class: source.class.is_none(),
        ..Request::default()
    }
}

fn add(
    source: &Source,
    selection: &Selection,
    block: &Block,
    verdict: impl Fn(usize) -> RowUse,
    counts: &mut [ClassCutCounts],
) {
    let columns: Vec<&[f32]> = block.quantities.iter().map(Vec::as_slice).collect();
    let mut outcome = SelectionOutcome::default();
    selection.evaluate(Which::All, &columns, 0..block.rows, &mut outcome);
    let mut failed = Vec::new();
    let bounds = selection.failed_bounds(&columns, block.rows, &mut failed);
    for (row, mut failed) in failed.into_iter().enumerate() {
        let status = outcome.status[row];
        failed |= u128::from(status & NOT_FINITE != 0) << bounds;
        failed |= u128::from(status & OUT_OF_DOMAIN != 0) << (bounds + 1);
        failed |= u128::from(verdict(row) == RowUse::OnSource) << (bounds + 2);
        let class = match class_of(source, block, row) {
            Some(1) => 0,
            Some(0) => 1,
            _ => 2,
        };
        counts[class].add(failed);
    }
}

/// Adds the cuts that removed events to an error about too few events of a class. A collective; all
/// ranks pass the same error.
pub(crate) fn explain(
    comm: &dyn Communicator,
    sources: &[Source],
    selection: &Selection,
    class: Class,
    error: Error,
) -> Error {
    let of_class = usize::from(class == Class::Hadron);
    match count(comm, sources, selection, None) {
        Ok(flows) => match flows.iter().find(|flow| flow.class == CLASSES[of_class]) {
            Some(flow) => error.add_finding(&flow.summary()),
            None => error,
        },
        Err(unreadable) => {
            log::debug!("no cut flow: {unreadable}");
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_order_and_alone_add_up() {
        let mut counts = ClassCutCounts::new(4);
        for failed in [0b0000, 0b0001, 0b0011, 0b0010, 0b0010, 0b1100, 0b0000] {
            counts.add(failed);
        }
        let names = ["a", "b", "c", "d"].map(str::to_string);
        let flow = flow("gamma", None, &names, &counts);
        let columns = |of: fn(&CutCount) -> u64| flow.cuts.iter().map(of).collect::<Vec<_>>();
        assert_eq!(columns(|cut| cut.fails), [2, 3, 1, 1]);
        assert_eq!(columns(|cut| cut.fails_only_this), [1, 2, 0, 0]);
        assert_eq!(columns(|cut| cut.left), [5, 3, 2, 2]);
        assert_eq!(
            flow.summary(),
            "cuts left 2 of 7 gamma rows: b removed 3 (2 that nothing else removes), \
             a removed 2 (1 that nothing else removes), c removed 1 (0 that nothing else removes)"
        );
    }
}
