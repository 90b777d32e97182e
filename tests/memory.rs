//! Memory use is bounded: in training by the events of the rank, in scoring independently of the
//! file length.

use crate::support::{
    Watched, arguments, configuration, folder, program, ranks, seed, simulated, trained,
};
use taiga_flow::config::Class;

const ROWS: u64 = 3_000_000;
const FEATURES: u64 = 6;
const MEGABYTE: u64 = 1_000_000;

// Limits of the resident memory. Five runs with different seeds on two cores gave, in MB: training
// 123 to 124 on one rank and 138 to 139 on each of two, scoring 92 to 102, scoring at six positions
// 297 to 302. A build without optimisation needs up to 34 MB more (one run: 141, 173, 107, six
// positions not measured). A second copy of the events (72 MB) would exceed the limits of the training.
/// Memory of a training besides its events, which may take 1.3 times their size [bytes].
const TRAINING: u64 = 90 * MEGABYTE;
/// Additional memory of a rank of MPI [bytes].
const MPI: u64 = 60 * MEGABYTE;
const SCORING: u64 = 150 * MEGABYTE;
const SCORING_SIX: u64 = 360 * MEGABYTE;

#[test]
fn memory_is_bounded_by_shard_and_block() {
    let folder = folder();
    let events = simulated(folder.path().join("many.h5"), Class::Gamma, ROWS, seed());
    let more = "[train]\nepochs = 1\nbatch = 131072\n";
    let configuration = configuration(folder.path(), &events, more);
    for count in [1, 2] {
        let output = folder.path().join(format!("run-{count}"));
        // The number of threads is fixed, because each has storage of its own.
        let threads = (2 / count).to_string();
        let command = arguments![
            "train",
            "-c",
            &configuration,
            "-o",
            &output,
            "--threads",
            threads,
            "--set",
            "model.hidden=[8]"
        ];
        let mut command = if count == 1 { program(&command) } else { ranks(count, &command) };
        let peak = Watched::start(&mut command).peak_memory();
        let shard = ROWS * FEATURES * 4 / count as u64;
        let limit = shard * 13 / 10 + TRAINING + if count > 1 { MPI } else { 0 };
        let context = format!(
            "training {ROWS} rows on {count} ranks: {} MB per rank, allowed {} MB",
            peak / MEGABYTE,
            limit / MEGABYTE
        );
        println!("{context}");
        // A peak below the size of the events would mean that the measurement failed.
        assert!((shard / 2..=limit).contains(&peak), "{context}");
    }
    // Scores alone, and six positions with all columns.
    let all =
        r#"score.columns=["score", "log_prob", "dist", "alpha", "theta2", "p_value", "pass"]"#;
    let six = ["--set", "score.positions=6", "--set", all];
    for (name, more, limit) in [("plain", &[][..], SCORING), ("six", &six[..], SCORING_SIX)] {
        let output = folder.path().join(name);
        let command =
            arguments!["score", "-m", &trained().model, "-o", &output, &events, "--threads", "2"];
        let command = [&command[..], &more.iter().map(Into::into).collect::<Vec<_>>()].concat();
        let peak = Watched::start(&mut program(&command)).peak_memory();
        println!("scoring {ROWS} rows, {name}: {} MB", peak / MEGABYTE);
        assert!((limit / 4..=limit).contains(&peak), "{name}: {peak} bytes, allowed {limit}");
    }
}
