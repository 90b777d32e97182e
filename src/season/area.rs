//! What simulated gammas tell: the leak into the OFF positions, and, where it is said how
//! they were thrown, effective area and efficiency against energy.
//!
//! A_eff(E) = πR² · N_counted(E)/N_thrown(E), N_thrown following from the number of throws
//! and their spectrum. Assumed: throws uniform over a circle of radius R perpendicular to
//! the shower, `energy_true` the energy of the throw, every triggered throw in the scored
//! files, and a source at one distance from the zenith, that of the simulation.

use super::folder::Counted;
use super::plan::Plan;
use crate::config::{SeasonSettings, Thrown};
use crate::error::{Fault, Result};
use crate::figures::{Leak, Measured};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Gammas of a simulation, scored as the season was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    pub scores: String,
    pub models: Vec<String>,
    pub leak: Leak,
    pub share: Option<Measured>,
    pub thrown: Option<Thrown>,
    pub area: Vec<AreaBin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AreaBin {
    pub low_tev: f64,
    pub high_tev: f64,
    /// Scored gammas (triggered and cleaned), those counted at the source.
    pub events: u64,
    pub on: u64,
    /// Counted at the source of those scored, and of those thrown.
    pub efficiency: Option<Measured>,
    pub of_thrown: Option<Measured>,
    /// Before and after the selection [m²].
    pub area_before_m2: Option<Measured>,
    pub area_m2: Option<Measured>,
}

impl Simulation {
    pub fn new(
        path: &Path,
        counted: &Counted,
        plan: &Plan,
        settings: &SeasonSettings,
    ) -> Result<Simulation> {
        if let Some((file, why)) = counted.failed.iter().next() {
            return Err(Fault::new("a file of the simulated gammas cannot be used")
                .file(path)
                .found(format!("{file}: {why}"))
                .advice("the leak and the areas would be wrong without it")
                .input());
        }
        let mut leak = Leak { on: 0, off: 0, positions: plan.off().count() as u64, events: 0 };
        let mut area: Vec<AreaBin> = bins(&plan.edges);
        let mut models = Vec::new();
        for run in counted.runs.values() {
            let sum = run.sum();
            leak.events += sum.events;
            leak.on += sum.counted[0];
            leak.off += plan.off().map(|k| sum.counted[k]).sum::<u64>();
            for (bin, of) in area.iter_mut().zip(&run.true_energy) {
                bin.events += of.events;
                bin.on += of.on;
            }
            models.extend(run.models.iter().cloned());
        }
        if leak.events == 0 {
            return Err(Fault::new("there are no simulated gammas").file(path).input());
        }
        for bin in &mut area {
            bin.fill(settings.simulation.as_ref());
        }
        if area.iter().all(|bin| bin.events == 0) {
            area.clear(); // without true energies
        }
        models.sort();
        models.dedup();
        Ok(Simulation {
            scores: path.display().to_string(),
            models,
            leak,
            share: leak.share(),
            thrown: settings.simulation.clone(),
            area,
        })
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
    };
    edges.windows(2).map(bin).collect()
}

impl AreaBin {
    fn fill(&mut self, thrown: Option<&Thrown>) {
        self.efficiency = Measured::fraction(self.on, self.events);
        let Some(thrown) = thrown else { return };
        let throws = thrown.between(self.low_tev, self.high_tev);
        let share = |passed: u64| {
            (throws > 0.0).then(|| {
                // The number of throws in a bin is known on average only.
                let value = passed as f64 / throws;
                Measured { value, error: (value * (1.0 - value).max(0.0) / throws).sqrt() }
            })
        };
        let area = |share: Measured| Measured {
            value: share.value * thrown.area_m2(),
            error: share.error * thrown.area_m2(),
        };
        self.of_thrown = share(self.on);
        self.area_m2 = self.of_thrown.map(area);
        self.area_before_m2 = share(self.events).map(area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_follow_from_what_was_thrown() {
        let thrown =
            Thrown { events: 10_000, radius_m: 500.0, index: 2.0, energy_tev: [1.0, 10.0] };
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
