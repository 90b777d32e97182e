//! Exact quantiles of numbers that are distributed over ranks, by integer histograms.
//!
//! f32 values are mapped to integers of the same order. A histogram of their upper 16 bits gives
//! the bin, a histogram of the lower 16 bits within it the value. Histograms are summed over ranks
//! as integers, so the result depends on the values alone.

use crate::comm::Communicator;
use crate::error::Result;
use crate::statistics::quantile::quantile_rank;

const BINS: usize = 1 << 16;

/// Unit of weights is 2⁻²⁰.
const UNITS: f64 = (1u64 << 20) as f64;

/// Returns the quantile of the values of all ranks (see
/// `statistics::thresholds::threshold::quantile`); NaN are ignored. `None` without values.
pub(crate) fn quantile(
    comm: &dyn Communicator,
    values: &[f32],
    fraction: f64,
) -> Result<Option<f32>> {
    weighted(comm, values, None, fraction)
}

/// Returns the quantiles of several fractions; empty without values.
pub(crate) fn quantiles(
    comm: &dyn Communicator,
    values: &[f32],
    fractions: &[f64],
) -> Result<Vec<f32>> {
    let mut found = Vec::with_capacity(fractions.len());
    for fraction in fractions {
        found.extend(quantile(comm, values, *fraction)?);
    }
    Ok(found)
}

/// Returns the quantile of weighted values; `weights` (values) may be absent. Weights are summed as
/// integers; either all ranks have weights, or none.
pub(crate) fn weighted(
    comm: &dyn Communicator,
    values: &[f32],
    weights: Option<&[f32]>,
    fraction: f64,
) -> Result<Option<f32>> {
    let units =
        |i: usize| weights.map_or(1, |w| (f64::from(w[i]) * UNITS).round_ties_even() as i64);
    let mut upper = vec![0i64; BINS];
    for (i, key) in keys(values) {
        upper[(key >> 16) as usize] += units(i);
    }
    comm.all_reduce_sum(&mut upper)?;
    let count: i64 = upper.iter().sum();
    let Some(mut rank) = quantile_rank(count as usize, fraction).filter(|_| count > 0) else {
        return Ok(None);
    };
    let bin = locate(&upper, &mut rank);
    let mut lower = vec![0i64; BINS];
    for (i, key) in keys(values).filter(|(_, key)| (key >> 16) as usize == bin) {
        lower[(key & 0xFFFF) as usize] += units(i);
    }
    comm.all_reduce_sum(&mut lower)?;
    let key = (bin << 16 | locate(&lower, &mut rank)) as u32;
    Ok(Some(value(key)))
}

/// Returns the bin with the value of this rank; reduces the rank to that within the bin.
fn locate(histogram: &[i64], rank: &mut usize) -> usize {
    for (bin, count) in histogram.iter().enumerate() {
        if *rank < *count as usize {
            return bin;
        }
        *rank -= *count as usize;
    }
    histogram.len() - 1
}

/// Maps values to integers of the same order, with their indices; NaN are ignored.
fn keys(values: &[f32]) -> impl Iterator<Item = (usize, u32)> {
    values.iter().enumerate().filter(|(_, x)| !x.is_nan()).map(|(i, x)| {
        let bits = x.to_bits();
        (i, if bits >> 31 == 1 { !bits } else { bits | 1 << 31 })
    })
}

/// Returns the value of an integer of [`keys`].
fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn quantile_over_ranks_matches_sorted_values() {
        let stream = Stream::new(8, "quantile", &[]);
        let values: Vec<f32> = (0..1001).map(|i| (50.0 * stream.normal(i)) as f32).collect();
        let mut sorted: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        sorted.sort_by(f64::total_cmp);
        for fraction in [0.0, 0.0455, 0.5, 0.999, 1.0] {
            for ranks in [1, 3] {
                let found = Threads::run(ranks, |comm| {
                    let mine: Vec<f32> =
                        values.iter().copied().skip(comm.rank()).step_by(ranks).collect();
                    quantile(comm, &mine, fraction)
                });
                for outcome in found {
                    let expected = crate::statistics::quantile::quantile(&sorted, fraction);
                    assert_eq!(outcome.unwrap().map(f64::from), expected);
                }
            }
        }
    }

    #[test]
    fn whole_weight_equals_repeated_value() {
        let stream = Stream::new(9, "weighted quantile", &[]);
        let values: Vec<f32> = (0..301).map(|i| stream.normal(i) as f32).collect();
        let times: Vec<usize> = (0..301).map(|i| (stream.bits(i) % 4) as usize).collect();
        let weights: Vec<f32> = times.iter().map(|t| *t as f32).collect();
        let repeated: Vec<f32> =
            values.iter().zip(&times).flat_map(|(x, t)| vec![*x; *t]).collect();
        for fraction in [0.0455, 0.5, 0.93] {
            let found = Threads::run(2, |comm| {
                let half = |x: &[f32]| x[comm.rank() * 150..][..150 + comm.rank()].to_vec();
                weighted(comm, &half(&values), Some(&half(&weights)), fraction)
            });
            let expected =
                Threads::run(1, |comm| quantile(comm, &repeated, fraction)).remove(0).unwrap();
            assert!(found.into_iter().all(|q| q.unwrap() == expected), "{fraction}");
        }
    }

    #[test]
    fn no_values_have_no_quantile() {
        let outcome = Threads::run(2, |comm| quantile(comm, &[f32::NAN], 0.5));
        assert!(outcome.into_iter().all(|q| q.unwrap().is_none()));
    }
}
