//! Exchanges values between ranks as JSON: findings and reports, not event data.

use super::{Communicator, is_root, sync_result};
use crate::error::{Error, Fault, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the values of all ranks, in rank order. A collective.
///
/// # Errors
/// `Internal` if a value cannot be encoded.
pub fn gather_values<T: Serialize + DeserializeOwned>(
    comm: &dyn Communicator,
    mine: &T,
) -> Result<Vec<T>> {
    let bytes = sync_result(comm, serde_json::to_vec(mine).map_err(broken))?;
    let all = comm.all_gather(&bytes)?;
    all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(broken)).collect()
}

/// Returns the value that rank 0 computes on all ranks; other ranks do not call `find`. A
/// collective.
///
/// # Errors
/// The error of `find`, on all ranks.
pub fn value_of_root<T: Serialize + DeserializeOwned>(
    comm: &dyn Communicator,
    find: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let encoded = || serde_json::to_vec(&find()?).map_err(broken);
    let mut bytes = sync_result(comm, if is_root(comm) { encoded() } else { Ok(Vec::new()) })?;
    comm.broadcast(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(broken)
}

fn broken(error: serde_json::Error) -> Error {
    Fault::new("cannot exchange values between ranks").found(error).internal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;

    #[test]
    fn every_rank_gets_all_values_and_root_value() {
        let found = Threads::run(3, |comm| {
            let all = gather_values(comm, &(comm.rank(), "a".to_string()))?;
            let root = value_of_root(comm, || Ok(format!("of {}", comm.rank())))?;
            Ok((all, root))
        });
        for outcome in found {
            let (all, root): (Vec<(usize, String)>, String) = outcome.unwrap();
            assert_eq!(all, [0, 1, 2].map(|rank| (rank, "a".to_string())));
            assert_eq!(root, "of 0");
        }
    }
}
