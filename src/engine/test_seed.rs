//! Seed of random inputs in unit tests.

use std::sync::OnceLock;
use std::time::SystemTime;

/// Returns the seed of this run: `TAIGA_FLOW_TEST_SEED`, or else a new one. It is printed, so that a
/// failure can be repeated.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| match std::env::var("TAIGA_FLOW_TEST_SEED") {
        Ok(text) => text.parse().expect("TAIGA_FLOW_TEST_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::from(now.expect("a clock after 1970").subsec_nanos())
        }
    });
    println!("random inputs from TAIGA_FLOW_TEST_SEED={seed}");
    seed
}
