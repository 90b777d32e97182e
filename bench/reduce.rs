//! Compares the exact sum over ranks with a plain one.
//!
//! The summands are gradients of the reference network (57 392 parameters, or a given number), in
//! place. They are 64-bit integers of the size they have in training, or f32.
//!
//! Run `cargo build --release --bench reduce`, then the program with `mpirun -n 2`: `reduce [WORDS
//! [ROUNDS [SUMS]]]`. Rank 0 prints one JSON object: seconds of one sum (median of interleaved
//! rounds, and the fastest) and their ratio. The exact sum has twice the bytes.
//! `TAIGA_FLOW_REDUCTION` (flat, lanes, packed) fixes the method between nodes.

use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;
use std::time::Instant;
use taiga_flow::comm::{self, is_root};
use taiga_flow::error::Result;
use taiga_flow_gpu::random::Stream;

const PARAMETERS: usize = 57_392;
const ROUNDS: usize = 41;
const SUMS: usize = 50;
/// Significant bits of a gradient sum of 8192 events in units of 2⁻³² (see `magnitudes` in
/// `bench/scaling`); most sums have fewer.
const BITS: u32 = 38;

fn main() -> Result<()> {
    let comm = comm::start(None)?;
    let argument = |i: usize, default: usize| {
        std::env::args()
            .filter(|a| a != "--bench")
            .nth(i)
            .and_then(|a| a.parse().ok())
            .unwrap_or(default)
    };
    let (words, rounds, sums) = (argument(1, PARAMETERS), argument(2, ROUNDS), argument(3, SUMS));
    if comm.size() == 1 {
        println!("{}", serde_json::json!({ "case": "reduce", "skipped": "needs mpirun -n 2" }));
        return Ok(());
    }
    let plain = mpi::topology::SimpleCommunicator::world();
    let stream = Stream::new(1, "reduce", &[comm.rank() as u64]);
    let gradient: Vec<i64> =
        (0..words as u64).map(|i| stream.bits(i) as i64 >> (63 - BITS)).collect();
    let mut exact = gradient.clone();
    let (mine, mut sum) = (vec![1.0_f32; words], vec![0.0_f32; words]);
    let mut seconds = [Vec::new(), Vec::new()];
    // The first sum chooses the method.
    comm.all_reduce_sum(&mut exact)?;
    // One sum after the other, as in training: links are always busy.
    for _ in 0..rounds {
        comm.barrier()?;
        let since = Instant::now();
        for _ in 0..sums {
            exact.copy_from_slice(&gradient);
            comm.all_reduce_sum(&mut exact)?;
        }
        seconds[0].push(since.elapsed().as_secs_f64() / sums as f64);
        comm.barrier()?;
        let since = Instant::now();
        for _ in 0..sums {
            plain.all_reduce_into(&mine[..], &mut sum[..], SystemOperation::sum());
        }
        seconds[1].push(since.elapsed().as_secs_f64() / sums as f64);
    }
    let fastest = seconds.each_ref().map(|s| s.iter().copied().fold(f64::INFINITY, f64::min));
    let [exact, plain] = seconds.map(|mut s| {
        s.sort_by(f64::total_cmp);
        s[s.len() / 2]
    });
    if is_root(comm.as_ref()) {
        let report = serde_json::json!({
            "case": "reduce",
            "ranks": comm.size(),
            "local_ranks": comm.local_size(),
            "way": std::env::var("TAIGA_FLOW_REDUCTION").unwrap_or_else(|_| "chosen".to_string()),
            "parameters": words,
            "exact_s": exact,
            "plain_f32_s": plain,
            "exact_fastest_s": fastest[0],
            "plain_f32_fastest_s": fastest[1],
            "ratio": exact / plain,
        });
        println!("{report}");
    }
    Ok(())
}
