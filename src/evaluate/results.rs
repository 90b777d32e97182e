//! Evaluation of the gathered events: checks of weights, curves and thresholds.

use super::baseline::Forest;
use super::events::{EvaluatedEvents, Weighed};
use crate::config::Class;
use crate::error::{Fault, Result};
use crate::model::Card;
use crate::statistics::comparison::baseline::Baseline;
use crate::statistics::evaluation::Importance;
use crate::statistics::{About, Auc, Evaluation, EventWeights, Rule, Sample, Threshold, WeightSum};

impl EvaluatedEvents {
    /// Refuses an expression that gives all events of a class the weight 0.
    pub(super) fn refuse_weights(&self, expression: Option<&str>) -> Result<()> {
        let Some(expression) = expression else { return Ok(()) };
        for class in [Class::Gamma, Class::Hadron] {
            let own = self.gamma.iter().zip(&self.weight);
            let own = own.filter(|(gamma, _)| **gamma == (class == Class::Gamma));
            let sum = own.fold(WeightSum::default(), |sum, (_, weight)| sum.with(*weight));
            if sum.events > 0 && sum.weight <= 0.0 {
                return Err(Fault::new(format!("all weights of the {class}s are 0"))
                    .expected("a weight that gives some events of each class a number above 0")
                    .found(format!("{expression}, 0 for {} events", sum.events))
                    .advice(
                        "--weight gives another expression, --weight 1 evaluates without weights",
                    )
                    .input());
            }
        }
        Ok(())
    }

    pub(super) fn weights_before_cuts(&self, expression: String) -> EventWeights {
        let [gamma_before_cuts, hadron_before_cuts] = self.before_weights.map(Weighed::all);
        EventWeights { expression, gamma_before_cuts, hadron_before_cuts }
    }

    pub(super) fn baseline(&self, forest: &Forest, weighted: bool) -> Result<Baseline> {
        let name = format!("random forest of {} trees", forest.trees);
        let scores = [self.of_forest.as_slice(), &self.score];
        let weights = weighted.then_some(self.weight.as_slice());
        Baseline::of(name, forest.events, scores, &self.gamma, weights)
    }

    pub(super) fn evaluate(&self, card: &Card, about: About, binned: bool) -> Result<Evaluation> {
        let weights = about.weights.is_some().then_some(self.weight.as_slice());
        let sample = Sample::weighted(&self.score, &self.gamma, weights)?;
        let threshold = match card.threshold {
            Some(threshold) => threshold,
            None => fallback_threshold(&sample, card)?,
        };
        let mut importance = Vec::new();
        for (feature, scores) in card.features.iter().zip(&self.without) {
            let auc_without = Auc::of(&Sample::weighted(scores, &self.gamma, weights)?);
            let feature = feature.feature.name.clone();
            importance.extend(auc_without.map(|auc_without| Importance { feature, auc_without }));
        }
        let mut evaluation =
            Evaluation::new(about, &sample, threshold)?.with_importance(importance);
        if let Some(normal) = card.normal {
            let of_normal = |gamma: &bool| *gamma == (normal == Class::Gamma);
            let own = |i: &usize| of_normal(&self.gamma[*i]);
            let own: Vec<usize> = (0..self.gamma.len()).filter(own).collect();
            let log_prob: Vec<f32> = own.iter().map(|i| self.log_prob[*i]).collect();
            let weights = weights.map(|w| own.iter().map(|i| w[*i]).collect::<Vec<f64>>());
            evaluation = evaluation.with_normal_log_p(&log_prob, weights.as_deref());
        }
        if let Some(thresholds) = card.thresholds.as_ref().filter(|_| binned) {
            evaluation =
                evaluation.with_bins(thresholds, &self.score, &self.gamma, &self.bin, weights)?;
        }
        evaluation = evaluation.with_parameters(self.parameters(card));
        if card.score_text() != "log p" {
            let log_p = Sample::weighted(&self.log_prob, &self.gamma, weights)?;
            let flow = card.flows_in_order().next().map_or("", |(name, _)| name.as_str());
            evaluation = evaluation.with_log_likelihood(flow, &log_p);
        }
        if let Some(calibration) = &card.calibration {
            evaluation = evaluation
                .with_gammaness(&self.gammaness, &self.gamma, weights)
                .with_posterior(calibration, &self.score, &self.gamma, weights);
        }
        let compared = card.training.off_source.as_ref().and_then(|off| off.comparison.as_ref());
        if let Some(comparison) = compared.filter(|c| c.differs()) {
            evaluation = evaluation.with_warning(comparison.warning());
        }
        if let Some(caveat) = card.mode.caveat() {
            evaluation = evaluation.with_warning(caveat);
        }
        if card.threshold.is_none() {
            evaluation = evaluation.with_warning(
                "The model has no threshold (it was trained without held-out events): it was chosen on the evaluated events.",
            );
        }
        Ok(evaluation)
    }
}

fn fallback_threshold(sample: &Sample, card: &Card) -> Result<Threshold> {
    Rule::two_sigma(card.normal.unwrap_or(Class::Gamma)).choose(sample)
}
