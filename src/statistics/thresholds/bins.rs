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
pub fn range_text(edges: &[f64], bin: usize) -> String {
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
    pub fn choose(
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
    pub fn refuse_few(
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
    pub fn with_global(&self) -> Vec<String> {
        let global = self.bins.iter().enumerate().filter(|(_, bin)| bin.global);
        global.map(|(i, _)| range_text(&self.edges, i)).collect()
    }

    /// Returns the ranges of the bins whose choice is limited by the number of held-out hadrons.
    pub fn limited(&self) -> Vec<String> {
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
    pub fn validate(&self) -> Result<()> {
        let fault = |expected: &str| {
            Fault::new("unusable thresholds by bins").expected(expected).input()
        };
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
    pub fn of(
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
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn settings(edges: &[f64], few: Few) -> BinnedThresholdConfig {
        BinnedThresholdConfig { per: "size".into(), edges: edges.to_vec(), least: 20, few }
    }

    fn stream() -> Stream {
        Stream::new(u64::from(std::process::id()), "bins of thresholds", &[])
    }

    /// Returns scores that rise with the bin, so that one threshold for all would be wrong for
    /// each.
    fn events(count: u64, bins: u16) -> Vec<HeldOutEvent> {
        let stream = stream();
        let event = |i: u64| {
            let class =
                if stream.bits(4 * i).is_multiple_of(2) { Class::Gamma } else { Class::Hadron };
            let bin = (stream.bits(4 * i + 1) % u64::from(bins)) as u16;
            let shift = if class == Class::Gamma { 1.0 } else { 0.0 };
            let score = f64::from((stream.normal(2 * i + (1 << 40)) + shift) as f32)
                + 10.0 * f64::from(bin);
            HeldOutEvent { score, class, weight: 1.0 + (i % 3) as f64, bin }
        };
        (0..count).map(event).collect()
    }

    #[test]
    fn bin_is_described_by_its_range() {
        let texts: Vec<String> = (0..4).map(|bin| range_text(&[1.0, 2.5, 7.0], bin)).collect();
        assert_eq!(texts, ["below 1", "1 … 2.5", "2.5 … 7", "from 7"]);
    }

    fn global(value: f64) -> Threshold {
        Rule::Fixed { value }.choose(&Sample::default()).unwrap()
    }

    #[test]
    fn each_bin_has_the_threshold_of_its_events() {
        let events = events(4001, 3);
        for (rule, weighted) in [
            (Rule::two_sigma(Class::Gamma), false),
            (Rule::two_sigma(Class::Hadron), true),
            (Rule::GammaEfficiency { efficiency: 0.7 }, false),
            (Rule::HadronSurvival { survival: 0.1 }, true),
            (Rule::LargestQ, false),
        ] {
            let settings = settings(&[1.0, 2.0], Few::Refuse);
            let chosen =
                BinnedThresholds::choose(&settings, rule, &events, weighted, global(0.0)).unwrap();
            chosen.validate().unwrap();
            for (bin, found) in chosen.bins.iter().enumerate() {
                let own: Vec<_> = events.iter().filter(|e| usize::from(e.bin) == bin).collect();
                let scores: Vec<f64> = own.iter().map(|e| e.score).collect();
                let gamma: Vec<bool> = own.iter().map(|e| e.class == Class::Gamma).collect();
                let weights: Vec<f64> = own.iter().map(|e| e.weight).collect();
                let weights = weighted.then_some(weights.as_slice());
                let sample = Sample::weighted(&scores, &gamma, weights).unwrap();
                assert_eq!(found.threshold, rule.choose(&sample).unwrap().value, "{rule}");
                assert_eq!(found.events, sample.counts());
            }
            // The order of the events, which depends on the ranks, has no effect.
            let mut turned = events.clone();
            turned.rotate_left(1234);
            let again =
                BinnedThresholds::choose(&settings, rule, &turned, weighted, global(0.0)).unwrap();
            assert_eq!(again, chosen);
        }
    }

    #[test]
    fn sparse_bin_refused_or_uses_global_threshold() {
        let mut events = events(900, 2);
        let few = HeldOutEvent { score: 3.0, class: Class::Gamma, weight: 1.0, bin: 2 };
        events.extend([few; 19]);
        let rule = Rule::two_sigma(Class::Gamma);
        let choose = |few, events: &[HeldOutEvent]| {
            BinnedThresholds::choose(&settings(&[1.0, 2.0], few), rule, events, false, global(4.25))
        };
        let refused = choose(Few::Refuse, &events).unwrap_err();
        assert_eq!(refused.exit_code(), 3);
        let message = refused.to_string();
        assert!(
            message.contains("from 2: 19 gammas, 0 hadrons") && !message.contains("below 1"),
            "{message}"
        );
        let fallen_back = choose(Few::Global, &events).unwrap();
        assert_eq!(fallen_back.with_global(), ["from 2"]);
        assert_eq!(fallen_back.bins[2].threshold, 4.25);
        assert!(!fallen_back.bins[0].global && fallen_back.bins[0].threshold != 4.25);
        events.push(few);
        assert!(choose(Few::Refuse, &events).is_ok(), "twenty are enough");
        // Hadrons are not required if the rule does not use them; other classes are.
        let rule = Rule::HadronSurvival { survival: 0.1 };
        let outcome = BinnedThresholds::choose(
            &settings(&[1.0, 2.0], Few::Refuse),
            rule,
            &events,
            false,
            global(0.0),
        );
        assert!(outcome.unwrap_err().to_string().contains("hadrons that pass"));
    }

    #[test]
    fn all_bins_pass_the_sum_of_single_bins() {
        let events = events(3001, 4);
        let chosen = BinnedThresholds::choose(
            &settings(&[1.0, 2.0, 3.0], Few::Refuse),
            Rule::GammaEfficiency { efficiency: 0.8 },
            &events,
            false,
            global(0.0),
        )
        .unwrap();
        let scores: Vec<f32> = events.iter().map(|e| e.score as f32).collect();
        let gamma: Vec<bool> = events.iter().map(|e| e.class == Class::Gamma).collect();
        let mut bin: Vec<u16> = events.iter().map(|e| e.bin).collect();
        bin[17] = NO_BIN;
        let at = AtBins::of(&chosen, &scores, &gamma, &bin, None, None, 1e-3).unwrap();
        let mut sums = [0; 4];
        for of_bin in &at.bins {
            let c = of_bin.confusion;
            let counts =
                [c.gamma_as_gamma, c.gamma_as_hadron, c.hadron_as_gamma, c.hadron_as_hadron];
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            let efficiency = of_bin.after_cuts.gamma_efficiency.unwrap().value;
            assert!((0.79..0.82).contains(&efficiency), "{efficiency}");
        }
        sums[if gamma[17] { 1 } else { 3 }] += 1; // in no bin: never a gamma
        let c = at.all.confusion;
        let all = [c.gamma_as_gamma, c.gamma_as_hadron, c.hadron_as_gamma, c.hadron_as_hadron];
        assert_eq!(all, sums);
        assert_eq!(at.outside.gamma + at.outside.hadron, 1);
        let text = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<AtBins>(&text).unwrap(), at);
    }

    #[test]
    fn invalid_bins_are_refused() {
        let bin = BinThreshold {
            threshold: 1.0,
            events: ClassCounts::default(),
            global: false,
            limited_by_hadrons: None,
        };
        let good =
            BinnedThresholds { per: "size".into(), edges: vec![1.0, 2.0], bins: vec![bin; 3] };
        good.validate().unwrap();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<BinnedThresholds>(&text).unwrap(), good);
        for wrong in [
            BinnedThresholds { edges: vec![2.0, 1.0], ..good.clone() },
            BinnedThresholds { edges: vec![1.0], ..good.clone() },
            BinnedThresholds {
                bins: vec![BinThreshold { threshold: f64::NAN, ..bin }; 3],
                ..good.clone()
            },
        ] {
            assert_eq!(wrong.validate().unwrap_err().exit_code(), 3);
        }
    }
}
