//! Selects rows with finite values, inside the cuts and inside the domains of the transforms.
//!
//! The status of a row is a bit mask, the same in training, evaluation and scoring. A row is
//! never omitted without a count or a stored status bit.

pub(crate) mod cut_flow;
mod limit;
pub mod shards;
pub(crate) mod shower_key;
pub(crate) mod split;

use super::schema::features;
use super::table::Block;
use crate::config::{Cut, CutBound, Feature, NO_BIN, bin_of};
use crate::error::{Fault, Result};
use limit::{Limit, index_of, limit};
use std::collections::BTreeMap;
use std::ops::Range;

/// A required quantity is NaN or infinite.
pub(crate) const NOT_FINITE: u32 = 1;
/// A feature is outside the domain of its transform.
pub(crate) const OUT_OF_DOMAIN: u32 = 2;
/// The row is outside the cuts.
pub(crate) const CUT: u32 = 4;

/// Bits of rows without a likelihood. Rows outside the cuts have one.
pub const UNUSABLE: u32 = NOT_FINITE | OUT_OF_DOMAIN;

/// Descriptions of the bits, for attributes and reports.
pub(crate) const STATUS_BITS: [(u32, &str); 3] = [
    (NOT_FINITE, "not finite"),
    (OUT_OF_DOMAIN, "outside a transform's domain"),
    (CUT, "outside the cuts"),
];

/// Features and cuts, bound to the columns that they use.
#[derive(Debug, Clone)]
pub struct Selection {
    features: Vec<Feature>,
    quantities: Vec<String>, // features first, then those of cuts, weight and bins alone
    cuts: Vec<BoundCut>,
    weight: Option<Limit>,
    bins: Option<QuantityBins>,
    varying: Vec<bool>, // (quantities): has a value per assumed source position
    whole: SelectionPart,
    fixed: SelectionPart,  // independent of the source position
    moving: SelectionPart, // dependent on the source position
}

/// Part of a selection: all of it, or the part that does not or does depend on the assumed source
/// position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    Fixed,
    Varying,
}

/// Status and coordinates of a block of rows. The memory is reused for the next block.
#[derive(Debug, Default)]
pub(crate) struct SelectionOutcome {
    /// (rows); 0 is usable.
    pub status: Vec<u32>,
    coordinates: Vec<f64>,    // (features, rows)
    limits: Vec<f64>,         // (rows) of an expression
    variables: Vec<Vec<f64>>, // (variables of an expression)(rows)
}

impl SelectionOutcome {
    /// Returns the coordinates (rows) of an evaluated feature. They are finite unless the status of
    /// the row has one of the bits [`UNUSABLE`].
    pub(crate) fn coordinates(&self, feature: usize) -> &[f64] {
        let rows = self.status.len();
        &self.coordinates[feature * rows..(feature + 1) * rows]
    }
}

/// Indices of quantities, features and cuts that are evaluated together.
#[derive(Debug, Clone, Default)]
struct SelectionPart {
    quantities: Vec<usize>,
    features: Vec<usize>,
    cuts: Vec<usize>,
}

/// A cut on one quantity.
#[derive(Debug, Clone)]
struct BoundCut {
    column: usize,
    min: Option<Limit>,
    max: Option<Limit>,
    texts: [Option<String>; 2], // of min and max: `size > 60`
    varying: bool,
}

/// Largest number of bounds in a mask of 128 bits, which also has bits for other reasons.
const MOST_BOUNDS: usize = 120;

/// A quantity whose range is divided into bins.
#[derive(Debug, Clone)]
struct QuantityBins {
    of: Limit,
    edges: Vec<f64>,
}

impl Selection {
    /// Returns the selection by features and cuts.
    ///
    /// # Errors
    /// `Usage` if the expression of a bound is not valid.
    pub fn new(features: &[Feature], cuts: &BTreeMap<String, Cut>) -> Result<Selection> {
        let mut quantities: Vec<String> = features.iter().map(|f| f.name.clone()).collect();
        let mut bound = Vec::new();
        for (name, cut) in cuts {
            bound.push(BoundCut {
                column: index_of(&mut quantities, name),
                min: limit(&mut quantities, cut.min.as_ref())?,
                max: limit(&mut quantities, cut.max.as_ref())?,
                texts: [
                    cut.min.as_ref().map(|bound| format!("{name} > {bound}")),
                    cut.max.as_ref().map(|bound| format!("{name} < {bound}")),
                ],
                varying: false,
            });
        }
        let varying = vec![false; quantities.len()];
        let features = features.to_vec();
        let (whole, fixed, moving) = Default::default();
        let selection = Selection {
            features,
            quantities,
            cuts: bound,
            weight: None,
            bins: None,
            varying,
            whole,
            fixed,
            moving,
        };
        Ok(selection.in_parts())
    }

    /// Divides the selection into its parts.
    fn in_parts(mut self) -> Selection {
        self.whole = self.part_of(|_| true);
        self.fixed = self.part_of(|varying| !varying);
        self.moving = self.part_of(|varying| varying);
        self
    }

    /// Returns the part of quantities, features and cuts that are, or are not, varying.
    fn part_of(&self, includes: impl Fn(bool) -> bool) -> SelectionPart {
        SelectionPart {
            quantities: (0..self.quantities.len()).filter(|q| includes(self.varying[*q])).collect(),
            features: (0..self.features.len()).filter(|f| includes(self.varying[*f])).collect(),
            cuts: (0..self.cuts.len()).filter(|c| includes(self.cuts[*c].varying)).collect(),
        }
    }

    /// Declares quantities that have a value per assumed source position. A row is then evaluated
    /// in two parts: [`Which::Fixed`] once and [`Which::Varying`] at each position.
    #[must_use]
    pub(crate) fn with_varying(mut self, names: &[&str]) -> Selection {
        self.varying = self.quantities.iter().map(|name| names.contains(&name.as_str())).collect();
        for cut in &mut self.cuts {
            let limits = [&cut.min, &cut.max];
            let mut columns = limits.into_iter().flatten().flat_map(Limit::columns).copied();
            cut.varying = self.varying[cut.column] || columns.any(|column| self.varying[column]);
        }
        self.in_parts()
    }

    /// Returns the indices of the features of a part.
    pub(crate) fn features_of(&self, which: Which) -> &[usize] {
        &self.part(which).features
    }

    /// Returns the indices of a part.
    fn part(&self, which: Which) -> &SelectionPart {
        match which {
            Which::All => &self.whole,
            Which::Fixed => &self.fixed,
            Which::Varying => &self.moving,
        }
    }

    /// Returns, for each quantity, whether it has a value per source position.
    pub(crate) fn varying(&self) -> &[bool] {
        &self.varying
    }

    /// Adds an expression for the weight of an event; its quantities are read too.
    ///
    /// # Errors
    /// `Usage` if the expression is not valid.
    pub(crate) fn with_weight(mut self, weight: Option<&str>) -> Result<Selection> {
        let bound = weight.map(|text| CutBound::Expression(text.to_string()));
        self.weight = limit(&mut self.quantities, bound.as_ref())?;
        self.varying.resize(self.quantities.len(), false);
        Ok(self.in_parts())
    }

    /// Adds bins of a quantity or an expression, whose quantities are read too.
    ///
    /// # Errors
    /// `Usage` if the expression is not valid.
    pub(crate) fn with_bins(mut self, per: &str, edges: &[f64]) -> Result<Selection> {
        let of = limit(&mut self.quantities, Some(&CutBound::Expression(per.to_string())))?;
        self.bins = of.map(|of| QuantityBins { of, edges: edges.to_vec() });
        self.varying.resize(self.quantities.len(), false);
        Ok(self.in_parts())
    }

    /// Returns whether there are bins.
    pub(crate) fn has_bins(&self) -> bool {
        self.bins.is_some()
    }

    /// Returns the bin of a row; [`NO_BIN`] if its quantity has no value, or there are no bins.
    #[inline]
    pub(crate) fn bin(&self, value: impl Fn(usize) -> f64) -> u16 {
        self.bins.as_ref().map_or(NO_BIN, |bins| bin_of(&bins.edges, bins.of.value(value)))
    }

    /// Returns whether there is a weight.
    pub(crate) fn has_weight(&self) -> bool {
        self.weight.is_some()
    }

    /// Returns the names of the quantities of the weight.
    pub(crate) fn weight_quantities(&self) -> impl Iterator<Item = &str> {
        let columns = self.weight.iter().flat_map(Limit::columns);
        columns.map(|column| self.quantities[*column].as_str())
    }

    /// Returns the names of the quantities of the cuts.
    pub(crate) fn cut_quantities(&self) -> impl Iterator<Item = &str> {
        let of_cut = |cut: &BoundCut| {
            let limits = cut.min.iter().chain(&cut.max).flat_map(Limit::columns).copied();
            [cut.column].into_iter().chain(limits).collect::<Vec<usize>>()
        };
        self.cuts.iter().flat_map(of_cut).map(|column| self.quantities[column].as_str())
    }

    /// Returns the names of the quantities of the bins.
    pub(crate) fn bin_quantities(&self) -> impl Iterator<Item = &str> {
        let columns = self.bins.iter().flat_map(|bins| bins.of.columns());
        columns.map(|column| self.quantities[*column].as_str())
    }

    /// Returns the weight of a row; 1 without a weight.
    ///
    /// # Errors
    /// `Input` if it is negative or not finite.
    pub(crate) fn weight(&self, block: &Block, row: usize) -> Result<f64> {
        let Some(weight) = &self.weight else { return Ok(1.0) };
        let value = weight.value(|column| f64::from(block.quantities[column][row]));
        if value.is_finite() && value >= 0.0 {
            return Ok(value);
        }
        Err(Fault::new("invalid weight of an event")
            .expected("finite values of data.weight, 0 or more")
            .found(value)
            .advice("check the quantities of the expression with `taiga-flow check`, or remove such rows with a cut")
            .input())
    }

    /// Returns whether the features of an event are inside the cuts. Cuts that use other
    /// quantities are ignored.
    pub(crate) fn inside(&self, quantities: &[f64]) -> bool {
        let value = |column: usize| quantities.get(column).copied();
        self.cuts.iter().all(|cut| {
            let Some(x) = value(cut.column) else { return true };
            let known = |limit: &Option<Limit>| limit.as_ref().and_then(|l| l.value_of(value));
            known(&cut.min).is_none_or(|min| x > min) && known(&cut.max).is_none_or(|max| x < max)
        })
    }

    /// Returns the features.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Returns all quantities to read; the features are first, in their order.
    pub(crate) fn quantities(&self) -> &[String] {
        &self.quantities
    }

    /// Returns whether a row fails a cut on finite values. Such a row is not counted as invalid,
    /// even if other values are not finite.
    pub(crate) fn fails_cut(&self, block: &Block, row: usize) -> bool {
        let value = |column: usize| f64::from(block.quantities[column][row]);
        self.cuts.iter().any(|cut| {
            let x = value(cut.column);
            // Comparisons with NaN are false.
            let fails = |limit: &Limit, below: bool| {
                let limit = limit.value(value);
                if below { x <= limit } else { x >= limit }
            };
            x.is_finite()
                && (cut.min.as_ref().is_some_and(|limit| fails(limit, true))
                    || cut.max.as_ref().is_some_and(|limit| fails(limit, false)))
        })
    }

    /// Returns the bounds of the cuts as text, in the order of [`Selection::failed_bounds`].
    pub(crate) fn bounds(&self) -> Vec<String> {
        let texts = self.cuts.iter().flat_map(|cut| cut.texts.iter().flatten());
        texts.take(MOST_BOUNDS).cloned().collect()
    }

    /// Sets `failed` to a mask per row, in which bit b is set if a finite value is outside bound b.
    /// Returns the number of bounds. All bounds from the 120th share the last bit.
    pub(crate) fn failed_bounds(
        &self,
        columns: &[&[f32]],
        rows: usize,
        failed: &mut Vec<u128>,
    ) -> usize {
        let (mut limits, mut variables) = (Vec::new(), Vec::new());
        failed.clear();
        failed.resize(rows, 0);
        let mut count = 0;
        for cut in &self.cuts {
            let sides = [(&cut.min, false), (&cut.max, true)];
            for (limit, below) in sides.into_iter().filter_map(|(l, b)| Some((l.as_ref()?, b))) {
                limit.values(|c| columns[c], rows, &mut limits, &mut variables);
                let bit = 1 << count.min(MOST_BOUNDS - 1);
                let values = columns[cut.column].iter().zip(&limits);
                for (failed, (x, limit)) in failed.iter_mut().zip(values) {
                    let x = f64::from(*x);
                    let fails = if below { x >= *limit } else { x <= *limit };
                    *failed |= if x.is_finite() && fails { bit } else { 0 };
                }
                count += 1;
            }
        }
        count.min(MOST_BOUNDS)
    }

    /// Computes status and coordinates of a range of rows. `columns` are those of
    /// [`Selection::quantities`]; columns outside the part `which` may be empty. A row with a
    /// quantity that is not finite has the bit [`NOT_FINITE`] and no other bit.
    pub(crate) fn evaluate(
        &self,
        which: Which,
        columns: &[&[f32]],
        rows: Range<usize>,
        outcome: &mut SelectionOutcome,
    ) {
        let (part, count) = (self.part(which), rows.len());
        let SelectionOutcome { status, coordinates, limits, variables } = outcome;
        status.clear();
        status.resize(count, 0);
        coordinates.resize(self.features.len() * count, 0.0);
        let column = |c: usize| &columns[c][rows.clone()];
        for d in part.features.iter().copied() {
            let feature = &self.features[d];
            let out = &mut coordinates[d * count..(d + 1) * count];
            out.iter_mut()
                .zip(column(d))
                .for_each(|(c, x)| *c = features::transform(feature, f64::from(*x)));
            mark(status, out, OUT_OF_DOMAIN, f64::is_finite);
        }
        for cut in part.cuts.iter().map(|cut| &self.cuts[*cut]) {
            let x = column(cut.column);
            let sides = [(&cut.min, false), (&cut.max, true)];
            for (limit, below) in sides.into_iter().filter_map(|(l, b)| Some((l.as_ref()?, b))) {
                limit.values(column, count, limits, variables);
                let pairs = status.iter_mut().zip(x.iter().zip(&*limits));
                // A comparison with NaN is false.
                pairs.for_each(|(status, (x, limit))| {
                    let x = f64::from(*x);
                    let inside = if below { x < *limit } else { x > *limit };
                    *status |= if inside { 0 } else { CUT };
                });
            }
        }
        for q in part.quantities.iter().copied() {
            mark(status, column(q), NOT_FINITE, f32::is_finite);
        }
        status.iter_mut().for_each(|s| *s = alone(*s));
    }
}

/// Removes all other bits if [`NOT_FINITE`] is set.
pub(crate) fn alone(status: u32) -> u32 {
    if status & NOT_FINITE == 0 { status } else { NOT_FINITE }
}

/// Sets a bit of the rows whose value is not valid.
fn mark<T: Copy>(status: &mut [u32], values: &[T], bit: u32, is_valid: impl Fn(T) -> bool) {
    let pairs = status.iter_mut().zip(values);
    pairs.for_each(|(status, value)| *status |= if is_valid(*value) { 0 } else { bit });
}

#[cfg(test)]
mod tests;
