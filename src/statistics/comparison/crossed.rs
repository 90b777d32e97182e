//! Compares two selections of the same events: the difference of their Q, with its error. Events
//! that both pass or both fail do not contribute to the difference.

use crate::statistics::confusion::quality;
use crate::statistics::{Measured, WeightSum};
use serde::{Deserialize, Serialize};

/// Events of a class by the decisions of the first and the second selection.
pub(crate) type CrossTable = [[WeightSum; 2]; 2];

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Crossed {
    pub gamma: CrossTable,
    pub hadron: CrossTable,
}

/// A selection relative to all events of the table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Selected {
    pub gamma_efficiency: Measured,
    pub hadron_survival: Measured,
    /// Number of passing hadrons.
    pub hadrons: u64,
    /// `None` if no hadron passes.
    pub quality: Option<Measured>,
}

impl Crossed {
    /// Adds an event with the decisions of the first and the second selection.
    pub(crate) fn add(&mut self, gamma: bool, [first, second]: [bool; 2], weight: f64) {
        let table = if gamma { &mut self.gamma } else { &mut self.hadron };
        let cell = &mut table[usize::from(first)][usize::from(second)];
        *cell = cell.with(weight);
    }

    /// Adds the events of another table.
    pub(crate) fn merge(&mut self, other: &Crossed) {
        for (mine, theirs) in [(&mut self.gamma, &other.gamma), (&mut self.hadron, &other.hadron)] {
            for (mine, theirs) in mine.iter_mut().flatten().zip(theirs.iter().flatten()) {
                *mine = mine.plus(*theirs);
            }
        }
    }

    /// Returns the results of the first (0) or second (1) selection; `None` if a class is empty.
    pub(crate) fn selected(&self, which: usize) -> Option<Selected> {
        let gamma_efficiency = Measured::share(passing(&self.gamma, which), all(&self.gamma))?;
        let passed = passing(&self.hadron, which);
        let hadron_survival = Measured::share(passed, all(&self.hadron))?;
        Some(Selected {
            gamma_efficiency,
            hadron_survival,
            hadrons: passed.events,
            quality: (passed.weight > 0.0).then(|| quality(gamma_efficiency, hadron_survival)),
        })
    }

    /// Returns Q of the first selection minus that of the second, both at fixed thresholds; `None`
    /// if a class is empty or no hadron passes one of them.
    pub(crate) fn quality_difference(&self) -> Option<Measured> {
        let [first, second] = self.both()?;
        let slopes = [first, second].map(|[_, h]| 1.0 / h.sqrt());
        // Change of Q due to one more passing event, of gammas and of hadrons.
        let of_gammas =
            move |[a, b]: [f64; 2]| slopes[0] * (a - first[0]) - slopes[1] * (b - second[0]);
        let of_hadrons = move |[a, b]: [f64; 2]| {
            let loss = |[g, h]: [f64; 2], x: f64| -0.5 * g * (x - h) / (h * h.sqrt());
            loss(first, a) - loss(second, b)
        };
        self.difference([first, second], of_gammas, of_hadrons)
    }

    /// Returns the same if the threshold of the first selection is chosen on the same events for
    /// the hadron survival of the second; `slope` is dε_γ/dε_h of the first there.
    pub(crate) fn quality_difference_at_survival(&self, slope: f64) -> Option<Measured> {
        let [first, second] = self.both()?;
        let survival = second[1];
        let root = survival.sqrt();
        let better = first[0] - second[0];
        let of_gammas = move |[a, b]: [f64; 2]| (a - first[0] - b + second[0]) / root;
        // A hadron that only the second selection passes lowers the threshold of the first.
        let of_hadrons = move |[a, b]: [f64; 2]| {
            (slope * (b - a - survival + first[1]) - 0.5 * better * (b - survival) / survival)
                / root
        };
        self.difference([first, second], of_gammas, of_hadrons)
    }

    /// Returns gamma efficiency and hadron survival of both selections.
    fn both(&self) -> Option<[[f64; 2]; 2]> {
        let share = |table: &CrossTable, which| passing(table, which).weight / all(table).weight;
        let of = |which| [share(&self.gamma, which), share(&self.hadron, which)];
        let both = [of(0), of(1)];
        let usable = |[g, h]: &[f64; 2]| g.is_finite() && h.is_finite() && *h > 0.0;
        both.iter().all(usable).then_some(both)
    }

    fn difference(
        &self,
        [first, second]: [[f64; 2]; 2],
        of_gammas: impl Fn([f64; 2]) -> f64,
        of_hadrons: impl Fn([f64; 2]) -> f64,
    ) -> Option<Measured> {
        let quality = |[g, h]: [f64; 2]| g / h.sqrt();
        let variance = variance(&self.gamma, of_gammas) + variance(&self.hadron, of_hadrons);
        let value = quality(first) - quality(second);
        variance.is_finite().then(|| Measured { value, error: variance.sqrt() })
    }
}

/// Returns the variance of a weighted mean of the contributions of events, by their decisions (0 or
/// 1).
fn variance(table: &CrossTable, influence: impl Fn([f64; 2]) -> f64) -> f64 {
    let mut sum = 0.0;
    for (a, row) in table.iter().enumerate() {
        for (b, cell) in row.iter().enumerate() {
            let influence = influence([a as f64, b as f64]);
            sum += cell.squares * influence * influence;
        }
    }
    let weight = all(table).weight;
    sum / (weight * weight)
}

fn passing(table: &CrossTable, which: usize) -> WeightSum {
    if which == 0 { table[1][0].plus(table[1][1]) } else { table[0][1].plus(table[1][1]) }
}

fn all(table: &CrossTable) -> WeightSum {
    table.iter().flatten().fold(WeightSum::default(), |sum, cell| sum.plus(*cell))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    /// Returns decisions of two correlated selections, class and weight.
    fn events(seed: u64, weighted: bool) -> Vec<(bool, [bool; 2], f64)> {
        let stream = Stream::new(seed, "crossed", &[]);
        let event = |i: u64| {
            let gamma = i % 5 < 2;
            let common = stream.normal(4 * i) + if gamma { 1.5 } else { 0.0 };
            let with = |k: u64, noise: f64| common + noise * stream.normal(4 * i + k);
            let weight = if weighted { 1.0 / (0.2 + stream.uniform(8 * i + 6)) } else { 1.0 };
            (gamma, [with(1, 0.4) > 1.0, with(2, 0.8) > 1.3], weight)
        };
        (0..3000).map(event).collect()
    }

    fn table(events: &[(bool, [bool; 2], f64)]) -> Crossed {
        let mut crossed = Crossed::default();
        for (gamma, passes, weight) in events {
            crossed.add(*gamma, *passes, *weight);
        }
        crossed
    }

    #[test]
    fn paired_q_difference_agrees_with_bootstrap() {
        let seed = crate::test_seed();
        for weighted in [false, true] {
            let events = events(seed, weighted);
            let said = table(&events).quality_difference().unwrap();
            let draws = Stream::new(seed, "bootstrap", &[u64::from(weighted)]);
            let many = 1500;
            let again = |replica: u64| {
                let draw = |i: u64| {
                    let at = draws.uniform(3000 * replica + i) * 3000.0;
                    events[at as usize]
                };
                let drawn: Vec<_> = (0..3000).map(draw).collect();
                table(&drawn).quality_difference().unwrap().value
            };
            let found: Vec<f64> = (0..many).map(again).collect();
            let mean = found.iter().sum::<f64>() / many as f64;
            let squares: f64 = found.iter().map(|x| (x - mean) * (x - mean)).sum();
            let spread = (squares / (many - 1) as f64).sqrt();
            println!("weighted {weighted}: {} against {spread}", said.error);
            // 10 %; the error of the bootstrap itself is 2 %.
            assert!((said.error / spread - 1.0).abs() < 0.1, "{} {spread}", said.error);
            let one = table(&events).selected(0).unwrap().quality.unwrap();
            let other = table(&events).selected(1).unwrap().quality.unwrap();
            assert!((said.value - one.value + other.value).abs() < 1e-12);
            assert!(said.error < libm::hypot(one.error, other.error), "pairing gains");
        }
    }

    #[test]
    fn equal_selections_have_no_difference() {
        let mut crossed = Crossed::default();
        for i in 0..100 {
            let passes = i % 4 == 0;
            crossed.add(i % 3 == 0, [passes, passes], 1.0 + f64::from(i % 7));
        }
        let said = crossed.quality_difference().unwrap();
        assert!(said.value.abs() < 1e-12 && said.error < 1e-12, "{said:?}");
        assert_eq!(Crossed::default().quality_difference(), None);
        let mut twice = crossed;
        twice.merge(&crossed);
        assert_eq!(twice.selected(0).unwrap().hadrons, 2 * crossed.selected(0).unwrap().hadrons);
    }
}
