//! Thresholds per bin of a quantity: checks the number of events before the first step, and chooses
//! the thresholds after the last one.

use super::flows::Population;
use super::trainer::Trainer;
use crate::comm::{Communicator, is_root, mark_shared};
use crate::config::Class;
use crate::dataset::event_store::RowCounts;
use crate::error::{Error, Fault, Result};
use crate::statistics::{BinnedThresholds, ClassCounts, Rule, Threshold};

impl Trainer<'_> {
    /// Returns an error if a bin has too few held-out events for the configured rule.
    pub fn check_bins(&self, comm: &dyn Communicator) -> Result<()> {
        let Some(settings) = &self.plan.config.thresholds else { return Ok(()) };
        let bins = settings.edges.len() + 1;
        let calibration = self.has_calibration();
        let mut counts = vec![0; 2 * bins];
        for (population, of) in self.plan.populations.iter().enumerate() {
            let Population::Real(class) = of else { continue };
            let first = if *class == Class::Gamma { 0 } else { bins };
            for bin in self.held_out_bins(population, calibration) {
                if let Some(count) = counts[first..first + bins].get_mut(usize::from(bin)) {
                    *count += 1;
                }
            }
        }
        comm.all_reduce_sum(&mut counts)?;
        let of_bin = |bin: usize| ClassCounts {
            gamma: counts[bin] as u64,
            hadron: counts[bins + bin] as u64,
        };
        let held_out: i64 = counts.iter().sum();
        let counts: Vec<ClassCounts> = (0..bins).map(of_bin).collect();
        if held_out == 0 {
            return mark_shared(Err(nothing_held_out()));
        }
        let rule = mark_shared(self.threshold_rule())?;
        mark_shared(BinnedThresholds::refuse_few(settings, rule, &counts))
    }

    /// Chooses the threshold of every configured bin by the rule of the model.
    pub fn thresholds(
        &self,
        comm: &dyn Communicator,
        global: Option<Threshold>,
    ) -> Result<Option<BinnedThresholds>> {
        let Some(settings) = &self.plan.config.thresholds else { return Ok(None) };
        let Some(global) = global else {
            return mark_shared(Err(nothing_held_out()));
        };
        let events = self.gathered_scores(comm)?;
        let weighted = self.plan.selection.has_weight();
        let rule = mark_shared(self.threshold_rule())?;
        let chosen =
            mark_shared(BinnedThresholds::choose(settings, rule, &events, weighted, global))?;
        let fallen_back = chosen.with_global();
        let limited = chosen.limited();
        if is_root(comm) && !limited.is_empty() {
            log::warn!(
                "thresholds per {}: {}; a higher one may be better (hold more events out)",
                settings.per,
                limited.join(", ")
            );
        }
        if is_root(comm) && !fallen_back.is_empty() {
            log::warn!(
                "thresholds per {}: too few held-out events, the global threshold is used: {}",
                settings.per,
                fallen_back.join(", ")
            );
        }
        Ok(Some(chosen))
    }

    /// Returns the rule for the threshold of the model. Rates of an observation refer to events
    /// before the cuts; the shares that pass the cuts are those of the rows that were read.
    pub fn threshold_rule(&self) -> Result<Rule> {
        let config = &self.plan.config;
        let quantile =
            Rule::Quantile { normal: config.model.normal, fraction: config.calibration.quantile };
        let rule = Rule::configured(&config.calibration)?.unwrap_or(quantile);
        let of = |class| {
            let wanted = |p: &&Population| **p == Population::Real(class);
            self.plan.populations.iter().filter(|p| is_real(**p)).position(|p| wanted(&p))
        };
        let inside = |class| {
            of(class)
                .and_then(|i| self.rows.get(i))
                .and_then(RowCounts::share_inside_cuts)
                .unwrap_or(1.0)
        };
        Ok(rule.of_part([inside(Class::Gamma), inside(Class::Hadron)]))
    }

    /// Returns whether there are events for calibration; otherwise the validation events are used.
    pub fn has_calibration(&self) -> bool {
        self.rows.iter().all(|rows| rows.calibration > 0)
    }
}

fn is_real(population: Population) -> bool {
    matches!(population, Population::Real(_))
}

fn nothing_held_out() -> Error {
    Fault::new("no events to choose thresholds per bin on")
        .expected("held-out events (split.validation or split.calibration)")
        .input()
}
