//! Which quantities of a file are needed, and which rows can be used: finite values,
//! inside the cuts, inside the transforms' domains.
//!
//! The verdict on a row is a bit mask, the same in training, evaluation and scoring; a
//! row is never dropped without its bit being counted or written.

use super::expression::Expression;
use super::features;
use super::table::Block;
use crate::config::{Bound, Cut, Feature};
use crate::error::{Fault, Result};
use std::collections::BTreeMap;

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
    varying: Vec<bool>, // (quantities) those given per assumed source position
    whole: Part,
    fixed: Part,  // what does not depend on the position
    moving: Part, // what does
}

/// What of a row is judged together: quantities, features and cuts by their numbers.
#[derive(Debug, Clone, Default)]
struct Part {
    quantities: Vec<usize>,
    features: Vec<usize>,
    cuts: Vec<usize>,
}

#[derive(Debug, Clone)]
struct BoundCut {
    column: usize,
    min: Option<Limit>,
    max: Option<Limit>,
    varying: bool,
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
            varying,
            whole,
            fixed,
            moving,
        };
        Ok(selection.in_parts())
    }

    /// Works out what belongs together.
    fn in_parts(mut self) -> Selection {
        let part = |of: &dyn Fn(bool) -> bool| Part {
            quantities: (0..self.quantities.len()).filter(|q| of(self.varying[*q])).collect(),
            features: (0..self.features.len()).filter(|f| of(self.varying[*f])).collect(),
            cuts: (0..self.cuts.len()).filter(|c| of(self.cuts[*c].varying)).collect(),
        };
        let parts = (part(&|_| true), part(&|varying| !varying), part(&|varying| varying));
        (self.whole, self.fixed, self.moving) = parts;
        self
    }

    /// With these quantities given once per assumed source position: then a row is judged
    /// by [`Selection::fixed_status`], and at each position by
    /// [`Selection::varying_status`].
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

    /// Numbers of the features that are given once per position.
    pub fn varying_features(&self) -> &[usize] {
        &self.moving.features
    }

    /// Which of the quantities are given once per position.
    pub fn varying(&self) -> &[bool] {
        &self.varying
    }

    /// With an expression for the weight of an event; its quantities are read too.
    pub fn with_weight(mut self, weight: Option<&str>) -> Result<Selection> {
        let bound = weight.map(|text| Bound::Expression(text.to_string()));
        self.weight = limit(&mut self.quantities, bound.as_ref())?;
        self.varying.resize(self.quantities.len(), false);
        Ok(self.in_parts())
    }

    pub fn has_weight(&self) -> bool {
        self.weight.is_some()
    }

    /// Names of the quantities that the weight is made of.
    pub fn weight_quantities(&self) -> impl Iterator<Item = &str> {
        let columns = self.weight.iter().flat_map(Limit::columns);
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

    /// Status of row `row` of a block read with [`Selection::quantities`]; 0 is usable.
    /// Writes the features' coordinates (features), which are finite unless the status
    /// has one of the bits [`UNUSABLE`].
    pub fn status(&self, block: &Block, row: usize, coordinates: &mut [f64]) -> u32 {
        let value = |column: usize| f64::from(block.quantities[column][row]);
        self.judge(&self.whole, value, coordinates)
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

    /// The part of the status that is the same at every position, and the coordinates of
    /// the features that are; `value` gives quantities that do not vary.
    #[inline(always)]
    pub fn fixed_status(&self, value: impl Fn(usize) -> f64, coordinates: &mut [f64]) -> u32 {
        self.judge(&self.fixed, value, coordinates)
    }

    /// The part of the status that differs between positions, and the coordinates of the
    /// features that do; `value` gives all quantities.
    #[inline(always)]
    pub fn varying_status(&self, value: impl Fn(usize) -> f64, coordinates: &mut [f64]) -> u32 {
        self.judge(&self.moving, value, coordinates)
    }

    #[inline(always)]
    fn judge(&self, part: &Part, value: impl Fn(usize) -> f64, coordinates: &mut [f64]) -> u32 {
        if part.quantities.iter().any(|q| !value(*q).is_finite()) {
            return NOT_FINITE;
        }
        let mut status = 0;
        for d in part.features.iter().copied() {
            coordinates[d] = features::transform(&self.features[d], value(d));
            if !coordinates[d].is_finite() {
                status |= OUT_OF_DOMAIN;
            }
        }
        let inside = part.cuts.iter().map(|cut| &self.cuts[*cut]).all(|cut| {
            let x = value(cut.column);
            cut.min.as_ref().is_none_or(|limit| x > limit.value(&value))
                && cut.max.as_ref().is_none_or(|limit| x < limit.value(&value))
        });
        if inside { status } else { status | CUT }
    }
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

fn limit(quantities: &mut Vec<String>, bound: Option<&Bound>) -> Result<Option<Limit>> {
    Ok(match bound {
        None => None,
        Some(Bound::Number(x)) => Some(Limit::Number(*x)),
        Some(Bound::Expression(text)) => {
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
            ("size".to_string(), Cut { min: Some(Bound::Number(100.0)), max: None }),
            (
                "width".to_string(),
                Cut { min: None, max: Some(Bound::Expression("0.068*log10(size)".into())) },
            ),
        ]
        .into();
        Selection::new(&features, &cuts).unwrap()
    }

    fn status(size: f32, con2: f32, width: f32) -> u32 {
        let block = Block {
            rows: 1,
            quantities: vec![vec![size], vec![con2], vec![width]],
            ..Block::default()
        };
        selection().status(&block, 0, &mut [0.0; 2])
    }

    #[test]
    fn features_come_first_and_cuts_add_what_they_need() {
        assert_eq!(selection().quantities(), ["size", "con2", "width"]);
    }

    #[test]
    fn fixed_and_varying_parts_together_judge_as_the_whole() {
        let split = selection().with_varying(&["con2", "size"]);
        for size in [1000.0_f32, 100.0, -5.0, f32::NAN] {
            for con2 in [0.5_f32, 1.0, f32::INFINITY] {
                for width in [0.1_f32, 0.3, f32::NAN] {
                    let values = [size, con2, width].map(f64::from);
                    let (mut whole, mut parts) = ([f64::NAN; 2], [f64::NAN; 2]);
                    let one = selection().fixed_status(|c| values[c], &mut whole);
                    let fixed = split.fixed_status(|c| values[c], &mut parts);
                    let varying = split.varying_status(|c| values[c], &mut parts);
                    if (fixed | varying) & NOT_FINITE == 0 {
                        assert_eq!(fixed | varying, one, "{values:?}");
                        assert_eq!(parts.map(f64::to_bits), whole.map(f64::to_bits));
                    } else {
                        assert_eq!(one, NOT_FINITE, "{values:?}");
                    }
                }
            }
        }
        assert_eq!(split.fixed_status(|_| 1.0, &mut [0.0; 2]), 0, "nothing fixed has a limit");
    }

    #[test]
    fn a_cut_row_is_no_bad_row_whatever_else_it_holds() {
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
