//! One step on one rank: the events of each population, their loss weights, and the gradient of
//! each flow.

use super::flows::{Objective, Population};
use super::objectives::contrast::{CrossEntropyAt, PushAt};
use super::objectives::quantile;
use super::objectives::synthetic::LatentContext;
use super::plan::TrainingPlan;
use super::state::{Progress, TrainState};
use super::trainer::Trainer;
use crate::comm::Communicator;
use crate::config::FineTune;
use crate::dataset::event_store::Gathered;
use crate::engine::{Batch, Events};
use crate::error::Result;
use crate::model::anomalies::AnomalyMaker;

/// Weights are summed over ranks as integers, in units of 1/UNITS.
pub const UNITS: i64 = 1 << 20;

/// State of a step on this rank; its gradient sums are in the engines.
#[derive(Debug)]
pub struct BatchStep {
    populations: Vec<Gathered>,
    /// Events of the next step (epoch, step in the epoch), prepared while the engines compute.
    next: (Option<(u64, u64)>, Vec<Gathered>),
    /// Whether the engines have the training events.
    held: bool,
    /// Parts of shards whose gradient cannot be added.
    pub unusable: u64,
    /// Σ weight · (−log p) of each flow's own population.
    pub losses: Vec<Vec<f64>>, // (flows)(own shards)
    /// Normal events with log p below the running quantile.
    pub below: u64,
    /// Normal events of all ranks per unit of weight of the second population.
    ratio: f64,
}

impl BatchStep {
    pub fn new(flows: usize, populations: usize, own: usize, held: bool) -> BatchStep {
        let empty = vec![Gathered::default(); populations];
        BatchStep {
            next: (None, empty.clone()),
            populations: empty,
            held,
            unusable: 0,
            losses: vec![vec![0.0; own]; flows],
            below: 0,
            ratio: 1.0,
        }
    }

    /// Returns the number of events of a population in this step.
    pub fn events(&self, population: usize) -> usize {
        self.populations[population].len()
    }

    /// Returns the divisor of a flow's gradient sum in units of [`UNITS`]: the events of a real
    /// class, whose weights have mean 1, or the weights of anomalies, many of which may be 0.
    pub fn divisor(&self, plan: &TrainingPlan, population: usize) -> i64 {
        let events = &self.populations[population];
        match plan.populations[population] {
            Population::Real(_) => events.len() as i64 * UNITS,
            Population::Synthetic => weight_units(events),
        }
    }
}

/// Returns Σ weight in units of [`UNITS`].
fn weight_units(events: &Gathered) -> i64 {
    let units = |w: &f32| (f64::from(*w) * UNITS as f64).round_ties_even() as i64;
    match events.weights() {
        Some(weights) => weights.iter().map(units).sum(),
        None => events.len() as i64 * UNITS,
    }
}

/// Returns the number of normal events per unit of the anomalies' weight.
fn normals_per_anomaly(normals: i64, anomaly_units: i64) -> f64 {
    if anomaly_units <= 0 { 1.0 } else { normals as f64 * UNITS as f64 / anomaly_units as f64 }
}

/// Multiplies loss weights by the weights of the events.
fn loss_weights(events: &Gathered, weights: &[f64]) -> Vec<f32> {
    let own = |i: usize| events.weights().map_or(1.0, |own| f64::from(own[i]));
    weights.iter().enumerate().map(|(i, w)| (w * own(i)) as f32).collect()
}

impl Trainer<'_> {
    /// Gathers the events of the current step, and sums the gradients of all flows.
    pub fn gradient(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        self.gather(comm, state)?;
        let stage = &self.plan.stages[state.progress.stage];
        let weight = stage.weight(state.progress.stage_step, self.stage_steps(stage));
        if !matches!(stage, Objective::Likelihood) {
            self.step.ratio = self.ratio(comm)?;
        }
        match stage {
            Objective::Likelihood => self.likelihood()?,
            Objective::Push(fine_tune) => self.push(&state.progress, fine_tune, weight)?,
            Objective::CrossEntropy(_) => self.cross_entropy(weight)?,
        }
        self.gather_next(&state.progress);
        self.collect(matches!(stage, Objective::Likelihood))
    }

    /// Returns the number of normal events in the step per unit of weight of the second population:
    /// on all ranks for anomalies, in the whole training for a real class.
    fn ratio(&self, comm: &dyn Communicator) -> Result<f64> {
        let [first, second] = [0, 1].map(|population| self.rows.get(population));
        if let (Some(first), Some(second)) = (first, second) {
            return Ok(first.train as f64 / second.train as f64);
        }
        let mut sums = [self.step.events(0) as i64, self.step.divisor(self.plan, 1)];
        comm.all_reduce_sum(&mut sums)?;
        Ok(normals_per_anomaly(sums[0], sums[1]))
    }

    /// Waits for the engines. In the likelihood stage the loss of a flow is that of its gradient.
    fn collect(&mut self, likelihood: bool) -> Result<()> {
        self.step.unusable = 0;
        let mut of_weights = vec![0.0; self.stores[0].shards.len()];
        for (engine, loss) in self.engines.iter_mut().zip(&mut self.step.losses) {
            self.step.unusable +=
                engine.collect(if likelihood { loss } else { &mut of_weights })?;
        }
        Ok(())
    }

    /// Returns the number of steps of a whole stage.
    pub fn stage_steps(&self, stage: &Objective) -> u64 {
        self.steps * stage.settings(&self.plan.config.train).epochs
    }

    fn gather(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        let (plan, p) = (self.plan, &mut state.progress);
        let (seed, epoch, at) = (plan.config.train.seed, p.epoch, p.step_in_epoch);
        if self.names_events(p.stage) {
            if self.step.next.0 == Some((epoch, at)) {
                std::mem::swap(&mut self.step.populations, &mut self.step.next.1);
            } else {
                for (store, events) in self.stores.iter().zip(&mut self.step.populations) {
                    store.name(seed, epoch, at, self.steps, events);
                }
            }
            return Ok(());
        }
        for (store, events) in self.stores.iter().zip(&mut self.step.populations) {
            store.gather(seed, epoch, at, self.steps, events);
        }
        self.follow_quantile(comm, p)?;
        let pushed = matches!(plan.stages[p.stage], Objective::Push(_));
        let wanted = pushed
            || plan.flows.iter().any(|f| plan.populations[f.population] == Population::Synthetic);
        let (Some(synthetic), [normal, anomalies], true) =
            (&self.synthetic, self.step.populations.as_mut_slice(), wanted)
        else {
            return Ok(());
        };
        let latent = LatentContext {
            engine: &*self.engines[0],
            quantile: p.quantile.unwrap_or(f64::INFINITY),
        };
        synthetic.of_step(
            &self.scaler,
            &plan.selection,
            &self.stores[0],
            epoch,
            normal,
            &latent,
            anomalies,
        )
    }

    /// Returns whether a stage needs only the indices of its events.
    fn names_events(&self, stage: usize) -> bool {
        self.step.held
            && matches!(self.plan.stages[stage], Objective::Likelihood)
            && self.followed_quantile(stage).is_none()
    }

    /// Selects the events of the next step while the engines compute the current one.
    fn gather_next(&mut self, p: &Progress) {
        if !self.names_events(p.stage) {
            return;
        }
        let last = p.step_in_epoch + 1 == self.steps;
        let (epoch, at) = if last { (p.epoch + 1, 0) } else { (p.epoch, p.step_in_epoch + 1) };
        for (store, events) in self.stores.iter().zip(&mut self.step.next.1) {
            store.name(self.plan.config.train.seed, epoch, at, self.steps, events);
        }
        self.step.next.0 = Some((epoch, at));
    }

    /// Counts normal events below the running quantile, which is initialised in the first step that
    /// needs it.
    fn follow_quantile(&mut self, comm: &dyn Communicator, p: &mut Progress) -> Result<()> {
        self.step.below = 0;
        let Some(fraction) = self.followed_quantile(p.stage) else { return Ok(()) };
        let normal = &self.step.populations[0];
        let mut log_prob = vec![0.0; normal.len()];
        self.engines[0].log_prob(&normal.rows, &mut log_prob)?;
        if p.quantile.is_none() {
            p.quantile = quantile::quantile(comm, &log_prob, fraction)?.map(f64::from);
        }
        let below = |l: &&f32| p.quantile.is_some_and(|q| f64::from(**l) < q);
        self.step.below = log_prob.iter().filter(below).count() as u64;
        Ok(())
    }

    /// Returns the quantile of normal log p that a stage tracks, if any.
    pub fn followed_quantile(&self, stage: usize) -> Option<f64> {
        let low_density =
            self.synthetic.as_ref().and_then(|s| AnomalyMaker::low_density_quantile(&s.anomalies));
        match &self.plan.stages[stage] {
            Objective::Push(fine_tune) => Some(fine_tune.push.quantile),
            _ => low_density,
        }
    }

    fn likelihood(&mut self) -> Result<()> {
        for (engine, flow) in self.engines.iter_mut().zip(&self.plan.flows) {
            let gathered = &self.step.populations[flow.population];
            let (numbers, flips) = (&gathered.numbers, &gathered.flips);
            let events = if gathered.rows.is_empty() && !numbers.is_empty() {
                let flips = (!flips.is_empty()).then_some(flips.as_slice());
                Events::Held { numbers, flips }
            } else {
                Events::Rows(&gathered.rows)
            };
            let (weights, offsets) = (gathered.weights(), gathered.offsets.as_slice());
            engine.add_gradient(&Batch { events, weights, offsets })?;
        }
        Ok(())
    }

    fn push(&mut self, p: &Progress, fine_tune: &FineTune, weight: f64) -> Result<()> {
        let push = PushAt {
            push: fine_tune.push,
            weight,
            features: self.plan.spec.features,
            quantile: p.quantile.unwrap_or(f64::INFINITY),
        };
        let (normal, anomalies) = (self.log_prob_of(0, 0)?, self.log_prob_of(0, 1)?);
        let of_normal: Vec<f64> = normal.iter().map(|l| push.of_normal(*l)).collect();
        // The sum is divided by the number of normal events: anomalies must contribute as
        // their mean.
        let ratio = self.step.ratio;
        let of_anomaly: Vec<f64> = anomalies.iter().map(|l| ratio * push.of_anomaly(*l)).collect();
        self.own_loss(0, &normal);
        self.weighted_gradient(0, 0, &of_normal)?;
        self.weighted_gradient(0, 1, &of_anomaly)
    }

    fn cross_entropy(&mut self, weight: f64) -> Result<()> {
        let entropy = CrossEntropyAt { weight, ratio: self.step.ratio };
        for population in 0..2 {
            let [first, second] =
                [self.log_prob_of(0, population)?, self.log_prob_of(1, population)?];
            let weights: Vec<[f64; 2]> = first
                .iter()
                .zip(&second)
                .map(|(a, b)| entropy.weights(population == 0, [*a, *b]))
                .collect();
            self.own_loss(population, if population == 0 { &first } else { &second });
            for flow in 0..2 {
                let of_flow: Vec<f64> = weights.iter().map(|w| w[flow]).collect();
                self.weighted_gradient(flow, population, &of_flow)?;
            }
        }
        Ok(())
    }

    fn log_prob_of(&self, flow: usize, population: usize) -> Result<Vec<f32>> {
        let events = &self.step.populations[population];
        let mut log_prob = vec![0.0; events.len()];
        self.engines[flow].log_prob(&events.rows, &mut log_prob)?;
        Ok(log_prob)
    }

    /// Adds the gradient of a population with loss weights in addition to those of the events.
    fn weighted_gradient(&mut self, flow: usize, population: usize, weights: &[f64]) -> Result<()> {
        let events = &self.step.populations[population];
        let weights = loss_weights(events, weights);
        let (rows, weights) = (Events::Rows(&events.rows), Some(weights.as_slice()));
        self.engines[flow].add_gradient(&Batch { events: rows, weights, offsets: &events.offsets })
    }

    /// Computes the negative log-likelihood of a flow's own population, shard by shard.
    fn own_loss(&mut self, flow: usize, log_prob: &[f32]) {
        let events = &self.step.populations[self.plan.flows[flow].population];
        for (loss, range) in self.step.losses[flow].iter_mut().zip(events.offsets.windows(2)) {
            let own = events.weights();
            let term = |i: usize| own.map_or(1.0, |w| f64::from(w[i])) * f64::from(log_prob[i]);
            *loss = -(range[0]..range[1]).map(term).sum::<f64>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Push;
    use taiga_flow_gpu::random::Stream;

    /// Computes the mean gradient of a push if an anomaly at `log_prob` has `gradient`.
    fn push_of(anomalies: &Gathered, normals: i64, log_prob: &[f32], gradient: &[f64]) -> f64 {
        let push = PushAt { push: Push::default(), weight: 0.7, features: 3, quantile: -9.0 };
        let ratio = normals_per_anomaly(normals, weight_units(anomalies));
        let weights: Vec<f64> = log_prob.iter().map(|l| ratio * push.of_anomaly(*l)).collect();
        let weights = loss_weights(anomalies, &weights);
        let sum: f64 = weights.iter().zip(gradient).map(|(w, g)| f64::from(*w) * g).sum();
        sum / normals as f64
    }

    #[test]
    fn push_is_equal_for_any_share_of_drafts() {
        let seed = crate::test_seed();
        let stream = Stream::new(seed, "drafts", &[]);
        let events = 1000;
        let kept: Vec<usize> = (0..events).filter(|i| stream.uniform(*i as u64) < 0.5).collect();
        let log_prob: Vec<f32> =
            (0..events).map(|i| (-12.0 + 4.0 * stream.normal(5000 + i as u64)) as f32).collect();
        let gradient: Vec<f64> =
            (0..events).map(|i| 1.0 + stream.normal(9000 + i as u64)).collect();
        let weight = |i: usize| 0.5 + stream.uniform(20_000 + i as u64) as f32;
        // Drafts of which about half are impossible, compared with the possible ones alone.
        let mut drafts = vec![0.0; events];
        kept.iter().for_each(|i| drafts[*i] = weight(*i));
        let gathered = |weights: Vec<f32>| Gathered {
            places: (0..weights.len() as u64).collect(),
            weights,
            ..Gathered::default()
        };
        let half = push_of(&gathered(drafts), 1000, &log_prob, &gradient);
        let of_kept = kept.iter().map(|i| weight(*i)).collect();
        let [log_prob, gradient]: [Vec<f64>; 2] = [
            kept.iter().map(|i| f64::from(log_prob[*i])).collect(),
            kept.iter().map(|i| gradient[*i]).collect(),
        ];
        let log_prob: Vec<f32> = log_prob.into_iter().map(|l| l as f32).collect();
        let whole = push_of(&gathered(of_kept), 1000, &log_prob, &gradient);
        assert!((half / whole - 1.0).abs() < 1e-5, "{half} and {whole}");
        // The mean over the possible ones, computed directly.
        let weights: Vec<f64> = kept.iter().map(|i| f64::from(weight(*i))).collect();
        let push = PushAt { push: Push::default(), weight: 0.7, features: 3, quantile: -9.0 };
        let terms = log_prob.iter().zip(&gradient).zip(&weights);
        let sum: f64 = terms.map(|((l, g), w)| w * push.of_anomaly(*l) * g).sum();
        let mean = sum / weights.iter().sum::<f64>();
        assert!((half / mean - 1.0).abs() < 1e-5, "{half} and {mean}");
        // Without a possible draft the push is 0.
        assert!(push_of(&gathered(vec![0.0; 3]), 1000, &[-1.0; 3], &[1.0; 3]).abs() < 1e-12);
    }
}
