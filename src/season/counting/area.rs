//! Leak into the OFF positions, effective area and efficiency, from simulated gammas.
//!
//! A_eff(E) = πR² · N_counted(E)/N_thrown(E). N_thrown follows from the number of throws and their
//! spectrum. Assumptions: throws are uniform over a circle of radius R perpendicular to the shower,
//! `energy_true` is the energy of the throw, the scored files have every triggered throw, and the
//! source has the zenith distance of the simulation.
//!
//! The leak is a ratio of counts and depends on the spectrum of the gammas. If true energies and the
//! spectrum of the throws are known, gammas are weighted to the spectrum of the source. Weights are
//! summed over exact counts in fine bins of the true energy, in their order. The leak of a bin of
//! `energy` is that of the gammas in the same bin.

use super::counts::{CountedGammas, RunCounts, grow};
use crate::config::{SeasonSettings, Thrown};
use crate::error::{Fault, Result};
use crate::season::count::Counted;
use crate::season::plan::SeasonPlan;
use crate::statistics::{Distribution, Leak, Measured, WeightSum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Results of simulated gammas that were scored as the season.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    pub scores: String,
    pub models: Vec<String>,
    pub leak: Leak,
    pub share: Option<Measured>,
    /// Leak per bin of `energy`; empty if the gammas have no energies at their positions.
    #[serde(default)]
    pub leaks: Vec<BinLeak>,
    /// Reason why the leaks are not weighted to the spectrum of the source.
    #[serde(default)]
    pub unweighted: Option<String>,
    pub thrown: Option<Thrown>,
    /// Least and greatest distance of the source from the camera centre [deg].
    #[serde(default)]
    pub offset: Option<[f64; 2]>,
    /// Model and threshold of the selection of the gammas.
    #[serde(skip)]
    pub selections: BTreeSet<(String, String)>,
    pub area: Vec<AreaBin>,
    #[serde(skip)]
    pub true_energies: Option<TrueEnergies>,
}

/// Relative tolerance at the ends of the range of thrown energies.
const ROUNDING: f64 = 0.01;

/// True energies of the scored gammas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueEnergies {
    pub low_tev: f64,
    pub high_tev: f64,
    pub events: u64,
    /// Number outside of the range of thrown energies, if it is known.
    pub not_thrown: u64,
}

impl TrueEnergies {
    /// Returns range and counts of the energies; `None` if no gamma has an energy.
    fn of(energies: &Distribution, thrown: Option<&Thrown>) -> Option<TrueEnergies> {
        let (low_tev, high_tev) = energies.quantile(0.0).zip(energies.quantile(1.0))?;
        let is_outside = |energy: f64| {
            thrown.is_some_and(|thrown| {
                let [low, high] = thrown.energy_tev;
                energy < (1.0 - ROUNDING) * low || energy > (1.0 + ROUNDING) * high
            })
        };
        let not_thrown = energies.weighted(|energy| f64::from(u8::from(is_outside(energy))));
        let (events, not_thrown) = (energies.events(), not_thrown.weight as u64);
        Some(TrueEnergies { low_tev, high_tev, events, not_thrown })
    }
}

/// Leak of the gammas of a bin of `energy`; its `events` count at any position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinLeak {
    pub counts: Leak,
    pub share: Option<Measured>,
    /// Whether there are enough gammas to correct an excess.
    pub resolved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AreaBin {
    pub low_tev: f64,
    pub high_tev: f64,
    /// Scored gammas (triggered and cleaned).
    pub events: u64,
    pub on: u64,
    /// Share of the scored gammas that count at the source.
    pub efficiency: Option<Measured>,
    pub of_thrown: Option<Measured>,
    /// Effective area before and after the selection [m²].
    pub area_before_m2: Option<Measured>,
    pub area_m2: Option<Measured>,
    /// Whether more gammas were scored than were thrown; then there is no area.
    #[serde(default)]
    pub exceeds_thrown: bool,
}

impl Simulation {
    pub fn new(
        path: &Path,
        counted: &Counted,
        plan: &SeasonPlan,
        settings: &SeasonSettings,
    ) -> Result<Simulation> {
        if let Some((file, why)) = counted.failed.iter().next() {
            return Err(Fault::new("a file of the simulated gammas cannot be used")
                .file(path)
                .found(format!("{file}: {why}"))
                .advice("the leak and the areas would be wrong without it")
                .input());
        }
        let mut sample = GammaCounts::new(plan);
        let mut area: Vec<AreaBin> = bins(&plan.edges);
        let (mut models, mut offsets) = (Vec::new(), Vec::new());
        let mut selections = BTreeSet::new();
        let mut energies = Distribution::default();
        for run in counted.runs.values() {
            sample.take(run);
            for (bin, of) in area.iter_mut().zip(&run.true_energy) {
                bin.events += of.events;
                bin.on += of.on;
            }
            models.extend(run.models.iter().cloned());
            selections.extend(run.selections.iter().cloned());
            offsets.extend(run.offset);
            energies.merge(&run.true_energies);
        }
        if sample.events == 0 {
            return Err(Fault::new("there are no simulated gammas").file(path).input());
        }
        for bin in &mut area {
            bin.fill(settings.simulation.as_ref());
        }
        if area.iter().all(|bin| bin.events == 0) {
            area.clear();
        }
        models.sort();
        models.dedup();
        let (leak, leaks, unweighted) = sample.leaks(plan, settings.simulation.as_ref());
        Ok(Simulation {
            scores: path.display().to_string(),
            models,
            leak,
            share: leak.share(),
            leaks,
            unweighted,
            thrown: settings.simulation.clone(),
            offset: offsets.into_iter().reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]),
            selections,
            area,
            true_energies: TrueEnergies::of(&energies, settings.simulation.as_ref()),
        })
    }
}

/// Counts of all gammas.
struct GammaCounts {
    events: u64,
    counted: Vec<u64>,          // (positions)
    energy: Vec<Vec<u64>>,      // (bins of `energy`, positions)
    gammas: Vec<CountedGammas>, // (bins of `energy`, and all)
    energy_of_source: bool,
}

impl GammaCounts {
    fn new(plan: &SeasonPlan) -> GammaCounts {
        let bins = plan.edges.len() - 1;
        GammaCounts {
            events: 0,
            counted: vec![0; plan.positions.len()],
            energy: vec![vec![0; plan.positions.len()]; bins],
            gammas: vec![CountedGammas::default(); bins + 1],
            energy_of_source: false,
        }
    }

    fn take(&mut self, run: &RunCounts) {
        let sum = run.sum();
        self.events += sum.events;
        grow(&mut self.counted, &sum.counted);
        self.energy.iter_mut().zip(&run.energy).for_each(|(own, its)| grow(own, its));
        self.gammas.iter_mut().zip(&run.gammas).for_each(|(own, its)| own.merge(its));
        self.energy_of_source |= run.energy_of_source;
    }

    /// Returns the leak of all gammas and of each bin of `energy`, and the reason if they are not
    /// weighted.
    fn leaks(
        &self,
        plan: &SeasonPlan,
        thrown: Option<&Thrown>,
    ) -> (Leak, Vec<BinLeak>, Option<String>) {
        let counted = |counts: &[u64], events: u64| Leak {
            on: counts[0],
            off: plan.off().map(|k| counts[k]).sum(),
            positions: plan.off().count() as u64,
            events,
            weights: None,
        };
        let mut all = counted(&self.counted, self.events);
        let gammas = self.gammas.last().cloned().unwrap_or_default();
        let known = [gammas.on.events(), gammas.off.events()] == [all.on, all.off];
        let (weighting, unweighted) = match thrown {
            None => (
                None,
                Some("[simulation] does not say how they were thrown: give it with their index"),
            ),
            Some(_) if !known => (
                None,
                Some(
                    "not all of their scores have energy_true: score them with copy = [\"energy\"]",
                ),
            ),
            Some(thrown) => (Some(thrown), None),
        };
        let weights = |gammas: &CountedGammas| {
            weighting.map(|thrown| gammas.weighted(|energy| thrown.weight(energy)))
        };
        all.weights = weights(&gammas);
        let bin = |(counts, gammas): (&Vec<u64>, &CountedGammas)| {
            let counts = Leak { weights: weights(gammas), ..counted(counts, counts.iter().sum()) };
            BinLeak { counts, share: counts.share(), resolved: counts.is_resolved() }
        };
        let has_energy =
            !self.energy_of_source && self.energy.iter().flatten().any(|count| *count > 0);
        let bins = self.energy.iter().zip(&self.gammas).filter(|_| has_energy);
        (all, bins.map(bin).collect(), unweighted.map(str::to_string))
    }
}

fn bins(edges: &[f64]) -> Vec<AreaBin> {
    let bin = |pair: &[f64]| AreaBin {
        low_tev: pair[0],
        high_tev: pair[1],
        events: 0,
        on: 0,
        efficiency: None,
        of_thrown: None,
        area_before_m2: None,
        area_m2: None,
        exceeds_thrown: false,
    };
    edges.windows(2).map(bin).collect()
}

impl AreaBin {
    fn fill(&mut self, thrown: Option<&Thrown>) {
        self.efficiency = Measured::fraction(self.on, self.events);
        let Some(thrown) = thrown else { return };
        let throws = thrown.between(self.low_tev, self.high_tev);
        let share = |passed: u64| {
            // The number of throws in a bin is known on average only.
            let all = WeightSum { events: throws as u64, weight: throws, squares: throws };
            Measured::share(WeightSum::of(passed), all)
        };
        let area = |share: Measured| Measured {
            value: share.value * thrown.area_m2(),
            error: share.error * thrown.area_m2(),
        };
        self.exceeds_thrown = self.events as f64 > throws + 5.0 * throws.sqrt();
        if self.exceeds_thrown {
            return;
        }
        self.of_thrown = share(self.on);
        self.area_m2 = self.of_thrown.map(area);
        self.area_before_m2 = share(self.events).map(area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thrown(index: f64, source_index: f64) -> Thrown {
        let energy_tev = [1.0, 10.0];
        Thrown { events: 10_000, radius_m: 500.0, index, energy_tev, source_index }
    }

    #[test]
    fn area_none_counted_has_an_error() {
        let mut bin = bins(&[1.0, 2.0])[0];
        bin.events = 1000;
        bin.fill(Some(&thrown(2.0, 2.0)));
        let [share, area] = [bin.of_thrown.unwrap(), bin.area_m2.unwrap()];
        assert!(share.value.abs() < 1e-15 && share.error > 1e-5 && area.error > 1.0, "{bin:?}");
    }

    #[test]
    fn areas_follow_from_what_was_thrown() {
        let thrown = thrown(2.0, 2.0);
        let mut bin = bins(&[1.0, 2.0])[0];
        (bin.events, bin.on) = (1000, 250);
        bin.fill(None);
        assert!((bin.efficiency.unwrap().value - 0.25).abs() < 1e-12 && bin.area_m2.is_none());
        bin.fill(Some(&thrown));
        let throws = 10_000.0 * 0.5 / 0.9;
        let expected = std::f64::consts::PI * 250_000.0 * 250.0 / throws;
        assert!((bin.area_m2.unwrap().value / expected - 1.0).abs() < 1e-12);
        assert!((bin.area_before_m2.unwrap().value / expected - 4.0).abs() < 1e-9);
        let mut outside = bins(&[20.0, 30.0])[0];
        outside.fill(Some(&thrown));
        assert_eq!((outside.area_m2, outside.efficiency), (None, None));
    }
}
