//! Checks that all ranks have the same weights.
//!
//! Weights are never sent: every rank applies the same update to the same reduced gradient. A
//! flipped bit in the memory of one rank, or a faulty processor, would make the ranks differ
//! permanently and silently. So the hash of the state is gathered at a fixed interval of steps,
//! before each checkpoint, and before the model is published. A rank that differs is named, and
//! nothing is written to disk.

use super::state::TrainState;
use crate::comm::{Communicator, host, mark_shared};
use crate::error::{Fault, Result};
use std::collections::BTreeMap;

/// Returns an error on all ranks if their weights are not equal bit by bit.
pub(crate) fn check(comm: &dyn Communicator, state: &TrainState) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let mine = [&digest(state), host().as_bytes()].concat();
    let all = comm.all_gather(&mine)?;
    let Some(odd) = odd_ranks(&all) else { return Ok(()) };
    let name = |rank: &usize| {
        let host = all[*rank].get(HASH_BYTES..).unwrap_or_default();
        format!("rank {rank} on {}", String::from_utf8_lossy(host))
    };
    let names: Vec<String> = odd.iter().map(name).collect();
    let found = if 2 * odd.len() < all.len() {
        names.join(", ")
    } else {
        format!("no majority; different weights on {}", names.join(", "))
    };
    mark_shared(Err(Fault::new(format!(
        "the weights of the ranks differ after step {}",
        state.progress.step
    ))
    .expected("the same bits on every rank")
    .found(found)
    .advice(
        "memory or processor of this node may be faulty: exclude the node, and run the same \
         command again; it resumes from a checkpoint in which all ranks were equal",
    )
    .environment()))
}

const HASH_BYTES: usize = blake3::OUT_LEN;

/// Computes the hash of everything that must be equal on all ranks.
fn digest(state: &TrainState) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    let w = &state.weights;
    let mut bytes = Vec::new();
    for values in [&w.params, &w.ema, &w.first_moment, &w.second_moment, &state.best] {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        hasher.update(&bytes);
    }
    let p = &state.progress;
    let stage = [p.stage as u64, p.stage_epoch, p.stage_step];
    let steps = [p.epoch, p.step_in_epoch, p.step, p.updates, p.skipped, p.best_epoch];
    let quantile = p.quantile.map_or(u64::MAX, f64::to_bits);
    for word in stage.into_iter().chain(steps).chain([quantile]) {
        hasher.update(&word.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Returns the ranks whose hash differs from that of the majority; all, if there is no majority.
fn odd_ranks(messages: &[Vec<u8>]) -> Option<Vec<usize>> {
    let hash = |rank: usize| messages[rank].get(..HASH_BYTES);
    let mut by_hash: BTreeMap<Option<&[u8]>, usize> = BTreeMap::new();
    (0..messages.len()).for_each(|rank| *by_hash.entry(hash(rank)).or_default() += 1);
    if by_hash.len() == 1 {
        return None;
    }
    let most =
        by_hash.iter().find(|(_, ranks)| 2 * **ranks > messages.len()).map(|(hash, _)| *hash);
    Some((0..messages.len()).filter(|rank| most.is_none_or(|most| hash(*rank) != most)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;

    fn checked(ranks: usize, change: impl Fn(usize, &mut TrainState) + Sync) -> Vec<Result<()>> {
        Threads::run(ranks, |comm| {
            let mut state = TrainState::new(vec![0.5; 9], 1, 4);
            change(comm.rank(), &mut state);
            check(comm, &state)
        })
    }

    #[test]
    fn equal_ranks_pass_with_any_losses() {
        for ranks in [1, 2, 5] {
            let outcomes = checked(ranks, |rank, state| state.progress.loss[1] = rank as f64);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        }
    }

    #[test]
    fn flipped_bit_stops_all_and_names_the_rank() {
        let flip = |x: &mut f32| *x = f32::from_bits(x.to_bits() ^ 1);
        let changes: [fn(&mut TrainState) -> &mut f32; 5] = [
            |s| &mut s.weights.params[3],
            |s| &mut s.weights.ema[0],
            |s| &mut s.weights.first_moment[8],
            |s| &mut s.weights.second_moment[4],
            |s| &mut s.best[7],
        ];
        for place in changes {
            for outcome in checked(3, |rank, state| {
                if rank == 1 {
                    flip(place(state));
                }
            }) {
                let error = outcome.unwrap_err();
                assert_eq!((error.exit_code(), error.is_shared()), (5, true));
                let text = error.to_string();
                assert!(text.contains("found rank 1 on") && !text.contains("rank 2"), "{text}");
            }
        }
    }

    #[test]
    fn all_ranks_are_named_without_a_majority() {
        let outcomes = checked(2, |rank, state| state.progress.updates = rank as u64);
        let text = outcomes[0].as_ref().unwrap_err().to_string();
        assert!(text.contains("no majority") && text.contains("rank 0") && text.contains("rank 1"));
    }
}
