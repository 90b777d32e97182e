//! Metrics of an epoch on held-out events: likelihoods, and losses of fine-tuning.
//!
//! Sums are computed per shard and added in the order of shards; medians are exact.

use super::flows::{Objective, Population};
use super::objectives::contrast::{CrossEntropyAt, PushAt};
use super::objectives::quantile;
use super::objectives::synthetic::LatentContext;
use super::state::Progress;
use super::trainer::Trainer;
use crate::comm::{Communicator, gather_slots};
use crate::data::schema::features::scaler_log_det;
use crate::dataset::event_store::{EventRows, Shard};
use crate::error::Result;

/// Held-out NLL of each flow on its own population; `None` if it is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationMetrics {
    pub mean: Vec<Option<f64>>,   // (flows)
    pub median: Vec<Option<f64>>, // (flows)
    /// Loss of a fine-tuning at its full weight.
    pub loss: Option<f64>,
}

/// Held-out events of a population on this rank.
struct HeldOutEvents {
    events: Vec<Vec<f32>>,          // (own shards)(events, features)
    weights: Option<Vec<Vec<f32>>>, // (own shards)(events)
}

/// log p (own shards)(events).
type LogProb = Vec<Vec<f32>>;

impl Trainer<'_> {
    /// Evaluates the validation events with the weights of the engines; `None` without events.
    pub fn held_out(
        &self,
        comm: &dyn Communicator,
        p: &Progress,
    ) -> Result<Option<ValidationMetrics>> {
        let flows = &self.plan.flows;
        let parts = self.held_out_parts(p, |shard| &shard.validation)?;
        let log_det = scaler_log_det(&self.scaler);
        let finite = |nll: f64| Some(nll).filter(|nll| nll.is_finite());
        let mut held_out = ValidationMetrics { mean: Vec::new(), median: Vec::new(), loss: None };
        for (f, flow) in flows.iter().enumerate() {
            let part = &parts[flow.population];
            let log_prob = self.log_prob_of_part(f, part)?;
            let mean = self.mean(comm, part, |s, i| f64::from(log_prob[s][i]))?;
            let (values, weights) = (log_prob.concat(), part.weights.as_ref().map(|w| w.concat()));
            let median = quantile::weighted(comm, &values, weights.as_deref(), 0.5)?;
            held_out.mean.push(finite(-mean - log_det));
            held_out.median.push(median.and_then(|m| finite(-f64::from(m) - log_det)));
        }
        held_out.loss = self.held_out_loss(comm, p, &parts, &held_out)?;
        let any = self.rows.iter().all(|rows| rows.validation > 0);
        Ok(any.then_some(held_out))
    }

    /// Returns the held-out loss of a fine-tuning stage; `None` for the likelihood.
    fn held_out_loss(
        &self,
        comm: &dyn Communicator,
        p: &Progress,
        parts: &[HeldOutEvents],
        held_out: &ValidationMetrics,
    ) -> Result<Option<f64>> {
        let stage = &self.plan.stages[p.stage];
        let likelihood: Option<f64> = held_out.mean.iter().copied().sum();
        let more = match stage {
            Objective::Likelihood => return Ok(None),
            Objective::Push(fine_tune) => {
                let push = PushAt {
                    push: fine_tune.push,
                    weight: fine_tune.weight,
                    features: self.plan.spec.features,
                    quantile: p.quantile.unwrap_or(f64::INFINITY),
                };
                let [normal, anomalies] =
                    [self.log_prob_of_part(0, &parts[0])?, self.log_prob_of_part(0, &parts[1])?];
                self.mean(comm, &parts[0], |s, i| push.loss_of_normal(normal[s][i]))?
                    + self.mean(comm, &parts[1], |s, i| push.loss_of_anomaly(anomalies[s][i]))?
            }
            Objective::CrossEntropy(fine_tune) => {
                // The loss does not depend on the ratio.
                let entropy = CrossEntropyAt { weight: fine_tune.weight, ratio: 1.0 };
                let mut sum = 0.0;
                for (population, part) in parts.iter().enumerate() {
                    let [a, b] = [self.log_prob_of_part(0, part)?, self.log_prob_of_part(1, part)?];
                    sum += self.mean(comm, part, |s, i| {
                        entropy.loss(population == 0, [a[s][i], b[s][i]])
                    })?;
                }
                sum
            }
        };
        Ok(likelihood.map(|l| l + more).filter(|l| l.is_finite()))
    }

    /// Collects the held-out events of every population.
    fn held_out_parts<'s>(
        &'s self,
        p: &Progress,
        of: impl Fn(&'s Shard) -> &'s EventRows,
    ) -> Result<Vec<HeldOutEvents>> {
        let mut parts = Vec::new();
        for (index, population) in self.plan.populations.iter().enumerate() {
            let mut part = HeldOutEvents { events: Vec::new(), weights: None };
            let mut all_weights = Vec::new();
            let store = self.stores.get(index).unwrap_or(&self.stores[0]);
            for shard in &store.shards {
                let rows = of(shard);
                let (events, weights) = match (population, &self.synthetic) {
                    (Population::Synthetic, Some(synthetic)) => {
                        let quantile = p.quantile.unwrap_or(f64::INFINITY);
                        let latent = LatentContext { engine: &*self.engines[0], quantile };
                        let (events, weights) = synthetic.held_out(
                            &self.scaler,
                            &self.plan.selection,
                            shard,
                            rows,
                            &latent,
                        )?;
                        (events, Some(weights))
                    }
                    _ => (
                        rows.rows().flatten().copied().collect(),
                        rows.weights().map(<[f32]>::to_vec),
                    ),
                };
                part.events.push(events);
                all_weights.push(weights.unwrap_or_default());
            }
            let weighted = self.plan.selection.has_weight() || *population == Population::Synthetic;
            part.weights = weighted.then_some(all_weights);
            parts.push(part);
        }
        Ok(parts)
    }

    /// Computes log p of held-out events in a flow.
    fn log_prob_of_part(&self, flow: usize, part: &HeldOutEvents) -> Result<LogProb> {
        let mut all = Vec::new();
        for events in &part.events {
            let mut log_prob = vec![0.0; events.len() / self.plan.spec.features];
            self.engines[flow].log_prob(events, &mut log_prob)?;
            all.push(log_prob);
        }
        Ok(all)
    }

    /// Computes the weighted mean of a value (own shard, event) over all held-out events of a
    /// population.
    fn mean(
        &self,
        comm: &dyn Communicator,
        part: &HeldOutEvents,
        value: impl Fn(usize, usize) -> f64,
    ) -> Result<f64> {
        let shards = self.plan.dealing.shards() as usize;
        let mut slots = vec![None; 2 * shards];
        for (s, shard) in self.stores[0].shards.iter().enumerate() {
            let events = part.events[s].len() / self.plan.spec.features;
            let weights = part.weights.as_ref().map(|w| &w[s]);
            let weight = |i: usize| weights.map_or(1.0, |w| f64::from(w[i]));
            let id = shard.id as usize;
            slots[id] = Some((0..events).map(|i| weight(i) * value(s, i)).sum());
            slots[shards + id] = Some((0..events).map(weight).sum());
        }
        let words = gather_slots(comm, &slots)?;
        let sum = |of: &[f64]| of.iter().sum::<f64>();
        Ok(sum(&words[..shards]) / sum(&words[shards..]))
    }

    /// Returns the bins of the events of [`Trainer::held_out_scores`], in the same order.
    pub fn held_out_bins(&self, population: usize, calibration: bool) -> Vec<u16> {
        let part = |shard: &Shard| -> Vec<u16> {
            let rows = if calibration { &shard.calibration } else { &shard.validation };
            rows.bins().to_vec()
        };
        self.stores[population].shards.iter().flat_map(part).collect()
    }

    /// Computes scores and weights of held-out events of a real population on this rank, as a
    /// scorer does: the calibration part, or the validation part if there is none.
    pub fn held_out_scores(
        &self,
        population: usize,
        calibration: bool,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let mut scores = Vec::new();
        let mut weights = Vec::new();
        let log_det = scaler_log_det(&self.scaler);
        for shard in &self.stores[population].shards {
            let rows = if calibration { &shard.calibration } else { &shard.validation };
            for chunk in rows.chunks() {
                let mut log_prob = Vec::new();
                for engine in &self.engines {
                    let mut out = vec![0.0; chunk.len() / self.plan.spec.features];
                    engine.log_prob(chunk, &mut out)?;
                    log_prob.push(out);
                }
                let normal = self.plan.config.model.normal;
                let event = |i: usize| log_prob.iter().map(move |l| f64::from(l[i]) + log_det);
                scores
                    .extend((0..log_prob[0].len()).map(|i| crate::engine::score(normal, event(i))));
            }
            weights.extend(rows.weights().unwrap_or_default());
        }
        Ok((scores, self.plan.selection.has_weight().then_some(weights)))
    }
}
