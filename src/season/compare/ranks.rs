//! Rank correlation of two scorings, from the numbers of events per bin of the score.

use crate::comm::Communicator;
use crate::error::Result;
use crate::statistics::distribution::ordered_bits;

/// Last bits of a score that are dropped, and the number of remaining bins.
const DROPPED_BITS: u32 = 12;
const RANK_BINS: usize = 1 << (32 - DROPPED_BITS);
/// Events per bin of the scores of both sides.
pub(super) struct ScoreBins {
    /// All events that both scored.
    pub(super) all: [Vec<i64>; 2],
    /// Events with a class inside the cuts of both: (sides)(gammas, hadrons)(bins). Empty if no
    /// event has a class.
    pub(super) labelled: [[Vec<i64>; 2]; 2],
}

impl ScoreBins {
    pub(super) fn new() -> ScoreBins {
        ScoreBins { all: [(); 2].map(|()| vec![0; RANK_BINS]), labelled: Default::default() }
    }

    pub(super) fn add_labelled(&mut self, gamma: bool, of_event: [usize; 2]) {
        for (classes, bin) in self.labelled.iter_mut().zip(of_event) {
            let bins = &mut classes[usize::from(!gamma)];
            bins.resize(RANK_BINS, 0);
            bins[bin] += 1;
        }
    }

    /// Sums the bins of all ranks, on every rank.
    pub(super) fn reduce(&mut self, comm: &dyn Communicator) -> Result<()> {
        for of_side in &mut self.all {
            comm.all_reduce_sum(of_side)?;
        }
        for bins in self.labelled.iter_mut().flatten() {
            let mut ranks = [i64::from(!bins.is_empty())];
            comm.all_reduce_sum(&mut ranks)?;
            if ranks[0] > 0 {
                bins.resize(RANK_BINS, 0);
                comm.all_reduce_sum(bins)?;
            }
        }
        Ok(())
    }

    pub(super) fn correlation(&self, events: i64, products: i128) -> Option<f64> {
        let ranks = [doubled_ranks(&self.all[0]), doubled_ranks(&self.all[1])];
        correlation(&self.all, &ranks, events, products)
    }
}

/// Returns twice the mean rank of the events of each bin, from 2 on.
pub(super) fn doubled_ranks(bins: &[i64]) -> Vec<i64> {
    let mut below = 0;
    let rank = |count: &i64| {
        let doubled = 2 * below + count + 1;
        below += count;
        doubled
    };
    bins.iter().map(rank).collect()
}

fn correlation(
    bins: &[Vec<i64>; 2],
    ranks: &[Vec<i64>; 2],
    events: i64,
    products: i128,
) -> Option<f64> {
    let n = i128::from(events);
    // Doubled ranks have the mean n + 1.
    let at_mean = n * (n + 1) * (n + 1);
    let variance = |which: usize| {
        let terms = bins[which].iter().zip(&ranks[which]);
        let squares: i128 =
            terms.map(|(n, r)| i128::from(*n) * i128::from(*r) * i128::from(*r)).sum();
        (squares - at_mean) as f64
    };
    let (a, b) = (variance(0), variance(1));
    (a > 0.0 && b > 0.0).then(|| (products - at_mean) as f64 / (a.sqrt() * b.sqrt()))
}

/// Returns the bin of a score, without its last bits.
pub(super) fn rank_bin(value: f32) -> usize {
    (ordered_bits(value) >> DROPPED_BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn of(pairs: &[[f32; 2]]) -> Option<f64> {
        let mut bins = [vec![0; RANK_BINS], vec![0; RANK_BINS]];
        for pair in pairs {
            for which in [0, 1] {
                bins[which][rank_bin(pair[which])] += 1;
            }
        }
        let ranks = [doubled_ranks(&bins[0]), doubled_ranks(&bins[1])];
        let product = |p: &[f32; 2]| {
            i128::from(ranks[0][rank_bin(p[0])]) * i128::from(ranks[1][rank_bin(p[1])])
        };
        correlation(&bins, &ranks, pairs.len() as i64, pairs.iter().map(product).sum())
    }

    #[test]
    fn the_rank_correlation_is_spearmans() {
        // scipy.stats.spearmanr([1, 2, 3, 4, 5, 5, 7], [2, 1, 4, 3, 7, 5, 5]) = 0.8454545…
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 7.0];
        let b = [2.0, 1.0, 4.0, 3.0, 7.0, 5.0, 5.0];
        let pairs: Vec<[f32; 2]> = a.into_iter().zip(b).map(|(a, b)| [a, b]).collect();
        assert!((of(&pairs).unwrap() - SCIPY).abs() < 1e-12, "{:?}", of(&pairs));
        let stream = Stream::new(2, "pairs", &[]);
        let same: Vec<[f32; 2]> =
            (0..1000).map(|i| stream.normal(i) as f32 * 8.0).map(|x| [x, x * x * x]).collect();
        assert!((of(&same).unwrap() - 1.0).abs() < 1e-4);
        let turned: Vec<[f32; 2]> = same.iter().map(|[x, _]| [*x, -x]).collect();
        assert!((of(&turned).unwrap() + 1.0).abs() < 1e-4);
        assert_eq!((of(&[]), of(&[[1.0, 2.0]])), (None, None));
    }

    const SCIPY: f64 = 0.845_454_545_454_545_6;
}
