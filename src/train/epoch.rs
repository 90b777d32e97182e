//! Metrics of a finished epoch, and the best weights so far.

use super::events::TrainingEvents;
use super::flows::{FlowPlan, Objective};
use super::plan::TrainingPlan;
use super::schedule::learning_rate;
use super::state::{BestWeights, Progress, TrainState};
use super::validation::ValidationMetrics;
use crate::comm::{Communicator, gather_slots};
use crate::data::schema::features::scaler_log_det;
use crate::error::{Error, Fault, Result};
use crate::metrics::{EpochMetrics, FlowMetrics};

/// Gathers the losses of the epoch of all shards on all ranks.
pub(crate) fn gather_losses(
    comm: &dyn Communicator,
    events: &TrainingEvents,
    state: &mut TrainState,
) -> Result<()> {
    let shards = events.plan.dealing.shards() as usize;
    let mut slots = vec![None; state.progress.loss.len()];
    for f in 0..events.plan.flows.len() {
        for shard in &events.stores[0].shards {
            let at = f * shards + shard.id as usize;
            slots[at] = Some(state.progress.loss[at]);
        }
    }
    state.progress.loss = gather_slots(comm, &slots)?;
    Ok(())
}

/// Returns the metrics of the current epoch.
pub(crate) fn metrics(
    events: &TrainingEvents,
    p: &Progress,
    held_out: Option<&ValidationMetrics>,
    improved: bool,
) -> EpochMetrics {
    let plan = events.plan;
    let stage = &plan.stages[p.stage];
    let rate = learning_rate(
        &stage.settings(&plan.config.train),
        p.stage_step.saturating_sub(1),
        events.stage_steps(stage),
    );
    let log_det = scaler_log_det(&events.scaler);
    let flows: Vec<FlowMetrics> =
        (0..plan.flows.len()).map(|f| flow_metrics(plan, f, p, log_det, held_out)).collect();
    EpochMetrics {
        epoch: p.epoch + 1,
        step: p.step,
        train_nll: flows.iter().map(|f| f.train_nll).sum(),
        validation_nll: flows.iter().map(|f| f.validation_nll).sum(),
        validation_nll_median: flows.iter().map(|f| f.validation_nll_median).sum(),
        learning_rate: rate,
        gradient_norm: p.gradient_norm,
        skipped_steps: p.skipped_in_epoch,
        events: p.events_in_epoch.iter().sum(),
        best: improved,
        stage: (p.stage > 0).then(|| stage.name().to_string()),
        validation_loss: held_out.and_then(|h| h.loss),
        flows: if flows.len() > 1 { flows } else { Vec::new() },
    }
}

/// Returns the metrics of a flow in the current epoch; `log_det` is that of the scaler.
fn flow_metrics(
    plan: &TrainingPlan,
    flow: usize,
    p: &Progress,
    log_det: f64,
    held_out: Option<&ValidationMetrics>,
) -> FlowMetrics {
    let shards = plan.dealing.shards() as usize;
    let loss = p.loss[flow * shards..(flow + 1) * shards].iter().sum::<f64>();
    FlowMetrics {
        flow: plan.flows[flow].name.to_string(),
        train_nll: loss / p.weight_in_epoch[flow] - log_det,
        validation_nll: held_out.and_then(|h| h.mean[flow]),
        validation_nll_median: held_out.and_then(|h| h.median[flow]),
    }
}

/// Keeps the weights with the best held-out metrics: for each flow by its likelihood, or for all
/// flows together by the loss of a fine-tuning. Without held-out events, the last weights are
/// published. Returns whether there is an improvement.
pub(crate) fn keep_best(
    plan: &TrainingPlan,
    state: &mut TrainState,
    held_out: Option<&ValidationMetrics>,
) -> bool {
    let epoch = state.progress.epoch + 1;
    let fine_tuned = state.progress.stage > 0;
    let loss = held_out.and_then(|h| h.loss);
    let loss_fell = loss.is_some_and(|now| state.progress.best_loss.is_none_or(|best| now < best));
    if loss_fell {
        state.progress.best_loss = loss;
    }
    let mut improved = false;
    for f in 0..plan.flows.len() {
        let now = held_out.and_then(|h| h.mean[f]);
        let better = match (held_out, now, state.progress.best[f].nll) {
            (None, ..) => true,
            _ if fine_tuned => loss_fell,
            (_, Some(now), Some(best)) => now < best,
            (_, now, None) => now.is_some(),
            (_, None, Some(_)) => false,
        };
        if better {
            let median = held_out.and_then(|h| h.median[f]);
            state.progress.best[f] = BestWeights { epoch, nll: now, median };
            let range = FlowPlan::range(f, plan.flow_parameters());
            state.best[range.clone()].copy_from_slice(&state.weights.ema[range]);
            improved = true;
        }
    }
    if improved {
        state.progress.best_epoch = epoch;
    }
    improved
}

/// Returns an error if a push has raised the NLL of normal events beyond its bound.
pub(crate) fn check_bound(
    plan: &TrainingPlan,
    p: &Progress,
    held_out: Option<&ValidationMetrics>,
) -> Result<()> {
    let Objective::Push(fine_tune) = &plan.stages[p.stage] else { return Ok(()) };
    let (Some(before), Some(held_out)) = (p.likelihood_nll, held_out) else { return Ok(()) };
    let now = held_out.mean[0].unwrap_or(f64::INFINITY);
    if now <= before + fine_tune.nll_bound {
        return Ok(());
    }
    Err(Error::Diverged(Box::new(
        Fault::new("the push has raised the NLL of normal events beyond its bound")
            .expected(format!("a held-out NLL of at most {before:.3} + {} nats", fine_tune.nll_bound))
            .found(format!("{now:.3} nats with weight {} and margin {}", fine_tune.weight, fine_tune.push.margin))
            .advice("lower fine_tune.weight or fine_tune.learning_rate, raise fine_tune.push.margin, or allow more with fine_tune.nll_bound"),
    )))
}
