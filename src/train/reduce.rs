//! Adds the gradient sums of a step over all ranks, and makes the common decisions.

use super::engines::FlowEngines;
use super::plan::TrainingPlan;
use super::step::{BatchStep, UNITS};
use super::stop::Stop;
use crate::comm::{Communicator, StopFlag, StopReason};
use crate::error::Result;

/// Reduced values of a step, equal on all ranks.
pub(crate) struct Agreed {
    pub events: Vec<u64>, // (flows)
    /// Divisor of each flow's gradient sum.
    pub divisors: Vec<f64>, // (flows)
    /// Parts of shards whose gradient cannot be added.
    pub unusable: u64,
    pub stop: Option<Stop>,
    pub checkpoint: bool,
    /// Sums of all ranks; a single rank's sums stay in its engines.
    pub sums: Option<Vec<i64>>, // (parameters of all flows)
    /// Normal events below the running quantile, and all normal events.
    pub below: u64,
    pub normals: u64,
}

/// Requests of this rank; only rank 0 has any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    pub checkpoint: bool,
    /// Time limit that has passed.
    pub limit: Option<Stop>,
}

/// Adds gradient sums over all ranks exactly, with the counts and requests for common decisions.
pub(crate) fn reduce(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    flows: &FlowEngines,
    step: &BatchStep,
    requests: Requests,
    stop: &StopFlag,
) -> Result<Agreed> {
    let alone = comm.size() == 1;
    let mut values = vec![0; if alone { 0 } else { plan.parameters }];
    if !alone {
        flows.sums(&mut values)?;
    }
    let parameters = values.len();
    let limit = Stop::to_word(requests.limit);
    values.extend([step.unusable as i64, i64::from(requests.checkpoint), limit]);
    values.extend(stop.counts());
    values.extend([step.below as i64, step.events(0) as i64]);
    let populations = || plan.flows.iter().map(|flow| flow.population);
    values.extend(populations().map(|population| step.events(population) as i64));
    values.extend(populations().map(|population| step.divisor(plan, population)));
    comm.all_reduce_sum(&mut values)?;
    let words = values.split_off(parameters);
    let (signals, more) = words[3..].split_at(StopReason::ALL.len());
    let (events, divisors) = more[2..].split_at(plan.flows.len());
    Ok(Agreed {
        unusable: words[0] as u64,
        checkpoint: words[1] > 0,
        stop: StopReason::from_counts(signals).map(Stop::Signal).or(Stop::from_word(words[2])),
        sums: (!alone).then_some(values),
        below: more[0] as u64,
        normals: more[1] as u64,
        events: events.iter().map(|n| *n as u64).collect(),
        divisors: divisors.iter().map(|n| *n as f64 / UNITS as f64).collect(),
    })
}
