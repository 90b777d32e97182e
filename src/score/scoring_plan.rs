//! What is done with every row of every file: which quantities are read, what is computed
//! from them, and which columns come of it. The same for all files of a scoring.

use super::energy::EnergyTable;
use crate::config::{NO_BIN, Score, ScoreColumn, WorkingPoint};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues};
use crate::data::selection::{Selection, SelectionOutcome, Which};
use crate::data::table::Block;
use crate::engine::{
    AssumedPositions, ExtraOutputs, ImageColumns, OF_POSITION, PositionColumns, Preparation,
    Prepared, Scored, Scorer,
};
use crate::error::{Fault, Result};
use crate::hillas::GEOMETRY;
use crate::model::Card;
use crate::statistics::{BinnedThresholds, Bounds, Calibration, LikenessTally};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

/// Quantities of the source position of the file, which at another one would be wrong.
const OF_THE_SOURCE: [&str; 4] = ["miss", "azwidth", "dist_anti", "alpha_anti"];

/// A quantity that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityRequest {
    /// The first of these that a file has.
    pub names: Vec<String>,
    /// A file without it is refused; else the column stays empty.
    pub needed: bool,
}

/// All that is the same for every file.
#[derive(Debug, Clone)]
pub struct ScoringPlan {
    pub card: Card,
    /// In the order of `Block::quantities`; those of the model's selection come first, and
    /// `None` where they are computed at each position.
    pub wanted: Vec<Option<QuantityRequest>>,
    pub positions: Option<AtPositions>,
    pub keys: bool,
    pub quality: Vec<QualityCut>,
    /// The model's thresholds by bins stand where a threshold is absent.
    pub working_points: Vec<WorkingPoint>,
    bins: Option<ThresholdBins>,
    energy: Option<(EnergyTable, usize, Option<usize>)>, // with the slots of size and dist
    copy: Vec<(usize, String)>,
    columns: Vec<(ScoreColumn, usize, String)>, // which flow's, and its name
    status: bool,
    p_value: bool, // whether anything needs it
    /// What rows are compared with, where the model describes its training.
    bounds: Option<Bounds>,
}

/// Where the columns are that positions need.
#[derive(Debug, Clone)]
pub struct AtPositions {
    pub angles: Vec<f64>, // [deg]
    positions: AssumedPositions,
    pub geometry: [usize; 5],
    shape: Option<[usize; 3]>,
    skewness: Option<usize>,
    /// `dist` and `alpha` as the file has them, to be compared.
    pub own: [usize; 2],
}

/// Bins of the model's thresholds: where they find their quantities.
#[derive(Debug, Clone)]
struct ThresholdBins {
    selection: Selection,
    places: Vec<QuantityPlace>, // (quantities)
}

#[derive(Debug, Clone, Copy)]
enum QuantityPlace {
    Slot(usize),
    /// Of [`OF_POSITION`], at each position.
    Position(usize),
}

/// One bit of `quality`: where a cut finds its quantities.
#[derive(Debug, Clone)]
pub struct QualityCut {
    pub name: String,
    selection: Selection,
    slots: Vec<usize>,
}

/// All that is known of the rows of a block.
#[derive(Debug, Default)]
pub struct ScoredRows {
    pub block: Block,
    pub scored: Scored,
    prepared: Prepared,
    seen: PositionColumns,
    quality: Vec<u32>, // (rows)
    energy: Vec<f32>,  // (positions, rows), TeV
    p_value: Vec<f32>, // (positions, rows)
    bin: Vec<u16>,     // (positions, rows), where thresholds have bins
    pass: Vec<u8>,     // (positions, rows)
}

impl ScoringPlan {
    /// Of a model and a configuration; refuses what does not go together. Gives the scorer
    /// back, prepared for it.
    pub fn new(score: &Score, scorer: Scorer) -> Result<(ScoringPlan, Scorer)> {
        score.validate()?;
        let working_points = working_points(score, &scorer.card)?;
        let pass = score.columns.contains(&ScoreColumn::Pass);
        let by_bins = pass && working_points.iter().any(|point| point.threshold.is_none());
        let bins = scorer.card.thresholds.as_ref().filter(|_| by_bins);
        let bins = bins.map(ThresholdBins::of).transpose()?;
        let bins_need =
            |name: &str| bins.iter().flat_map(ThresholdBins::quantities).any(|known| known == name);
        let uses = |column: ScoreColumn| {
            let points = working_points.iter().filter(|_| pass);
            score.columns.contains(&column) || points.map(|p| p.column).any(|c| c == column)
        };
        let uses_p_value = uses(ScoreColumn::PValue);
        let more =
            ExtraOutputs { raw: uses(ScoreColumn::LogProbRaw), chi2: uses(ScoreColumn::Chi2) };
        let mut scorer = scorer.with(more);
        if score.positions.is_some() {
            scorer = scorer.at_positions();
        }
        let mut wanted = Vec::new();
        for (name, varying) in
            scorer.selection().quantities().iter().zip(scorer.selection().varying())
        {
            if score.positions.is_some() && OF_THE_SOURCE.contains(&name.as_str()) {
                return Err(Fault::new(
                    "the model needs a quantity that is known at the file's source position only",
                )
                .column(name)
                .advice("score without [score] positions, or train without it")
                .usage());
            }
            wanted.push(
                (!varying).then(|| QuantityRequest { names: vec![name.clone()], needed: true }),
            );
        }
        let mut slots = QuantitySlots { wanted };
        let positions = score.positions.as_ref().map(|given| {
            let theta2 = uses(ScoreColumn::Theta2)
                || bins_need("theta2")
                || scorer.selection().quantities().iter().any(|name| name == "theta2");
            let skewness = bins_need("skewness")
                || scorer.selection().quantities().iter().any(|name| name == "skewness");
            let positions = AssumedPositions::new(given, score.disp, theta2, skewness);
            AtPositions {
                angles: given.angles(),
                geometry: GEOMETRY.map(|names| slots.add(names, true)),
                shape: positions
                    .needs_shape()
                    .then(|| ["size", "width", "length"].map(|name| slots.add(&[name], true))),
                skewness: positions.needs_skewness().then(|| slots.add(&["skewness"], true)),
                own: ["dist", "alpha"].map(|name| slots.add(&[name], false)),
                positions,
            }
        });
        let bins = bins.map(|bins| bins.placed(&mut slots, positions.is_some())).transpose()?;
        let mut quality = Vec::new();
        for (name, cut) in &score.quality {
            let selection = Selection::new(&[], &BTreeMap::from([(name.clone(), cut.clone())]))?;
            refuse_of_position(score, selection.quantities(), "[score.quality]")?;
            let slots = selection.quantities().iter().map(|q| slots.add(&[q], true)).collect();
            quality.push(QualityCut { name: name.clone(), selection, slots });
        }
        let energy = match &score.energy_table {
            None => None,
            Some(path) => {
                let dist = score.positions.is_none().then(|| slots.add(&["dist"], true));
                Some((EnergyTable::load(path)?, slots.add(&["size"], true), dist))
            }
        };
        let copy = score.copy.iter().map(|name| (slots.add(&[name], true), copied_name(name)));
        let copy = copy.collect();
        let calibrated = scorer.card.calibration.is_some();
        let columns = columns(score, &scorer, calibrated)?;
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
            bounds: scorer.bounds(None),
        };
        plan.refuse_names_twice()?;
        Ok((plan, scorer))
    }

    /// Positions per row.
    pub fn width(&self) -> usize {
        self.positions.as_ref().map_or(1, |p| p.positions.count())
    }

    /// The columns of an output for a file with these keys.
    pub fn specs(&self, keys: &[String], class: bool) -> Vec<ColumnSpec> {
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
            let (kind, unit) = match column {
                ScoreColumn::Gammaness | ScoreColumn::Posterior | ScoreColumn::PValue => {
                    (ColumnType::F32, Some("1"))
                }
                ScoreColumn::Chi2 => (ColumnType::F32, Some("1")),
                ScoreColumn::Dist | ScoreColumn::Alpha => (ColumnType::F32, Some("deg")),
                ScoreColumn::Theta2 => (ColumnType::F32, Some("deg^2")),
                ScoreColumn::Pass => (ColumnType::U8, None),
                ScoreColumn::Score | ScoreColumn::LogProb | ScoreColumn::LogProbRaw => {
                    (ColumnType::F32, Some("nat"))
                }
            };
            ColumnSpec::new(name, kind, unit).at_positions(positions)
        }));
        if self.status {
            specs.push(ColumnSpec::new("status", ColumnType::U32, None).at_positions(positions));
        }
        specs
    }

    /// Their values, in the order of [`ScoringPlan::specs`].
    pub fn values<'a>(&self, rows: &'a ScoredRows, class: bool) -> Vec<ColumnValues<'a>> {
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

    /// Bytes of a row in an output, at the least (compression leaves half of a number that
    /// was computed, and nothing of keys) and at the most.
    pub fn row_bytes(&self, text: bool) -> [u64; 2] {
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

    /// What comes before the engine, of the block in `rows`.
    pub fn prepare(&self, preparation: &Preparation, rows: &mut ScoredRows) {
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
    pub fn compare(&self, rows: &ScoredRows, tally: &mut LikenessTally) {
        let Some(bounds) = &self.bounds else { return };
        for row in (0..rows.block.rows).filter(|row| rows.scored.status[*row] == 0) {
            let log_prob = rows.scored.log_prob.iter().map(|flow| flow[row]);
            tally.add(bounds, rows.prepared.row(row), log_prob);
        }
    }

    /// Describes how the rows of a file differ from those of the training, where they do.
    pub fn describe_difference(&self, tally: &LikenessTally) -> Option<String> {
        tally.describe(self.bounds.as_ref()?)
    }

    /// Everything else about prepared rows.
    pub fn score(&self, scorer: &Scorer, rows: &mut ScoredRows) -> Result<()> {
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
            // Thresholds are compared in f64, as everywhere else.
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

    /// Two columns of one name: a copied quantity may be called like a score.
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

    /// The attribute `working_points` of the outputs.
    pub fn working_points_text(&self) -> String {
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

    /// The calibration, where the file has probabilities.
    pub fn written_calibration(&self) -> Option<&Calibration> {
        let calibrated = [ScoreColumn::Gammaness, ScoreColumn::Posterior];
        let written = self.columns.iter().any(|(column, ..)| calibrated.contains(column));
        self.card.calibration.as_ref().filter(|_| written)
    }

    /// Of the energy table, which is no part of the configuration.
    pub fn energy_blake3(&self) -> &str {
        self.energy.as_ref().map_or("", |(table, ..)| &table.blake3)
    }

    /// The attribute `quality_bits` of the outputs.
    pub fn quality_text(&self) -> String {
        json!(self.quality.iter().map(|q| &q.name).collect::<Vec<_>>()).to_string()
    }
}

impl ScoredRows {
    /// `dist` and `alpha` at the first position.
    pub fn at_source(&self) -> [&[f32]; 2] {
        [0, 1].map(|which| self.seen.column(which, 0))
    }

    /// A column of numbers: (positions, rows).
    fn figure(&self, column: ScoreColumn, flow: usize) -> &[f32] {
        match column {
            ScoreColumn::Score => &self.scored.score,
            ScoreColumn::LogProb => &self.scored.log_prob[flow],
            ScoreColumn::LogProbRaw => &self.scored.log_prob_raw[flow],
            ScoreColumn::Gammaness => &self.scored.gammaness,
            ScoreColumn::Posterior => &self.scored.posterior,
            ScoreColumn::PValue => &self.p_value,
            ScoreColumn::Chi2 => &self.scored.chi2,
            ScoreColumn::Dist => &self.seen.dist,
            ScoreColumn::Alpha => &self.seen.alpha,
            ScoreColumn::Theta2 => &self.seen.theta2,
            ScoreColumn::Pass => &[],
        }
    }
}

impl ThresholdBins {
    fn of(thresholds: &BinnedThresholds) -> Result<ThresholdBins> {
        let selection = Selection::new(&[], &BTreeMap::new())?;
        let selection = selection.with_bins(&thresholds.per, &thresholds.edges)?;
        Ok(ThresholdBins { selection, places: Vec::new() })
    }

    fn quantities(&self) -> &[String] {
        self.selection.quantities()
    }

    fn placed(mut self, slots: &mut QuantitySlots, at_positions: bool) -> Result<ThresholdBins> {
        let mut places = Vec::new();
        for name in self.quantities() {
            if at_positions && OF_THE_SOURCE.contains(&name.as_str()) {
                return Err(Fault::new(
                    "the model's thresholds need a quantity that is known at the file's source \
                     position only",
                )
                .column(name)
                .advice("score without [score] positions, or give working points of your own")
                .usage());
            }
            let of_position = OF_POSITION.iter().position(|known| known == name);
            places.push(match of_position.filter(|_| at_positions) {
                Some(which) => QuantityPlace::Position(which),
                None => QuantityPlace::Slot(slots.add(&[name], true)),
            });
        }
        self.places = places;
        Ok(self)
    }

    /// The bin of every row, at every position.
    fn find(&self, rows: &mut ScoredRows) {
        let ScoredRows { block, seen, bin, scored, .. } = rows;
        bin.resize(scored.status.len(), NO_BIN);
        for (k, bin) in bin.chunks_mut(block.rows.max(1)).enumerate() {
            let column = |place: &QuantityPlace| match place {
                QuantityPlace::Slot(slot) => block.quantities[*slot].as_slice(),
                QuantityPlace::Position(which) => seen.column(*which, k),
            };
            let columns: Vec<&[f32]> = self.places.iter().map(column).collect();
            bin.par_iter_mut().with_min_len(4096).enumerate().for_each(|(row, bin)| {
                *bin = self.selection.bin(|column| f64::from(columns[column][row]));
            });
        }
    }
}

impl AtPositions {
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

/// Quantities as they are asked for, each once.
struct QuantitySlots {
    wanted: Vec<Option<QuantityRequest>>,
}

impl QuantitySlots {
    fn add(&mut self, names: &[&str], needed: bool) -> usize {
        let known = |w: &Option<QuantityRequest>| {
            w.as_ref().is_some_and(|w| w.names == names || names == [w.names[0].as_str()])
        };
        if let Some(slot) = self.wanted.iter().position(known) {
            if let Some(wanted) = &mut self.wanted[slot] {
                wanted.needed |= needed;
            }
            return slot;
        }
        let names = names.iter().map(|name| (*name).to_string()).collect();
        self.wanted.push(Some(QuantityRequest { names, needed }));
        self.wanted.len() - 1
    }
}

fn copied_name(name: &str) -> String {
    // `energy` is what the table says.
    if name == "energy" { "energy_true".to_string() } else { name.to_string() }
}

/// What is asked of a row cannot depend on a position.
fn refuse_of_position(score: &Score, names: &[String], place: &str) -> Result<()> {
    let of_position = names.iter().find(|name| OF_POSITION.contains(&name.as_str()));
    match of_position {
        Some(name) if score.positions.is_some() => {
            Err(Fault::new(format!("{place} needs a quantity that differs between positions"))
                .column(name)
                .advice("cut on it in [cuts] of the model, or on the columns of the output")
                .usage())
        }
        _ => Ok(()),
    }
}

/// As configured, else the model's own threshold. Where the model has thresholds by bins, its own
/// are absent here.
fn working_points(score: &Score, card: &Card) -> Result<Vec<WorkingPoint>> {
    let own = card.threshold.map(|threshold| threshold.value);
    let own = |point: &WorkingPoint| match (point.threshold, &card.thresholds, own) {
        (Some(given), ..) => Some(Some(given)),
        (None, Some(_), _) => Some(None),
        (None, None, own) => own.map(Some),
    };
    if score.working_points.is_empty() {
        let model =
            WorkingPoint { name: "model".to_string(), threshold: None, column: ScoreColumn::Score };
        let point = own(&model).map(|threshold| WorkingPoint { threshold, ..model });
        return Ok(point.into_iter().collect());
    }
    let resolve = |point: &WorkingPoint| match own(point) {
        Some(threshold) => Ok(WorkingPoint { threshold, ..point.clone() }),
        None => Err(Fault::new("a working point without a threshold")
            .column(&point.name)
            .expected("a threshold: the model has none of its own")
            .usage()),
    };
    score.working_points.iter().map(resolve).collect()
}

/// The columns that a model gives: (what, which flow, name). Log-likelihoods of a model of
/// several flows are one column per flow, `log_prob_gamma`, `log_prob_hadron`.
fn columns(
    score: &Score,
    scorer: &Scorer,
    calibrated: bool,
) -> Result<Vec<(ScoreColumn, usize, String)>> {
    let flows = scorer.flow_names();
    let mut columns = Vec::new();
    let points = score.working_points.iter().map(|point| point.column);
    for column in score.columns.iter().copied().chain(points) {
        let missing = |expected: &str| {
            let fault = Fault::new(format!("the model gives no {}", column.name()));
            Err(fault.expected(expected).advice("leave the column out of [score]").usage())
        };
        match column {
            ScoreColumn::Gammaness | ScoreColumn::Posterior if !calibrated => {
                return missing(
                    "a model calibrated on held-out events of both classes (mode = \"ratio\")",
                );
            }
            ScoreColumn::PValue if scorer.card.normals.is_none() => {
                return missing("a one-class model trained by this version, with held-out events");
            }
            _ => {}
        }
    }
    for column in &score.columns {
        let stem = column.name();
        match column {
            ScoreColumn::LogProb | ScoreColumn::LogProbRaw if flows.len() > 1 => {
                for (flow, name) in flows.iter().enumerate() {
                    columns.push((*column, flow, format!("{stem}_{name}")));
                }
            }
            _ => columns.push((*column, 0, stem.to_string())),
        }
    }
    Ok(columns)
}
