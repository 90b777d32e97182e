//! From a block of a table to scores, with the card of a model and an engine.
//!
//! The one path that scoring and evaluation share: the same selection, coordinates and
//! scaler as in training. Rows without a likelihood get NaN and their status bits; rows
//! outside the cuts get both a likelihood and the bit.

use super::{Engine, Place};
use crate::config::Class;
use crate::data::features::{self, ScaledFeature, scaler_log_det};
use crate::data::schema::canonical_unit;
use crate::data::selection::{Selection, UNUSABLE};
use crate::data::table::{Block, Table};
use crate::error::{Fault, Result};
use crate::model::{Card, Model};
use rayon::prelude::*;

/// Rows that are prepared by one thread at a time.
const ROWS_TOGETHER: usize = 2048;

/// A model ready to score.
pub struct Scorer {
    pub card: Card,
    pub selection: Selection,
    flows: Vec<(String, Box<dyn Engine>)>, // the numerator of a ratio first
    normal: Class,
    log_det: f64,
}

/// Scores of a block; every vector (rows).
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub status: Vec<u32>,
    /// Higher is more gamma-like.
    pub score: Vec<f32>,
    /// Density of the transformed, unscaled features, of each flow.
    pub log_prob: Vec<Vec<f32>>, // (flows, rows)
    /// Density per raw units.
    pub log_prob_raw: Vec<Vec<f32>>, // (flows, rows)
    /// Probability of a gamma at equal numbers; empty if the model is not calibrated.
    pub gammaness: Vec<f32>,
    /// The same at the model's prior share of gammas.
    pub posterior: Vec<f32>,
    scaled: Vec<f32>,   // (rows, features)
    jacobian: Vec<f64>, // (rows)
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
        })
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
        for feature in &self.card.features {
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

    /// Scores a block read with `selection.quantities()`.
    pub fn score(&self, block: &Block, scored: &mut Scored) -> Result<()> {
        scored.resize(block.rows, self.card.features.len(), self.flows.len());
        self.prepare(block, scored);
        for (f, (_, engine)) in self.flows.iter().enumerate() {
            engine.log_prob(&scored.scaled, &mut scored.log_prob[f])?;
        }
        for row in 0..block.rows {
            let unusable = scored.status[row] & UNUSABLE != 0;
            let with_scaler = |log_prob: f32| {
                if unusable { f64::NAN } else { f64::from(log_prob) + self.log_det }
            };
            scored.score[row] =
                score(self.normal, scored.log_prob.iter().map(|of_flow| with_scaler(of_flow[row])));
            for f in 0..self.flows.len() {
                let log_prob = with_scaler(scored.log_prob[f][row]);
                scored.log_prob[f][row] = log_prob as f32;
                scored.log_prob_raw[f][row] = (log_prob + scored.jacobian[row]) as f32;
            }
        }
        if let Some(calibration) = &self.card.calibration {
            let score = |s: &f32| f64::from(*s);
            let gammaness = |s| calibration.gammaness(score(s)) as f32;
            scored.gammaness = scored.score.iter().map(gammaness).collect();
            let posterior = |s| calibration.posterior(score(s)) as f32;
            scored.posterior = scored.score.iter().map(posterior).collect();
        }
        Ok(())
    }

    /// Status, scaled features and Jacobian of every row; unusable rows are zeros.
    fn prepare(&self, block: &Block, scored: &mut Scored) {
        let (features, selection) = (&self.card.features, &self.selection);
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
                    jacobian[i] = log_jacobian(features, block, at);
                    for ((z, coordinate), feature) in row.iter_mut().zip(&coordinates).zip(features)
                    {
                        *z = feature.scale(*coordinate);
                    }
                }
            });
    }
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

fn log_jacobian(features: &[ScaledFeature], block: &Block, row: usize) -> f64 {
    let of = |(d, f): (usize, &ScaledFeature)| {
        features::log_jacobian(&f.feature, f64::from(block.quantities[d][row]))
    };
    features.iter().enumerate().map(of).sum()
}

impl Scored {
    fn resize(&mut self, rows: usize, features: usize, flows: usize) {
        self.status.resize(rows, 0);
        self.score.resize(rows, f32::NAN);
        for columns in [&mut self.log_prob, &mut self.log_prob_raw] {
            columns.resize(flows, Vec::new());
            columns.iter_mut().for_each(|column| column.resize(rows, f32::NAN));
        }
        self.scaled.resize(rows * features, 0.0);
        self.jacobian.resize(rows, 0.0);
    }
}
