//! Distributions of a quantity as exact counts in fine bins, and distances between them.
//!
//! Bins are equal steps of the bits of an f32: 256 per factor of two, in the order of the numbers.
//! So no range is needed beforehand, and the counts of any pieces add up to those of the whole in
//! any order. A bin is at most 0.4 % of its value wide. A distance is that of the binned
//! distributions; it is below the true one by less than the share of a bin.

use super::WeightSum;
use super::tails::distance_p_value;
use crate::config::DriftLimits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bits of an f32 that are dropped within a bin.
const DROPPED_BITS: u32 = 15;
/// Bins of the index, each with the same share of the reference.
const INDEX_BINS: u64 = 10;

/// Counts of finite values by bin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Distribution {
    bins: BTreeMap<u32, u64>,
}

/// Difference of a distribution from its reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    pub events: u64,
    pub reference_events: u64,
    /// Largest difference of the cumulative shares (Kolmogorov 1933, Smirnov 1939).
    pub ks: f64,
    /// Its p-value by Stephens (1970).
    pub p_value: f64,
    /// Population stability index Σ (p − q) ln(p/q) over ten bins of equal share of the reference;
    /// above 0.25 a population is usually considered different.
    pub psi: f64,
}

impl Drift {
    /// Returns whether both sides have enough events.
    pub(crate) fn is_enough(&self, limits: &DriftLimits) -> bool {
        self.events.min(self.reference_events) >= limits.least_events
    }

    /// Returns whether the difference, one of `comparisons`, exceeds both chance and the smallest
    /// relevant effect.
    pub(crate) fn is_flagged(&self, limits: &DriftLimits, comparisons: usize) -> bool {
        let by_chance = self.p_value * comparisons as f64;
        let effect = self.ks > limits.ks || self.psi > limits.psi;
        self.is_enough(limits) && by_chance < limits.p_value && effect
    }
}

impl Distribution {
    /// Adds a value; a value that is not finite is ignored.
    pub(crate) fn add(&mut self, value: f32) {
        if value.is_finite() {
            *self.bins.entry(bin_of(value)).or_default() += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Distribution) {
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
    }

    /// Returns the distribution without the events of a part of it.
    pub(crate) fn without(&self, part: &Distribution) -> Distribution {
        let mut rest = self.clone();
        for (bin, count) in &part.bins {
            if let Some(left) = rest.bins.get_mut(bin) {
                *left = left.saturating_sub(*count);
            }
        }
        rest.bins.retain(|_, count| *count > 0);
        rest
    }

    pub(crate) fn events(&self) -> u64 {
        self.bins.values().sum()
    }

    /// Returns the sum of a weight over the values, each replaced by the middle of its bin.
    pub(crate) fn weighted(&self, weight: impl Fn(f64) -> f64) -> WeightSum {
        let of_bin = |(bin, count): (&u32, &u64)| {
            let weight = weight(middle(*bin));
            WeightSum::of(*count).scaled(weight)
        };
        self.bins.iter().map(of_bin).fold(WeightSum::default(), WeightSum::plus)
    }

    /// Returns the counts with the smallest value of their bin, ascending.
    pub(crate) fn by_least_value(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> {
        self.bins.iter().map(|(bin, count)| (from_ordered(bin << DROPPED_BITS), *count))
    }

    /// Returns the middle of the bin that contains the quantile; `None` without events.
    pub(crate) fn quantile(&self, fraction: f64) -> Option<f64> {
        let wanted = (fraction * self.events() as f64).max(1.0);
        let mut below = 0;
        let bin = self.bins.iter().find(|(_, count)| {
            below += **count;
            below as f64 >= wanted
        });
        bin.or(self.bins.iter().next_back()).map(|(bin, _)| middle(*bin))
    }

    /// Returns counts in equal bins between `low` and `high`; values outside are in the end bins.
    pub(crate) fn histogram(&self, low: f64, high: f64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for (bin, count) in &self.bins {
            let place = (middle(*bin) - low) / (high - low) * bins as f64;
            counts[(place.max(0.0) as usize).min(bins - 1)] += count;
        }
        counts
    }

    /// Returns the difference from `reference`; `None` if either has no events.
    pub(crate) fn drift_from(&self, reference: &Distribution) -> Option<Drift> {
        let (events, others) = (self.events(), reference.events());
        if events == 0 || others == 0 {
            return None;
        }
        let (n, m) = (events as f64, others as f64);
        let ks = self.distance(reference);
        let p_value = distance_p_value(ks, n * m / (n + m));
        let psi = self.stability(reference);
        Some(Drift { events, reference_events: others, ks, p_value, psi })
    }

    fn distance(&self, other: &Distribution) -> f64 {
        let (n, m) = (self.events() as f64, other.events() as f64);
        let (mut own, mut its, mut largest) = (0, 0, 0.0_f64);
        let mut bins: Vec<u32> = self.bins.keys().chain(other.bins.keys()).copied().collect();
        bins.sort_unstable();
        bins.dedup();
        for bin in bins {
            own += self.bins.get(&bin).copied().unwrap_or(0);
            its += other.bins.get(&bin).copied().unwrap_or(0);
            largest = largest.max((own as f64 / n - its as f64 / m).abs());
        }
        largest
    }

    /// Returns the stability index. An empty bin counts as half an event, so that the index is
    /// finite.
    fn stability(&self, reference: &Distribution) -> f64 {
        let (n, m) = (self.events() as f64, reference.events() as f64);
        let mut psi = 0.0;
        let mut term = |own: u64, its: u64| {
            if own + its > 0 {
                let (p, q) = ((own as f64).max(0.5) / n, (its as f64).max(0.5) / m);
                psi += (p - q) * libm::log(p / q);
            }
        };
        let (mut its, mut edges) = (0, Vec::new());
        for (bin, count) in &reference.bins {
            its += count;
            if its * INDEX_BINS >= reference.events() * (edges.len() as u64 + 1) {
                edges.push(*bin);
                // A bin with a large share may contain several edges: they count as one.
                while its * INDEX_BINS >= reference.events() * (edges.len() as u64 + 1) {
                    edges.push(*bin);
                }
            }
        }
        edges.dedup();
        // The reference has no values above the last edge.
        let last = edges.last().copied();
        let mut first = 0;
        for edge in edges {
            let high = if Some(edge) == last { u32::MAX } else { edge };
            let count = |of: &Distribution| of.bins.range(first..=high).map(|(_, n)| n).sum();
            term(count(self), count(reference));
            first = edge.saturating_add(1);
        }
        psi
    }
}

fn bin_of(value: f32) -> u32 {
    ordered_bits(value) >> DROPPED_BITS
}

/// Returns the bits of a finite value, mapped to integers of the same order.
pub(crate) fn ordered_bits(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits(); // −0 becomes 0
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn middle(bin: u32) -> f64 {
    from_ordered((bin << DROPPED_BITS) | 1 << (DROPPED_BITS - 1))
}

/// Returns the value of [`ordered_bits`].
fn from_ordered(ordered: u32) -> f64 {
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    f64::from(f32::from_bits(bits))
}

#[cfg(test)]
mod tests;
