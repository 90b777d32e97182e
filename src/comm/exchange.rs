//! Sends values between ranks as JSON: findings and reports, not event data.

use super::{World, agree, is_root};
use crate::error::{Error, Fault, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the values of all ranks, in rank order. A collective.
pub fn gather_values<T: Serialize + DeserializeOwned>(
    world: &dyn World,
    mine: &T,
) -> Result<Vec<T>> {
    let bytes = agree(world, serde_json::to_vec(mine).map_err(broken))?;
    let all = world.all_gather(&bytes)?;
    all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(broken)).collect()
}

/// Returns the value that rank 0 finds, on all ranks; other ranks do not call `find`. A
/// collective.
///
/// # Errors
/// That of `find`, on all ranks.
pub fn value_of_root<T: Serialize + DeserializeOwned>(
    world: &dyn World,
    find: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let encoded = || serde_json::to_vec(&find()?).map_err(broken);
    let mut bytes = agree(world, if is_root(world) { encoded() } else { Ok(Vec::new()) })?;
    world.broadcast(&mut bytes)?;
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
    fn every_rank_gets_all_values_and_that_of_root() {
        let found = Threads::run(3, |world| {
            let all = gather_values(world, &(world.rank(), "a".to_string()))?;
            let root = value_of_root(world, || Ok(format!("of {}", world.rank())))?;
            Ok((all, root))
        });
        for outcome in found {
            let (all, root): (Vec<(usize, String)>, String) = outcome.unwrap();
            assert_eq!(all, [0, 1, 2].map(|rank| (rank, "a".to_string())));
            assert_eq!(root, "of 0");
        }
    }
}
