//! Compares fixed cuts, as a baseline, with a score on the same events and at the same hadron
//! survival.
//!
//! Both are relative to all events before the cuts of the model: the model does not pass an event
//! without a score.

use super::crossed::{Crossed, Selected};
use crate::error::Result;
use crate::statistics::roc::PassingCounts;
use crate::statistics::{Class, ClassCounts, Measured, Roc, Sample};
use serde::{Deserialize, Serialize};

/// An event, triggered and cleaned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CutEvent {
    pub gamma: bool,
    /// Whether it passes the cuts.
    pub passes: bool,
    /// NaN outside of the cuts of the model.
    pub score: f32,
    /// NaN if unknown: the mean of the class is used.
    pub weight: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CutsBaseline {
    pub name: String,
    /// Description of the cuts.
    pub cuts: String,
    /// Events to which the efficiencies are relative.
    pub of: ClassCounts,
    pub selected: Selected,
    /// The model at the lowest threshold with at most as many hadrons as the cuts pass.
    pub model: Option<ModelAt>,
    /// Q of the model minus that of the cuts, paired event by event; the error includes that of the
    /// threshold.
    pub difference: Option<Measured>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelAt {
    pub threshold: f64,
    #[serde(flatten)]
    pub selected: Selected,
}

impl CutsBaseline {
    /// Returns the comparison on events in any order; `None` if a class is empty.
    ///
    /// # Errors
    /// An input error if a weight is negative or infinite.
    pub(crate) fn of(
        name: &str,
        cuts: &str,
        mut events: Vec<CutEvent>,
    ) -> Result<Option<CutsBaseline>> {
        fill_weights(&mut events);
        let scores: Vec<f32> = events.iter().map(|e| e.score).collect();
        let gamma: Vec<bool> = events.iter().map(|e| e.gamma).collect();
        let weights: Vec<f64> = events.iter().map(|e| e.weight).collect();
        let sample = Sample::weighted(&scores, &gamma, Some(&weights))?;
        let allowed = events.iter().filter(|e| !e.gamma && e.passes).map(|e| e.weight);
        let found =
            at_weight(&Roc::of(&sample), allowed.sum::<f64>() * sample.scale(Class::Hadron));
        let threshold = found.map_or(f64::INFINITY, |(point, _)| point.threshold);
        let mut crossed = Crossed::default();
        for event in &events {
            let passes = f64::from(event.score) >= threshold;
            crossed.add(event.gamma, [passes, event.passes], event.weight);
        }
        let Some((selected, model)) = crossed.selected(1).zip(crossed.selected(0)) else {
            return Ok(None);
        };
        // The slope uses shares of the events with a score; here shares are of all events.
        let total = |class: Class| {
            let own = events.iter().filter(|e| e.gamma == (class == Class::Gamma));
            own.map(|e| e.weight).sum::<f64>() * sample.scale(class)
        };
        let slope = found.and_then(|(_, slope)| slope);
        let slope = slope.map(|s| s * total(Class::Hadron) / total(Class::Gamma));
        let difference = match slope {
            Some(slope) => crossed.quality_difference_at_survival(slope),
            None => crossed.quality_difference(),
        };
        let count = |of: bool| events.iter().filter(|e| e.gamma == of).count() as u64;
        Ok(Some(CutsBaseline {
            name: name.to_owned(),
            cuts: cuts.to_owned(),
            of: ClassCounts { gamma: count(true), hadron: count(false) },
            selected,
            model: found.map(|_| ModelAt { threshold, selected: with_threshold(model, slope) }),
            difference,
        }))
    }
}

/// Adds the error of a threshold that is chosen on the same hadrons; `slope` is dε_γ/dε_h. At a
/// fixed number of hadrons Q has the error of the gamma efficiency alone.
fn with_threshold(mut model: Selected, slope: Option<f64>) -> Selected {
    if let Some(slope) = slope {
        let of_threshold = slope * model.hadron_survival.error;
        let efficiency = &mut model.gamma_efficiency;
        efficiency.error = libm::hypot(efficiency.error, of_threshold);
        let root = model.hadron_survival.value.sqrt();
        let error = efficiency.error / root;
        model.quality = model.quality.map(|quality| Measured { error, ..quality });
    }
    model
}

/// Sorts events, so that sums do not depend on their order, and replaces unknown weights by the
/// mean of the class.
fn fill_weights(events: &mut [CutEvent]) {
    events.sort_unstable_by(|a, b| {
        let of = |e: &CutEvent| (e.gamma, e.passes);
        of(a).cmp(&of(b)).then(a.score.total_cmp(&b.score)).then(a.weight.total_cmp(&b.weight))
    });
    for class in [true, false] {
        let known = || events.iter().filter(|e| e.gamma == class && !e.weight.is_nan());
        let mean = known().map(|e| e.weight).sum::<f64>() / known().count().max(1) as f64;
        let unknown = events.iter_mut().filter(|e| e.gamma == class && e.weight.is_nan());
        unknown.for_each(|e| e.weight = mean);
    }
}

/// Returns the lowest point passed by at most this weight of hadrons, and dε_γ/dε_h there in
/// weights. The slope spans the uncertainty of the number of hadrons on either side; it is `None`
/// if all events with a score pass.
fn at_weight(roc: &Roc, allowed: f64) -> Option<(PassingCounts, Option<f64>)> {
    let allowed = allowed * (1.0 + 1e-12);
    let after = roc.points.partition_point(|p| p.hadrons.weight <= allowed);
    let point = *roc.points.get(after.checked_sub(1)?)?;
    if after == roc.points.len() {
        return Some((point, None));
    }
    let around = point.hadrons.weight / point.hadrons.effective().max(1.0).sqrt();
    let near = |weight: f64| {
        let index = roc.points.partition_point(|p| p.hadrons.weight <= weight);
        roc.points[index.clamp(1, roc.points.len()) - 1]
    };
    let (low, high) = (near(allowed - around), near(allowed + around));
    let hadrons = high.hadrons.weight - low.hadrons.weight;
    let slope = (high.gammas.weight - low.gammas.weight) / hadrons;
    Some((point, (hadrons > 0.0).then_some(slope)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    /// Returns events with a score, cuts with part of its information, and the cuts of the model.
    fn events(seed: u64) -> Vec<CutEvent> {
        let stream = Stream::new(seed, "cuts", &[]);
        let event = |i: u64| {
            let gamma = i % 5 < 2;
            let common = stream.normal(4 * i) + if gamma { 1.5 } else { 0.0 };
            let score = (common + 0.4 * stream.normal(4 * i + 1)) as f32;
            let outside = stream.uniform(8 * i + 6) < 0.1;
            CutEvent {
                gamma,
                passes: common + 1.5 * stream.normal(4 * i + 2) > 1.5,
                score: if outside { f32::NAN } else { score },
                weight: 1.0,
            }
        };
        (0..4000).map(event).collect()
    }

    #[test]
    fn cuts_next_to_a_score_agree_with_a_bootstrap() {
        let seed = crate::test_seed();
        let events = events(seed);
        let of = |events: Vec<CutEvent>| CutsBaseline::of("cuts", "", events).unwrap().unwrap();
        let said = of(events.clone());
        let model = said.model.unwrap();
        let survival = |s: &Selected| s.hadron_survival.value;
        assert!((survival(&model.selected) / survival(&said.selected) - 1.0).abs() < 0.01);
        assert_eq!((said.of.gamma, said.of.hadron), (1600, 2400));
        let passed = events.iter().filter(|e| e.gamma && e.passes).count() as f64;
        assert!((said.selected.gamma_efficiency.value - passed / 1600.0).abs() < 1e-12);
        let draws = Stream::new(seed, "bootstrap", &[]);
        let many = 600;
        // The threshold is chosen again in every replica.
        let again = |replica: u64| {
            let draw = |i: u64| events[(draws.uniform(4000 * replica + i) * 4000.0) as usize];
            of((0..4000).map(draw).collect()).difference.unwrap().value
        };
        let found: Vec<f64> = (0..many).map(again).collect();
        let mean = found.iter().sum::<f64>() / many as f64;
        let squares: f64 = found.iter().map(|x| (x - mean) * (x - mean)).sum();
        let spread = (squares / (many - 1) as f64).sqrt();
        let difference = said.difference.unwrap();
        println!("{} against {spread}", difference.error);
        // The error of the bootstrap itself is 3 %, that of the slope about 5 %.
        assert!((difference.error / spread - 1.0).abs() < 0.15, "{} {spread}", difference.error);
        assert!(
            difference.value > 3.0 * difference.error,
            "the score has more information: {difference}"
        );
    }

    #[test]
    fn order_and_unknown_weights_change_no_value() {
        let mut events = events(7);
        let mean = |e: &mut CutEvent| e.weight = 1.0 + f64::from(e.score.to_bits() % 5);
        events.iter_mut().for_each(mean);
        let of = |events: Vec<CutEvent>| CutsBaseline::of("cuts", "", events).unwrap();
        let backward = events.iter().rev().copied().collect();
        assert_eq!(of(events.clone()), of(backward));
        for event in events.iter_mut().filter(|e| e.score.is_nan()) {
            event.weight = f64::NAN;
        }
        assert!(of(events).unwrap().difference.unwrap().error.is_finite());
        let gammas = |e: &CutEvent| e.gamma;
        assert_eq!(of(self::events(3).into_iter().filter(gammas).collect()), None);
    }
}
