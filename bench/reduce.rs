//! The exact sum over ranks beside a plain one: 57 392 gradients of the reference network
//! as 64-bit integers, in place, and as f32.
//!
//! `cargo build --release --bench reduce`, then `mpirun -n 2` of the program it names.
//! Rank 0 prints one JSON object: seconds of one sum (medians of interleaved rounds) and
//! their ratio. The exact one moves twice the bytes.

use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;
use std::time::Instant;
use taiga_flow::error::Result;
use taiga_flow::world::{self, is_root};

const PARAMETERS: usize = 57_392;
const ROUNDS: usize = 41;
const SUMS: usize = 50;

fn main() -> Result<()> {
    let world = world::start()?;
    if world.size() == 1 {
        println!("{}", serde_json::json!({ "case": "reduce", "skipped": "needs mpirun -n 2" }));
        return Ok(());
    }
    let plain = mpi::topology::SimpleCommunicator::world();
    let (mut exact, mine) = (vec![1_i64; PARAMETERS], vec![1.0_f32; PARAMETERS]);
    let mut sum = vec![0.0_f32; PARAMETERS];
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        world.barrier()?;
        let since = Instant::now();
        for _ in 0..SUMS {
            world.all_reduce_sum(&mut exact)?;
        }
        seconds[0].push(since.elapsed().as_secs_f64() / SUMS as f64);
        world.barrier()?;
        let since = Instant::now();
        for _ in 0..SUMS {
            plain.all_reduce_into(&mine[..], &mut sum[..], SystemOperation::sum());
        }
        seconds[1].push(since.elapsed().as_secs_f64() / SUMS as f64);
    }
    let [exact, plain] = seconds.map(|mut s| {
        s.sort_by(f64::total_cmp);
        s[ROUNDS / 2]
    });
    if is_root(world.as_ref()) {
        let told = serde_json::json!({
            "case": "reduce",
            "ranks": world.size(),
            "parameters": PARAMETERS,
            "exact_s": exact,
            "plain_f32_s": plain,
            "ratio": exact / plain,
        });
        println!("{told}");
    }
    Ok(())
}
