//! Drift of the distributions of runs.

use super::runs::{Dated, grouped_by};
use super::types::DriftOf;
use crate::config::SeasonSettings;
use crate::season::count::Counted;
use crate::season::counting::counts::RunCounts;
use crate::statistics::Distribution;
use std::collections::BTreeMap;

/// Distributions that runs are compared with.
pub(super) struct Drifts<'a> {
    pub(super) label: String,
    reference: Option<BTreeMap<String, Distribution>>,
    /// All runs of a season and telescope.
    sums: BTreeMap<(Option<String>, Option<i64>), BTreeMap<String, Distribution>>,
    settings: &'a SeasonSettings,
}

impl<'a> Drifts<'a> {
    pub(super) fn new(
        used: &[Dated],
        reference: Option<&Counted>,
        settings: &'a SeasonSettings,
    ) -> Drifts<'a> {
        let merged = |runs: &mut dyn Iterator<Item = &RunCounts>| {
            let mut sum: BTreeMap<String, Distribution> = BTreeMap::new();
            for run in runs {
                for (name, of) in &run.drift {
                    sum.entry(name.clone()).or_default().merge(of);
                }
            }
            sum
        };
        let groups = grouped_by(used, |run| (run.season.clone(), run.key.telescope));
        let sums = groups
            .into_iter()
            .map(|(group, runs)| (group, merged(&mut runs.iter().map(|run| run.counts))));
        let label = match reference {
            Some(_) => "the reference scores that were given",
            None => "the other runs of the same season and telescope",
        };
        Drifts {
            label: label.to_string(),
            reference: reference.map(|counted| merged(&mut counted.runs.values())),
            sums: sums.collect(),
            settings,
        }
    }

    /// Returns the drift of all columns of each run, with flags.
    pub(super) fn all(&self, runs: &[Dated]) -> Vec<Vec<DriftOf>> {
        let mut all: Vec<Vec<DriftOf>> = runs.iter().map(|run| self.of(run)).collect();
        let limits = &self.settings.drift;
        let tests = all.iter().flatten().filter(|d| d.drift.is_enough(limits)).count();
        for of in all.iter_mut().flatten() {
            of.flagged = of.drift.is_flagged(limits, tests);
        }
        all
    }

    pub(super) fn of(&self, run: &Dated) -> Vec<DriftOf> {
        let sum = self.sums.get(&(run.season.clone(), run.key.telescope));
        let against = |name: &String, own: &Distribution| match &self.reference {
            Some(reference) => reference.get(name).and_then(|its| own.drift_from(its)),
            None => sum.and_then(|sum| own.drift_from(&sum.get(name)?.without(own))),
        };
        let compared = |(name, own): (&String, &Distribution)| {
            let drift = against(name, own)?;
            Some(DriftOf { column: name.clone(), drift, flagged: false })
        };
        let moves = &self.settings.drift;
        let columns = run.counts.drift.iter().filter(|(name, _)| !moves.leaves_out(name));
        columns.filter_map(compared).collect()
    }
}
