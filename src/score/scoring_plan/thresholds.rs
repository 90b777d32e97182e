//! Working points of a scoring, and the bins of the model's thresholds.

use super::quantities::{OF_THE_SOURCE, QuantitySlots};
use super::rows::ScoredRows;
use crate::config::{NO_BIN, Score, ScoreColumn, WorkingPoint};
use crate::data::selection::Selection;
use crate::engine::OF_POSITION;
use crate::error::{Fault, Result};
use crate::model::Card;
use crate::statistics::BinnedThresholds;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Bins of the model's thresholds, with the places of their quantities.
#[derive(Debug, Clone)]
pub(super) struct ThresholdBins {
    selection: Selection,
    places: Vec<QuantityPlace>, // (quantities)
}

#[derive(Debug, Clone, Copy)]
enum QuantityPlace {
    Slot(usize),
    /// Index in [`OF_POSITION`], computed at each position.
    Position(usize),
}

impl ThresholdBins {
    /// Creates the bins of thresholds; their quantities have no places yet.
    pub(super) fn of(thresholds: &BinnedThresholds) -> Result<ThresholdBins> {
        let selection = Selection::new(&[], &BTreeMap::new())?;
        let selection = selection.with_bins(&thresholds.per, &thresholds.edges)?;
        Ok(ThresholdBins { selection, places: Vec::new() })
    }

    pub(super) fn quantities(&self) -> &[String] {
        self.selection.quantities()
    }

    /// Adds the quantities of the bins to the slots.
    ///
    /// # Errors
    /// `Usage` if a quantity is known at the source position of the file only.
    pub(super) fn placed(
        mut self,
        slots: &mut QuantitySlots,
        at_positions: bool,
    ) -> Result<ThresholdBins> {
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

    /// Finds the bin of every row at every position.
    pub(super) fn find(&self, rows: &mut ScoredRows) {
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

/// Returns the configured working points, or the model's own. A threshold is absent where the model
/// has thresholds by bins.
///
/// # Errors
/// `Usage` if neither the configuration nor the model has a threshold.
pub(super) fn working_points(score: &Score, card: &Card) -> Result<Vec<WorkingPoint>> {
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
