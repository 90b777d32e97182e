//! Metrics of an epoch on held-out events: likelihoods, and losses of fine-tuning.
//!
//! Sums are computed per shard and added in the order of shards; medians are exact.

use super::engines::FlowEngines;
use super::events::TrainingEvents;
use super::flows::{Objective, Population};
use super::objectives::contrast::{CrossEntropyAt, PushAt};
use super::objectives::quantile;
use super::objectives::synthetic::LatentContext;
use super::state::Progress;
use crate::comm::{Communicator, gather_slots};
use crate::config::NO_BIN;
use crate::data::schema::features::scaler_log_det;
use crate::dataset::event_store::Shard;
use crate::engine;
use crate::error::Result;
use crate::statistics::HeldOutEvent;

/// Held-out NLL of each flow on its own population; `None` if it is not finite.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidationMetrics {
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

/// Held-out events of this rank, evaluated with the weights of the engines.
#[derive(Clone, Copy)]
pub(crate) struct Validation<'r> {
    pub events: &'r TrainingEvents<'r>,
    pub flows: &'r FlowEngines<'r>,
}

impl Validation<'_> {
    /// Evaluates the validation events; `None` without events.
    pub(crate) fn metrics(
        self,
        comm: &dyn Communicator,
        p: &Progress,
    ) -> Result<Option<ValidationMetrics>> {
        let parts = self.parts(p)?;
        let log_det = scaler_log_det(&self.events.scaler);
        let finite = |nll: f64| Some(nll).filter(|nll| nll.is_finite());
        let mut metrics = ValidationMetrics { mean: Vec::new(), median: Vec::new(), loss: None };
        for (f, flow) in self.events.plan.flows.iter().enumerate() {
            let part = &parts[flow.population];
            let log_prob = self.log_prob_of_part(f, part)?;
            let mean = self.mean(comm, part, |s, i| f64::from(log_prob[s][i]))?;
            let (values, weights) = (log_prob.concat(), part.weights.as_ref().map(|w| w.concat()));
            let median = quantile::weighted(comm, &values, weights.as_deref(), 0.5)?;
            metrics.mean.push(finite(-mean - log_det));
            metrics.median.push(median.and_then(|m| finite(-f64::from(m) - log_det)));
        }
        metrics.loss = self.loss(comm, p, &parts, &metrics)?;
        let any = self.events.rows.iter().all(|rows| rows.validation > 0);
        Ok(any.then_some(metrics))
    }

    /// Returns the held-out loss of a fine-tuning stage; `None` for the likelihood.
    fn loss(
        self,
        comm: &dyn Communicator,
        p: &Progress,
        parts: &[HeldOutEvents],
        metrics: &ValidationMetrics,
    ) -> Result<Option<f64>> {
        let plan = self.events.plan;
        let likelihood: Option<f64> = metrics.mean.iter().copied().sum();
        let more = match &plan.stages[p.stage] {
            Objective::Likelihood => return Ok(None),
            Objective::Push(fine_tune) => {
                let (features, weight) = (plan.spec.features, fine_tune.weight);
                let push = PushAt::new(fine_tune, weight, features, p.quantile);
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

    /// Collects the validation events of every population.
    fn parts(self, p: &Progress) -> Result<Vec<HeldOutEvents>> {
        let plan = self.events.plan;
        let mut parts = Vec::new();
        for (index, population) in plan.populations.iter().enumerate() {
            let mut part = HeldOutEvents { events: Vec::new(), weights: None };
            let mut all_weights = Vec::new();
            let store = self.events.stores.get(index).unwrap_or(&self.events.stores[0]);
            for shard in &store.shards {
                let (events, weights) = self.of_shard(*population, shard, p)?;
                part.events.push(events);
                all_weights.push(weights);
            }
            let weighted = plan.selection.has_weight() || *population == Population::Synthetic;
            part.weights = weighted.then_some(all_weights);
            parts.push(part);
        }
        Ok(parts)
    }

    /// Returns events and weights of the validation part of a shard; no weights if all are 1.
    fn of_shard(
        self,
        population: Population,
        shard: &Shard,
        p: &Progress,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let rows = &shard.validation;
        let (Population::Synthetic, Some(synthetic)) = (population, &self.events.synthetic) else {
            let weights = rows.weights().map_or(Vec::new(), <[f32]>::to_vec);
            return Ok((rows.rows().flatten().copied().collect(), weights));
        };
        let quantile = p.quantile.unwrap_or(f64::INFINITY);
        let latent = LatentContext { engine: self.flows.engine(0), quantile };
        let selection = &self.events.plan.selection;
        synthetic.held_out(&self.events.scaler, selection, shard, rows, &latent)
    }

    /// Computes log p of held-out events in a flow.
    fn log_prob_of_part(self, flow: usize, part: &HeldOutEvents) -> Result<LogProb> {
        part.events.iter().map(|events| self.flows.log_prob(flow, events)).collect()
    }

    /// Computes the weighted mean of a value (own shard, event) over all held-out events of a
    /// population.
    fn mean(
        self,
        comm: &dyn Communicator,
        part: &HeldOutEvents,
        value: impl Fn(usize, usize) -> f64,
    ) -> Result<f64> {
        let plan = self.events.plan;
        let shards = plan.dealing.shards() as usize;
        let mut slots = vec![None; 2 * shards];
        for (s, shard) in self.events.stores[0].shards.iter().enumerate() {
            let events = part.events[s].len() / plan.spec.features;
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

    /// Computes scores and weights of held-out events of a real population on this rank, as a
    /// scorer does: the calibration part, or the validation part if there is none.
    pub(crate) fn scores(
        self,
        population: usize,
        calibration: bool,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let plan = self.events.plan;
        let mut scores = Vec::new();
        let mut weights = Vec::new();
        let log_det = scaler_log_det(&self.events.scaler);
        for shard in &self.events.stores[population].shards {
            let rows = if calibration { &shard.calibration } else { &shard.validation };
            for chunk in rows.chunks() {
                let log_prob = (0..plan.flows.len())
                    .map(|flow| self.flows.log_prob(flow, chunk))
                    .collect::<Result<LogProb>>()?;
                let event = |i: usize| log_prob.iter().map(move |l| f64::from(l[i]) + log_det);
                let normal = plan.config.model.normal;
                scores.extend((0..log_prob[0].len()).map(|i| engine::score(normal, event(i))));
            }
            weights.extend(rows.weights().into_iter().flatten());
        }
        Ok((scores, plan.selection.has_weight().then_some(weights)))
    }

    /// Gathers score, class, weight and bin of the held-out events of all real populations on all
    /// ranks: those for calibration, else those for validation.
    pub(crate) fn gathered_scores(self, comm: &dyn Communicator) -> Result<Vec<HeldOutEvent>> {
        let calibration = self.events.has_calibration();
        let mut events = Vec::new();
        for (population, of) in self.events.plan.populations.iter().enumerate() {
            let Population::Real(class) = of else { continue };
            let (scores, weights) = self.scores(population, calibration)?;
            let bins = self.events.held_out_bins(population, calibration);
            let mut bytes = Vec::new();
            for (i, score) in scores.iter().enumerate() {
                bytes.extend(score.to_le_bytes());
                bytes.extend(weights.as_ref().map_or(1.0, |w| w[i]).to_le_bytes());
                bytes.extend(bins.get(i).map_or(NO_BIN, |bin| *bin).to_le_bytes());
            }
            for event in comm.all_gather(&bytes)?.iter().flat_map(|b| b.as_chunks::<10>().0) {
                let [a, b, c, d, e, f, g, h, bin @ ..] = *event;
                events.push(HeldOutEvent {
                    score: f64::from(f32::from_le_bytes([a, b, c, d])),
                    class: *class,
                    weight: f64::from(f32::from_le_bytes([e, f, g, h])),
                    bin: u16::from_le_bytes(bin),
                });
            }
        }
        Ok(events)
    }
}
