//! Thresholds per bin of a quantity: checks the number of events before the first step, and chooses
//! the thresholds after the last one.

use super::events::TrainingEvents;
use super::flows::Population;
use super::validation::Validation;
use crate::comm::{Communicator, is_root, mark_shared};
use crate::config::Class;
use crate::dataset::event_store::RowCounts;
use crate::error::{Error, Fault, Result};
use crate::statistics::{BinnedThresholds, ClassCounts, Rule, Threshold};

/// Returns an error if a bin has too few held-out events for the configured rule.
pub(crate) fn check(comm: &dyn Communicator, events: &TrainingEvents) -> Result<()> {
    let Some(settings) = &events.plan.config.thresholds else { return Ok(()) };
    let bins = settings.edges.len() + 1;
    let calibration = events.has_calibration();
    let mut counts = vec![0; 2 * bins];
    for (population, of) in events.plan.populations.iter().enumerate() {
        let Population::Real(class) = of else { continue };
        let first = if *class == Class::Gamma { 0 } else { bins };
        for bin in events.held_out_bins(population, calibration) {
            if let Some(count) = counts[first..first + bins].get_mut(usize::from(bin)) {
                *count += 1;
            }
        }
    }
    comm.all_reduce_sum(&mut counts)?;
    let held_out: i64 = counts.iter().sum();
    if held_out == 0 {
        return mark_shared(Err(nothing_held_out()));
    }
    let (gammas, hadrons) = counts.split_at(bins);
    let of_bins = gammas.iter().zip(hadrons);
    let counts: Vec<ClassCounts> = of_bins
        .map(|(gamma, hadron)| ClassCounts { gamma: *gamma as u64, hadron: *hadron as u64 })
        .collect();
    let rule = mark_shared(threshold_rule(events))?;
    mark_shared(BinnedThresholds::refuse_few(settings, rule, &counts))
}

/// Chooses the threshold of every configured bin by the rule of the model.
pub(crate) fn thresholds(
    comm: &dyn Communicator,
    validation: Validation,
    global: Option<Threshold>,
) -> Result<Option<BinnedThresholds>> {
    let plan = validation.events.plan;
    let Some(settings) = &plan.config.thresholds else { return Ok(None) };
    let Some(global) = global else {
        return mark_shared(Err(nothing_held_out()));
    };
    let events = validation.gathered_scores(comm)?;
    let weighted = plan.selection.has_weight();
    let rule = mark_shared(threshold_rule(validation.events))?;
    let chosen = mark_shared(BinnedThresholds::choose(settings, rule, &events, weighted, global))?;
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

/// Returns the rule for the threshold of the model. Rates of an observation refer to events before
/// the cuts; the shares that pass the cuts are those of the rows that were read.
pub(crate) fn threshold_rule(events: &TrainingEvents) -> Result<Rule> {
    let config = &events.plan.config;
    let quantile =
        Rule::Quantile { normal: config.model.normal, fraction: config.calibration.quantile };
    let rule = Rule::configured(&config.calibration)?.unwrap_or(quantile);
    let inside = [Class::Gamma, Class::Hadron].map(|class| share_inside_cuts(events, class));
    Ok(rule.of_part(inside))
}

/// Returns the share of the rows of a class that pass the cuts; 1 if it is unknown.
fn share_inside_cuts(events: &TrainingEvents, class: Class) -> f64 {
    let mut real = events.plan.populations.iter().filter_map(|p| p.class());
    let rows = real.position(|of| of == class).and_then(|i| events.rows.get(i));
    rows.and_then(RowCounts::share_inside_cuts).unwrap_or(1.0)
}

fn nothing_held_out() -> Error {
    Fault::new("no events to choose thresholds per bin on")
        .expected("held-out events (split.validation or split.calibration)")
        .input()
}
