//! Thresholds by bins of a quantity (energy, size), and their combined results.
//!
//! A bin is a function of the event alone, and the rule within it is that of [`super::threshold`].
//! An event whose quantity has no value is in no bin and never passes.

use super::threshold::limit_text;
use crate::config::{BinnedThresholdConfig, Few, NO_BIN};
use crate::error::{Fault, Result};
use crate::statistics::confusion::AtThreshold;
use crate::statistics::roc::{Auc, MIN_HADRONS};
use crate::statistics::{
    Class, ClassCounts, Confusion, Rule, Sample, Separation, Threshold, WeightSum,
};
use serde::{Deserialize, Serialize};

/// Thresholds by bins of a quantity, as stored in the model card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BinnedThresholds {
    /// The quantity or expression.
    pub per: String,
    /// (bins − 1), ascending.
    pub edges: Vec<f64>,
    pub bins: Vec<BinThreshold>, // (bins)
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinThreshold {
    /// Smallest score of an event that is classified as gamma.
    pub threshold: f64,
    /// Held-out events of the bin.
    pub events: ClassCounts,
    /// Whether the bin had too few of them, and uses the threshold of all bins together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// As in [`Threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by_hadrons: Option<u64>,
}

/// A held-out event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOutEvent {
    pub score: f64,
    pub class: Class,
    pub weight: f64,
    pub bin: u16,
}

/// Formats the range of a bin: "below 100", "100 … 200", "from 200".
pub(crate) fn range_text(edges: &[f64], bin: usize) -> String {
    let low = bin.checked_sub(1).and_then(|i| edges.get(i));
    match (low, edges.get(bin)) {
        (None, Some(high)) => format!("below {high}"),
        (Some(low), Some(high)) => format!("{low} … {high}"),
        (Some(low), None) => format!("from {low}"),
        (None, None) => "all".to_owned(),
    }
}

impl BinnedThresholds {
    /// Chooses the threshold of every bin on held-out events; `weighted` if they have weights.
    ///
    /// # Errors
    /// `Input` for bins with too few events, if the settings refuse them.
    pub(crate) fn choose(
        settings: &BinnedThresholdConfig,
        rule: Rule,
        events: &[HeldOutEvent],
        weighted: bool,
        global: Threshold,
    ) -> Result<BinnedThresholds> {
        let mut bins = Vec::new();
        let mut refused = Vec::new();
        for bin in 0..=settings.edges.len() {
            let rule = rule.of_part([Class::Gamma, Class::Hadron].map(|c| share(events, c, bin)));
            let own: Vec<_> = events.iter().filter(|e| usize::from(e.bin) == bin).collect();
            let scores: Vec<f64> = own.iter().map(|e| e.score).collect();
            let gamma: Vec<bool> = own.iter().map(|e| e.class == Class::Gamma).collect();
            let weights: Vec<f64> = own.iter().map(|e| e.weight).collect();
            let sample = Sample::weighted(&scores, &gamma, weighted.then_some(weights.as_slice()))?;
            let events = sample.counts();
            let enough =
                rule.classes().iter().all(|c| sample.of(*c).len() as u64 >= settings.least);
            let chosen = if enough { rule.choose(&sample).ok() } else { None };
            if chosen.is_none() {
                refused.push(described(&settings.edges, bin, events));
            }
            bins.push(BinThreshold {
                threshold: chosen.map_or(global.value, |t| t.value),
                events,
                global: chosen.is_none(),
                limited_by_hadrons: chosen.and_then(|t| t.limited_by_hadrons),
            });
        }
        if settings.few == Few::Refuse && !refused.is_empty() {
            return Err(few_events(settings, rule, &refused));
        }
        let BinnedThresholdConfig { per, edges, .. } = settings.clone();
        Ok(BinnedThresholds { per, edges, bins })
    }

    /// Refuses bins with too few held-out events for the rule, if the settings do so; `counts`
    /// (bins) are known before there is a score.
    ///
    /// # Errors
    /// `Input`, with the bins.
    pub(crate) fn refuse_few(
        settings: &BinnedThresholdConfig,
        rule: Rule,
        counts: &[ClassCounts],
    ) -> Result<()> {
        let of = |counts: &ClassCounts, class| match class {
            Class::Gamma => counts.gamma,
            Class::Hadron => counts.hadron,
        };
        let passing = |counts: &ClassCounts| match rule {
            Rule::HadronSurvival { survival } => counts.hadron as f64 * survival,
            _ => counts.hadron as f64,
        };
        let few = |counts: &ClassCounts| {
            rule.classes().iter().any(|class| of(counts, *class) < settings.least)
                || rule.needs_hadrons() && passing(counts) < MIN_HADRONS as f64
        };
        let few = counts.iter().enumerate().filter(|(_, counts)| few(counts));
        let refused: Vec<String> =
            few.map(|(bin, counts)| described(&settings.edges, bin, *counts)).collect();
        if settings.few == Few::Global || refused.is_empty() {
            return Ok(());
        }
        Err(few_events(settings, rule, &refused))
    }

    /// Returns the threshold of an event; infinity for an event in no bin.
    pub fn of(&self, bin: u16) -> f64 {
        self.bins.get(usize::from(bin)).map_or(f64::INFINITY, |bin| bin.threshold)
    }

    /// Returns the ranges of the bins that use the threshold of all events.
    pub(crate) fn with_global(&self) -> Vec<String> {
        let global = self.bins.iter().enumerate().filter(|(_, bin)| bin.global);
        global.map(|(i, _)| range_text(&self.edges, i)).collect()
    }

    /// Returns the ranges of the bins whose choice is limited by the number of held-out hadrons.
    pub(crate) fn limited(&self) -> Vec<String> {
        let text = |(i, bin): (usize, &BinThreshold)| {
            let limit = bin.limited_by_hadrons.map(limit_text)?;
            Some(format!("{}: {limit}", range_text(&self.edges, i)))
        };
        self.bins.iter().enumerate().filter_map(text).collect()
    }

    /// Refuses values that no training can have written.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn validate(&self) -> Result<()> {
        let fault =
            |expected: &str| Fault::new("unusable thresholds by bins").expected(expected).input();
        if self.bins.len() != self.edges.len() + 1 || self.bins.len() >= usize::from(NO_BIN) {
            return Err(fault("one bin more than edges"));
        }
        if !self.edges.is_sorted_by(|a, b| a < b) || self.edges.iter().any(|e| !e.is_finite()) {
            return Err(fault("ascending edges"));
        }
        if self.bins.iter().any(|bin| !bin.threshold.is_finite()) {
            return Err(fault("finite thresholds"));
        }
        Ok(())
    }
}

/// Returns the share of the weight of a class in a bin, summed in an order that is the same on any
/// ranks.
fn share(events: &[HeldOutEvent], class: Class, bin: usize) -> f64 {
    let mut weights: Vec<(bool, f64)> = events
        .iter()
        .filter(|e| e.class == class)
        .map(|e| (usize::from(e.bin) == bin, e.weight))
        .collect();
    weights.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let own: f64 = weights.iter().filter(|(own, _)| *own).map(|(_, weight)| weight).sum();
    if all > 0.0 { own / all } else { 0.0 }
}

fn described(edges: &[f64], bin: usize, events: ClassCounts) -> String {
    format!("{}: {} gammas, {} hadrons", range_text(edges, bin), events.gamma, events.hadron)
}

fn few_events(
    settings: &BinnedThresholdConfig,
    rule: Rule,
    refused: &[String],
) -> crate::error::Error {
    let classes: Vec<String> = rule.classes().iter().map(|c| format!("{c}s")).collect();
    let hadrons = if rule.needs_hadrons() {
        format!(", and {MIN_HADRONS} hadrons that pass")
    } else {
        String::new()
    };
    Fault::new(format!("too few held-out events for a threshold per bin of {}", settings.per))
        .expected(format!(
            "{} {} in every bin{hadrons} ({rule})",
            settings.least,
            classes.join(" and ")
        ))
        .found(refused.join("; "))
        .advice(
            "move the edges, hold out more events (split.calibration), or set thresholds.few = \
             \"global\" to give such bins the threshold of all events",
        )
        .input()
}

/// Results of the thresholds of all bins for evaluated events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtBins {
    pub per: String,
    pub edges: Vec<f64>,
    pub bins: Vec<AtBin>, // (bins)
    /// All events, each with the threshold of its bin.
    pub all: AtThreshold,
    /// Events in no bin, which never pass.
    pub outside: ClassCounts,
}

/// The events of one bin, after the cuts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtBin {
    pub threshold: f64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    pub auc: Option<Auc>,
    pub confusion: Confusion,
    pub after_cuts: Separation,
}

impl AtBins {
    /// Computes the results for events with a score; `bin`, `gamma` and the weights, if any, have
    /// one entry per event.
    ///
    /// # Errors
    /// `Internal` if there are fewer events before the cuts than after them.
    pub(crate) fn of(
        thresholds: &BinnedThresholds,
        scores: &[f32],
        gamma: &[bool],
        bin: &[u16],
        weights: Option<&[f64]>,
        before_cuts: Option<[WeightSum; 2]>,
        prior: f64,
    ) -> Result<AtBins> {
        // The difference of two numbers is at least 0 exactly if the first is at least the second,
        // so that one sample shows the effect of all thresholds.
        let above = |(score, bin): (&f32, &u16)| f64::from(*score) - thresholds.of(*bin);
        let above: Vec<f64> = scores.iter().zip(bin).map(above).collect();
        let all = Sample::weighted(&above, gamma, weights)?;
        let mut bins = Vec::new();
        for (i, of_bin) in thresholds.bins.iter().enumerate() {
            let own = |e: &usize| usize::from(bin[*e]) == i;
            let own: Vec<usize> = (0..scores.len()).filter(own).collect();
            let scores: Vec<f32> = own.iter().map(|e| scores[*e]).collect();
            let gamma: Vec<bool> = own.iter().map(|e| gamma[*e]).collect();
            let weights = weights.map(|w| own.iter().map(|e| w[*e]).collect::<Vec<f64>>());
            let sample = Sample::weighted(&scores, &gamma, weights.as_deref())?;
            let at = AtThreshold::of(&sample, of_bin.threshold, None, prior)?;
            bins.push(AtBin {
                threshold: of_bin.threshold,
                global: of_bin.global,
                auc: Auc::of(&sample),
                confusion: at.confusion,
                after_cuts: at.after_cuts,
            });
        }
        let outside = |of: bool| {
            bin.iter().zip(gamma).filter(|(b, g)| **b == NO_BIN && **g == of).count() as u64
        };
        Ok(AtBins {
            per: thresholds.per.clone(),
            edges: thresholds.edges.clone(),
            bins,
            all: AtThreshold::of(&all, 0.0, before_cuts, prior)?,
            outside: ClassCounts { gamma: outside(true), hadron: outside(false) },
        })
    }
}

#[cfg(test)]
mod tests;
