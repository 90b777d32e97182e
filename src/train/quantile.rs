//! The exact k-th smallest of numbers that lie on all ranks, by integer histograms.
//!
//! f32 values are mapped to integers of the same order; one histogram of their upper
//! 16 bits finds the bin, one of the lower 16 bits within it the value. Histograms are
//! summed over ranks as integers, so the result depends on the values alone.

use crate::error::Result;
use crate::figures::threshold::quantile_rank;
use crate::world::World;

const BINS: usize = 1 << 16;

/// The quantile of all ranks' values (see `figures::threshold::quantile`); NaN are
/// left out. `None` without values.
pub fn quantile(world: &dyn World, values: &[f32], fraction: f64) -> Result<Option<f32>> {
    let mut upper = vec![0i64; BINS];
    for key in keys(values) {
        upper[(key >> 16) as usize] += 1;
    }
    world.all_reduce_sum(&mut upper)?;
    let count: i64 = upper.iter().sum();
    let Some(mut rank) = quantile_rank(count as usize, fraction).filter(|_| count > 0) else {
        return Ok(None);
    };
    let bin = locate(&upper, &mut rank);
    let mut lower = vec![0i64; BINS];
    for key in keys(values).filter(|key| (key >> 16) as usize == bin) {
        lower[(key & 0xFFFF) as usize] += 1;
    }
    world.all_reduce_sum(&mut lower)?;
    let key = (bin << 16 | locate(&lower, &mut rank)) as u32;
    Ok(Some(value(key)))
}

/// The bin that holds the value of this rank; leaves the rank within the bin.
fn locate(histogram: &[i64], rank: &mut usize) -> usize {
    for (bin, count) in histogram.iter().enumerate() {
        if *rank < *count as usize {
            return bin;
        }
        *rank -= *count as usize;
    }
    histogram.len() - 1
}

fn keys(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().filter(|x| !x.is_nan()).map(|x| {
        let bits = x.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
    })
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Threads;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn the_quantile_over_ranks_is_that_of_all_values_sorted() {
        let stream = Stream::new(8, "quantile", &[]);
        let values: Vec<f32> = (0..1001).map(|i| (50.0 * stream.normal(i)) as f32).collect();
        let mut sorted: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        sorted.sort_by(f64::total_cmp);
        for fraction in [0.0, 0.0455, 0.5, 0.999, 1.0] {
            for ranks in [1, 3] {
                let found = Threads::run(ranks, |world| {
                    let mine: Vec<f32> =
                        values.iter().copied().skip(world.rank()).step_by(ranks).collect();
                    quantile(world, &mine, fraction)
                });
                for outcome in found {
                    let expected = crate::figures::threshold::quantile(&sorted, fraction);
                    assert_eq!(outcome.unwrap().map(f64::from), expected);
                }
            }
        }
    }

    #[test]
    fn no_values_have_no_quantile() {
        let outcome = Threads::run(2, |world| quantile(world, &[f32::NAN], 0.5));
        assert!(outcome.into_iter().all(|q| q.unwrap().is_none()));
    }
}
