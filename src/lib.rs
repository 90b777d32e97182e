//! Training of normalizing flows on Hillas parameters over MPI ranks, and scoring of archives with
//! them. `ARCHITECTURE.md` describes the layers and the invariants.

#![cfg_attr(test, allow(clippy::float_cmp))]

pub mod bounded;
pub mod cli;
pub mod comm;
pub mod config;
pub mod data;
pub mod dataset;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod hillas;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod report;
pub mod score;
pub mod season;
pub mod simulate;
pub mod statistics;
pub mod storage;
pub mod terminal;
pub mod train;

/// Returns the seed of the random inputs of a unit test, and prints it.
///
/// `TAIGA_FLOW_TEST_SEED` repeats the inputs of a failed test.
#[cfg(test)]
pub(crate) fn test_seed() -> u64 {
    use std::sync::OnceLock;
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| {
        let given = std::env::var("TAIGA_FLOW_TEST_SEED").ok();
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos());
        given.map_or(u64::from(now), |text| text.parse().expect("a number"))
    });
    println!("random inputs from TAIGA_FLOW_TEST_SEED={seed}");
    seed
}
