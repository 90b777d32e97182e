//! Finds the events that make a gradient unusable, with their files and rows.
//!
//! This is done once, when a run ends as diverged, so training keeps nothing for it. Events do not
//! know their rows: the shards of the offending events are read again to find the rows.

use super::engines::FlowEngines;
use super::events::TrainingEvents;
use super::flows::Population;
use crate::comm::{Communicator, gather_values, sync_result};
use crate::dataset::event_store::{EventStore, Gathered};
use crate::engine::{Batch, Engine, Events, FixedSum};
use crate::error::Result;
use std::collections::BTreeSet;

/// Rows are searched for at most this many events.
const MOST: usize = 1000;

/// Events of this rank's last batch whose own gradient of −log p, in the flow of their population,
/// is not usable: (shard, index in the shard's training events).
#[derive(Debug, Default)]
struct OffendingEvents {
    events: BTreeSet<(u64, u64)>,
    /// Number of events checked.
    of: usize,
}

/// Describes the offending events of a step's batch, identically on all ranks.
pub(crate) fn describe(
    comm: &dyn Communicator,
    training: &TrainingEvents,
    flows: &FlowEngines,
    epoch: u64,
    step: u64,
) -> Result<String> {
    let mine = sync_result(comm, of_this_rank(comm, training, flows, epoch, step))?;
    let (mut bad, mut of, mut places) = (0, 0, Vec::new());
    for (own_bad, own_of, lines) in gather_values(comm, &mine)? {
        bad += own_bad;
        of += own_of;
        places.extend(lines);
    }
    Ok(if bad == 0 {
        "no single event of the last batch is unusable, only their sum".to_string()
    } else if bad == of {
        format!("all {of} events of the last batch: the weights have diverged")
    } else if places.is_empty() {
        format!("{bad} of the {of} events of the last batch")
    } else {
        format!("in the last batch of {of} events: {}", places.join("; "))
    })
}

/// Returns the numbers of offending and checked events, and a line per file.
fn of_this_rank(
    comm: &dyn Communicator,
    training: &TrainingEvents,
    flows: &FlowEngines,
    epoch: u64,
    step: u64,
) -> Result<(usize, usize, Vec<String>)> {
    let plan = training.plan;
    let (mut bad, mut of, mut lines) = (0, 0, Vec::new());
    for (flow, population) in plan.flows.iter().map(|f| f.population).enumerate() {
        // Anomalies are made for each step; they have no rows.
        let Population::Real(class) = plan.populations[population] else { continue };
        let found = find(training, flows, flow, population, epoch, step)?;
        bad += found.events.len();
        of += found.of;
        if found.events.is_empty() || found.events.len() == found.of {
            continue;
        }
        let wanted = found.events.into_iter().take(MOST).collect();
        let rows = EventStore::locate(comm, &plan.sources, &plan.row_selection(class), &wanted)?;
        for (file, rows) in rows {
            let (Some(first), Some(last)) = (rows.iter().min(), rows.iter().max()) else {
                continue;
            };
            let (count, file) = (rows.len(), file.display());
            lines.push(format!("{count} event(s) in rows {first} to {last} of {file}"));
        }
    }
    Ok((bad, of, lines))
}

/// Computes the gradient of each event of the batch separately.
fn find(
    training: &TrainingEvents,
    engines: &FlowEngines,
    flow: usize,
    population: usize,
    epoch: u64,
    step: u64,
) -> Result<OffendingEvents> {
    let mut found = OffendingEvents::default();
    let mut batch = Gathered::default();
    let (plan, store) = (training.plan, &training.stores[population]);
    store.gather(plan.config.train.seed, epoch, step, training.steps(), &mut batch);
    let features = plan.spec.features;
    let mut sums = FixedSum::new(plan.flow_parameters(), plan.dealing.shards() as usize);
    for (slot, shard) in store.shards.iter().enumerate() {
        for at in batch.offsets[slot]..batch.offsets[slot + 1] {
            found.of += 1;
            let event = &batch.rows[at * features..(at + 1) * features];
            if !is_usable(engines.engine(flow), event, &mut sums)? {
                found.events.insert((shard.id, batch.places[at]));
            }
        }
    }
    Ok(found)
}

fn is_usable(engine: &dyn Engine, event: &[f32], sums: &mut FixedSum) -> Result<bool> {
    sums.clear();
    let batch = Batch { events: Events::Rows(event), weights: None, offsets: &[0, 1] };
    engine.gradient(&batch, sums, &mut [0.0])?;
    Ok(sums.unusable == 0)
}
