//! Looks at the values of files before they are trained on: quantities that are wrong as a
//! whole, such as widths in another unit, refuse them.
//!
//! A sample is enough for that: the first rows of a file, and of very many files some.

use super::plausible::Tally;
use super::selection::Selection;
use super::store::Source;
use super::table::{Block, Request, Table};
use crate::error::{Error, Fault, Result};
use crate::world::{Work, World, agree, common, is_root};
use serde::{Deserialize, Serialize};

/// Rows of a file that are looked at.
const ROWS: u64 = 16_384;
/// Files that are looked at; of more, so many at equal steps.
const MOST_FILES: usize = 1024;
/// Warnings that are told one by one.
const MOST_WARNINGS: usize = 10;
/// What a view works out itself, whatever the file says.
const OF_VIEW: [&str; 2] = ["dist", "alpha"];

/// A quantity of a file that is not plausible.
#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    file: usize,
    quantity: String,
    severe: bool,
    expected: String,
    found: String,
    advice: String,
}

/// Refuses files with a quantity that no telescope can have, on all ranks alike; warns of what
/// may be wrong.
///
/// # Errors
/// Input, with the first such file; what reading a file gives.
pub fn refuse_implausible(
    world: &dyn World,
    sources: &[Source],
    selection: &Selection,
) -> Result<()> {
    let step = sources.len().div_ceil(MOST_FILES).max(1);
    let looked = (0..sources.len()).step_by(step).enumerate();
    let mine = looked.filter(|(i, _)| i % world.size() == world.rank());
    let found = mine.map(|(_, file)| {
        world.progress(Work::Reading, file as u64);
        findings(file, &sources[file], selection)
    });
    let found: Vec<Finding> =
        agree(world, found.collect::<Result<Vec<_>>>())?.into_iter().flatten().collect();
    let broken = |e: serde_json::Error| Fault::new("cannot exchange findings").found(e).internal();
    let bytes = agree(world, serde_json::to_vec(&found).map_err(broken))?;
    let mut all: Vec<Finding> = Vec::new();
    for told in world.all_gather(&bytes)? {
        all.extend(serde_json::from_slice::<Vec<Finding>>(&told).map_err(broken)?);
    }
    all.sort_by_key(|finding| finding.file);
    if let Some(first) = all.iter().find(|finding| finding.severe) {
        return common(Err(first.refusal(&sources[first.file])));
    }
    if is_root(world) {
        for finding in all.iter().take(MOST_WARNINGS) {
            let Finding { quantity, expected, found, advice, .. } = finding;
            let path = sources[finding.file].path.display();
            log::warn!("{path}: '{quantity}': expected {expected}, found {found}; {advice}");
        }
        if all.len() > MOST_WARNINGS {
            log::warn!("and {} more such warnings: run `check`", all.len() - MOST_WARNINGS);
        }
    }
    Ok(())
}

impl Finding {
    fn refusal(&self, source: &Source) -> Error {
        Fault::new("values that no Cherenkov camera records")
            .file(&source.path)
            .column(&self.quantity)
            .expected(&self.expected)
            .found(&self.found)
            .advice(&self.advice)
            .input()
    }
}

fn findings(file: usize, source: &Source, selection: &Selection) -> Result<Vec<Finding>> {
    let table = Table::open(&source.path, &source.schema)?;
    let own = |name: &&String| source.view.is_none() || !OF_VIEW.contains(&name.as_str());
    let there = |name: &&String| table.unit(name).is_some();
    let quantities: Vec<String> =
        selection.quantities().iter().filter(own).filter(there).cloned().collect();
    let tally = |name: &String| {
        let unit = table.unit(name).unwrap_or_default();
        Tally::new(source.schema.plausible.get(name), name, unit)
    };
    let mut tallies: Vec<Tally> = quantities.iter().map(tally).collect();
    let request = Request { quantities, ..Request::default() };
    let mut block = Block::default();
    table.reader(&request)?.read(0..table.rows().min(ROWS), &mut block)?;
    tallies.iter_mut().zip(&block.quantities).for_each(|(tally, values)| tally.add(values));
    let named = request.quantities.iter().zip(&tallies);
    let all = named.flat_map(|(name, tally)| tally.findings().into_iter().map(move |f| (name, f)));
    Ok(all
        .map(|(name, found)| Finding {
            file,
            quantity: name.clone(),
            severe: found.severe,
            expected: found.expected,
            found: found.found,
            advice: found.advice.to_string(),
        })
        .collect())
}
