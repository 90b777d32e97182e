//! Holds the training events of one rank in memory: its logical shards, scaled.
//!
//! A rank reads only the rows of its shards. It keeps the usable events of the normal class by
//! part, and counts every other row with its reason.

pub(crate) use super::event_rows::EventRows;
pub use super::gathered::Gathered;
pub(crate) use super::opened_source::OpenedSource;
use super::opened_source::Viewed;
pub(crate) use super::opened_source::{class_of, names_of, open_columns, part};
pub(crate) use super::row_counts::{RowCounts, check_budget};
use super::sketch::{self, Sketches};
use super::source::{RowUse, Source, request};
use crate::comm::{Communicator, Work, gather_slots};
use crate::config::{Class, Transform};
use crate::data::schema::features::{self, Moments, ScaledFeature};
use crate::data::selection::shards::{Dealing, epoch_order, step_range};
use crate::data::selection::split::{Part, Splitter};
use crate::data::selection::{Selection, SelectionOutcome, Which};
use crate::data::table::{Block, Request};
use crate::error::{Fault, Result};
use crate::statistics::WeightSum;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use taiga_flow_gpu::random::Stream;

/// Most rows read at a time.
const WINDOW: u64 = 65_536;

/// Conditions on every row, and the seed of its noise.
#[derive(Debug, Clone)]
pub struct RowSelection<'a> {
    pub selection: &'a Selection,
    pub splitter: &'a Splitter,
    /// Key columns of a shower; `None` for those of the schema.
    pub key: Option<&'a [String]>,
    /// The class that is kept; rows of the other class are counted and left out.
    pub class: Class,
    pub dealing: Dealing,
    /// Seed of the dequantisation.
    pub seed: u64,
    /// Size of the sketches of the events; `None` without sketches.
    pub sketched: Option<sketch::SketchShape>,
}

impl RowSelection<'_> {
    /// Returns the columns to read of a source.
    fn request(&self, source: &Source) -> Request {
        request(source, self.selection, self.key)
    }
}

/// The events of one logical shard, by part.
#[derive(Debug, Clone)]
pub struct Shard {
    pub id: u64,
    pub train: EventRows,
    pub validation: EventRows,
    pub calibration: EventRows,
}

/// The shards of one rank.
#[derive(Debug, Clone)]
pub struct EventStore {
    pub shards: Vec<Shard>, // ascending id
    pub features: usize,
    /// Sketches of the events of this rank, except for files with a view.
    pub sketches: Option<Sketches>,
    signed: Vec<usize>,
}

impl EventStore {
    /// Reads the shards of this rank; features are quantities, not yet scaled.
    ///
    /// # Errors
    /// Those of opening and reading the files.
    pub fn load(
        comm: &dyn Communicator,
        sources: &[Source],
        row_selection: &RowSelection,
    ) -> Result<(EventStore, RowCounts)> {
        let features = row_selection.selection.features().len();
        let (rank, ranks) = (comm.rank() as u64, comm.size() as u64);
        let empty = EventRows::new(features);
        let shards = (0..row_selection.dealing.shards())
            .filter(|s| s % ranks == rank)
            .map(|id| Shard {
                id,
                train: empty.clone(),
                validation: empty.clone(),
                calibration: empty.clone(),
            })
            .collect();
        let signed = row_selection.selection.features().iter().enumerate();
        let signed =
            signed.filter(|(_, f)| f.transform == Transform::Signed).map(|(d, _)| d).collect();
        let sketches = row_selection.sketched.map(Sketches::new);
        let mut store = EventStore { shards, features, sketches, signed };
        let mut counts = RowCounts::default();
        let mut first = 0;
        for source in sources {
            store.load_file(comm, source, first, row_selection, &mut counts)?;
            first += source.rows;
        }
        Ok((store, counts))
    }

    fn load_file(
        &mut self,
        comm: &dyn Communicator,
        source: &Source,
        first: u64,
        row_selection: &RowSelection,
        counts: &mut RowCounts,
    ) -> Result<()> {
        let (rank, ranks) = (comm.rank() as u64, comm.size() as u64);
        let file = first..first + source.rows;
        let pieces: Vec<(u64, Range<u64>)> = row_selection
            .dealing
            .pieces(rank, ranks)
            .map(|(shard, rows)| (shard, rows.start.max(file.start)..rows.end.min(file.end)))
            .filter(|(_, rows)| !rows.is_empty())
            .collect();
        if pieces.is_empty() {
            return Ok(());
        }
        if source.class.is_some_and(|class| class != row_selection.class) {
            let rows: u64 = pieces.iter().map(|(_, rows)| rows.end - rows.start).sum();
            counts.read += rows;
            counts.other_class += rows;
            return Ok(());
        }
        let mut opened = OpenedSource::open(source, row_selection.request(source))?;
        let mut block = Block::default();
        let mut next = 0;
        while next < pieces.len() {
            let start = pieces[next].1.start;
            let window = pieces[next..]
                .iter()
                .take_while(|(_, rows)| rows.end - start <= WINDOW)
                .count()
                .max(1);
            let group = &pieces[next..next + window];
            let end = group[window - 1].1.end;
            comm.progress(Work::Reading, start);
            let notes = opened.read(start - first..end - first, start, &mut block)?;
            let seen = Viewed { opened: &opened, notes: &notes };
            for (shard, rows) in group {
                let local = (rows.start - start) as usize..(rows.end - start) as usize;
                self.take(&seen, row_selection, &block, *shard / ranks, local, start, counts)
                    .map_err(|e| e.in_file(&source.path))?;
            }
            next += window;
        }
        Ok(())
    }

    /// Adds rows of a block to the parts of one shard.
    #[allow(clippy::too_many_arguments)] // one call, one loop
    fn take(
        &mut self,
        seen: &Viewed,
        row_selection: &RowSelection,
        block: &Block,
        slot: u64,
        rows: Range<usize>,
        first: u64,
        counts: &mut RowCounts,
    ) -> Result<()> {
        let noise = Stream::new(row_selection.seed, "dequantise", &[]);
        let features = self.features as u64;
        let shard = &mut self.shards[slot as usize];
        let columns: Vec<&[f32]> = block.quantities.iter().map(Vec::as_slice).collect();
        let mut outcome = SelectionOutcome::default();
        row_selection.selection.evaluate(Which::All, &columns, rows.clone(), &mut outcome);
        for (row, status) in rows.zip(outcome.status) {
            counts.read += 1;
            if class_of(seen.opened.source, block, row) != Some(row_selection.class.code()) {
                counts.other_class += 1;
                continue;
            }
            let row_use = seen.row_use(block, row, status == 0);
            if status != 0 {
                counts.add_unusable(status, || row_selection.selection.fails_cut(block, row));
                continue;
            }
            if row_use == RowUse::OnSource {
                counts.on_source += 1;
                continue;
            }
            let part = match row_use {
                RowUse::HeldOut => Part::Test,
                _ => part_of(row_selection, block, row),
            };
            let (count, rows) = match part {
                Part::Train => (&mut counts.train, &mut shard.train),
                Part::Validation => (&mut counts.validation, &mut shard.validation),
                Part::Calibration => (&mut counts.calibration, &mut shard.calibration),
                Part::Test => {
                    counts.test += 1;
                    continue;
                }
            };
            *count += 1;
            if let (Some(sketches), None) = (&mut self.sketches, &seen.opened.source.view) {
                let keyed = row_selection.key.is_some();
                let class = row_selection.class.code();
                sketches.insert(&names_of(row_selection.selection, block, row, class, keyed));
            }
            let number = first + row as u64;
            let uniform = |d: usize| noise.uniform(number * features + d as u64);
            rows.push_event(row_selection.selection, block, row, uniform)?;
            if row_selection.selection.has_bins() && part != Part::Train {
                let value = |column: usize| f64::from(block.quantities[column][row]);
                rows.bins.push(row_selection.selection.bin(value));
            }
        }
        Ok(())
    }

    /// Divides all weights by their mean over the training events of all shards, so that they do
    /// not change the length of a step. Returns the effective number of training events,
    /// (Σw)²/Σw² (Kish 1965); `None` if all weights are 1. A collective.
    pub(crate) fn normalise_weights(
        &mut self,
        comm: &dyn Communicator,
        shards: u64,
    ) -> Result<Option<f64>> {
        let mut slots = vec![None; 3 * shards as usize];
        for shard in &self.shards {
            let (sum, squares) = shard.train.weight_sums();
            let words = [sum, squares, shard.train.len() as f64];
            let at = 3 * shard.id as usize;
            slots[at..at + 3].iter_mut().zip(words).for_each(|(slot, w)| *slot = Some(w));
        }
        let weighted = self.shards.iter().any(|s| s.train.weights().is_some());
        let mut any = [i64::from(weighted)];
        comm.all_reduce_sum(&mut any)?;
        if any[0] == 0 {
            return Ok(None);
        }
        let mut total = [0.0; 3];
        for words in gather_slots(comm, &slots)?.chunks(3) {
            total.iter_mut().zip(words).for_each(|(t, w)| *t += w);
        }
        let [sum, squares, events] = total;
        if sum.is_nan() || sum <= 0.0 {
            return Err(Fault::new("all weights are 0")
                .expected("data.weight to give numbers above 0")
                .input());
        }
        let scale = events / sum;
        for shard in &mut self.shards {
            for rows in [&mut shard.train, &mut shard.validation, &mut shard.calibration] {
                rows.weights.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            }
        }
        Ok(Some(sum * sum / squares))
    }

    /// Returns the sums of the weights for validation and for calibration, over all ranks. A
    /// collective.
    pub(crate) fn held_out(&self, comm: &dyn Communicator, shards: u64) -> Result<[WeightSum; 2]> {
        const WORDS: usize = 6;
        let mut slots = vec![None; WORDS * shards as usize];
        for shard in &self.shards {
            let parts = [&shard.validation, &shard.calibration];
            let words = parts.iter().flat_map(|rows| {
                let (sum, squares) = rows.weight_sums();
                [rows.len() as f64, sum, squares]
            });
            let of_shard = &mut slots[WORDS * shard.id as usize..];
            of_shard.iter_mut().zip(words).for_each(|(slot, word)| *slot = Some(word));
        }
        let mut sums = [WeightSum::default(); 2];
        for words in gather_slots(comm, &slots)?.chunks_exact(WORDS) {
            for (sum, of_part) in sums.iter_mut().zip(words.as_chunks::<3>().0) {
                let [events, weight, squares] = *of_part;
                *sum = sum.plus(WeightSum { events: events as u64, weight, squares });
            }
        }
        Ok(sums)
    }

    /// Returns the moments of the coordinates of all training events, merged in the order of the
    /// shards, so that they do not depend on the ranks. A collective.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn moments(
        &self,
        comm: &dyn Communicator,
        row_selection: &RowSelection,
    ) -> Result<Moments> {
        let features = self.features;
        let width = 1 + 2 * features;
        let mut slots = vec![None; row_selection.dealing.shards() as usize * width];
        let partial: Vec<Moments> =
            self.shards.par_iter().map(|s| shard_moments(&s.train, row_selection)).collect();
        for (shard, m) in self.shards.iter().zip(partial) {
            let words = [&[m.count], &m.mean[..], &m.deviation[..]].concat();
            let at = shard.id as usize * width;
            slots[at..at + width].iter_mut().zip(words).for_each(|(slot, word)| *slot = Some(word));
        }
        let mut moments = Moments::new(features);
        for words in gather_slots(comm, &slots)?.chunks(width) {
            moments.merge(&Moments {
                count: words[0],
                mean: words[1..=features].to_vec(),
                deviation: words[1 + features..].to_vec(),
            });
        }
        Ok(moments)
    }

    /// Replaces quantities by scaled coordinates.
    pub fn scale(&mut self, scaler: &[ScaledFeature]) {
        self.shards.par_iter_mut().for_each(|shard| {
            for rows in [&mut shard.train, &mut shard.validation, &mut shard.calibration] {
                for row in rows.rows_mut() {
                    row.iter_mut().zip(scaler).for_each(|(x, feature)| *x = feature.scaled(*x));
                }
            }
        });
    }

    /// Copies the events of a step, shard after shard.
    pub fn gather(&self, seed: u64, epoch: u64, step: u64, steps: u64, events: &mut Gathered) {
        self.order(seed, epoch, step, steps, events);
        events.rows.resize(events.len() * self.features, 0.0);
        events.numbers.clear();
        events.flips.clear();
        let Gathered { rows, places, offsets, .. } = events;
        let mut rows = rows.as_mut_slice();
        let mut parts = Vec::with_capacity(self.shards.len());
        for (shard, range) in self.shards.iter().zip(offsets.windows(2)) {
            let (row, more) = rows.split_at_mut((range[1] - range[0]) * self.features);
            parts.push((shard, &places[range[0]..range[1]], row));
            rows = more;
        }
        parts.into_par_iter().for_each(|(shard, places, rows)| {
            let signs = Stream::new(seed, "sign", &[epoch, shard.id]);
            for (event, place) in rows.chunks_exact_mut(self.features).zip(places) {
                event.copy_from_slice(shard.train.get(*place as usize));
                let bits = signs.bits(*place);
                for (i, d) in self.signed.iter().enumerate() {
                    if bits >> i & 1 == 1 {
                        event[*d] = -event[*d];
                    }
                }
            }
        });
    }

    /// Writes the numbers of the events of a step, shard after shard, for an engine that has
    /// `train_rows` in its memory.
    pub(crate) fn name(&self, seed: u64, epoch: u64, step: u64, steps: u64, events: &mut Gathered) {
        self.order(seed, epoch, step, steps, events);
        events.rows.clear();
        events.numbers.clear();
        events.flips.clear();
        let mut before = 0;
        for (shard, range) in self.shards.iter().zip(events.offsets.windows(2)) {
            let places = &events.places[range[0]..range[1]];
            events.numbers.extend(places.iter().map(|place| (before + place) as u32));
            if !self.signed.is_empty() {
                let signs = Stream::new(seed, "sign", &[epoch, shard.id]);
                let flips = |place: &u64| {
                    let bits = signs.bits(*place);
                    let flip = |(i, d): (usize, &usize)| ((bits >> i & 1) as u32) << d;
                    self.signed.iter().enumerate().map(flip).sum::<u32>()
                };
                events.flips.extend(places.iter().map(flips));
            }
            before += shard.train.len() as u64;
        }
    }

    /// Returns all training events of this rank, shard after shard, in chunks (events, features).
    pub(crate) fn train_rows(&self) -> impl Iterator<Item = &[f32]> {
        self.shards.iter().flat_map(|s| s.train.chunks())
    }

    /// Returns the number of training events of this rank.
    pub(crate) fn train_len(&self) -> usize {
        self.shards.iter().map(|s| s.train.len()).sum()
    }

    /// Computes places and weights of the events of a step.
    fn order(&self, seed: u64, epoch: u64, step: u64, steps: u64, events: &mut Gathered) {
        let ranges: Vec<Range<u64>> =
            self.shards.iter().map(|s| step_range(s.train.len() as u64, step, steps)).collect();
        events.offsets.clear();
        events.offsets.push(0);
        for range in &ranges {
            let last = events.offsets[events.offsets.len() - 1];
            events.offsets.push(last + (range.end - range.start) as usize);
        }
        events.places.resize(events.offsets[events.offsets.len() - 1], 0);
        let mut places = events.places.as_mut_slice();
        let mut parts = Vec::with_capacity(ranges.len());
        for (shard, range) in self.shards.iter().zip(ranges) {
            let (place, more) = places.split_at_mut((range.end - range.start) as usize);
            parts.push((shard, range, place));
            places = more;
        }
        // All places come first, so that the reads of rows do not wait for each other.
        parts.into_par_iter().for_each(|(shard, positions, places)| {
            let order = epoch_order(shard.train.len() as u64, seed, epoch, shard.id);
            places.iter_mut().zip(positions).for_each(|(place, at)| *place = order.at(at));
        });
        self.gather_weights(events);
    }

    /// Returns files and rows of some training events, given as (shard of this rank, index in it).
    /// Reads the rows of these shards again.
    pub(crate) fn locate(
        comm: &dyn Communicator,
        sources: &[Source],
        row_selection: &RowSelection,
        wanted: &BTreeSet<(u64, u64)>,
    ) -> Result<BTreeMap<PathBuf, Vec<u64>>> {
        let ranks = comm.size() as u64;
        let mut found: BTreeMap<PathBuf, Vec<u64>> = BTreeMap::new();
        let mut events: BTreeMap<u64, u64> = BTreeMap::new(); // of each shard so far
        let mut first = 0;
        for source in sources {
            let file = first..first + source.rows;
            if source.class.is_some_and(|class| class != row_selection.class) {
                first = file.end;
                continue;
            }
            let mut opened = OpenedSource::open(source, row_selection.request(source))?;
            let mut block = Block::default();
            for (shard, rows) in row_selection.dealing.pieces(comm.rank() as u64, ranks) {
                let rows = rows.start.max(file.start)..rows.end.min(file.end);
                if rows.is_empty() || !wanted.iter().any(|(s, _)| *s == shard) {
                    continue;
                }
                comm.progress(Work::Reading, rows.start);
                let local = rows.start - first..rows.end - first;
                let notes = opened.read(local, rows.start, &mut block)?;
                let seen = Viewed { opened: &opened, notes: &notes };
                let (mut piece, _) = EventStore::load(comm, &[], row_selection)?;
                let before = events.entry(shard).or_default();
                for row in 0..block.rows {
                    let mut counts = RowCounts::default();
                    let (slot, start) = (shard / ranks, rows.start);
                    piece.take(
                        &seen,
                        row_selection,
                        &block,
                        slot,
                        row..row + 1,
                        start,
                        &mut counts,
                    )?;
                    if counts.train == 1 && wanted.contains(&(shard, *before)) {
                        let row = rows.start - first + row as u64;
                        found.entry(source.path.clone()).or_default().push(row);
                    }
                    *before += counts.train;
                }
            }
            first = file.end;
        }
        Ok(found)
    }

    fn gather_weights(&self, events: &mut Gathered) {
        events.weights.clear();
        for (shard, range) in self.shards.iter().zip(events.offsets.windows(2)) {
            let Some(weights) = shard.train.weights() else { continue };
            let places = &events.places[range[0]..range[1]];
            events.weights.extend(places.iter().map(|place| weights[*place as usize]));
        }
    }
}

fn part_of(row_selection: &RowSelection, block: &Block, row: usize) -> Part {
    part(
        row_selection.splitter,
        row_selection.selection,
        block,
        row,
        row_selection.class.code(),
        row_selection.key.is_some(),
    )
}

fn shard_moments(rows: &EventRows, row_selection: &RowSelection) -> Moments {
    let features = row_selection.selection.features();
    let mut moments = Moments::new(features.len());
    let mut coordinates = vec![0.0; features.len()];
    for row in rows.rows() {
        for (d, feature) in features.iter().enumerate() {
            coordinates[d] = features::transform(feature, f64::from(row[d]));
        }
        moments.add(&coordinates);
    }
    moments
}
