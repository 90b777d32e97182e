//! Scoring writes every row of every file exactly once, in order and with its keys, for any file
//! names, values and number of ranks.

use crate::support::{
    Events, arguments, configuration, folder, json, program, ranks, seed, succeed, trained, tree,
};
use std::path::Path;
use taiga_flow_gpu::random::{RandomPermutation, Stream};

const NOT_FINITE: u32 = 1;
const OUT_OF_DOMAIN: u32 = 2;
const CUT: u32 = 4;

/// Usual and unusual file names.
const NAMES: [&str; 5] = [
    "run 1.h5",
    "season 2019/γ-лучи 10%.hdf5",
    "season 2019/night 1/run 1.h5",
    "quote's \"and\" $dollar.h5",
    "long.h5",
];

struct Scores {
    keys: Vec<Vec<i64>>,
    class: Vec<i8>,
    score: Vec<f32>,
    log_prob: Vec<f32>,
    status: Vec<u32>,
}

impl Scores {
    fn read(path: &Path) -> Scores {
        let file = hdf5::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let column = |name: &str| file.dataset(&format!("scores/{name}")).expect("a column");
        Scores {
            keys: ["run_id", "event_id"]
                .map(|name| column(name).read_raw().expect("keys"))
                .to_vec(),
            class: column("class").read_raw().expect("classes"),
            score: column("score").read_raw().expect("scores"),
            log_prob: column("log_prob").read_raw().expect("log p"),
            status: column("status").read_raw().expect("status"),
        }
    }
}

/// Puts unusable values into rows of both classes. Returns the rows that are not finite, outside a
/// domain, and outside the cut.
fn make_unusable(events: &mut Events, stream: Stream) -> [Vec<usize>; 3] {
    let mut rows = [Vec::new(), Vec::new(), Vec::new()];
    for row in 0..events.rows() {
        let values = [
            ("width", f32::NAN),
            ("alpha", f32::INFINITY),
            ("con2", 0.0),
            ("con2", 1.5),
            ("size", -3.0),
            ("size", 59.0),
            ("size", 60.0),
        ];
        let Some((name, value)) = values.get((stream.bits(row as u64) % 100) as usize) else {
            continue;
        };
        events.feature(name)[row] = *value;
        let kind = match (*name, *value) {
            (_, value) if !value.is_finite() => 0,
            ("size", value) if value > 0.0 => 2,
            _ => 1,
        };
        rows[kind].push(row);
    }
    rows
}

#[test]
fn rows_are_scored_once_in_order_on_any_ranks() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive of 2019");
    let all = [Events::read(&trained.gamma), Events::read(&trained.hadron)];
    let mut inputs = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        // One row, a few, and more than a block of 65 536. Rows repeat, keys do not.
        let rows = [1, 777, 5000, 30_000, 70_000][i];
        let source = &all[i % 2];
        let chosen: Vec<usize> = (0..rows).map(|row| row % source.rows()).collect();
        let mut events = source.chosen(&chosen);
        events.keys.iter_mut().for_each(|(_, keys)| {
            keys.iter_mut().enumerate().for_each(|(row, key)| *key = (row * 10 + i) as i64);
        });
        let changed = make_unusable(&mut events, Stream::new(seed(), "spoil", &[i as u64]));
        events.write(&archive.join(name));
        inputs.push((*name, events, changed));
    }
    let output = folder.path().join("scores");
    let report = json(&arguments!["score", "-m", &trained.model, "-o", &output, &archive]);
    let rows: usize = inputs.iter().map(|(_, events, _)| events.rows()).sum();
    assert_eq!(report["rows"], rows);
    assert_eq!(report["files"].as_array().map(Vec::len), Some(NAMES.len()));
    for (name, events, changed) in &inputs {
        check(&output.join(Path::new(name).with_extension("h5")), events, changed);
    }
    let found = tree(&output);
    let is_output = |name: &&String| Path::new(name).extension().is_some_and(|e| e == "h5");
    assert_eq!(found.keys().filter(is_output).count(), NAMES.len());
    for count in [2, 3] {
        let output = folder.path().join(format!("scores of {count}"));
        let command = arguments!["score", "-m", &trained.model, "-o", &output, &archive];
        succeed(&mut ranks(count, &command));
        assert_eq!(tree(&output), found, "{count} ranks");
    }
}

fn check(path: &Path, events: &Events, [not_finite, out_of_domain, cut]: &[Vec<usize>; 3]) {
    let scores = Scores::read(path);
    assert_eq!(scores.keys, [events.key("run_id"), events.key("event_id")], "{}", path.display());
    assert_eq!(scores.class, events.class);
    assert_eq!(scores.score.len(), events.rows());
    let mut expected = vec![0; events.rows()];
    not_finite.iter().for_each(|row| expected[*row] = NOT_FINITE);
    cut.iter().for_each(|row| expected[*row] = CUT);
    let unknown_cut = OUT_OF_DOMAIN | CUT;
    for row in 0..events.rows() {
        let status = scores.status[row];
        let context = || format!("{}, row {row}: status {status}", path.display());
        if out_of_domain.contains(&row) {
            // A size outside the domain is also outside the cut.
            assert!(status == OUT_OF_DOMAIN || status == unknown_cut, "{}", context());
        } else if expected[row] == 0 {
            // Some toy events are below the cut of 60 p.e. in addition to the changed ones.
            assert_eq!(status & !CUT, 0, "{}", context());
        } else {
            assert_eq!(status, expected[row], "{}", context());
        }
        let scored = status & (NOT_FINITE | OUT_OF_DOMAIN) == 0;
        assert_eq!(scores.log_prob[row].is_finite(), scored, "{}", context());
        assert_eq!(scores.score[row].to_bits(), scores.log_prob[row].to_bits(), "{}", context());
    }
}

#[test]
fn score_does_not_depend_on_row_position() {
    let (trained, folder) = (trained(), folder());
    let events = Events::read(&trained.gamma);
    let shuffle = RandomPermutation::new(events.rows() as u64, Stream::new(seed(), "shuffle", &[]));
    let order: Vec<usize> = (0..events.rows() as u64).map(|i| shuffle.at(i) as usize).collect();
    let shuffled = folder.path().join("shuffled.h5");
    events.chosen(&order).write(&shuffled);
    let output = folder.path().join("scores");
    let inputs = [&trained.gamma, &shuffled];
    json(&arguments!["score", "-m", &trained.model, "-o", &output, inputs[0], inputs[1]]);
    let straight = Scores::read(&output.join("gamma.h5"));
    let mixed = Scores::read(&output.join("shuffled.h5"));
    for (place, row) in order.iter().enumerate() {
        assert_eq!(mixed.keys[1][place], straight.keys[1][*row]);
        assert_eq!(mixed.score[place].to_bits(), straight.score[*row].to_bits(), "row {row}");
    }
}

#[test]
fn requested_columns_are_written() {
    let (trained, folder) = (trained(), folder());
    let more = "[score]\ncolumns = [\"log_prob_raw\", \"score\"]\n";
    let configuration = configuration(folder.path(), &trained.gamma, more);
    let output = folder.path().join("scores");
    let command = arguments![
        "score",
        "-m",
        &trained.model,
        "-o",
        &output,
        "-c",
        &configuration,
        &trained.hadron
    ];
    succeed(&mut program(&command));
    let file = hdf5::File::open(output.join("hadron.h5")).expect("scores");
    let mut names = file.group("scores").and_then(|g| g.member_names()).expect("names");
    names.sort();
    assert_eq!(names, ["class", "event_id", "log_prob_raw", "run_id", "score", "status"]);
    let complete: i64 = file.attr("complete").and_then(|a| a.read_scalar()).expect("a mark");
    assert_eq!(complete, 1);
}
