//! From a block of a table to scores, with the card of a model and an engine.
//!
//! The one path that scoring and evaluation share: the same selection, coordinates and
//! scaler as in training. Rows without a likelihood get NaN and their status bits; rows
//! outside the cuts get both a likelihood and the bit. At several assumed positions of the
//! source, what does not depend on them is worked out once per row.

use super::positions::{OF_POSITION, Seen};
use super::{Engine, Place};
use crate::config::Class;
use crate::data::features::{self, ScaledFeature, scaler_log_det};
use crate::data::schema::canonical_unit;
use crate::data::selection::{NOT_FINITE, Selection, UNUSABLE};
use crate::data::table::{Block, Table};
use crate::error::{Fault, Result};
use crate::model::{Card, Model};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Rows that are prepared by one thread at a time.
const ROWS_TOGETHER: usize = 2048;

/// A model ready to score.
pub struct Scorer {
    pub card: Card,
    pub selection: Selection,
    flows: Vec<(String, Box<dyn Engine>)>, // the numerator of a ratio first
    normal: Class,
    log_det: f64,
    more: More,
}

/// What is computed beside scores where it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct More {
    /// Densities per raw units.
    pub raw: bool,
    /// |z|² in the first flow.
    pub chi2: bool,
}

/// Scores of a block; every vector (positions, rows), with one position where none are
/// assumed.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub status: Vec<u32>,
    /// Higher is more gamma-like.
    pub score: Vec<f32>,
    /// Density of the transformed, unscaled features, of each flow.
    pub log_prob: Vec<Vec<f32>>, // (flows)(positions, rows)
    /// Density per raw units; empty unless asked for.
    pub log_prob_raw: Vec<Vec<f32>>, // (flows)(positions, rows)
    /// |z|² of the latent point in the first flow; empty unless asked for.
    pub chi2: Vec<f32>,
    /// Probability of a gamma at equal numbers; empty if the model is not calibrated.
    pub gammaness: Vec<f32>,
    /// The same at the model's prior share of gammas.
    pub posterior: Vec<f32>,
    /// Spent in the engine so far.
    pub engine_time: Duration,
    scaled: Vec<f32>,   // (positions, rows, features)
    jacobian: Vec<f64>, // (positions, rows)
    fixed: Fixed,
}

/// What is the same at every position: (rows).
#[derive(Debug, Clone, Default)]
struct Fixed {
    status: Vec<u32>,
    scaled: Vec<f32>, // (rows, features), 0 where a feature varies
    jacobian: Vec<f64>,
}

impl Scorer {
    pub fn new(model: Model, place: &Place) -> Result<Scorer> {
        let Model { card, flows: mut params } = model;
        let normal = card.score_class();
        let mut flows = Vec::new();
        for (name, flow) in card.flows_in_order() {
            let mut engine = super::start(place, &flow.spec)?;
            engine.set_params(&params.remove(name).unwrap_or_default())?;
            flows.push((name.clone(), engine));
        }
        let features: Vec<_> = card.features.iter().map(|f| f.feature.clone()).collect();
        Ok(Scorer {
            selection: Selection::new(&features, &card.cuts)?,
            log_det: scaler_log_det(&card.features),
            normal,
            flows,
            card,
            more: More::default(),
        })
    }

    /// With more figures.
    #[must_use]
    pub fn with(self, more: More) -> Scorer {
        Scorer { more, ..self }
    }

    /// For several assumed positions of the source ([`Scorer::score_at`]).
    #[must_use]
    pub fn at_positions(self) -> Scorer {
        Scorer { selection: self.selection.with_varying(&OF_POSITION), ..self }
    }

    pub fn describe(&self) -> String {
        self.flows.first().map_or_else(String::new, |(_, engine)| engine.describe())
    }

    /// Names of the flows, in the order of `Scored::log_prob`.
    pub fn flow_names(&self) -> Vec<&str> {
        self.flows.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Refuses a table whose features have other units than the model's.
    pub fn check_units(&self, table: &Table) -> Result<()> {
        check_units(&self.card, table)
    }

    /// Scores a block read with `selection.quantities()`.
    pub fn score(&self, block: &Block, scored: &mut Scored) -> Result<()> {
        scored.resize(block.rows, self.card.features.len());
        self.prepare(block, scored);
        self.log_prob(scored)
    }

    /// Scores a block at the positions it was seen from. Its quantities are those of
    /// `selection.quantities()`, empty where they vary, then any others.
    pub fn score_at(&self, block: &Block, seen: &Seen, scored: &mut Scored) -> Result<()> {
        let positions = seen.dist.len() / seen.rows.max(1);
        scored.resize(block.rows * positions, self.card.features.len());
        self.prepare_fixed(block, &mut scored.fixed);
        for k in 0..positions {
            self.prepare_at(block, seen, k, scored);
        }
        self.log_prob(scored)
    }

    /// From prepared features to all scores.
    fn log_prob(&self, scored: &mut Scored) -> Result<()> {
        let (all, flows) = (scored.status.len(), self.flows.len());
        scored.log_prob.resize(flows, Vec::new());
        scored.log_prob_raw.resize(if self.more.raw { flows } else { 0 }, Vec::new());
        let started = Instant::now();
        for (f, (_, engine)) in self.flows.iter().enumerate() {
            scored.log_prob[f].resize(all, f32::NAN);
            let log_prob = &mut scored.log_prob[f];
            if self.more.chi2 && f == 0 {
                scored.chi2.resize(all, f32::NAN);
                engine.log_prob_and_chi2(&scored.scaled, log_prob, &mut scored.chi2)?;
            } else {
                engine.log_prob(&scored.scaled, log_prob)?;
            }
        }
        scored.engine_time += started.elapsed();
        let (status, log_det) = (&scored.status, self.log_det);
        let with_scaler = |row: usize, log_prob: f32| {
            let unusable = status[row] & UNUSABLE != 0;
            if unusable { f64::NAN } else { f64::from(log_prob) + log_det }
        };
        let (of_flows, normal) = (&scored.log_prob, self.normal);
        (0..all)
            .into_par_iter()
            .with_min_len(ROWS_TOGETHER)
            .map(|row| score(normal, of_flows.iter().map(|flow| with_scaler(row, flow[row]))))
            .collect_into_vec(&mut scored.score);
        let jacobian = &scored.jacobian;
        for (raw, log_prob) in scored.log_prob_raw.iter_mut().zip(&scored.log_prob) {
            let per_raw_unit =
                |(row, l): (usize, &f32)| (with_scaler(row, *l) + jacobian[row]) as f32;
            log_prob
                .par_iter()
                .with_min_len(ROWS_TOGETHER)
                .enumerate()
                .map(per_raw_unit)
                .collect_into_vec(raw);
        }
        for log_prob in &mut scored.log_prob {
            let rows = log_prob.par_iter_mut().with_min_len(ROWS_TOGETHER).enumerate();
            rows.for_each(|(row, l)| *l = with_scaler(row, *l) as f32);
        }
        let rows = scored.chi2.par_iter_mut().with_min_len(ROWS_TOGETHER).zip(status);
        rows.filter(|(_, status)| *status & UNUSABLE != 0).for_each(|(chi2, _)| *chi2 = f32::NAN);
        if let Some(calibration) = &self.card.calibration {
            let scores = || scored.score.par_iter().with_min_len(ROWS_TOGETHER);
            let gammaness = |s: &f32| calibration.gammaness(f64::from(*s)) as f32;
            scores().map(gammaness).collect_into_vec(&mut scored.gammaness);
            let posterior = |s: &f32| calibration.posterior(f64::from(*s)) as f32;
            scores().map(posterior).collect_into_vec(&mut scored.posterior);
        }
        Ok(())
    }

    /// Status, scaled features and Jacobian of every row; unusable rows are zeros.
    fn prepare(&self, block: &Block, scored: &mut Scored) {
        let (features, selection, raw) = (&self.card.features, &self.selection, self.more.raw);
        let width = ROWS_TOGETHER * features.len();
        scored
            .status
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(scored.scaled.par_chunks_mut(width))
            .zip(scored.jacobian.par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; features.len()];
                for (i, row) in scaled.chunks_exact_mut(features.len()).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    status[i] = selection.status(block, at, &mut coordinates);
                    if status[i] & UNUSABLE != 0 {
                        row.fill(0.0);
                        continue;
                    }
                    if raw {
                        let quantity = |d: usize| f64::from(block.quantities[d][at]);
                        jacobian[i] = log_jacobian(features, quantity, |_| true);
                    }
                    for ((z, coordinate), feature) in row.iter_mut().zip(&coordinates).zip(features)
                    {
                        *z = feature.scale(*coordinate);
                    }
                }
            });
    }

    /// The same of what is fixed.
    fn prepare_fixed(&self, block: &Block, fixed: &mut Fixed) {
        let (features, selection, raw) = (&self.card.features, &self.selection, self.more.raw);
        let varying = selection.varying();
        let width = features.len();
        fixed.status.resize(block.rows, 0);
        fixed.scaled.resize(block.rows * width, 0.0);
        fixed.jacobian.resize(block.rows, 0.0);
        fixed
            .status
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(fixed.scaled.par_chunks_mut(ROWS_TOGETHER * width))
            .zip(fixed.jacobian.par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; width];
                for (i, row) in scaled.chunks_exact_mut(width).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    let quantity = |d: usize| f64::from(block.quantities[d][at]);
                    status[i] = selection.fixed_status(quantity, &mut coordinates);
                    row.fill(0.0);
                    if status[i] & UNUSABLE != 0 {
                        continue;
                    }
                    if raw {
                        jacobian[i] = log_jacobian(features, quantity, |d| !varying[d]);
                    }
                    for d in (0..width).filter(|d| !varying[*d]) {
                        row[d] = features[d].scale(coordinates[d]);
                    }
                }
            });
    }

    /// Adds what varies, at position k.
    fn prepare_at(&self, block: &Block, seen: &Seen, k: usize, scored: &mut Scored) {
        let Scored { status, scaled, jacobian, fixed, .. } = scored;
        let (features, selection, raw) = (&self.card.features, &self.selection, self.more.raw);
        let varying = selection.varying();
        let width = features.len();
        let column = |(c, name): (usize, &String)| -> &[f32] {
            match OF_POSITION.iter().position(|known| known == name) {
                Some(which) => seen.column(which, k),
                None => &block.quantities[c],
            }
        };
        let columns: Vec<&[f32]> = selection.quantities().iter().enumerate().map(column).collect();
        let rows = k * block.rows..(k + 1) * block.rows;
        status[rows.clone()]
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(scaled[rows.start * width..rows.end * width].par_chunks_mut(ROWS_TOGETHER * width))
            .zip(jacobian[rows].par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; width];
                for (i, row) in scaled.chunks_exact_mut(width).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    let quantity = |c: usize| f64::from(columns[c][at]);
                    let fixed_status = fixed.status[at];
                    status[i] = if fixed_status & NOT_FINITE != 0 {
                        NOT_FINITE
                    } else {
                        match selection.varying_status(quantity, &mut coordinates) {
                            NOT_FINITE => NOT_FINITE,
                            varying => fixed_status | varying,
                        }
                    };
                    if status[i] & UNUSABLE != 0 {
                        row.fill(0.0);
                        continue;
                    }
                    if raw {
                        let own = log_jacobian(features, quantity, |d| varying[d]);
                        jacobian[i] = fixed.jacobian[at] + own;
                    }
                    row.copy_from_slice(&fixed.scaled[at * width..(at + 1) * width]);
                    for d in selection.varying_features().iter().copied() {
                        row[d] = features[d].scale(coordinates[d]);
                    }
                }
            });
    }
}

/// Σ ln|dc/dx| of some features.
fn log_jacobian(
    features: &[ScaledFeature],
    quantity: impl Fn(usize) -> f64,
    of: impl Fn(usize) -> bool,
) -> f64 {
    let one = |d: usize| features::log_jacobian(&features[d].feature, quantity(d));
    (0..features.len()).filter(|d| of(*d)).map(one).sum()
}

/// Refuses a table whose features have other units than the model's.
pub fn check_units(card: &Card, table: &Table) -> Result<()> {
    for feature in &card.features {
        let name = &feature.feature.name;
        let unit = table.unit(name).or(canonical_unit(name)).unwrap_or("1");
        if unit != feature.unit {
            return Err(Fault::new("the file's unit is not the model's")
                .file(table.path())
                .column(name)
                .expected(&feature.unit)
                .found(unit)
                .advice("convert the column in a schema file (see configs/schema)")
                .input());
        }
    }
    Ok(())
}

/// The score of an event from its log p in the flows of a model: log p of the normal
/// class, less that of the flow it is contrasted with; negative where hadrons are normal,
/// so that higher is always more gamma-like.
pub fn score(normal: Class, log_prob: impl IntoIterator<Item = f64>) -> f32 {
    let difference = log_prob.into_iter().reduce(|first, second| first - second);
    let difference = difference.unwrap_or(f64::NAN) as f32;
    match normal {
        Class::Gamma => difference,
        Class::Hadron => -difference,
    }
}

impl Scored {
    fn resize(&mut self, rows: usize, features: usize) {
        self.status.resize(rows, 0);
        self.scaled.resize(rows * features, 0.0);
        self.jacobian.resize(rows, 0.0);
    }
}
