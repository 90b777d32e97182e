//! Hadrons from experimental files: relative to an off-source position, without the events near the
//! source, and without the runs of one fold.
//!
//! If events are excluded by θ² at the source, the images that point to it are missing. Relative to
//! the source this is a hole at small alpha, which a flow would learn as a property of hadrons.
//! Relative to a different position it is spread out. So `alpha` and `dist` always refer to a
//! different position, at least 45 deg away. The rest of the hole is measured and checked.

use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::{Class, Config, MIN_ANGLE, NamedPositions, OffPositions, OffSource};
use crate::data::selection::Selection;
use crate::data::table::{Block, Request, Table};
use crate::dataset::source::{RowNote, RowTransform, RowUse, Source};
use crate::error::{Fault, Result};
use crate::hillas::{
    GEOMETRY, ImageAxis, LEAST_OFFSET_DEG, MOST_DIFFERENT, RelativePosition, Rotation, WITHIN_DEG,
    disp, theta2,
};
use crate::model::{Contamination, OffSourceCard};
use crate::statistics::Measured;
use std::collections::BTreeSet;
use std::sync::Mutex;
use taiga_flow_gpu::random::Stream;

const SHAPE: [&str; 3] = ["size", "width", "length"];
/// Quantities that are computed at the training position.
const COMPUTED: [&str; 3] = ["dist", "alpha", "theta2"];
/// Quantities that a file has for its own source position, or that change with the position.
const OF_THE_SOURCE: [&str; 5] = ["miss", "azwidth", "dist_anti", "alpha_anti", "skewness"];
/// Bins of alpha for the survival, of 10 deg.
const BINS: usize = 9;
/// Allowed difference of the survival in a bin from the mean, beyond five standard errors.
const MOST_RESIDUE: f64 = 0.1;
/// Positions at which nearby events are counted: the source, and positions without a source for
/// comparison.
const COUNTED: usize = 6;
/// Bits of a note after those of the counted positions.
const COMPARED_BIT: usize = COUNTED;
const DIFFERENT_BIT: usize = COUNTED + 1;
/// Limit of θ² [deg²] for the counts if no events are excluded.
const DEFAULT_THETA2: f64 = 0.1;
const MOST_RUNS: usize = 100_000;
/// Rows of each gamma file for the share of gammas near the source.
const GAMMA_ROWS: u64 = 262_144;
/// Share of gammas among the hadrons, minus three errors, above which a warning is logged, and
/// above which the files are refused.
const NOTABLE_GAMMAS: f64 = 0.05;
const MOST_GAMMAS: f64 = 0.5;
/// Share of gammas near the source that is assumed without gamma files.
const ASSUMED_INSIDE: f64 = 0.5;

/// Computes the quantities of experimental rows at off-source positions, and counts the rows.
#[derive(Debug)]
pub struct OffSourceTransform {
    settings: OffSource,
    seed: u64,
    counts: Mutex<OffSourceCounts>,
}

/// Counts of rows on this rank.
#[derive(Debug, Clone, Default)]
struct OffSourceCounts {
    kept: [u64; BINS],
    all: [u64; BINS],
    near: [u64; COUNTED],
    different: u64,
    compared: u64,
    used: u64, // before the cuts
    held_out: u64,
    runs: BTreeSet<i64>,
}

/// Indices of the columns of a request.
struct RequestSlots {
    geometry: [usize; 5],
    shape: [usize; 3],
    own: [Option<usize>; 2],
    run: usize,
}

impl OffSourceTransform {
    /// Creates the transformation; a quantity of the source position is an error.
    pub fn new(
        settings: OffSource,
        config: &Config,
        selection: &Selection,
    ) -> Result<OffSourceTransform> {
        if let Some(name) =
            selection.quantities().iter().find(|name| OF_THE_SOURCE.contains(&name.as_str()))
        {
            return Err(Fault::new("a quantity of the file's own source position")
                .column(name)
                .expected(
                    "with data.off: alpha, dist and theta2, which are computed off the source",
                )
                .advice("train without it")
                .usage());
        }
        Ok(OffSourceTransform { settings, seed: config.train.seed, counts: Mutex::default() })
    }

    /// Returns the limit of θ² [deg²] for the counts.
    fn theta2_limit(&self) -> f64 {
        let limit = self.settings.exclude_theta2;
        if limit > 0.0 { limit } else { DEFAULT_THETA2 }
    }

    /// Returns the rotation from the source to the training position of a row.
    fn turn(&self, row: u64) -> Rotation {
        let draw = Stream::new(self.seed, "off-source position", &[]);
        match &self.settings.positions {
            OffPositions::Equal(count) => {
                let others = *count as u64 - 1;
                Rotation::step(1 + (draw.bits(row) % others) as usize, *count)
            }
            OffPositions::Angles(angles) => {
                Rotation::degrees(angles[(draw.bits(row) % angles.len() as u64) as usize])
            }
            OffPositions::Named(NamedPositions::Random) => {
                let free = 360.0 - 2.0 * MIN_ANGLE;
                Rotation::degrees(MIN_ANGLE + free * draw.uniform(row))
            }
        }
    }

    /// Returns use and counts of a row, and its [`COMPUTED`] quantities; `number` is the row of the
    /// file.
    fn row(
        &self,
        slots: &RequestSlots,
        block: &Block,
        row: usize,
        number: u64,
    ) -> Result<(RowNote, [f64; 3])> {
        let value = |slot: usize| f64::from(block.quantities[slot][row]);
        let (geometry, shape) = (slots.geometry.map(value), slots.shape.map(value));
        let offset = libm::hypot(geometry[3], geometry[4]);
        if offset < LEAST_OFFSET_DEG {
            return Err(Fault::new(
                "the source is too close to the camera centre to be rotated about it",
            )
            .row(number)
            .expected(format!("an offset of at least {LEAST_OFFSET_DEG} deg"))
            .found(format!("{offset:.3} deg"))
            .advice("leave this run out of data.off")
            .input());
        }
        let run = block.keys[slots.run][row];
        let held_out =
            OffSourceCard::fold_of(self.seed, run, self.settings.folds) == self.settings.fold;
        let on = from(geometry, Rotation::step(0, 1));
        let row_use = if held_out {
            RowUse::HeldOut
        } else if theta2_of(&on, shape) < self.settings.exclude_theta2 {
            RowUse::OnSource
        } else {
            RowUse::Use
        };
        let mut bits = 0;
        for k in 0..COUNTED {
            let seen = from(geometry, Rotation::step(k, COUNTED));
            bits |= u32::from(theta2_of(&seen, shape) < self.theta2_limit()) << k;
        }
        let own = [on.dist, on.alpha()].into_iter().zip(slots.own);
        let differs = |(seen, own): (f64, Option<usize>)| {
            own.is_some_and(|own| (value(own) - seen).abs() > WITHIN_DEG)
        };
        bits |= u32::from(slots.own.iter().any(Option::is_some)) << COMPARED_BIT;
        bits |= u32::from(own.into_iter().any(differs)) << DIFFERENT_BIT;
        let at = from(geometry, self.turn(number));
        let values = [at.dist, at.alpha(), theta2_of(&at, shape)];
        Ok((RowNote { row_use, run, bits }, values))
    }

    fn with_counts<T>(&self, act: impl FnOnce(&mut OffSourceCounts) -> T) -> T {
        // A thread that panicked with the lock has ended the process.
        act(&mut self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Concludes from the counts of all ranks; unusable runs, geometry or survival are errors.
    pub fn conclude(&self, comm: &dyn Communicator, gammas: &[&Source]) -> Result<OffSourceCard> {
        let mine = self.with_counts(|counts| counts.clone());
        let all = mine.reduce(comm)?;
        let inside = sync_result(comm, self.share_inside(gammas))?;
        let card = mark_shared(self.check_counts(&all, inside))?;
        if is_root(comm) {
            OffSourceTransform::log_summary(&all, &card);
        }
        Ok(card)
    }

    /// Checks the counts of all ranks, and makes the card.
    fn check_counts(
        &self,
        all: &OffSourceCounts,
        inside: Option<[f64; 2]>,
    ) -> Result<OffSourceCard> {
        let off = &self.settings;
        if all.different as f64 > MOST_DIFFERENT * all.compared as f64 {
            return Err(Fault::new("dist and alpha do not match centroid, axis and source")
                .expected(format!("differences over {WITHIN_DEG} deg in at most 1 % of the rows"))
                .found(format!("{} of {} experimental rows", all.different, all.compared))
                .advice("units, axis or sign are wrong: look at the files with `taiga-flow check`")
                .input());
        }
        if all.runs.len() > MOST_RUNS {
            return Err(Fault::new("too many runs")
                .column(&off.run)
                .expected(format!("at most {MOST_RUNS} runs"))
                .found(all.runs.len())
                .advice("off_source.run must name the key of a run, not of an event")
                .input());
        }
        if all.held_out == 0 || all.runs.is_empty() {
            let runs = all.runs.len();
            let found = format!("{runs} run(s) to train on, {} events held out", all.held_out);
            return Err(Fault::new("too few runs for cross-fitting")
                .column(&off.run)
                .expected(format!("runs in fold {} of {} and in others", off.fold, off.folds))
                .found(found)
                .advice("give more runs, fewer off_source.folds, or name the key of a run in off_source.run")
                .input());
        }
        // Before the survival: gammas cause a hole in alpha at any position.
        let contamination = self.contamination(all, inside);
        refuse_gammas(contamination.share)?;
        all.check_survival()?;
        Ok(OffSourceCard {
            run: off.run.clone(),
            folds: off.folds,
            fold: off.fold,
            seed: self.seed,
            runs: all.runs.iter().copied().collect(),
            exclude_theta2: off.exclude_theta2,
            survival: (0..BINS).map(|bin| all.survival(bin)).collect(),
            contamination,
            comparison: None,
        })
    }

    /// Estimates the gammas among the events that are not excluded, before the cuts. Their number
    /// follows from the excess near the source over other positions, and from the share of gammas
    /// near the source; the rest is further away.
    fn contamination(&self, all: &OffSourceCounts, inside: Option<[f64; 2]>) -> Contamination {
        let near = all.near.map(|count| count as f64);
        let others = COUNTED as f64 - 1.0;
        let off: f64 = near[1..].iter().sum();
        let excess = near[0] - off / others;
        let error = (near[0] + off / (others * others)).sqrt();
        let [at_source, elsewhere] = inside.unwrap_or([ASSUMED_INSIDE, 0.0]);
        // If no events are excluded, all gammas are among the training events.
        let excluded = self.settings.exclude_theta2 > 0.0;
        let left = if excluded { 1.0 - at_source } else { 1.0 };
        let scale = left / (at_source - elsewhere) / all.used.max(1) as f64;
        Contamination {
            theta2: self.theta2_limit(),
            excess: Measured { value: excess, error },
            share_inside: inside.map(|shares| shares[0]),
            share: Measured { value: excess * scale, error: error * scale },
        }
    }

    /// Returns the shares of simulated gammas near the source, and near a different position;
    /// `None` if their files do not have the columns.
    fn share_inside(&self, gammas: &[&Source]) -> Result<Option<[f64; 2]>> {
        let (mut near, mut all) = ([0_u64; COUNTED], 0_u64);
        for source in gammas {
            let table = Table::open(&source.path, &source.schema)?;
            let known = table.quantities();
            let shape = SHAPE.each_ref().map(std::slice::from_ref);
            let wanted = GEOMETRY.into_iter().chain(shape);
            let named = |names: &[&'static str]| {
                names.iter().find(|name| known.contains(name)).map(|name| (*name).to_string())
            };
            let Some(quantities) = wanted.map(named).collect::<Option<Vec<String>>>() else {
                return Ok(None);
            };
            let mut reader = table.reader(&Request { quantities, ..Request::default() })?;
            let mut block = Block::default();
            reader.read(0..source.rows.min(GAMMA_ROWS), &mut block)?;
            for row in 0..block.rows {
                let value = |slot: usize| f64::from(block.quantities[slot][row]);
                let geometry = [0, 1, 2, 3, 4].map(value);
                let shape = [5, 6, 7].map(value);
                let theta2 = |k| theta2_of(&from(geometry, Rotation::step(k, COUNTED)), shape);
                all += u64::from(theta2(0).is_finite());
                let limit = self.theta2_limit();
                near.iter_mut().enumerate().for_each(|(k, n)| *n += u64::from(theta2(k) < limit));
            }
        }
        let share = |count: u64| count as f64 / all.max(1) as f64;
        let elsewhere = near[1..].iter().sum::<u64>();
        let shares = [share(near[0]), share(elsewhere) / (COUNTED as f64 - 1.0)];
        Ok((shares[0] > shares[1]).then_some(shares))
    }

    /// Logs the counts and the resulting card.
    fn log_summary(all: &OffSourceCounts, card: &OffSourceCard) {
        let of = &card.contamination;
        log::info!(
            "off the source: {} runs; those of fold {} of {} are kept for scoring ({} events)",
            card.runs.len(),
            card.fold,
            card.folds,
            all.held_out
        );
        let survival: Vec<String> = card
            .survival
            .iter()
            .map(|s| s.map_or("-".to_string(), |s| format!("{s:.3}")))
            .collect();
        log::info!("survival by alpha at the training position, in 10 deg: {}", survival.join(" "));
        let inside = match of.share_inside {
            Some(share) => format!("{share:.3} of the simulated gammas are within it"),
            None => "half of the gammas are assumed within it: the gamma files have no centroid, \
                     axis or source"
                .to_string(),
        };
        log::info!(
            "share of gammas among the training hadrons, before the cuts: {} (excess within θ² {} deg² of the source {}; {inside})",
            of.share,
            of.theta2,
            of.excess
        );
        if surely_above(of.share, NOTABLE_GAMMAS) {
            log::warn!(
                "share of gammas among the training hadrons: {}, more than {:.0} %; the model learns \
                 these gammas as hadrons: raise off_source.exclude_theta2, or leave out the runs of \
                 a strong source",
                of.share,
                100.0 * NOTABLE_GAMMAS
            );
        }
    }
}

/// Returns whether a value exceeds a limit by more than three errors.
fn surely_above(of: Measured, limit: f64) -> bool {
    of.value - 3.0 * of.error > limit
}

/// Returns an error if experimental files have more gammas than hadrons.
fn refuse_gammas(share: Measured) -> Result<()> {
    if !surely_above(share, MOST_GAMMAS) {
        return Ok(());
    }
    Err(Fault::new("most events of the experimental files are gammas of the source")
        .column("data.off")
        .expected(format!("a share of gammas below {MOST_GAMMAS}"))
        .found(share)
        .advice("list observed runs in data.off: gammas belong in data.gamma, simulated hadrons in data.hadron")
        .input())
}

impl RequestSlots {
    fn of(read: &Request) -> Result<RequestSlots> {
        let find = |names: &[&str]| {
            read.quantities.iter().rposition(|known| names.contains(&known.as_str()))
        };
        let needed = |names: &[&str]| {
            find(names).ok_or_else(|| Fault::new("missing column").column(names[0]).internal())
        };
        let [a, b, c, d, e] = GEOMETRY.map(needed);
        let [f, g, h] = SHAPE.map(|name| needed(&[name]));
        Ok(RequestSlots {
            geometry: [a?, b?, c?, d?, e?],
            shape: [f?, g?, h?],
            own: ["dist", "alpha"].map(|name| find(&[name])),
            run: read.keys.len() - 1,
        })
    }
}

impl RowTransform for OffSourceTransform {
    /// Requests all wanted quantities except computed ones, then geometry, shape and the quantities
    /// to compare. The run is the last key.
    fn request(&self, table: &Table, mut wanted: Request) -> Result<Request> {
        let known = table.quantities();
        wanted.quantities.retain(|name| !COMPUTED.contains(&name.as_str()));
        for names in GEOMETRY {
            let name = names.iter().find(|name| known.contains(name)).unwrap_or(&names[0]);
            if let Some(unit) = table.unit(name).filter(|unit| *unit != "deg") {
                return Err(Fault::new("source positions need degrees")
                    .file(table.path())
                    .column(*name)
                    .expected("deg")
                    .found(unit)
                    .advice("convert the column in a schema file (see configs/schema)")
                    .input());
            }
            wanted.quantities.push((*name).to_string());
        }
        wanted.quantities.extend(SHAPE.map(str::to_string));
        let own = ["dist", "alpha"].into_iter().filter(|name| known.contains(name));
        wanted.quantities.extend(own.map(str::to_string));
        wanted.keys.push(self.settings.run.clone());
        Ok(wanted)
    }

    fn apply(
        &self,
        read: &Request,
        wanted: &Request,
        first: u64,
        block: &mut Block,
    ) -> Result<Vec<RowNote>> {
        let slots = RequestSlots::of(read)?;
        let mut computed = [const { Vec::new() }; 3];
        let mut notes = Vec::with_capacity(block.rows);
        for row in 0..block.rows {
            let (note, values) = self.row(&slots, block, row, first + row as u64)?;
            computed.iter_mut().zip(values).for_each(|(c, x)| c.push(x as f32));
            notes.push(note);
        }
        block.keys.pop();
        let of_file = std::mem::take(&mut block.quantities);
        let computed = COMPUTED.iter().copied().zip(&computed);
        let read = read.quantities.iter().map(String::as_str).zip(&of_file);
        let all: Vec<(&str, &Vec<f32>)> = computed.chain(read).collect();
        let find = |name: &String| all.iter().find(|(known, _)| known == name);
        let column = |name| find(name).map_or(Vec::new(), |(_, values)| (*values).clone());
        block.quantities = wanted.quantities.iter().map(column).collect();
        Ok(notes)
    }

    fn observe(&self, wanted: &Request, block: &Block, row: usize, note: &RowNote, usable: bool) {
        let bit = |at: usize| u64::from(note.bits >> at & 1);
        let held_out = note.row_use == RowUse::HeldOut;
        let kept = u64::from(note.row_use == RowUse::Use);
        let alpha = wanted.quantities.iter().position(|name| name == "alpha");
        let alpha = alpha.map_or(0.0, |slot| f64::from(block.quantities[slot][row]));
        let bin = ((alpha / 10.0).max(0.0) as usize).min(BINS - 1);
        self.with_counts(|counts| {
            counts.compared += bit(COMPARED_BIT);
            counts.different += bit(DIFFERENT_BIT);
            if held_out {
                counts.held_out += u64::from(usable);
                return;
            }
            // A wrong key, with one value per event, is an error later; it must not fill the
            // memory.
            if counts.runs.len() <= MOST_RUNS {
                counts.runs.insert(note.run);
            }
            counts.used += kept;
            counts.near.iter_mut().enumerate().for_each(|(k, near)| *near += bit(k));
            if usable {
                counts.all[bin] += 1;
                counts.kept[bin] += kept;
            }
        });
    }
}

/// Returns the position of an image relative to its source, rotated about the camera centre;
/// `geometry` is centroid, axis and source [deg].
fn from([x, y, axis, source_x, source_y]: [f64; 5], turn: Rotation) -> RelativePosition {
    ImageAxis::from_degrees([x, y], axis).relative_to(turn.of([source_x, source_y]))
}

fn theta2_of(seen: &RelativePosition, [size, width, length]: [f64; 3]) -> f64 {
    theta2(seen, disp(size, width, length, seen.dist), None)
}

impl OffSourceCounts {
    const WORDS: usize = 2 * BINS + COUNTED + 4;

    fn words(&mut self) -> Vec<&mut u64> {
        let counts = self.kept.iter_mut().chain(&mut self.all).chain(&mut self.near);
        let more = [&mut self.different, &mut self.compared, &mut self.used, &mut self.held_out];
        counts.chain(more).collect()
    }

    /// Returns the share of events in a bin of alpha that were not excluded; `None` without events.
    fn survival(&self, bin: usize) -> Option<f64> {
        (self.all[bin] > 0).then(|| self.kept[bin] as f64 / self.all[bin] as f64)
    }

    /// Returns an error if the survival in a bin of alpha differs too much from the mean.
    fn check_survival(&self) -> Result<()> {
        let [kept, seen] = [&self.kept, &self.all].map(|counts| counts.iter().sum::<u64>() as f64);
        let mean = kept / seen;
        for (bin, found) in (0..BINS).filter_map(|bin| Some((bin, self.survival(bin)?))) {
            let error = (mean * (1.0 - mean) / self.all[bin] as f64).sqrt();
            let off_by = (found - mean).abs();
            if off_by > MOST_RESIDUE * mean && off_by > 5.0 * error {
                return Err(Fault::new("excluding events near the source causes a hole in alpha")
                    .expected(format!("survival within {MOST_RESIDUE} of its mean {mean:.3} in every bin of alpha"))
                    .found(format!("{found:.3} at {} to {} deg", 10 * bin, 10 * (bin + 1)))
                    .advice("lower off_source.exclude_theta2, or choose off_source.positions farther from the source")
                    .input());
            }
        }
        Ok(())
    }

    /// Sums the counts of all ranks.
    fn reduce(mut self, comm: &dyn Communicator) -> Result<OffSourceCounts> {
        let mut sums: Vec<i64> = self.words().into_iter().map(|word| *word as i64).collect();
        debug_assert_eq!(sums.len(), OffSourceCounts::WORDS);
        comm.all_reduce_sum(&mut sums)?;
        self.words().into_iter().zip(sums).for_each(|(word, sum)| *word = sum as u64);
        let mine: Vec<u8> = self.runs.iter().flat_map(|run| run.to_le_bytes()).collect();
        for bytes in comm.all_gather(&mine)? {
            self.runs.extend(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)));
        }
        Ok(self)
    }
}

/// Returns the files of a class.
pub fn of_class(sources: &[Source], class: Class) -> Vec<&Source> {
    sources.iter().filter(|source| source.class == Some(class)).collect()
}
