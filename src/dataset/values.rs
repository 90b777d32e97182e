//! Checks values of files before a training or evaluation: a quantity that is wrong as a whole, such
//! as widths in a wrong unit, refuses a training.
//!
//! A sample is enough for that: the first rows of a file, and every n-th of very many files.

use super::check::ordered_pairs;
use super::event_store;
use super::source::Source;
use crate::comm::{Communicator, Work, gather_values, is_root, mark_shared, sync_result};
use crate::data::schema::plausible;
use crate::data::selection::Selection;
use crate::data::table::{Block, InputFile, Request};
use crate::error::{Error, Fault, Result};
use serde::{Deserialize, Serialize};

/// Rows of a file that are checked.
const ROWS: u64 = 16_384;
/// Most files that are checked; of more files, a selection at equal steps.
const MOST_FILES: usize = 1024;
/// Most warnings that are logged one by one.
const MOST_WARNINGS: usize = 10;
/// Share of the rows in which a width may exceed the length.
const MOST_WIDER: f64 = 0.5;

/// A quantity of a file that is not plausible.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileFinding {
    /// Index of the file among the sources.
    pub file: usize,
    quantity: String,
    severe: bool,
    expected: String,
    found: String,
    advice: String,
}

/// Refuses files with an impossible quantity, and warns of implausible ones. A collective.
///
/// # Errors
/// `Input`, with the first such file; those of reading a file.
pub(crate) fn refuse_implausible(
    comm: &dyn Communicator,
    sources: &[Source],
    selection: &Selection,
) -> Result<()> {
    let all = find(comm, sources, selection)?;
    if let Some(first) = all.iter().find(|finding| finding.severe) {
        return mark_shared(Err(first.refusal(&sources[first.file])));
    }
    if is_root(comm) {
        for finding in all.iter().take(MOST_WARNINGS) {
            log::warn!("{}", finding.line(sources));
        }
        if all.len() > MOST_WARNINGS {
            log::warn!("and {} more such warnings: run `check`", all.len() - MOST_WARNINGS);
        }
    }
    Ok(())
}

/// Returns the implausible quantities in the order of the files. A collective.
pub(crate) fn find(
    comm: &dyn Communicator,
    sources: &[Source],
    selection: &Selection,
) -> Result<Vec<FileFinding>> {
    let step = sources.len().div_ceil(MOST_FILES).max(1);
    let looked = (0..sources.len()).step_by(step).enumerate();
    let mine = looked.filter(|(i, _)| i % comm.size() == comm.rank());
    let found = mine.map(|(_, file)| {
        comm.progress(Work::Reading, file as u64);
        findings(file, &sources[file], selection)
    });
    let found: Vec<FileFinding> =
        sync_result(comm, found.collect::<Result<Vec<_>>>())?.into_iter().flatten().collect();
    let mut all: Vec<FileFinding> = gather_values(comm, &found)?.into_iter().flatten().collect();
    all.sort_by_key(|finding| finding.file);
    Ok(all)
}

impl FileFinding {
    /// Returns the finding as one line.
    pub(crate) fn line(&self, sources: &[Source]) -> String {
        let FileFinding { quantity, expected, found, advice, .. } = self;
        let path = sources[self.file].path.display();
        format!("{path}: '{quantity}': expected {expected}, found {found}; {advice}")
    }

    pub(crate) fn refusal(&self, source: &Source) -> Error {
        Fault::new("values that no Cherenkov camera records")
            .file(&source.path)
            .column(&self.quantity)
            .expected(&self.expected)
            .found(&self.found)
            .advice(&self.advice)
            .input()
    }
}

fn findings(file: usize, source: &Source, selection: &Selection) -> Result<Vec<FileFinding>> {
    let mut input = InputFile::open(&source.path, Some(&source.schema))?;
    let is_present = |name: &&String| input.table().unit(name).is_some();
    let quantities = selection.quantities().iter().filter(is_present).cloned().collect();
    let wanted = Request { quantities, ..Request::default() };
    // A view reads other quantities instead of those that it computes.
    let (mut reader, read) = event_store::open_columns(&mut input, source, &wanted)?;
    let mut block = Block::default();
    reader.read(0..input.rows().min(ROWS), &mut block)?;
    let of_values = plausible::findings(input.table(), &read.quantities, &block.quantities);
    let of_values = of_values.map(|(name, found)| FileFinding {
        file,
        quantity: name.clone(),
        severe: found.severe,
        expected: found.expected,
        found: found.found,
        advice: found.advice.to_string(),
    });
    Ok(of_values.chain(exchanged_axes(file, &read.quantities, &block)).collect())
}

/// Returns a finding if widths exceed lengths: the columns are exchanged.
fn exchanged_axes(file: usize, names: &[String], block: &Block) -> Option<FileFinding> {
    let mut pairs = ordered_pairs(names).into_iter();
    let mut pair = pairs.find(|pair| pair.names == ("width", "length"))?;
    pair.add(block);
    let wider = pair.rows;
    (wider as f64 > MOST_WIDER * block.rows as f64).then(|| FileFinding {
        file,
        quantity: "width".to_string(),
        severe: true,
        expected: "widths below the lengths".to_string(),
        found: format!("{wider} of {} rows with width > length", block.rows),
        advice: "the columns look exchanged: correct the schema or the file".to_string(),
    })
}
