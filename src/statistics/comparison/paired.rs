//! Compares two scores of the same labelled events, from counts per bin of the scores.
//!
//! The comparison consists of the areas under their ROC curves, and the error of the difference.
//!
//! The structural components of an area (DeLong et al. 1988) are whole numbers when doubled: twice
//! the number of events of the other class below, plus the equal ones. Their sums are exact in any
//! order, so that files and ranks can be added as they arrive.

use crate::statistics::{ClassCounts, Crossed, Measured, Selected};
use serde::{Deserialize, Serialize};

/// Returns the doubled number of events of a class below each bin, with the events of the bin
/// itself counted half.
pub(crate) fn doubled_placements(bins: &[i64]) -> Vec<i64> {
    let mut below = 0;
    let placement = |count: &i64| {
        let doubled = 2 * below + count;
        below += count;
        doubled
    };
    bins.iter().map(placement).collect()
}

/// Sums over the events of a class: the doubled placements of both scores, and the squares of their
/// differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PlacementSums {
    pub events: u64,
    pub first: i128,
    pub second: i128,
    pub squares: i128,
}

impl PlacementSums {
    /// Adds an event with these doubled placements.
    pub(crate) fn add(&mut self, [first, second]: [i64; 2]) {
        let difference = i128::from(first) - i128::from(second);
        self.events += 1;
        self.first += i128::from(first);
        self.second += i128::from(second);
        self.squares += difference * difference;
    }

    /// Adds the events of other files.
    pub(crate) fn merge(&mut self, other: &PlacementSums) {
        self.events += other.events;
        self.first += other.first;
        self.second += other.second;
        self.squares += other.squares;
    }

    /// Returns the variance of the mean difference; `None` with fewer than two events.
    fn variance(&self) -> Option<f64> {
        if self.events < 2 {
            return None;
        }
        let n = i128::from(self.events);
        let difference = self.first - self.second;
        // Both are below n·(2n)², far below the limit of 128 bits; only the difference is rounded.
        let squares = self.squares as f64 - (difference as f64) * (difference as f64) / n as f64;
        Some(squares.max(0.0) / (n - 1) as f64 / n as f64)
    }
}

/// Two scores of the same labelled events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paired {
    /// Events with both scores, inside the cuts of both.
    pub events: ClassCounts,
    /// Areas for these events.
    pub auc: Option<[f64; 2]>,
    /// Area of the first score minus that of the second, paired event by event.
    pub auc_difference: Option<Measured>,
    /// All labelled events, to which the selections are relative.
    pub all: ClassCounts,
    /// Events that pass each working point.
    pub selected: Option<[Selected; 2]>,
    /// Q of the first score minus that of the second at these points, paired event by event.
    pub quality_difference: Option<Measured>,
}

impl Paired {
    /// Computes the comparison from sums over gammas and hadrons, and from the passing events.
    pub(crate) fn of([gammas, hadrons]: [PlacementSums; 2], crossed: &Crossed) -> Paired {
        let (m, n) = (gammas.events as f64, hadrons.events as f64);
        let auc = (gammas.events > 0 && hadrons.events > 0)
            .then(|| [gammas.first, gammas.second].map(|sum| sum as f64 / (2.0 * m * n)));
        let error = || {
            let of_gammas = gammas.variance()? / (4.0 * n * n);
            let of_hadrons = hadrons.variance()? / (4.0 * m * m);
            Some((of_gammas + of_hadrons).sqrt())
        };
        let value = (gammas.first - gammas.second) as f64 / (2.0 * m * n);
        let all =
            |table: &super::crossed::CrossTable| table.iter().flatten().map(|s| s.events).sum();
        Paired {
            events: ClassCounts { gamma: gammas.events, hadron: hadrons.events },
            auc,
            auc_difference: auc.and_then(|_| error()).map(|error| Measured { value, error }),
            all: ClassCounts { gamma: all(&crossed.gamma), hadron: all(&crossed.hadron) },
            selected: crossed.selected(0).zip(crossed.selected(1)).map(|(a, b)| [a, b]),
            quality_difference: crossed.quality_difference(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{Auc, Sample};
    use taiga_flow_gpu::random::Stream;

    /// Scores of two models as whole numbers, and the class.
    type PairedEvents = Vec<([usize; 2], bool)>;
    const BINS: usize = 400;

    fn events(seed: u64) -> PairedEvents {
        let stream = Stream::new(seed, "paired", &[]);
        let event = |i: u64| {
            let gamma = i % 5 < 2;
            let common = stream.normal(3 * i) + if gamma { 1.2 } else { 0.0 };
            let bin = |k: u64, noise: f64| {
                let score = 25.0 * (common + noise * stream.normal(3 * i + k)) + 200.0;
                (score as usize).min(BINS - 1)
            };
            ([bin(1, 0.3), bin(2, 0.6)], gamma)
        };
        (0..1500).map(event).collect()
    }

    fn paired(events: &[([usize; 2], bool)]) -> Paired {
        let mut bins = vec![vec![vec![0; BINS]; 2]; 2]; // (scores, classes, bins)
        for (of, gamma) in events {
            (0..2).for_each(|which| bins[which][usize::from(!gamma)][of[which]] += 1);
        }
        let placements: Vec<Vec<Vec<i64>>> = bins
            .iter()
            .map(|classes| classes.iter().map(|bins| doubled_placements(bins)).collect())
            .collect();
        let mut sums = [PlacementSums::default(); 2];
        let mut crossed = Crossed::default();
        for (of, gamma) in events {
            let other = usize::from(*gamma);
            let placed = [0, 1].map(|which| placements[which][other][of[which]]);
            sums[usize::from(!gamma)].add(placed);
            crossed.add(*gamma, [of[0] > 230, of[1] > 235], 1.0);
        }
        Paired::of(sums, &crossed)
    }

    #[test]
    fn paired_area_agrees_with_delong_and_bootstrap() {
        let seed = crate::test_seed();
        let events = events(seed);
        let said = paired(&events);
        let gamma: Vec<bool> = events.iter().map(|e| e.1).collect();
        for which in [0, 1] {
            let scores: Vec<f64> = events.iter().map(|e| e.0[which] as f64).collect();
            let auc = Auc::of(&Sample::new(&scores, &gamma).unwrap()).unwrap();
            assert!((said.auc.unwrap()[which] - auc.value).abs() < 1e-12);
        }
        let difference = said.auc_difference.unwrap();
        let auc = said.auc.unwrap();
        assert!((difference.value - auc[0] + auc[1]).abs() < 1e-12);
        let draws = Stream::new(seed, "bootstrap", &[]);
        let many = 1500;
        let again = |replica: u64| {
            let draw = |i: u64| events[(draws.uniform(1500 * replica + i) * 1500.0) as usize];
            let drawn: PairedEvents = (0..1500).map(draw).collect();
            let again = paired(&drawn);
            let quality = again.quality_difference.map(|q| q.value);
            [again.auc_difference.unwrap().value, quality.unwrap()]
        };
        let found: Vec<[f64; 2]> = (0..many).map(again).collect();
        let said = [difference.error, said.quality_difference.unwrap().error];
        for (which, said) in said.into_iter().enumerate() {
            let mean = found.iter().map(|x| x[which]).sum::<f64>() / many as f64;
            let squares: f64 = found.iter().map(|x| (x[which] - mean).powi(2)).sum();
            let spread = (squares / (many - 1) as f64).sqrt();
            println!("figure {which}: {said} against {spread}");
            // 10 %; the error of the bootstrap itself is 2 %.
            assert!((said / spread - 1.0).abs() < 0.1, "figure {which}: {said} {spread}");
        }
    }

    #[test]
    fn events_of_one_class_have_no_paired_area() {
        let gammas: PairedEvents = events(3).into_iter().filter(|e| e.1).collect();
        let said = paired(&gammas);
        assert_eq!((said.auc, said.auc_difference, said.quality_difference), (None, None, None));
        assert_eq!(said.events.hadron, 0);
    }
}
