//! One step on one rank: the events of each population, their loss weights, and the gradient of
//! each flow.

use super::engines::FlowEngines;
use super::events::TrainingEvents;
use super::flows::{Objective, Population};
use super::objectives::contrast::{CrossEntropyAt, PushAt};
use super::objectives::quantile;
use super::objectives::synthetic::LatentContext;
use super::plan::TrainingPlan;
use super::state::{Progress, TrainState};
use crate::comm::Communicator;
use crate::dataset::event_store::Gathered;
use crate::engine::{Batch, Events};
use crate::error::Result;

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
    /// Creates the state for `own` shards on this rank; `held` if the engines have the events.
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

    /// Returns the divisor of a flow's gradient sum in units of [`UNITS`]. It is the number of events
    /// of a real class, whose weights have mean 1, or the sum of the weights of anomalies, many of
    /// which may be 0.
    pub fn divisor(&self, plan: &TrainingPlan, population: usize) -> i64 {
        let events = &self.populations[population];
        match plan.populations[population] {
            Population::Real(_) => events.len() as i64 * UNITS,
            Population::Synthetic => weight_units(events),
        }
    }

    /// Gathers the events of the current step, and sums the gradients of all flows.
    pub fn gradient(
        &mut self,
        comm: &dyn Communicator,
        events: &TrainingEvents,
        flows: &mut FlowEngines,
        state: &mut TrainState,
    ) -> Result<()> {
        self.gather(comm, events, flows, state)?;
        let stage = &events.plan.stages[state.progress.stage];
        let weight = stage.weight(state.progress.stage_step, events.stage_steps(stage));
        if !matches!(stage, Objective::Likelihood) {
            self.ratio = self.ratio(comm, events)?;
        }
        match stage {
            Objective::Likelihood => self.likelihood(events.plan, flows)?,
            Objective::Push(fine_tune) => {
                let features = events.plan.spec.features;
                let push = PushAt::new(fine_tune, weight, features, state.progress.quantile);
                self.push(flows, &push)?;
            }
            Objective::CrossEntropy(_) => self.cross_entropy(flows, weight)?,
        }
        self.gather_next(events, &state.progress);
        self.collect(flows, matches!(stage, Objective::Likelihood))
    }

    /// Returns the number of normal events in the step per unit of weight of the second
    /// population: on all ranks for anomalies, in the whole training for a real class.
    fn ratio(&self, comm: &dyn Communicator, events: &TrainingEvents) -> Result<f64> {
        let [first, second] = [0, 1].map(|population| events.rows.get(population));
        if let (Some(first), Some(second)) = (first, second) {
            return Ok(first.train as f64 / second.train as f64);
        }
        let mut sums = [self.events(0) as i64, self.divisor(events.plan, 1)];
        comm.all_reduce_sum(&mut sums)?;
        Ok(normals_per_anomaly(sums[0], sums[1]))
    }

    /// Waits for the engines. In the likelihood stage the loss of a flow is that of its gradient.
    fn collect(&mut self, flows: &mut FlowEngines, likelihood: bool) -> Result<()> {
        self.unusable = 0;
        let mut of_weights = vec![0.0; self.losses[0].len()];
        for (flow, loss) in self.losses.iter_mut().enumerate() {
            let loss = if likelihood { loss } else { &mut of_weights };
            self.unusable += flows.collect(flow, loss)?;
        }
        Ok(())
    }

    /// Selects or copies the events of the step, and makes its anomalies.
    fn gather(
        &mut self,
        comm: &dyn Communicator,
        events: &TrainingEvents,
        flows: &FlowEngines,
        state: &mut TrainState,
    ) -> Result<()> {
        let (plan, p) = (events.plan, &mut state.progress);
        let (seed, epoch, at) = (plan.config.train.seed, p.epoch, p.step_in_epoch);
        if self.names_events(events, p.stage) {
            if self.next.0 == Some((epoch, at)) {
                std::mem::swap(&mut self.populations, &mut self.next.1);
            } else {
                for (store, population) in events.stores.iter().zip(&mut self.populations) {
                    store.name(seed, epoch, at, events.steps(), population);
                }
            }
            return Ok(());
        }
        for (store, population) in events.stores.iter().zip(&mut self.populations) {
            store.gather(seed, epoch, at, events.steps(), population);
        }
        self.follow_quantile(comm, events, flows, p)?;
        let pushed = matches!(plan.stages[p.stage], Objective::Push(_));
        let wanted = pushed
            || plan.flows.iter().any(|f| plan.populations[f.population] == Population::Synthetic);
        let (Some(synthetic), [normal, anomalies], true) =
            (&events.synthetic, self.populations.as_mut_slice(), wanted)
        else {
            return Ok(());
        };
        let latent = LatentContext {
            engine: flows.engine(0),
            quantile: p.quantile.unwrap_or(f64::INFINITY),
        };
        synthetic.of_step(
            &events.scaler,
            &plan.selection,
            &events.stores[0],
            epoch,
            normal,
            &latent,
            anomalies,
        )
    }

    /// Returns whether a stage needs only the indices of its events.
    fn names_events(&self, events: &TrainingEvents, stage: usize) -> bool {
        self.held
            && matches!(events.plan.stages[stage], Objective::Likelihood)
            && events.followed_quantile(stage).is_none()
    }

    /// Selects the events of the next step while the engines compute the current one.
    fn gather_next(&mut self, events: &TrainingEvents, p: &Progress) {
        if !self.names_events(events, p.stage) {
            return;
        }
        let steps = events.steps();
        let last = p.step_in_epoch + 1 == steps;
        let (epoch, at) = if last { (p.epoch + 1, 0) } else { (p.epoch, p.step_in_epoch + 1) };
        for (store, population) in events.stores.iter().zip(&mut self.next.1) {
            store.name(events.plan.config.train.seed, epoch, at, steps, population);
        }
        self.next.0 = Some((epoch, at));
    }

    /// Counts normal events below the running quantile, which is initialised in the first step
    /// that needs it.
    fn follow_quantile(
        &mut self,
        comm: &dyn Communicator,
        events: &TrainingEvents,
        flows: &FlowEngines,
        p: &mut Progress,
    ) -> Result<()> {
        self.below = 0;
        let Some(fraction) = events.followed_quantile(p.stage) else { return Ok(()) };
        let log_prob = self.log_prob(flows, 0, 0)?;
        if p.quantile.is_none() {
            p.quantile = quantile::quantile(comm, &log_prob, fraction)?.map(f64::from);
        }
        let below = |l: &&f32| p.quantile.is_some_and(|q| f64::from(**l) < q);
        self.below = log_prob.iter().filter(below).count() as u64;
        Ok(())
    }

    /// Starts the gradients of the likelihood of all flows.
    fn likelihood(&self, plan: &TrainingPlan, flows: &mut FlowEngines) -> Result<()> {
        for (f, flow) in plan.flows.iter().enumerate() {
            let gathered = &self.populations[flow.population];
            let (numbers, flips) = (&gathered.numbers, &gathered.flips);
            let events = if gathered.rows.is_empty() && !numbers.is_empty() {
                let flips = (!flips.is_empty()).then_some(flips.as_slice());
                Events::Held { numbers, flips }
            } else {
                Events::Rows(&gathered.rows)
            };
            let (weights, offsets) = (gathered.weights(), gathered.offsets.as_slice());
            flows.add_gradient(f, &Batch { events, weights, offsets })?;
        }
        Ok(())
    }

    /// Starts the gradients of a push.
    fn push(&mut self, flows: &mut FlowEngines, push: &PushAt) -> Result<()> {
        let (normal, anomalies) = (self.log_prob(flows, 0, 0)?, self.log_prob(flows, 0, 1)?);
        let of_normal: Vec<f64> = normal.iter().map(|l| push.of_normal(*l)).collect();
        // The sum is divided by the number of normal events: anomalies must contribute as their
        // mean.
        let ratio = self.ratio;
        let of_anomaly: Vec<f64> = anomalies.iter().map(|l| ratio * push.of_anomaly(*l)).collect();
        self.own_loss(0, 0, &normal);
        self.weighted_gradient(flows, 0, 0, &of_normal)?;
        self.weighted_gradient(flows, 0, 1, &of_anomaly)
    }

    /// Starts the gradients of the cross-entropy of both flows.
    fn cross_entropy(&mut self, flows: &mut FlowEngines, weight: f64) -> Result<()> {
        let entropy = CrossEntropyAt { weight, ratio: self.ratio };
        for population in 0..2 {
            let [first, second] =
                [self.log_prob(flows, 0, population)?, self.log_prob(flows, 1, population)?];
            let weights: Vec<[f64; 2]> = first
                .iter()
                .zip(&second)
                .map(|(a, b)| entropy.weights(population == 0, [*a, *b]))
                .collect();
            self.own_loss(population, population, if population == 0 { &first } else { &second });
            for flow in 0..2 {
                let of_flow: Vec<f64> = weights.iter().map(|w| w[flow]).collect();
                self.weighted_gradient(flows, flow, population, &of_flow)?;
            }
        }
        Ok(())
    }

    /// Computes log p of the events of a population in a flow.
    fn log_prob(&self, flows: &FlowEngines, flow: usize, population: usize) -> Result<Vec<f32>> {
        let events = &self.populations[population];
        let mut log_prob = vec![0.0; events.len()];
        flows.engine(flow).log_prob(&events.rows, &mut log_prob)?;
        Ok(log_prob)
    }

    /// Adds the gradient of a population with loss weights in addition to those of the events.
    fn weighted_gradient(
        &self,
        flows: &mut FlowEngines,
        flow: usize,
        population: usize,
        weights: &[f64],
    ) -> Result<()> {
        let events = &self.populations[population];
        let weights = loss_weights(events, weights);
        let (rows, weights) = (Events::Rows(&events.rows), Some(weights.as_slice()));
        flows.add_gradient(flow, &Batch { events: rows, weights, offsets: &events.offsets })
    }

    /// Computes the negative log-likelihood of a flow's own population, shard by shard.
    fn own_loss(&mut self, flow: usize, population: usize, log_prob: &[f32]) {
        let events = &self.populations[population];
        for (loss, range) in self.losses[flow].iter_mut().zip(events.offsets.windows(2)) {
            let own = events.weights();
            let term = |i: usize| own.map_or(1.0, |w| f64::from(w[i])) * f64::from(log_prob[i]);
            *loss = -(range[0]..range[1]).map(term).sum::<f64>();
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
        let stream = Stream::new(crate::test_seed(), "drafts", &[]);
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
