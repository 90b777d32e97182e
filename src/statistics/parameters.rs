//! Distributions of a parameter in either class.
//!
//! The scaler of the model fixes the bins, so that counts add up over ranks.

use super::Class;
use serde::{Deserialize, Serialize};

/// Number of bins within four standard deviations of the mean of the training events; the outer
/// bins also contain all values beyond.
pub(crate) const BINS: usize = 40;
const REACH: f64 = 4.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParameterHistogram {
    pub name: String,
    pub unit: String,
    /// (bins + 1) values of the parameter, equidistant in its coordinate.
    pub edges: Vec<f64>,
    /// Events per bin.
    pub gamma: Vec<u64>,
    pub hadron: Vec<u64>,
}

/// Returns the bin of a scaled coordinate; of signed coordinates only the magnitude counts.
pub(crate) fn bin_of(scaled: f32, signed: bool) -> usize {
    let z = f64::from(scaled);
    let share = if signed { z.abs() / REACH } else { (z + REACH) / (2.0 * REACH) };
    ((share * BINS as f64).max(0.0) as usize).min(BINS - 1)
}

/// Returns the scaled coordinate of an edge.
pub(crate) fn edge(number: usize, signed: bool) -> f64 {
    let share = number as f64 / BINS as f64;
    if signed { REACH * share } else { REACH * (2.0 * share - 1.0) }
}

impl ParameterHistogram {
    /// Returns the share of a class per bin; empty without events.
    pub(crate) fn shares(&self, class: Class) -> Vec<f64> {
        let counts = if class == Class::Gamma { &self.gamma } else { &self.hadron };
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return Vec::new();
        }
        counts.iter().map(|count| *count as f64 / all as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_between_the_edges_of_its_bin() {
        for signed in [false, true] {
            for i in -50..50 {
                let z = 0.0777 * i as f32;
                let bin = bin_of(z, signed);
                let seen = f64::from(if signed { z.abs() } else { z });
                assert!(edge(bin, signed) <= seen && seen < edge(bin + 1, signed), "{z} {bin}");
            }
            assert_eq!(bin_of(1e9, signed), BINS - 1);
        }
        assert_eq!((bin_of(-1e9, false), bin_of(-1e9, true)), (0, BINS - 1));
    }
}
