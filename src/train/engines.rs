//! Engines of the flows of a model on this rank.

use super::flows::FlowPlan;
use super::plan::TrainingPlan;
use super::state::TrainState;
use crate::comm::{Communicator, sync_result};
use crate::dataset::event_store::EventStore;
use crate::engine::{self, Adam, Batch, Engine, RankResources, Weights};
use crate::error::Result;

/// One engine per flow. All parameters of a training are those of its flows, one after the other.
pub(crate) struct FlowEngines<'a> {
    plan: &'a TrainingPlan,
    engines: Vec<Box<dyn Engine>>, // (flows)
}

impl<'a> FlowEngines<'a> {
    /// Starts one engine per flow.
    pub(crate) fn start(
        comm: &dyn Communicator,
        plan: &'a TrainingPlan,
        place: &RankResources,
    ) -> Result<FlowEngines<'a>> {
        let start = |flow| engine::start(&place.for_flow(flow), &plan.spec);
        let engines = (0..plan.flows.len()).map(start).collect::<Result<Vec<_>>>();
        Ok(FlowEngines { plan, engines: sync_result(comm, engines)? })
    }

    /// Returns the engine of a flow.
    pub(crate) fn engine(&self, flow: usize) -> &dyn Engine {
        self.engines[flow].as_ref()
    }

    /// Returns the description of the first engine for logs.
    pub(crate) fn describe(&self) -> String {
        self.engines[0].describe()
    }

    /// Returns the device class, which checkpoints record.
    pub(crate) fn class(&self) -> &'static str {
        self.engines[0].class()
    }

    /// Sets the parameters of each engine to those of its flow.
    pub(crate) fn set_params(&mut self, params: &[f32]) -> Result<()> {
        let each = self.plan.flow_parameters();
        for (engine, params) in self.engines.iter_mut().zip(params.chunks(each)) {
            engine.set_params(params)?;
        }
        Ok(())
    }

    /// Sets the weights to train of each engine to those of its flow.
    pub(crate) fn begin(&mut self, weights: &Weights) -> Result<()> {
        let each = self.plan.flow_parameters();
        // A gradient may be that of all populations, so each one has its share of the range.
        let shards = self.plan.dealing.shards() as usize * self.plan.populations.len();
        for (f, engine) in self.engines.iter_mut().enumerate() {
            let [params, ema, first_moment, second_moment] =
                weights.all().map(|values| values[FlowPlan::range(f, each)].to_vec());
            engine.begin(&Weights { params, ema, first_moment, second_moment }, shards)?;
        }
        Ok(())
    }

    /// Updates the state to the weights of the engines.
    pub(crate) fn download_weights(&self, state: &mut TrainState) -> Result<()> {
        let each = self.plan.flow_parameters();
        let mut of_flow = Weights::new(vec![0.0; each]);
        let mut norm: Option<f64> = None;
        for (f, engine) in self.engines.iter().enumerate() {
            engine.weights(&mut of_flow)?;
            for (all, values) in state.weights.all_mut().into_iter().zip(of_flow.all()) {
                all[FlowPlan::range(f, each)].copy_from_slice(values);
            }
            norm = norm.into_iter().chain(engine.gradient_norm()?).reduce(f64::max);
        }
        state.progress.gradient_norm = norm.unwrap_or(state.progress.gradient_norm);
        Ok(())
    }

    /// Stores the training events in the engines if they have enough memory for all; returns
    /// whether they are stored.
    pub(crate) fn upload_events(&mut self, stores: &[EventStore]) -> Result<bool> {
        let of_flow = |f: usize| stores.get(self.plan.flows[f].population);
        let fits = |f: usize| {
            of_flow(f).is_some_and(|store| store.train_len() <= self.engines[f].capacity())
        };
        if !(0..self.engines.len()).all(fits) {
            return Ok(false);
        }
        for (f, engine) in self.engines.iter_mut().enumerate() {
            let Some(store) = stores.get(self.plan.flows[f].population) else { continue };
            engine.upload_events(store.train_len(), &mut store.train_rows())?;
        }
        Ok(true)
    }

    /// Computes log p of scaled events (events, features) in a flow.
    pub(crate) fn log_prob(&self, flow: usize, events: &[f32]) -> Result<Vec<f32>> {
        let mut log_prob = vec![0.0; events.len() / self.plan.spec.features];
        self.engines[flow].log_prob(events, &mut log_prob)?;
        Ok(log_prob)
    }

    /// Adds the gradient of a batch in a flow to the sums of the step.
    pub(crate) fn add_gradient(&mut self, flow: usize, batch: &Batch) -> Result<()> {
        self.engines[flow].add_gradient(batch)
    }

    /// Waits for the gradients of a flow; returns the number of parts that cannot be added.
    pub(crate) fn collect(&mut self, flow: usize, loss: &mut [f64]) -> Result<u64> {
        self.engines[flow].collect(loss)
    }

    /// Copies the sums of the step of all flows (parameters of all flows).
    pub(crate) fn sums(&self, sums: &mut [i64]) -> Result<()> {
        let each = self.plan.flow_parameters();
        for (engine, sums) in self.engines.iter().zip(sums.chunks_mut(each)) {
            engine.sums(sums)?;
        }
        Ok(())
    }

    /// Updates the weights of a flow from its sums of the step, or from the sums of all flows.
    pub(crate) fn update(&mut self, flow: usize, sums: Option<&[i64]>, adam: &Adam) -> Result<()> {
        let range = FlowPlan::range(flow, self.plan.flow_parameters());
        self.engines[flow].update(sums.map(|sums| &sums[range]), adam)
    }
}
