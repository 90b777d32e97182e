//! Plan of a scoring: the quantities to read, the values to compute and the columns to write. It is
//! the same for all files.

mod columns;
mod quantities;
mod rows;
mod settings;
mod thresholds;

pub(crate) use quantities::QuantityRequest;
pub(crate) use rows::ScoredRows;

use super::energy::EnergyTable;
use crate::config::{Score, ScoreColumn, WorkingPoint};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues};
use crate::data::selection::{Selection, SelectionOutcome, Which};
use crate::data::table::Block;
use crate::engine::{
    AssumedPositions, ExtraOutputs, ImageColumns, PositionColumns, Preparation, Scorer,
};
use crate::error::{Fault, Result};
use crate::hillas::GEOMETRY;
use crate::model::Card;
use crate::statistics::{Bounds, Calibration, LikenessTally};
use quantities::{OF_THE_SOURCE, QuantitySlots, copied_name, refuse_of_position};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use thresholds::{ThresholdBins, working_points};

/// Plan that all files of a scoring share.
#[derive(Debug, Clone)]
pub(crate) struct ScoringPlan {
    pub card: Card,
    /// Quantities in the order of `Block::quantities`, those of the model's selection first. `None`
    /// for quantities that are computed at each position.
    pub wanted: Vec<Option<QuantityRequest>>,
    pub positions: Option<AtPositions>,
    pub keys: bool,
    pub quality: Vec<QualityCut>,
    /// Working points; without a threshold, those of the model's bins apply.
    pub working_points: Vec<WorkingPoint>,
    bins: Option<ThresholdBins>,
    energy: Option<EnergySlots>,
    copy: Vec<(usize, String)>,
    columns: Vec<(ScoreColumn, usize, String)>, // which flow's, and its name
    status: bool,
    p_value: bool, // whether anything needs it
    /// Attribute `settings` of the outputs, which `season` compares.
    pub settings_text: String,
    /// Bounds of the training events, if the model card has them.
    bounds: Option<Bounds>,
}

/// Energy table with the slots of size and dist; `dist` is computed where positions are given.
type EnergySlots = (EnergyTable, usize, Option<usize>);

/// Slots of the columns that source positions need.
#[derive(Debug, Clone)]
pub(crate) struct AtPositions {
    pub angles: Vec<f64>, // [deg]
    positions: AssumedPositions,
    pub geometry: [usize; 5],
    shape: Option<[usize; 3]>,
    skewness: Option<usize>,
    /// `dist` and `alpha` of the file, which are compared with the computed ones.
    pub own: [usize; 2],
}

/// Bit of `quality`: a cut and the slots of its quantities.
#[derive(Debug, Clone)]
pub(crate) struct QualityCut {
    pub name: String,
    selection: Selection,
    slots: Vec<usize>,
}

impl ScoringPlan {
    /// Creates the plan of a configuration and a model; returns it with the scorer prepared for it.
    ///
    /// # Errors
    /// `Usage` if the model cannot compute what the configuration requests.
    pub(crate) fn new(score: &Score, scorer: Scorer) -> Result<(ScoringPlan, Scorer)> {
        score.validate()?;
        let working_points = working_points(score, &scorer.card)?;
        let pass = score.columns.contains(&ScoreColumn::Pass);
        let by_bins = pass && working_points.iter().any(|point| point.threshold.is_none());
        let bins = scorer.card.thresholds.as_ref().filter(|_| by_bins);
        let bins = bins.map(ThresholdBins::of).transpose()?;
        let bins_need =
            |name: &str| bins.iter().flat_map(ThresholdBins::quantities).any(|known| known == name);
        let applied = if pass { working_points.as_slice() } else { &[] };
        let uses = |column: ScoreColumn| {
            score.columns.contains(&column) || applied.iter().any(|point| point.column == column)
        };
        let uses_p_value = uses(ScoreColumn::PValue);
        let more =
            ExtraOutputs { raw: uses(ScoreColumn::LogProbRaw), chi2: uses(ScoreColumn::Chi2) };
        let mut scorer = scorer.with(more);
        if score.positions.is_some() {
            scorer = scorer.at_positions();
        }
        let mut slots = QuantitySlots { wanted: model_quantities(score, scorer.selection())? };
        let needs = |name: &str| {
            bins_need(name) || scorer.selection().quantities().iter().any(|known| known == name)
        };
        let positions = score.positions.as_ref().map(|given| {
            let theta2 = uses(ScoreColumn::Theta2) || needs("theta2");
            let assumed = AssumedPositions::new(given, score.disp, theta2, needs("skewness"));
            AtPositions::new(given.angles(), assumed, &mut slots)
        });
        let bins = bins.map(|bins| bins.placed(&mut slots, positions.is_some())).transpose()?;
        let quality = quality_cuts(score, &mut slots)?;
        let energy = energy_slots(score, &mut slots)?;
        let copy = score.copy.iter().map(|name| (slots.add(&[name], true), copied_name(name)));
        let copy = copy.collect();
        let table = energy.as_ref().map(|(table, ..)| table.blake3.as_str());
        let settings_text = settings::settings_text(score, table);
        let calibrated = scorer.card.calibration.is_some();
        let columns = columns::columns(score, &scorer, calibrated)?;
        let plan = ScoringPlan {
            card: scorer.card.clone(),
            wanted: slots.wanted,
            positions,
            keys: score.keys,
            quality,
            working_points,
            bins,
            energy,
            copy,
            columns,
            status: score.status,
            p_value: uses_p_value,
            settings_text,
            bounds: scorer.bounds(None),
        };
        plan.refuse_names_twice()?;
        Ok((plan, scorer))
    }

    /// Returns the number of positions per row.
    pub(crate) fn width(&self) -> usize {
        self.positions.as_ref().map_or(1, |p| p.positions.count())
    }

    /// Returns the columns of the output of a file with these keys.
    pub(crate) fn specs(&self, keys: &[String], class: bool) -> Vec<ColumnSpec> {
        let positions = self.positions.as_ref().map(|p| p.positions.count());
        let mut specs: Vec<ColumnSpec> =
            keys.iter().map(|k| ColumnSpec::new(k, ColumnType::I64, None)).collect();
        if class {
            specs.push(ColumnSpec::new("class", ColumnType::I8, None));
        }
        specs.extend(self.copy.iter().map(|(slot, name)| {
            let unit = self.unit(*slot);
            ColumnSpec::new(name, ColumnType::F32, unit)
        }));
        if self.energy.is_some() {
            specs.push(
                ColumnSpec::new("energy", ColumnType::F32, Some("TeV")).at_positions(positions),
            );
        }
        if !self.quality.is_empty() {
            specs.push(ColumnSpec::new("quality", ColumnType::U32, None));
        }
        specs.extend(self.columns.iter().map(|(column, _, name)| {
            let (kind, unit) = columns::kind_and_unit(*column);
            ColumnSpec::new(name, kind, unit).at_positions(positions)
        }));
        if self.status {
            specs.push(ColumnSpec::new("status", ColumnType::U32, None).at_positions(positions));
        }
        specs
    }

    /// Returns the values of the columns, in the order of [`ScoringPlan::specs`].
    pub(crate) fn values<'a>(&self, rows: &'a ScoredRows, class: bool) -> Vec<ColumnValues<'a>> {
        let mut values: Vec<ColumnValues> =
            rows.block.keys.iter().map(|k| ColumnValues::I64(k)).collect();
        if let (true, Some(class)) = (class, &rows.block.class) {
            values.push(ColumnValues::I8(class));
        }
        values.extend(
            self.copy.iter().map(|(slot, _)| ColumnValues::F32(&rows.block.quantities[*slot])),
        );
        if self.energy.is_some() {
            values.push(ColumnValues::F32(&rows.energy));
        }
        if !self.quality.is_empty() {
            values.push(ColumnValues::U32(&rows.quality));
        }
        for (column, flow, _) in &self.columns {
            values.push(match column {
                ScoreColumn::Pass => ColumnValues::U8(&rows.pass),
                column => ColumnValues::F32(rows.figure(*column, *flow)),
            });
        }
        if self.status {
            values.push(ColumnValues::U32(&rows.scored.status));
        }
        values
    }

    /// Returns the least and the largest number of bytes of a row in an output. At best,
    /// compression halves a computed number and removes the keys.
    pub(crate) fn row_bytes(&self, text: bool) -> [u64; 2] {
        let keys = ["run_id", "event_id"].map(str::to_string);
        let specs = self.specs(if self.keys { &keys } else { &[] }, self.keys);
        let one = |spec: &ColumnSpec| {
            let [low, high] = match (text, spec.kind) {
                (false, ColumnType::F32) => [2, 4],
                (false, kind) => [0, kind.bytes()],
                (true, ColumnType::F32) => [4, 14],
                (true, _) => [2, 20],
            };
            [low, high].map(|bytes| bytes * spec.width() as u64)
        };
        specs.iter().map(one).fold([0, 0], |sum, b| [sum[0] + b[0], sum[1] + b[1]])
    }

    /// Prepares the block in `rows` for the engine: positions, coordinates, cuts and quality.
    pub(crate) fn prepare(&self, preparation: &Preparation, rows: &mut ScoredRows) {
        let ScoredRows { block, seen, prepared, .. } = rows;
        match &self.positions {
            None => preparation.prepare(block, prepared),
            Some(at) => {
                at.compute(block, seen);
                preparation.prepare_all(block, seen, prepared);
            }
        }
        self.apply_quality_cuts(rows);
    }

    /// Adds the rows at the first position to a comparison with the training events.
    pub(crate) fn compare(&self, rows: &ScoredRows, tally: &mut LikenessTally) {
        let Some(bounds) = &self.bounds else { return };
        for row in (0..rows.block.rows).filter(|row| rows.scored.status[*row] == 0) {
            let log_prob = rows.scored.log_prob.iter().map(|flow| flow[row]);
            tally.add(bounds, rows.prepared.row(row), log_prob);
        }
    }

    /// Returns how the rows of a file differ from the training events, if they do.
    pub(crate) fn describe_difference(&self, tally: &LikenessTally) -> Option<String> {
        tally.describe(self.bounds.as_ref()?)
    }

    /// Computes scores, energies, p-values and working points of prepared rows.
    pub(crate) fn score(&self, scorer: &Scorer, rows: &mut ScoredRows) -> Result<()> {
        scorer.score_prepared(&mut rows.prepared, &mut rows.scored)?;
        self.look_up_energy(rows);
        if let (Some(normals), true) = (&self.card.normals, self.p_value) {
            let scores = rows.scored.score.par_iter().with_min_len(4096);
            scores
                .map(|s| normals.p_value(f64::from(*s)) as f32)
                .collect_into_vec(&mut rows.p_value);
        }
        if let Some(bins) = &self.bins {
            bins.find(rows);
        }
        self.apply_working_points(rows);
        Ok(())
    }

    fn apply_quality_cuts(&self, rows: &mut ScoredRows) {
        rows.quality.clear();
        rows.quality.resize(if self.quality.is_empty() { 0 } else { rows.block.rows }, 0);
        let mut outcome = SelectionOutcome::default();
        for (bit, quality) in self.quality.iter().enumerate() {
            let columns: Vec<&[f32]> =
                quality.slots.iter().map(|slot| rows.block.quantities[*slot].as_slice()).collect();
            quality.selection.evaluate(Which::All, &columns, 0..rows.block.rows, &mut outcome);
            for (mask, status) in rows.quality.iter_mut().zip(&outcome.status) {
                *mask |= u32::from(*status != 0) << bit;
            }
        }
    }

    /// Looks up the energy of every row at each position, by the `dist` from that position.
    fn look_up_energy(&self, rows: &mut ScoredRows) {
        let Some((table, size, own_dist)) = &self.energy else { return };
        let ScoredRows { block, seen, energy, .. } = rows;
        let size = &block.quantities[*size];
        energy.resize(self.width() * block.rows, f32::NAN);
        for (k, energy) in energy.chunks_mut(block.rows.max(1)).enumerate() {
            let dist = match own_dist {
                Some(slot) => block.quantities[*slot].as_slice(),
                None => seen.column(0, k),
            };
            let looked_up = size.par_iter().zip(dist).zip(energy).with_min_len(4096);
            looked_up.for_each(|((size, dist), energy)| {
                *energy = table.energy(f64::from(*size), f64::from(*dist)) as f32;
            });
        }
    }

    fn apply_working_points(&self, rows: &mut ScoredRows) {
        let wanted = self.columns.iter().any(|(column, ..)| *column == ScoreColumn::Pass);
        let mut pass = std::mem::take(&mut rows.pass);
        pass.clear();
        pass.resize(if wanted { rows.scored.status.len() } else { 0 }, 0);
        for (bit, point) in self.working_points.iter().enumerate().filter(|_| wanted) {
            // Thresholds are f64 in all commands.
            let own = |event: usize| match &self.card.thresholds {
                Some(thresholds) => thresholds.of(rows.bin[event]),
                None => f64::INFINITY,
            };
            let figures = rows.figure(point.column, 0).iter().zip(&rows.scored.status);
            for (event, (mask, (figure, status))) in pass.iter_mut().zip(figures).enumerate() {
                let threshold = point.threshold.unwrap_or_else(|| own(event));
                let passed = *status == 0 && f64::from(*figure) >= threshold;
                *mask |= u8::from(passed) << bit;
            }
        }
        rows.pass = pass;
    }

    /// Refuses two columns with the same name: a copied quantity may have the name of a score.
    fn refuse_names_twice(&self) -> Result<()> {
        let specs = self.specs(&[], true);
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.name == spec.name) {
                return Err(Fault::new("two columns of the output have the same name")
                    .column(&spec.name)
                    .advice("leave it out of score.copy or of score.columns")
                    .usage());
            }
        }
        Ok(())
    }

    fn unit(&self, slot: usize) -> Option<&'static str> {
        let wanted = self.wanted[slot].as_ref()?;
        crate::data::schema::canonical_unit(&wanted.names[0])
    }

    /// Returns the attribute `working_points` of the outputs.
    pub(crate) fn working_points_text(&self) -> String {
        let points = self.working_points.iter().map(|point| {
            let mut entry =
                json!({"name": point.name, "threshold": point.threshold, "column": point.column});
            let own = self.card.thresholds.as_ref().filter(|_| point.threshold.is_none());
            if let (Some(own), Some(entry)) = (own, entry.as_object_mut()) {
                entry.insert("per".into(), json!(own.per));
                entry.insert("edges".into(), json!(own.edges));
                let thresholds: Vec<f64> = own.bins.iter().map(|bin| bin.threshold).collect();
                entry.insert("thresholds".into(), json!(thresholds));
            }
            entry
        });
        json!(points.collect::<Vec<_>>()).to_string()
    }

    /// Returns the calibration, if the output has probabilities.
    pub(crate) fn written_calibration(&self) -> Option<&Calibration> {
        let calibrated = [ScoreColumn::Gammaness, ScoreColumn::Posterior];
        let written = self.columns.iter().any(|(column, ..)| calibrated.contains(column));
        self.card.calibration.as_ref().filter(|_| written)
    }

    /// Returns the blake3 of the energy table, which is not part of the configuration.
    pub(crate) fn energy_blake3(&self) -> &str {
        self.energy.as_ref().map_or("", |(table, ..)| &table.blake3)
    }

    /// Returns the attribute `quality_bits` of the outputs.
    pub(crate) fn quality_text(&self) -> String {
        json!(self.quality.iter().map(|q| &q.name).collect::<Vec<_>>()).to_string()
    }
}

/// Returns the quantities of the model's selection, `None` for those that are computed at each
/// position.
///
/// # Errors
/// `Usage` if positions are configured and a quantity is known at the position of the file only.
fn model_quantities(score: &Score, selection: &Selection) -> Result<Vec<Option<QuantityRequest>>> {
    let mut wanted = Vec::new();
    for (name, varying) in selection.quantities().iter().zip(selection.varying()) {
        if score.positions.is_some() && OF_THE_SOURCE.contains(&name.as_str()) {
            return Err(Fault::new(
                "the model needs a quantity that is known at the file's source position only",
            )
            .column(name)
            .advice("score without [score] positions, or train without it")
            .usage());
        }
        wanted
            .push((!varying).then(|| QuantityRequest { names: vec![name.clone()], needed: true }));
    }
    Ok(wanted)
}

/// Returns the cuts of `[score.quality]`, and adds their quantities to the slots.
fn quality_cuts(score: &Score, slots: &mut QuantitySlots) -> Result<Vec<QualityCut>> {
    let mut quality = Vec::new();
    for (name, cut) in &score.quality {
        let selection = Selection::new(&[], &BTreeMap::from([(name.clone(), cut.clone())]))?;
        refuse_of_position(score, selection.quantities(), "[score.quality]")?;
        let slots = selection.quantities().iter().map(|q| slots.add(&[q], true)).collect();
        quality.push(QualityCut { name: name.clone(), selection, slots });
    }
    Ok(quality)
}

/// Loads the energy table, if one is given, and adds its quantities to the slots.
fn energy_slots(score: &Score, slots: &mut QuantitySlots) -> Result<Option<EnergySlots>> {
    let Some(path) = &score.energy_table else { return Ok(None) };
    let dist = score.positions.is_none().then(|| slots.add(&["dist"], true));
    Ok(Some((EnergyTable::load(path)?, slots.add(&["size"], true), dist)))
}

impl AtPositions {
    /// Adds the quantities that the positions at these angles [deg] need to the slots.
    fn new(
        angles: Vec<f64>,
        positions: AssumedPositions,
        slots: &mut QuantitySlots,
    ) -> AtPositions {
        let shape = positions.needs_shape();
        AtPositions {
            angles,
            geometry: GEOMETRY.map(|names| slots.add(names, true)),
            shape: shape.then(|| ["size", "width", "length"].map(|name| slots.add(&[name], true))),
            skewness: positions.needs_skewness().then(|| slots.add(&["skewness"], true)),
            own: ["dist", "alpha"].map(|name| slots.add(&[name], false)),
            positions,
        }
    }

    /// Computes the columns of a block at all positions.
    fn compute(&self, block: &Block, seen: &mut PositionColumns) {
        let column = |slot: usize| block.quantities[slot].as_slice();
        let [x, y, axis, source_x, source_y] = self.geometry.map(column);
        let images = ImageColumns {
            centroid: [x, y],
            axis,
            source: [source_x, source_y],
            shape: self.shape.map_or([&[]; 3], |slots| slots.map(column)),
            skewness: self.skewness.map_or(&[], column),
        };
        self.positions.compute(&images, seen);
    }
}
