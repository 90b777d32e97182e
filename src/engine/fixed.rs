//! Exact sums as integers in units of 2⁻³².
//!
//! The gradient sum of a shard, or of a fixed part of it, is rounded to 64-bit integers once. Sums
//! over shards, threads, ranks and nodes are then integer sums, which are associative: neither
//! order nor rank count can change a bit. A component that is not finite, or not below 2³⁰ divided
//! by the number of shards, makes its shard unusable. So no sum of all shards can overflow
//! undetected.

/// The number 1.0 in fixed-point units.
pub const FIXED_ONE: f64 = 4_294_967_296.0;

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
    pub fn new(parameters: usize, shards: usize) -> FixedSum {
        FixedSum { values: vec![0; parameters], unusable: 0, shards }
    }

    /// Sets all sums to 0.
    pub fn clear(&mut self) {
        self.values.fill(0);
        self.unusable = 0;
    }

    /// Returns the largest magnitude (exclusive) of one shard's component.
    pub fn bound(&self) -> f64 {
        (1u64 << 30) as f64 / self.shards as f64
    }

    /// Returns the number of logical shards on all ranks.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Adds one shard's sum. An unusable shard is counted and adds nothing that
    /// matters: the step is skipped as a whole.
    pub fn add_shard(&mut self, gradient: &[f64]) {
        let bound = self.bound();
        let mut usable = true;
        for (sum, g) in self.values.iter_mut().zip(gradient) {
            usable &= g.abs() < bound;
            // `as` saturates and sends NaN to 0, so unusable values do no harm here.
            *sum = sum.wrapping_add((g * FIXED_ONE).round_ties_even() as i64);
        }
        self.unusable += u64::from(!usable);
    }

    /// Adds what another thread has summed.
    pub fn merge(&mut self, other: &FixedSum) {
        for (sum, value) in self.values.iter_mut().zip(&other.values) {
            *sum = sum.wrapping_add(*value);
        }
        self.unusable += other.unusable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn the_order_of_shards_cannot_change_a_bit() {
        let stream = Stream::new(5, "fixed", &[]);
        let shards: Vec<Vec<f64>> = (0..16u64)
            .map(|s| {
                (0..33)
                    .map(|i| stream.normal(33 * s + i) * libm::pow(10.0, (i % 9) as f64 - 4.0))
                    .collect()
            })
            .collect();
        let mut forward = FixedSum::new(33, 16);
        shards.iter().for_each(|s| forward.add_shard(s));
        let mut halves = [FixedSum::new(33, 16), FixedSum::new(33, 16)];
        shards.iter().rev().enumerate().for_each(|(i, s)| halves[i % 2].add_shard(s));
        let [mut first, second] = halves;
        first.merge(&second);
        assert_eq!(forward, first);
    }

    #[test]
    fn large_or_non_finite_component_is_unusable() {
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, (1u64 << 26) as f64] {
            let mut sum = FixedSum::new(3, 16);
            sum.add_shard(&[0.5, bad, 1.0]);
            sum.add_shard(&[0.5, 1.0, 1.0]);
            assert_eq!(sum.unusable, 1, "{bad}");
        }
    }
}
