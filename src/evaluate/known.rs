//! Recognises files that a model was trained on: by their hash, otherwise by their events.

use super::parts::{EvaluatedParts, is_unknown, parts_of, trained_as};
use super::{Options, WINDOW};
use crate::comm::{Communicator, Work, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::data::selection::split::Part;
use crate::data::table::{Block, Request, Table};
use crate::dataset::event_store::{class_of, names_of};
use crate::dataset::sketch::{Name, Sketch};
use crate::dataset::source::Source;
use crate::engine::{Scored, Scorer};
use crate::error::{Error, Fault, Result};
use crate::model::{DataFile, ModelSketches};

/// Most windows of a file that are compared, evenly spread.
const MOST_WINDOWS: u64 = 16;
/// Share of events found by chance among those that were not trained on, and a number of events
/// added to it.
const BY_CHANCE: f64 = 0.01;
const SOME: f64 = 3.0;

/// File, compared with the training data of the model.
pub struct Known<'c> {
    /// The same file among those that were trained on.
    pub file: Option<&'c DataFile>,
    /// Parts that are evaluated.
    pub parts: EvaluatedParts,
    /// Warning of training events.
    pub warning: Option<String>,
}

/// Finds out for each file whether the model was trained on it. A collective.
///
/// # Errors
/// Input, where a file holds training events whose part cannot be found again.
pub fn known<'c>(
    comm: &dyn Communicator,
    scorer: &'c Scorer,
    sketches: &ModelSketches,
    sources: &[Source],
    options: &Options,
) -> Result<Vec<Known<'c>>> {
    let mut all = Vec::with_capacity(sources.len());
    for source in sources {
        let file = sync_result(comm, trained_as(&scorer.card, source))?;
        let mut known = Known { file, parts: parts_of(file, options.part), warning: None };
        let all_parts = [EvaluatedParts::Only(Part::Test), EvaluatedParts::Default];
        if file.is_some() && !all_parts.contains(&options.part) {
            known.warning = Some(format!(
                "{}: the model was trained on this file, and --part takes events that training has used: the figures are too good.",
                source.path.display()
            ));
        }
        let is_chosen = options.part != EvaluatedParts::Default;
        if file.is_none() && options.part != EvaluatedParts::Only(Part::Test) {
            let seen = sync_result(comm, TrainingOverlap::count(comm, scorer, sketches, source))?;
            let seen = seen.reduce(comm)?;
            let found = match (seen.warning(sketches, source, is_chosen), is_chosen) {
                // The requested part is evaluated in any case.
                (Err(Error::Input(fault)), true) => {
                    Some(format!("{fault}: the figures are too good"))
                }
                (found, _) => mark_shared(found)?,
            };
            if let Some(warning) = found {
                if is_root(comm) {
                    log::warn!("{warning}");
                }
                if !is_chosen {
                    known.parts = EvaluatedParts::Only(Part::Test);
                }
                known.warning = Some(warning);
            }
        }
        all.push(known);
    }
    Ok(all)
}

/// Events of a file, and the number of training events among them.
#[derive(Debug, Clone, Copy, Default)]
struct TrainingOverlap {
    /// Names that could be found, and those that were found, of showers and of rows.
    keys: [u64; 2],
    contents: [u64; 2],
    /// Usable events in the windows, and those of them with a key.
    events: u64,
    keyed: u64,
    /// Rows in the windows.
    rows: u64,
}

impl TrainingOverlap {
    /// Counts the events in the windows of this rank.
    fn count(
        comm: &dyn Communicator,
        scorer: &Scorer,
        sketches: &ModelSketches,
        source: &Source,
    ) -> Result<TrainingOverlap> {
        let mut seen = TrainingOverlap::default();
        if sketches.keys.is_none() && sketches.contents.is_none() {
            return Ok(seen);
        }
        let table = Table::open(&source.path, &source.schema)?;
        scorer.check_units(&table)?;
        let (card, selection) = (&scorer.card, scorer.selection());
        let off = card.training.off_source.as_ref();
        let of_runs = off.is_some_and(|off| table.key_names().contains(&off.run.as_str()));
        let mut reader = table.reader(&Request {
            quantities: selection.quantities().to_vec(),
            keys: card.split.key.clone().unwrap_or_default(),
            shower: card.split.key.is_none(),
            class: table.has_class(),
        })?;
        let (mut block, mut scored) = (Block::default(), Scored::default());
        let windows = source.rows.div_ceil(WINDOW);
        let step = windows.div_ceil(MOST_WINDOWS).max(1);
        let ranks = comm.size() as u64;
        for window in (0..windows).step_by(step as usize) {
            if (window / step) % ranks != comm.rank() as u64 {
                continue;
            }
            let start = window * WINDOW;
            comm.progress(Work::Reading, start);
            reader.read(start..(start + WINDOW).min(source.rows), &mut block)?;
            scorer.prepare_only(&block, &mut scored);
            seen.rows += block.rows as u64;
            for row in (0..block.rows).filter(|row| scored.status[*row] == 0) {
                let of_file = block.class.as_ref().map(|c| c[row]);
                let fits = |c: &i8| of_file.is_none_or(|f| f == *c || is_unknown(source, f));
                let class = class_of(source, &block, row).filter(|c| *c >= 0 && fits(c));
                let Some(class) = class else { continue };
                // The card lists the runs of real hadrons.
                if of_runs && class == Class::Hadron.code() {
                    continue;
                }
                let names = names_of(selection, &block, row, class, card.split.key.is_some());
                seen.events += 1;
                seen.keyed += u64::from(names.key.is_some());
                find(sketches.keys.as_ref(), names.key, &mut seen.keys);
                find(sketches.contents.as_ref(), Some(names.content), &mut seen.contents);
            }
        }
        Ok(seen)
    }

    fn reduce(self, comm: &dyn Communicator) -> Result<TrainingOverlap> {
        let TrainingOverlap { keys: [a, b], contents: [c, d], events, keyed, rows } = self;
        let mut words = [a, b, c, d, events, keyed, rows].map(|n| n as i64);
        comm.all_reduce_sum(&mut words)?;
        let [a, b, c, d, events, keyed, rows] = words.map(|n| n as u64);
        Ok(TrainingOverlap { keys: [a, b], contents: [c, d], events, keyed, rows })
    }

    /// Returns a warning where the events are those of training, and refuses them where their
    /// part of the split cannot be found.
    fn warning(
        &self,
        sketches: &ModelSketches,
        source: &Source,
        is_chosen: bool,
    ) -> Result<Option<String>> {
        let by_key = exceeds(self.keys, 0.0);
        let by_content = exceeds(self.contents, repeats(sketches.contents.as_ref()));
        let path = source.path.display();
        let whole = source.rows as f64 / self.rows.max(1) as f64;
        let about = |[all, found]: [u64; 2]| {
            let share = found as f64 / all.max(1) as f64;
            (share * self.events as f64 * whole).round()
        };
        let events = (self.events as f64 * whole).round();
        let split = if is_chosen {
            "--part takes events that training has used: the figures are too good"
        } else {
            "only the test part of its split is evaluated; --part all evaluates all"
        };
        // Training events under other keys would be evaluated with the test part.
        if by_content && self.keyed > 0 && about(self.contents) > 2.0 * about(self.keys) + 10.0 {
            return Err(refused(source, about(self.contents), events));
        }
        if by_key {
            let how = if by_content {
                "are training events, in a file with another hash"
            } else {
                "have the keys of training events and other values: other processing of the same \
                 showers, or another production with the same numbers"
            };
            let found = about(self.keys);
            return Ok(Some(format!("{path}: {found} of {events} events {how}; {split}")));
        }
        if !by_content {
            return Ok(None);
        }
        let found = about(self.contents);
        // The split is by content where there are no keys.
        if self.keyed == 0 && sketches.keys.is_none() {
            let how = "are training events, in a file with another hash";
            return Ok(Some(format!("{path}: {found} of {events} events {how}; {split}")));
        }
        Err(refused(source, found, events))
    }
}

fn refused(source: &Source, found: f64, events: f64) -> Error {
    Fault::new("the model was trained on events of this file")
        .file(&source.path)
        .expected("events that it has not seen, or keys by which its test part can be found")
        .found(format!("{found} of {events} events with the values of training events, under other keys or in the other class"))
        .advice("evaluate the files of the training, whose test part is known; --part all evaluates all")
        .input()
}

/// Looks up a name that the sketch keeps.
fn find(sketch: Option<&Sketch>, name: Option<Name>, [all, found]: &mut [u64; 2]) {
    let Some((sketch, name)) = sketch.zip(name) else { return };
    if sketch.shape.keeps(name) {
        *all += 1;
        *found += u64::from(sketch.contains(name));
    }
}

/// Returns whether more names are found than by chance.
fn exceeds([all, found]: [u64; 2], repeats: f64) -> bool {
    found as f64 > (BY_CHANCE + 2.0 * repeats) * all as f64 + SOME
}

/// Returns the share of names that others of the training have too: of few or coarse
/// features, other events have them as well.
fn repeats(sketch: Option<&Sketch>) -> f64 {
    let share = |s: &Sketch| (1.0 - s.distinct() / s.names as f64).max(0.0);
    sketch.map_or(0.0, share)
}
