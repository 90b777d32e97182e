//! Which quantities of a file are needed, and which rows can be used: finite values,
//! inside the cuts, inside the transforms' domains.
//!
//! The verdict on a row is a bit mask, the same in training, evaluation and scoring; a
//! row is never dropped without its bit being counted or written.

pub mod cut_flow;
pub mod shards;
pub mod shower_key;
pub mod split;

use super::schema::expression::Expression;
use super::schema::features;
use super::table::Block;
use crate::config::{Cut, CutBound, Feature, NO_BIN, bin_of};
use crate::error::{Fault, Result};
use std::collections::BTreeMap;
use std::ops::Range;

/// A needed quantity is NaN or infinite.
pub const NOT_FINITE: u32 = 1;
/// A feature is outside the domain of its transform.
pub const OUT_OF_DOMAIN: u32 = 2;
/// Outside the cuts.
pub const CUT: u32 = 4;

/// Without a likelihood; events outside the cuts have one.
pub const UNUSABLE: u32 = NOT_FINITE | OUT_OF_DOMAIN;

/// Meaning of the bits, for attributes and reports.
pub const STATUS_BITS: [(u32, &str); 3] = [
    (NOT_FINITE, "not finite"),
    (OUT_OF_DOMAIN, "outside a transform's domain"),
    (CUT, "outside the cuts"),
];

/// Features and cuts, bound to the columns they need.
#[derive(Debug, Clone)]
pub struct Selection {
    features: Vec<Feature>,
    quantities: Vec<String>, // features first, then what only cuts or the weight need
    cuts: Vec<BoundCut>,
    weight: Option<Limit>,
    bins: Option<QuantityBins>,
    varying: Vec<bool>, // (quantities) those given per assumed source position
    whole: SelectionPart,
    fixed: SelectionPart,  // what does not depend on the position
    moving: SelectionPart, // what does
}

/// What of a row is judged: all of it, or, where quantities are given once per assumed source
/// position, what is the same at every position or what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    Fixed,
    Varying,
}

/// The verdict on some rows. Its memory is used again.
#[derive(Debug, Default)]
pub struct SelectionOutcome {
    /// (rows); 0 is usable.
    pub status: Vec<u32>,
    coordinates: Vec<f64>,    // (features, rows)
    limits: Vec<f64>,         // (rows) of an expression
    variables: Vec<Vec<f64>>, // (variables of an expression)(rows)
}

impl SelectionOutcome {
    /// Coordinates of a feature that was judged: (rows), finite unless the row's status has
    /// one of the bits [`UNUSABLE`].
    pub fn coordinates(&self, feature: usize) -> &[f64] {
        let rows = self.status.len();
        &self.coordinates[feature * rows..(feature + 1) * rows]
    }
}

/// What is judged together: quantities, features and cuts by their numbers.
#[derive(Debug, Clone, Default)]
struct SelectionPart {
    quantities: Vec<usize>,
    features: Vec<usize>,
    cuts: Vec<usize>,
}

#[derive(Debug, Clone)]
struct BoundCut {
    column: usize,
    min: Option<Limit>,
    max: Option<Limit>,
    texts: [Option<String>; 2], // of min and max: `size > 60`
    varying: bool,
}

/// Bounds that a mask of 128 bits has room for, with some bits for other reasons.
const MOST_BOUNDS: usize = 120;

/// A quantity whose range is divided into bins.
#[derive(Debug, Clone)]
struct QuantityBins {
    of: Limit,
    edges: Vec<f64>,
}

#[derive(Debug, Clone)]
enum Limit {
    Number(f64),
    Expression { expression: Expression, columns: Vec<usize> },
}

impl Selection {
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

    /// Works out what belongs together.
    fn in_parts(mut self) -> Selection {
        let part = |of: &dyn Fn(bool) -> bool| SelectionPart {
            quantities: (0..self.quantities.len()).filter(|q| of(self.varying[*q])).collect(),
            features: (0..self.features.len()).filter(|f| of(self.varying[*f])).collect(),
            cuts: (0..self.cuts.len()).filter(|c| of(self.cuts[*c].varying)).collect(),
        };
        let parts = (part(&|_| true), part(&|varying| !varying), part(&|varying| varying));
        (self.whole, self.fixed, self.moving) = parts;
        self
    }

    /// With these quantities given once per assumed source position: then a row is judged
    /// in two parts, [`Which::Fixed`] once and [`Which::Varying`] at each position.
    #[must_use]
    pub fn with_varying(mut self, names: &[&str]) -> Selection {
        self.varying = self.quantities.iter().map(|name| names.contains(&name.as_str())).collect();
        for cut in &mut self.cuts {
            let limits = [&cut.min, &cut.max];
            let mut columns = limits.into_iter().flatten().flat_map(Limit::columns).copied();
            cut.varying = self.varying[cut.column] || columns.any(|column| self.varying[column]);
        }
        self.in_parts()
    }

    /// Numbers of the features that are judged.
    pub fn features_of(&self, which: Which) -> &[usize] {
        &self.part(which).features
    }

    fn part(&self, which: Which) -> &SelectionPart {
        match which {
            Which::All => &self.whole,
            Which::Fixed => &self.fixed,
            Which::Varying => &self.moving,
        }
    }

    /// Which of the quantities are given once per position.
    pub fn varying(&self) -> &[bool] {
        &self.varying
    }

    /// With an expression for the weight of an event; its quantities are read too.
    pub fn with_weight(mut self, weight: Option<&str>) -> Result<Selection> {
        let bound = weight.map(|text| CutBound::Expression(text.to_string()));
        self.weight = limit(&mut self.quantities, bound.as_ref())?;
        self.varying.resize(self.quantities.len(), false);
        Ok(self.in_parts())
    }

    /// With bins of a quantity or an expression, whose quantities are read too.
    pub fn with_bins(mut self, per: &str, edges: &[f64]) -> Result<Selection> {
        let of = limit(&mut self.quantities, Some(&CutBound::Expression(per.to_string())))?;
        self.bins = of.map(|of| QuantityBins { of, edges: edges.to_vec() });
        self.varying.resize(self.quantities.len(), false);
        Ok(self.in_parts())
    }

    pub fn has_bins(&self) -> bool {
        self.bins.is_some()
    }

    /// The bin of a row; [`NO_BIN`] where its quantity has no value, or no bins are asked for.
    #[inline]
    pub fn bin(&self, value: impl Fn(usize) -> f64) -> u16 {
        self.bins.as_ref().map_or(NO_BIN, |bins| bin_of(&bins.edges, bins.of.value(value)))
    }

    pub fn has_weight(&self) -> bool {
        self.weight.is_some()
    }

    /// Names of the quantities that the weight is made of.
    pub fn weight_quantities(&self) -> impl Iterator<Item = &str> {
        let columns = self.weight.iter().flat_map(Limit::columns);
        columns.map(|column| self.quantities[*column].as_str())
    }

    /// Names of the quantities that the cuts are made of.
    pub fn cut_quantities(&self) -> impl Iterator<Item = &str> {
        let of_cut = |cut: &BoundCut| {
            let limits = cut.min.iter().chain(&cut.max).flat_map(Limit::columns).copied();
            [cut.column].into_iter().chain(limits).collect::<Vec<usize>>()
        };
        self.cuts.iter().flat_map(of_cut).map(|column| self.quantities[column].as_str())
    }

    /// Names of the quantities that the bins are made of.
    pub fn bin_quantities(&self) -> impl Iterator<Item = &str> {
        let columns = self.bins.iter().flat_map(|bins| bins.of.columns());
        columns.map(|column| self.quantities[*column].as_str())
    }

    /// The weight of a row, 1 where none is asked for; refused if negative or not finite.
    pub fn weight(&self, block: &Block, row: usize) -> Result<f64> {
        let Some(weight) = &self.weight else { return Ok(1.0) };
        let value = weight.value(|column| f64::from(block.quantities[column][row]));
        if value.is_finite() && value >= 0.0 {
            return Ok(value);
        }
        Err(Fault::new("a weight that cannot be used")
            .expected("data.weight to give finite numbers of 0 or more")
            .found(value)
            .advice("look at the quantities in the expression with `taiga-flow check`, or cut such rows away")
            .input())
    }

    /// Whether quantities of an event that is no row (features) lie inside the cuts; a cut
    /// on anything else than features is passed over.
    pub fn inside(&self, quantities: &[f64]) -> bool {
        let value = |column: usize| quantities.get(column).copied();
        self.cuts.iter().all(|cut| {
            let Some(x) = value(cut.column) else { return true };
            let known = |limit: &Option<Limit>| limit.as_ref().and_then(|l| l.value_of(value));
            known(&cut.min).is_none_or(|min| x > min) && known(&cut.max).is_none_or(|max| x < max)
        })
    }

    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// All quantities to read; the features come first, in their order.
    pub fn quantities(&self) -> &[String] {
        &self.quantities
    }

    /// Whether a row fails a cut on values that are finite: it is no bad row then, whatever
    /// its other values are.
    pub fn fails_cut(&self, block: &Block, row: usize) -> bool {
        let value = |column: usize| f64::from(block.quantities[column][row]);
        self.cuts.iter().any(|cut| {
            let x = value(cut.column);
            // Comparisons with NaN do not hold.
            let fails = |limit: &Limit, below: bool| {
                let limit = limit.value(value);
                if below { x <= limit } else { x >= limit }
            };
            x.is_finite()
                && (cut.min.as_ref().is_some_and(|limit| fails(limit, true))
                    || cut.max.as_ref().is_some_and(|limit| fails(limit, false)))
        })
    }

    /// The bounds of the cuts as text, in the order of [`Selection::failed_bounds`].
    pub fn bounds(&self) -> Vec<String> {
        let texts = self.cuts.iter().flat_map(|cut| cut.texts.iter().flatten());
        texts.take(MOST_BOUNDS).cloned().collect()
    }

    /// Fills `failed` with a mask per row, bit b set where a finite value is outside bound b.
    /// Returns the number of bounds. Further bounds than 120 share the last bit.
    pub fn failed_bounds(&self, columns: &[&[f32]], rows: usize, failed: &mut Vec<u128>) -> usize {
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

    /// Judges rows of `columns`, which are those of [`Selection::quantities`] in their order;
    /// what is not judged may be empty. A row with a quantity that is not finite has
    /// [`NOT_FINITE`] and no other bit.
    pub fn evaluate(
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
                // A comparison with NaN does not hold.
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

/// A row whose values are not all finite has no other verdict.
pub fn alone(status: u32) -> u32 {
    if status & NOT_FINITE == 0 { status } else { NOT_FINITE }
}

/// Sets a bit where a value is not good.
fn mark<T: Copy>(status: &mut [u32], values: &[T], bit: u32, good: impl Fn(T) -> bool) {
    let pairs = status.iter_mut().zip(values);
    pairs.for_each(|(status, value)| *status |= if good(*value) { 0 } else { bit });
}

/// Quantities of an expression that is evaluated without asking for memory.
const FEW: usize = 8;

impl Limit {
    fn columns(&self) -> &[usize] {
        match self {
            Limit::Number(_) => &[],
            Limit::Expression { columns, .. } => columns,
        }
    }

    fn value(&self, of: impl Fn(usize) -> f64) -> f64 {
        match self {
            Limit::Number(x) => *x,
            Limit::Expression { expression, columns } if columns.len() <= FEW => {
                let mut values = [0.0; FEW];
                values.iter_mut().zip(columns).for_each(|(value, column)| *value = of(*column));
                expression.evaluate(&values[..columns.len()])
            }
            Limit::Expression { expression, columns } => {
                let values: Vec<f64> = columns.iter().map(|c| of(*c)).collect();
                expression.evaluate(&values)
            }
        }
    }

    /// The values of many rows: `out`, (rows); `variables` is memory for what they are made of.
    fn values<'a>(
        &self,
        column: impl Fn(usize) -> &'a [f32],
        rows: usize,
        out: &mut Vec<f64>,
        variables: &mut Vec<Vec<f64>>,
    ) {
        out.clear();
        match self {
            Limit::Number(x) => out.resize(rows, *x),
            Limit::Expression { expression, columns } => {
                variables.resize(variables.len().max(columns.len()), Vec::new());
                for (values, c) in variables.iter_mut().zip(columns) {
                    values.clear();
                    values.extend(column(*c).iter().copied().map(f64::from));
                }
                let given: Vec<&[f64]> =
                    variables[..columns.len()].iter().map(Vec::as_slice).collect();
                expression.evaluate_rows(&given, rows, |value| out.push(value));
            }
        }
    }

    /// The same where some quantities are not known.
    fn value_of(&self, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        match self {
            Limit::Number(x) => Some(*x),
            Limit::Expression { expression, columns } => {
                let values: Option<Vec<f64>> = columns.iter().map(|c| of(*c)).collect();
                Some(expression.evaluate(&values?))
            }
        }
    }
}

fn index_of(quantities: &mut Vec<String>, name: &str) -> usize {
    quantities.iter().position(|q| q == name).unwrap_or_else(|| {
        quantities.push(name.to_string());
        quantities.len() - 1
    })
}

fn limit(quantities: &mut Vec<String>, bound: Option<&CutBound>) -> Result<Option<Limit>> {
    Ok(match bound {
        None => None,
        Some(CutBound::Number(x)) => Some(Limit::Number(*x)),
        Some(CutBound::Expression(text)) => {
            let expression = Expression::parse(text)?;
            let columns = expression.variables().iter().map(|v| index_of(quantities, v)).collect();
            Some(Limit::Expression { expression, columns })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transform;
    use taiga_flow_gpu::random::Stream;

    fn selection() -> Selection {
        let feature = |name: &str, transform| Feature {
            name: name.into(),
            transform,
            offset: 0.0,
            exponent: 0.0,
            quantum: 0.0,
        };
        let features = [feature("size", Transform::Log10), feature("con2", Transform::Logit)];
        let cuts: BTreeMap<String, Cut> = [
            ("size".to_string(), Cut { min: Some(CutBound::Number(100.0)), max: None }),
            (
                "width".to_string(),
                Cut { min: None, max: Some(CutBound::Expression("0.068*log10(size)".into())) },
            ),
        ]
        .into();
        Selection::new(&features, &cuts).unwrap()
    }

    fn status(size: f32, con2: f32, width: f32) -> u32 {
        let mut outcome = SelectionOutcome::default();
        // Between rows of another verdict.
        let columns = [[-1.0, size, f32::NAN], [2.0, con2, 0.5], [9.0, width, 0.1]];
        selection().evaluate(Which::All, &columns.each_ref().map(|c| &c[..]), 1..2, &mut outcome);
        outcome.status[0]
    }

    #[test]
    fn features_come_first_then_columns_of_cuts() {
        assert_eq!(selection().quantities(), ["size", "con2", "width"]);
    }

    #[test]
    fn fixed_and_varying_parts_equal_the_whole() {
        let split = selection().with_varying(&["con2", "size"]);
        let mut columns = [const { Vec::new() }; 3];
        for size in [1000.0_f32, 100.0, -5.0, f32::NAN] {
            for con2 in [0.5_f32, 1.0, f32::INFINITY] {
                for width in [0.1_f32, 0.3, f32::NAN] {
                    columns.iter_mut().zip([size, con2, width]).for_each(|(c, x)| c.push(x));
                }
            }
        }
        let all = columns.each_ref().map(Vec::as_slice);
        // Memory of earlier rows does not tell.
        let judge = |selection: &Selection, which| {
            let mut outcome = SelectionOutcome::default();
            selection.evaluate(which, &all, 0..30, &mut outcome);
            selection.evaluate(which, &all, 0..36, &mut outcome);
            outcome
        };
        let whole = judge(&selection(), Which::All);
        let (fixed, varying) = (judge(&split, Which::Fixed), judge(&split, Which::Varying));
        let together = fixed.status.iter().zip(&varying.status).map(|(f, v)| alone(f | v));
        assert_eq!(together.collect::<Vec<_>>(), whole.status);
        let bits = |outcome: &SelectionOutcome, d| {
            outcome.coordinates(d).iter().map(|c| c.to_bits()).collect::<Vec<_>>()
        };
        for d in 0..2 {
            assert_eq!(bits(&varying, d), bits(&whole, d));
        }
        assert!(split.features_of(Which::Fixed).is_empty());
        assert_eq!(whole.status.iter().filter(|s| **s == 0).count(), 1);
        let mut outcome = SelectionOutcome::default();
        let width: [&[f32]; 3] = [&[], &[], &[0.3, f32::NAN]];
        split.evaluate(Which::Fixed, &width, 0..2, &mut outcome);
        assert_eq!(outcome.status, [0, NOT_FINITE], "nothing fixed has a limit");
    }

    /// One row at a time, as it is written in ARCHITECTURE.
    #[test]
    fn many_rows_are_judged_as_one_by_one() {
        let stream = Stream::new(crate::test_seed(), "judged", &[]);
        let rows = 1000;
        let value = |i: u64, scale: f64| match stream.bits(2 * i) % 20 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            2 => -1.0,
            _ => (scale * stream.uniform(2 * i + 1)) as f32,
        };
        let column = |c: u64, scale: f64| -> Vec<f32> {
            (0..rows).map(|row| value(c * rows + row, scale)).collect()
        };
        let columns = [column(0, 300.0), column(1, 1.2), column(2, 0.25)];
        let mut outcome = SelectionOutcome::default();
        let selection = selection();
        let all = columns.each_ref().map(Vec::as_slice);
        selection.evaluate(Which::All, &all, 0..rows as usize, &mut outcome);
        let mut found = [0; 3];
        for row in 0..rows as usize {
            let [size, con2, width] = columns.each_ref().map(|c| f64::from(c[row]));
            let at = [libm::log10(size), libm::log(con2 / (1.0 - con2))];
            let inside = size > 100.0 && width < 0.068 * libm::log10(size);
            let domain = at.iter().all(|c| c.is_finite());
            let finite = [size, con2, width].iter().all(|x| x.is_finite());
            let both = [(domain, OUT_OF_DOMAIN), (inside, CUT)];
            let bits = both.iter().filter(|(good, _)| !good).map(|(_, bit)| bit);
            let expected = if finite { bits.sum() } else { NOT_FINITE };
            assert_eq!(outcome.status[row], expected, "{size} {con2} {width}");
            for (d, coordinate) in at.iter().enumerate().filter(|_| expected & UNUSABLE == 0) {
                assert_eq!(outcome.coordinates(d)[row].to_bits(), coordinate.to_bits());
            }
            found[0] += usize::from(expected == 0);
            found[1] += usize::from(expected & CUT != 0);
            found[2] += usize::from(expected & OUT_OF_DOMAIN != 0);
        }
        assert!(found.iter().all(|count| *count > 20), "{found:?}");
    }

    #[test]
    fn cut_row_is_never_counted_as_bad() {
        let fails = |size: f32, con2: f32, width: f32| {
            let quantities = vec![vec![size], vec![con2], vec![width]];
            let block = Block { rows: 1, quantities, ..Block::default() };
            selection().fails_cut(&block, 0)
        };
        assert!(fails(100.0, f32::NAN, f32::NAN) && fails(100.0, 0.5, 0.1));
        assert!(!fails(f32::NAN, 0.5, 0.1) && !fails(1000.0, f32::NAN, f32::NAN));
        assert!(!fails(f32::INFINITY, 0.5, 0.1) && !fails(1000.0, 0.5, 0.1));
    }

    #[test]
    fn every_reason_has_its_bit() {
        assert_eq!(status(1000.0, 0.5, 0.1), 0);
        assert_eq!(status(100.0, 0.5, 0.1), CUT);
        assert_eq!(status(1000.0, 0.5, 0.21), CUT);
        assert_eq!(status(1000.0, 1.0, 0.1), OUT_OF_DOMAIN);
        assert_eq!(status(-5.0, 0.5, 0.1), OUT_OF_DOMAIN | CUT);
        assert_eq!(status(1000.0, 0.5, f32::NAN), NOT_FINITE);
        assert_eq!(status(f32::INFINITY, 0.5, 0.1), NOT_FINITE);
    }
}
