//! Wrong weights end the run, and the message gives the cause: a rank whose weights differ, or an
//! event with an unusable gradient.

use crate::support::{
    Case, arguments, configuration, folder, program, ranks, run, seed, simulated, training,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use taiga_flow::comm::{Communicator, StopFlag, Threads};
use taiga_flow::config::Class;
use taiga_flow::error::Result;
use taiga_flow::train;
use taiga_flow_gpu::random::Stream;

const ENVIRONMENT: i32 = 5;
const DIVERGED: i32 = 6;

/// A communicator in which one rank gets a wrong sum in one reduction, like a flipped memory bit.
struct Corrupt<'a> {
    inner: &'a Threads,
    rank: usize,
    call: usize,
    calls: AtomicUsize,
}

impl Communicator for Corrupt<'_> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn local_rank(&self) -> usize {
        self.inner.local_rank()
    }
    fn local_size(&self) -> usize {
        self.inner.local_size()
    }
    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()> {
        self.inner.all_reduce_sum(values)?;
        // Gradients are longer than counts and losses, and shorter than histograms.
        if (1000..10_000).contains(&values.len())
            && self.calls.fetch_add(1, Ordering::Relaxed) == self.call
            && self.rank() == self.rank
        {
            values[17] ^= 1 << 40;
        }
        Ok(())
    }
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.all_gather(mine)
    }
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.inner.broadcast(bytes)
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn abort(&self, exit_code: u8) -> ! {
        self.inner.abort(exit_code)
    }
}

#[test]
fn differing_weights_stop_the_run_and_name_rank() {
    let case = Case::new(3000, "[train]\nepochs = 8\nbatch = 512\nshards = 4\n");
    let stream = Stream::new(seed(), "corrupt", &[]);
    for (i, set) in ["run.replica_steps=5", "run.replica_steps=1000000"].iter().enumerate() {
        let output = case.at(&format!("run-{i}"));
        let options = training(&case.configuration, &[(*set).to_string()], &output);
        let (rank, call) = (stream.bits(2 * i as u64) as usize % 3, stream.bits(1) as usize % 30);
        println!("a wrong bit on rank {rank} in step {call}");
        let outcomes = Threads::run(3, |inner| {
            let comm = Corrupt { inner, rank, call, calls: AtomicUsize::new(0) };
            train::run(&comm, &options, &StopFlag::default())
        });
        for outcome in outcomes {
            let error = outcome.expect_err("a wrong weight");
            assert_eq!(i32::from(error.exit_code()), ENVIRONMENT, "{error}");
            let named = format!("found rank {rank} on");
            assert!(error.to_string().contains(&named), "'{named}' is not in: {error}");
        }
        // No checkpoint or model of unreliable weights is written.
        assert!(!output.join("model.safetensors").exists());
    }
}

/// One event whose gradient is too large for an exact sum with so many shards.
#[test]
fn event_causing_divergence_is_named_with_row() {
    let folder = folder();
    let first = simulated(folder.path().join("a.h5"), Class::Gamma, 9000, seed());
    let mut events = crate::support::Events::read(&first);
    let last = events.chosen(&(5000..9000).collect::<Vec<_>>());
    let row = (seed() % 4000) as usize;
    let mut changed = last.clone();
    ["dist", "alpha"].iter().for_each(|name| changed.feature(name)[row] = 3e38);
    events = events.chosen(&(0..5000).collect::<Vec<_>>());
    let (one, two) = (folder.path().join("one.h5"), folder.path().join("two.h5"));
    events.write(&one);
    changed.write(&two);
    let more = "[split]\ntrain = 1.0\nvalidation = 0.0\ncalibration = 0.0\ntest = 0.0\n\
                [train]\nepochs = 100\nbatch = 65536\nshards = 65536\nskip_limit = 3\n";
    let configuration = configuration(folder.path(), &one, more);
    let files = format!("data.gamma=[\"{}\", \"{}\"]", one.display(), two.display());
    for count in [1, 2] {
        let output = folder.path().join(format!("run-{count}"));
        let train = arguments![
            "train",
            "-c",
            &configuration,
            "-o",
            &output,
            "--threads",
            "1",
            "--set",
            &files,
            "--set",
            "cuts={}"
        ];
        let outcome = run(&mut if count == 1 { program(&train) } else { ranks(count, &train) });
        assert_eq!(outcome.code, Some(DIVERGED), "{}", outcome.stderr);
        let context = format!("1 event(s) in rows {row} to {row} of {}", two.display());
        for text in [context.as_str(), "4 steps in a row"] {
            assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
        }
        assert!(!output.join("model.safetensors").exists());
    }
    // A learning rate that makes all weights diverge: no event is named.
    let output = folder.path().join("fast");
    let train = arguments![
        "train",
        "-c",
        &configuration,
        "-o",
        &output,
        "--set",
        "train.learning_rate=1e30",
        "--set",
        "train.shards=2"
    ];
    let outcome = run(&mut program(&train));
    assert_eq!(outcome.code, Some(DIVERGED), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the weights have diverged"), "{}", outcome.stderr);
    assert!(!output.join("model.safetensors").exists());
}
