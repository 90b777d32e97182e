//! Finds runs of one telescope whose times overlap: their live time counts twice.

use super::showers::RunTimes;
use std::collections::BTreeMap;

/// Longest overlap of two runs that is not reported [ns]: clocks are set between runs.
const ALLOWED_NS: i64 = 1_000_000_000;

/// Indices of two runs in a list, and their overlap [ns].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    pub runs: [usize; 2],
    pub ns: i64,
}

/// Returns the pairs of runs of one telescope that overlap, in the order of the list. If several runs
/// overlap at one time, each is in a pair, but not all pairs are listed.
pub fn of(runs: &[RunTimes]) -> Vec<Overlap> {
    let mut segments: Vec<(Option<i64>, i64, i64, usize)> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let of_run = run.segments.iter().map(|(start, end, _)| (*start, *end));
        segments.extend(of_run.map(|(start, end)| (run.telescope, start, end, number)));
    }
    segments.sort_unstable();
    let mut latest: BTreeMap<Option<i64>, (i64, usize)> = BTreeMap::new();
    let mut found: BTreeMap<[usize; 2], i64> = BTreeMap::new();
    for (telescope, start, end, number) in segments {
        let (last, before) = *latest.entry(telescope).or_insert((end, number));
        if before != number && start < last {
            let pair = [before.min(number), before.max(number)];
            *found.entry(pair).or_default() += last.min(end) - start;
        }
        if end > last {
            latest.insert(telescope, (end, number));
        }
    }
    let all = found.into_iter().map(|(runs, ns)| Overlap { runs, ns });
    all.filter(|overlap| overlap.ns > ALLOWED_NS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// A telescope and the times of the files of its run [s].
    type Run<'a> = (i64, &'a [[i64; 2]]);

    fn of_runs(runs: &[Run]) -> Vec<Overlap> {
        let in_ns = |times: &[[i64; 2]]| -> Vec<(i64, i64, String)> {
            times.iter().map(|[a, b]| (a * SECOND, b * SECOND, "a.h5".to_string())).collect()
        };
        let segments: Vec<_> = runs.iter().map(|(_, of_run)| in_ns(of_run)).collect();
        let times = runs.iter().zip(&segments).map(|(run, segments)| RunTimes {
            telescope: Some(run.0),
            segments,
            overlaps: false,
        });
        of(&times.collect::<Vec<RunTimes>>())
    }

    #[test]
    fn runs_of_one_telescope_overlap_by_their_files() {
        let one: Run = (1, &[[0, 100], [200, 300]]);
        // Between the files of a run, after it, and at a different telescope.
        let apart = [one, (1, &[[100, 199]]), (1, &[[300, 400]]), (2, &[[0, 400]])];
        assert_eq!(of_runs(&apart), []);
        let found = of_runs(&[(1, &[[10, 60], [250, 260]]), one]);
        assert_eq!(found, [Overlap { runs: [0, 1], ns: 60 * SECOND }]);
        let three = [one, (1, &[[90, 120]]), (1, &[[110, 130]])];
        let found: Vec<[usize; 2]> = of_runs(&three).iter().map(|overlap| overlap.runs).collect();
        assert_eq!(found, [[0, 1], [1, 2]]);
    }
}
