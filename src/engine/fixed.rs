//! Exact sums as integers in units of 2⁻³².
//!
//! The gradient sum of a shard, or of a fixed part of it, is rounded to 64-bit integers once. Sums
//! over shards, threads, ranks and nodes are then integer sums, which are associative: neither
//! order nor rank count can change a bit. A component that is not finite, or not below 2³⁰ divided
//! by the number of shards, makes its shard unusable. So no sum of all shards can overflow
//! undetected.

/// The number 1.0 in fixed-point units.
pub(crate) const FIXED_ONE: f64 = 4_294_967_296.0;

/// Gradient sums of some of the `shards` logical shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedSum {
    pub values: Vec<i64>, // (parameters), units of 2⁻³²
    /// Shards, or parts of shards, with a component that cannot be added.
    pub unusable: u64,
    shards: usize,
}

impl FixedSum {
    /// Creates sums of 0 for `parameters` parameters and `shards` logical shards on all ranks.
    pub(crate) fn new(parameters: usize, shards: usize) -> FixedSum {
        FixedSum { values: vec![0; parameters], unusable: 0, shards }
    }

    /// Sets all sums to 0.
    pub(crate) fn clear(&mut self) {
        self.values.fill(0);
        self.unusable = 0;
    }

    /// Returns the largest magnitude (exclusive) of one shard's component.
    pub(crate) fn bound(&self) -> f64 {
        (1u64 << 30) as f64 / self.shards as f64
    }

    /// Returns the number of logical shards on all ranks.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }
}
