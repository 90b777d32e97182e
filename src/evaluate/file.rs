//! Evaluates the rows of one file, in windows that are distributed over the ranks.

use super::WINDOW;
use super::baseline::Forest;
use super::cuts::Cuts;
use super::events::{EvaluatedEvents, Weighed};
use super::importance::FeatureValues;
use super::known::Known;
use super::parts::{EvaluatedParts, is_unknown};
use crate::comm::{Communicator, Work, gather_slots, mark_shared, sync_result};
use crate::config::Class;
use crate::data::selection::split::{Part, Splitter};
use crate::data::selection::{NOT_FINITE, STATUS_BITS};
use crate::data::table::{Block, Request, Table};
use crate::dataset::event_store::{class_of, names_of, part};
use crate::dataset::roles;
use crate::dataset::source::Source;
use crate::engine::{Scored, Scorer};
use crate::error::{Fault, Result};
use crate::model::OffSourceCard;
use crate::statistics::{Bounds, ClassCounts, CutEvent, FileCounts};
use std::collections::BTreeMap;

/// Further values computed for the evaluated events.
pub(super) struct MeasureContext<'a> {
    pub(super) pool: &'a FeatureValues,
    pub(super) forest: Option<&'a Forest>,
    /// Bounds of the training gammas and hadrons, if the model card has them.
    pub(super) bounds: &'a [Option<Bounds>; 2],
    pub(super) cuts: Option<&'a Cuts>,
}

pub(super) fn evaluate_file(
    comm: &dyn Communicator,
    scorer: &Scorer,
    more: &MeasureContext,
    (number, source, known): (u64, &Source, &Known),
    events: &mut EvaluatedEvents,
    warnings: &mut Vec<String>,
) -> Result<FileCounts> {
    let mut slots = vec![None; source.rows.div_ceil(WINDOW) as usize * 2 * Weighed::WORDS];
    let place = (number, source, known);
    let outcome = score_windows(comm, scorer, more, place, events, &mut slots);
    let tally = sync_result(comm, outcome)?.reduce(comm)?;
    for words in gather_slots(comm, &slots)?.chunks_exact(2 * Weighed::WORDS) {
        let classes = words.chunks_exact(Weighed::WORDS);
        events.before_weights.iter_mut().zip(classes).for_each(|(of, words)| of.add_words(words));
    }
    if source.class.is_some() && tally.other_class == source.rows {
        let advice = "the files are swapped: exchange --gamma and --hadron";
        return mark_shared(Err(roles::swapped(source, tally.other_class, advice)));
    }
    let names = STATUS_BITS.iter().map(|(_, name)| (*name).to_string());
    let mut left_out: BTreeMap<String, ClassCounts> = names.zip(tally.status).collect();
    left_out.retain(|_, of| *of != ClassCounts::default());
    let mut unusable: BTreeMap<String, u64> =
        left_out.iter().map(|(name, of)| (name.clone(), of.gamma + of.hadron)).collect();
    unusable.insert("of another class".to_string(), tally.other_class);
    unusable.insert("of unknown class".to_string(), tally.no_class);
    unusable.insert("of another part".to_string(), tally.other_part);
    unusable.insert("of a run the model was trained on".to_string(), tally.used_run);
    unusable.retain(|_, n| *n > 0);
    let path = source.path.display().to_string();
    if let (Some(class), true) = (source.class, tally.unlabelled > 0) {
        let text = roles::unlabelled(tally.unlabelled, source.rows, class);
        warnings.push(format!("{path}: {text}."));
    }
    Ok(FileCounts { path, gamma: tally.gamma, hadron: tally.hadron, unusable, left_out })
}

/// Numbers of rows of a file by outcome.
#[derive(Debug, Clone, Default)]
struct RowTally {
    gamma: u64,
    hadron: u64,
    other_class: u64,
    /// Rows without a class, in a file without a given class.
    no_class: u64,
    other_part: u64,
    used_run: u64,
    /// Rows without a class that count as the class of the file.
    unlabelled: u64,
    status: [ClassCounts; STATUS_BITS.len()],
}

impl RowTally {
    /// Counts a row whose class, by the column of its file, is not evaluated.
    fn leave_out(&mut self, class: Option<i8>) {
        let is_known = class.is_some_and(|class| class >= 0);
        *(if is_known { &mut self.other_class } else { &mut self.no_class }) += 1;
    }

    fn reduce(self, comm: &dyn Communicator) -> Result<RowTally> {
        let RowTally { gamma, hadron, other_class, no_class, other_part, .. } = self;
        let RowTally { used_run, unlabelled, status, .. } = self;
        let counts = [gamma, hadron, other_class, no_class, other_part, used_run, unlabelled];
        let mut sums = counts.to_vec();
        sums.extend(status.iter().flat_map(|of| [of.gamma, of.hadron]));
        let mut sums: Vec<i64> = sums.into_iter().map(|n| n as i64).collect();
        comm.all_reduce_sum(&mut sums)?;
        let mut status = [ClassCounts::default(); STATUS_BITS.len()];
        for (of, [gamma, hadron]) in status.iter_mut().zip(sums[counts.len()..].as_chunks::<2>().0)
        {
            *of = ClassCounts { gamma: *gamma as u64, hadron: *hadron as u64 };
        }
        let [gamma, hadron, other_class, no_class, other_part, used_run, unlabelled] =
            std::array::from_fn(|i| sums[i] as u64);
        let unknown =
            RowTally { other_class, no_class, other_part, used_run, ..RowTally::default() };
        Ok(RowTally { gamma, hadron, unlabelled, status, ..unknown })
    }
}

/// Scores this rank's windows of a file; `slots` receive the sums of weights of each window
/// (windows, classes, words).
fn score_windows(
    comm: &dyn Communicator,
    scorer: &Scorer,
    more: &MeasureContext,
    (number, source, known): (u64, &Source, &Known),
    events: &mut EvaluatedEvents,
    slots: &mut [Option<f64>],
) -> Result<RowTally> {
    let table = Table::open(&source.path, &source.schema)?;
    scorer.check_units(&table)?;
    refuse_unknown_weight(scorer, &table)?;
    let rows = RowEvaluation::new(scorer, more, (number, source, known), &table);
    let mut reader = table.reader(&rows.request(&table))?;
    let (mut block, mut scored, mut tally) =
        (Block::default(), Scored::default(), RowTally::default());
    let windows = source.rows.div_ceil(WINDOW);
    for window in (0..windows).filter(|w| w % comm.size() as u64 == comm.rank() as u64) {
        let start = window * WINDOW;
        comm.progress(Work::Scoring, start);
        reader.read(start..(start + WINDOW).min(source.rows), &mut block)?;
        let runs = rows.off.and_then(|_| block.keys.pop());
        scorer.score(&block, &mut scored)?;
        let in_window = Window { block: &block, scored: &scored, runs: runs.as_deref(), start };
        let mut taken = Vec::new();
        let mut weighed = [Weighed::default(); 2];
        for row in 0..block.rows {
            if rows.evaluate(&in_window, row, events, &mut tally, &mut weighed)? {
                taken.push(row);
            }
        }
        let words = weighed.into_iter().flat_map(Weighed::words).map(Some);
        let of_window = &mut slots[window as usize * 2 * Weighed::WORDS..];
        of_window.iter_mut().zip(words).for_each(|(slot, word)| *slot = word);
        if let Some(forest) = more.forest {
            forest.scores(&scored, &taken, &mut events.of_forest)?;
        }
        more.pool.scores(scorer, &mut block, &taken, [number, start], &mut events.without)?;
    }
    Ok(tally)
}

/// Rows of a window with their scores.
struct Window<'a> {
    block: &'a Block,
    scored: &'a Scored,
    /// Runs of the rows, for a model of hadrons off the source.
    runs: Option<&'a [i64]>,
    /// Number of the first row in the file.
    start: u64,
}

/// Settings that apply to all rows of a file.
struct RowEvaluation<'a> {
    scorer: &'a Scorer,
    more: &'a MeasureContext<'a>,
    number: u64,
    source: &'a Source,
    parts: EvaluatedParts,
    splitter: Splitter,
    /// Class that a file of the training was split as: anomalies from a file are split as the
    /// normal events that they are made from.
    as_trained: Option<i8>,
    off: Option<&'a OffSourceCard>,
    /// Columns of the quantities of the standard cuts.
    cut_columns: Vec<usize>,
    quantities: Vec<String>,
}

impl<'a> RowEvaluation<'a> {
    fn new(
        scorer: &'a Scorer,
        more: &'a MeasureContext<'a>,
        (number, source, known): (u64, &'a Source, &Known),
        table: &Table,
    ) -> RowEvaluation<'a> {
        let off = scorer.card.training.off_source.as_ref();
        // Quantities of the standard cuts alone follow those of the model.
        let mut quantities = scorer.selection().quantities().to_vec();
        let cut_columns = more.cuts.map_or(Vec::new(), |cuts| {
            cuts.quantities().iter().map(|name| column_of(&mut quantities, name)).collect()
        });
        RowEvaluation {
            scorer,
            more,
            number,
            source,
            parts: known.parts,
            splitter: Splitter::new(&scorer.card.split),
            as_trained: known.file.and_then(|file| file.class).map(Class::code),
            off: off.filter(|off| table.key_names().contains(&off.run.as_str())),
            cut_columns,
            quantities,
        }
    }

    fn request(&self, table: &Table) -> Request {
        let split = &self.scorer.card.split;
        let mut keys = split.key.clone().unwrap_or_default();
        keys.extend(self.off.map(|off| off.run.clone()));
        let quantities = self.quantities.clone();
        Request { quantities, keys, shower: split.key.is_none(), class: table.has_class() }
    }

    /// Adds a row to the events, or counts why it is not evaluated; returns whether it was added.
    fn evaluate(
        &self,
        window: &Window,
        row: usize,
        events: &mut EvaluatedEvents,
        tally: &mut RowTally,
        weighed: &mut [Weighed; 2],
    ) -> Result<bool> {
        let Window { block, scored, start, .. } = *window;
        let selection = self.scorer.selection();
        let of_file = block.class.as_ref().map(|c| c[row]);
        let Some(code) = self.class(block, row, of_file) else {
            tally.leave_out(of_file);
            return Ok(false);
        };
        if !self.is_of_part(window, row, code, tally) {
            return Ok(false);
        }
        tally.unlabelled += u64::from(of_file.is_some_and(|of| is_unknown(self.source, of)));
        let gamma = code == Class::Gamma.code();
        let of_class = usize::from(!gamma);
        let weight = match selection.weight(block, row) {
            Ok(weight) => Some(weight),
            // A quantity of the weight is unknown.
            Err(_) if scored.status[row] & NOT_FINITE != 0 => None,
            Err(error) => return Err(error.in_file(&self.source.path)),
        };
        weighed[of_class].add(weight);
        let weight = weight.unwrap_or(f64::NAN);
        if let Some(cuts) = self.more.cuts {
            let value = |i: usize| f64::from(block.quantities[self.cut_columns[i]][row]);
            let passes = cuts.passes(value);
            let score = if scored.status[row] == 0 { scored.score[row] } else { f32::NAN };
            events.of_cuts.push(CutEvent { gamma, passes, score, weight });
        }
        if !take(scored, row, gamma, weight, events, tally) {
            return Ok(false);
        }
        if selection.has_bins() {
            let value = |column: usize| f64::from(block.quantities[column][row]);
            events.bin.push(selection.bin(value));
        }
        events.count_parameters(&self.scorer.card, scored.scaled(row), gamma);
        let class = if gamma { Class::Gamma } else { Class::Hadron };
        if let Some(contents) = &mut events.contents {
            let names = names_of(selection, block, row, class.code(), false);
            contents[of_class].contents.insert(names.content);
        }
        let place = [self.number, start + row as u64];
        events.choice.consider(class, place, weight, scored.scaled(row));
        if let Some(bounds) = &self.more.bounds[of_class] {
            let log_prob = scored.log_prob.iter().map(|flow| flow[row]);
            events.likeness[of_class].add(bounds, scored.scaled(row), log_prob);
        }
        Ok(true)
    }

    /// Returns the class of a row; `None` if it is unknown or not that of its file.
    fn class(&self, block: &Block, row: usize, of_file: Option<i8>) -> Option<i8> {
        class_of(self.source, block, row)
            .filter(|c| *c >= 0 && of_file.is_none_or(|f| f == *c || is_unknown(self.source, f)))
    }

    /// Returns whether a row is of the evaluated part, and counts it otherwise.
    fn is_of_part(&self, window: &Window, row: usize, class: i8, tally: &mut RowTally) -> bool {
        let real = self.off.zip(window.runs).filter(|_| class == Class::Hadron.code());
        if real.is_some_and(|(off, runs)| off.has_used(runs[row])) {
            tally.used_run += 1;
            return false;
        }
        let EvaluatedParts::Only(wanted) = self.parts else { return true };
        // The test part of real hadrons is the runs that were never used.
        let own = if real.is_some() {
            Part::Test
        } else {
            let class = self.as_trained.unwrap_or(class);
            let keyed = self.scorer.card.split.key.is_some();
            part(&self.splitter, self.scorer.selection(), window.block, row, class, keyed)
        };
        tally.other_part += u64::from(own != wanted);
        own == wanted
    }
}

/// Returns the index of a quantity in a list, which is appended if it is new.
fn column_of(quantities: &mut Vec<String>, name: &str) -> usize {
    quantities.iter().position(|known| known == name).unwrap_or_else(|| {
        quantities.push(name.to_string());
        quantities.len() - 1
    })
}

/// Counts an event by its outcome; returns whether it is evaluated.
fn take(
    scored: &Scored,
    row: usize,
    gamma: bool,
    weight: f64,
    events: &mut EvaluatedEvents,
    tally: &mut RowTally,
) -> bool {
    let before = &mut events.before_cuts;
    *(if gamma { &mut before.gamma } else { &mut before.hadron }) += 1;
    if scored.status[row] != 0 {
        for (of, (bit, _)) in tally.status.iter_mut().zip(STATUS_BITS) {
            let count = if gamma { &mut of.gamma } else { &mut of.hadron };
            *count += u64::from(scored.status[row] & bit != 0);
        }
        return false;
    }
    *(if gamma { &mut tally.gamma } else { &mut tally.hadron }) += 1;
    events.score.push(scored.score[row]);
    events.log_prob.push(scored.log_prob[0][row]);
    events.gammaness.push(scored.gammaness.get(row).copied().unwrap_or(f32::NAN));
    events.gamma.push(gamma);
    events.weight.push(weight);
    true
}

/// Refuses a file that lacks a quantity of the weight.
fn refuse_unknown_weight(scorer: &Scorer, table: &Table) -> Result<()> {
    let known = table.quantities();
    match scorer.selection().weight_quantities().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Fault::new("the weight of an event needs a quantity that is not there")
            .file(table.path())
            .column(name)
            .expected(known.join(", "))
            .advice("--weight gives another expression, --weight 1 evaluates without weights")
            .input()),
    }
}
