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
    engine: Box<dyn Engine>,
    normal: Class,
    log_det: f64,
}

/// Scores of a block; every vector (rows).
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub status: Vec<u32>,
    /// Higher is more gamma-like.
    pub score: Vec<f32>,
    /// Density of the transformed, unscaled features.
    pub log_prob: Vec<f32>,
    /// Density per raw units.
    pub log_prob_raw: Vec<f32>,
    scaled: Vec<f32>,   // (rows, features)
    jacobian: Vec<f64>, // (rows)
}

impl Scorer {
    pub fn new(model: Model, place: &Place) -> Result<Scorer> {
        let Model { card, mut flows } = model;
        let flow = card.flows.iter().next().map(|(name, flow)| (name.clone(), flow.clone()));
        let (Some((name, flow)), 1) = (flow, card.flows.len()) else {
            return Err(Fault::new("a model with other than one flow")
                .expected("one flow")
                .found(card.flows.len())
                .input());
        };
        let mut engine = super::start(place, &flow.spec)?;
        engine.set_params(&flows.remove(&name).unwrap_or_default())?;
        let features: Vec<_> = card.features.iter().map(|f| f.feature.clone()).collect();
        Ok(Scorer {
            selection: Selection::new(&features, &card.cuts)?,
            log_det: scaler_log_det(&card.features),
            normal: card.normal.unwrap_or(flow.class),
            engine,
            card,
        })
    }

    pub fn describe(&self) -> String {
        self.engine.describe()
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
        scored.resize(block.rows, self.card.features.len());
        self.prepare(block, scored);
        self.engine.log_prob(&scored.scaled, &mut scored.log_prob)?;
        for row in 0..block.rows {
            let unusable = scored.status[row] & UNUSABLE != 0;
            let log_prob = f64::from(scored.log_prob[row]) + self.log_det;
            let log_prob = if unusable { f64::NAN } else { log_prob };
            scored.log_prob[row] = log_prob as f32;
            scored.log_prob_raw[row] = (log_prob + scored.jacobian[row]) as f32;
            scored.score[row] = match self.normal {
                Class::Gamma => log_prob as f32,
                Class::Hadron => -(log_prob as f32),
            };
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

fn log_jacobian(features: &[ScaledFeature], block: &Block, row: usize) -> f64 {
    let of = |(d, f): (usize, &ScaledFeature)| {
        features::log_jacobian(&f.feature, f64::from(block.quantities[d][row]))
    };
    features.iter().enumerate().map(of).sum()
}

impl Scored {
    fn resize(&mut self, rows: usize, features: usize) {
        self.status.resize(rows, 0);
        for column in [&mut self.score, &mut self.log_prob, &mut self.log_prob_raw] {
            column.resize(rows, f32::NAN);
        }
        self.scaled.resize(rows * features, 0.0);
        self.jacobian.resize(rows, 0.0);
    }
}
