//! Every command that writes, started twice on one output at almost the same time: one job writes
//! it, the other waits, and no output is a mixture of both.

use crate::support::writers::{Writer, Writers, clear, writers};
use crate::support::{Watched, print_line, program, repetitions, seed, succeed, text, tree};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use taiga_flow_gpu::random::Stream;

const USAGE: i32 = 2;
const PARTIAL: i32 = 4;
const STOPPED: i32 = 75;

const SIMULATING: [&str; 6] =
    ["init", "simulate", "simulate-images", "convert", "extract", "anomalies"];
const TRAINING: [&str; 2] = ["train", "sweep"];
const SCORING: [&str; 4] = ["score", "score-csv", "score-shard", "score-shard-csv"];
const REPORTING: [&str; 4] = ["evaluate", "season", "compare", "report"];

/// Random numbers of one pair of starts.
struct Draws {
    stream: Stream,
    trial: u64,
}

impl Draws {
    fn new(name: &str, mode: &str, trial: usize) -> Draws {
        let trial = trial as u64;
        Draws { stream: Stream::new(seed(), &format!("two starts {name} {mode}"), &[]), trial }
    }

    /// Draws a number from 0 to 1.
    fn share(&self, draw: u64) -> f64 {
        self.stream.bits(8 * self.trial + draw) as f64 / u64::MAX as f64
    }

    /// Draws the time between both starts. In every other trial it is at most the duration of the
    /// first job.
    fn pause(&self, took: Duration) -> Duration {
        let longest = Duration::from_secs(2);
        let longest = if self.trial.is_multiple_of(2) { took.min(longest) } else { longest };
        longest.mul_f64(self.share(0))
    }

    /// Draws options that do not change the output: half of the second jobs wait only briefly.
    fn patience(&self) -> Vec<OsString> {
        let short = self.share(1) < 0.5;
        if short { ["--lock-timeout", "0.1s"].map(OsString::from).into() } else { Vec::new() }
    }

    fn on_ranks(&self) -> bool {
        self.share(2) < 0.2
    }
}

/// Exit code and messages of a job.
#[derive(Debug)]
struct End {
    code: Option<i32>,
    messages: String,
}

impl End {
    fn is(&self, code: i32) -> bool {
        self.code == Some(code)
    }

    /// Returns whether the job has refused an output, which it names.
    fn has_refused(&self, output: &Path) -> bool {
        self.is(USAGE) && self.messages.contains(&*output.to_string_lossy())
    }
}

/// Starts two jobs, and waits for both.
fn both(
    writer: &Writer,
    lines: [&[OsString]; 2],
    (place, draws, took): (&Path, &Draws, Duration),
) -> [End; 2] {
    let files = ["first", "second"].map(|name| place.with_extension(name));
    let start = |line: &[OsString], messages: &PathBuf| {
        Watched::start_with_log(&mut writer.start(line, draws.on_ranks()), messages)
    };
    let first = start(lines[0], &files[0]);
    std::thread::sleep(draws.pause(took));
    let second = start(&[lines[1], &draws.patience()].concat(), &files[1]);
    let codes = [first.wait().code(), second.wait().code()];
    [0, 1].map(|i| End { code: codes[i], messages: text(&files[i]) })
}

/// Counts of the results of the second jobs.
#[derive(Debug, Default)]
struct Counts {
    trials: usize,
    finished: usize,
    refused: usize,
    stopped: usize,
}

impl Counts {
    fn add(&mut self, ends: &[End; 2]) {
        self.trials += 1;
        self.stopped += usize::from(ends.iter().any(|end| end.is(STOPPED)));
        self.refused += usize::from(ends.iter().any(|end| end.is(USAGE) || end.is(PARTIAL)));
        self.finished += usize::from(ends.iter().all(|end| end.is(0)));
    }

    fn report(&self, writer: &Writer, how: &str) {
        let Counts { trials, finished, refused, stopped } = self;
        print_line(&format!(
            "two starts, {how}: {}: {trials} of {trials} with the right bytes; the other job: {finished} found it finished, {refused} refused it, {stopped} stopped with 75 (seed {})",
            writer.name,
            seed()
        ));
    }
}

fn same_command(writers: &Writers, names: &[&str]) {
    for writer in writers.named(names) {
        let place = writers.place(&format!("same-{}", writer.name));
        let line = writer.line(&place);
        let since = Instant::now();
        let expected = writer.expected_bytes(&line, &place);
        let took = since.elapsed();
        let mut counts = Counts::default();
        for trial in 0..repetitions(1, 20) {
            clear(&place);
            let draws = Draws::new(writer.name, "same", trial);
            let ends = both(writer, [&line, &line], (&place, &draws, took));
            let context = format!("{} {trial}: {ends:#?}", writer.name);
            let output = writer.output(&place);
            // A command that resumes finds its output finished; all others refuse it by name.
            let is_due = |end: &End| {
                end.is(0) || end.is(STOPPED) || !writer.resumes && end.has_refused(&output)
            };
            assert!(ends.iter().all(is_due) && ends.iter().any(|end| end.is(0)), "{context}");
            assert_eq!(writer.bytes(&place), expected, "{context}");
            writer.again(&line);
            assert_eq!(writer.bytes(&place), expected, "again: {context}");
            counts.add(&ends);
        }
        counts.report(writer, "same command");
    }
}

fn other_settings(writers: &Writers, names: &[&str]) {
    for writer in writers.named(names) {
        let place = writers.place(&format!("other-{}", writer.name));
        let Some(other) = writer.other(&place) else { continue };
        let lines = [writer.line(&place), other];
        let since = Instant::now();
        let expected = [&lines[0], &lines[1]].map(|line| writer.expected_bytes(line, &place));
        let took = since.elapsed() / 2;
        assert_ne!(expected[0], expected[1], "{}", writer.name);
        let mut counts = Counts::default();
        for trial in 0..repetitions(1, 20) {
            clear(&place);
            let draws = Draws::new(writer.name, "other", trial);
            let ends = both(writer, [&lines[0], &lines[1]], (&place, &draws, took));
            let context = format!("{} {trial}: {ends:#?}", writer.name);
            check_winner(writer, &place, &lines, &ends, &expected, &context);
            counts.add(&ends);
        }
        counts.report(writer, "other settings");
    }
}

/// Checks that one of two jobs with different settings has written the output, and the other
/// refused it.
fn check_winner(
    writer: &Writer,
    place: &Path,
    lines: &[Vec<OsString>; 2],
    ends: &[End; 2],
    expected: &[BTreeMap<String, String>; 2],
    expected_text: &str,
) {
    let winner = usize::from(!ends[0].is(0));
    assert!(ends[winner].is(0), "no job has finished: {expected_text}");
    let loser = &ends[1 - winner];
    assert!(loser.is(STOPPED) || loser.has_refused(&writer.output(place)), "{expected_text}");
    assert_eq!(writer.bytes(place), expected[winner], "{expected_text}");
    writer.again(&lines[winner]);
    assert_eq!(writer.bytes(place), expected[winner], "again: {expected_text}");
}

#[test]
fn simulations_started_twice_have_one_result() {
    let writers = writers();
    same_command(writers, &SIMULATING);
    other_settings(writers, &SIMULATING);
}

#[test]
fn trainings_started_twice_have_one_result() {
    let writers = writers();
    same_command(writers, &TRAINING);
    other_settings(writers, &["train"]);
}

#[test]
fn scorings_started_twice_have_one_result() {
    let writers = writers();
    same_command(writers, &SCORING);
    other_settings(writers, &SCORING);
}

#[test]
fn reports_started_twice_have_one_result() {
    let writers = writers();
    same_command(writers, &REPORTING);
    other_settings(writers, &REPORTING);
}

#[test]
fn sweeps_of_two_settings_share_no_point() {
    let writers = writers();
    for writer in writers.named(&["sweep"]) {
        let place = writers.place("sweeps");
        let lines = [writer.line(&place), writer.other(&place).expect("other settings")];
        let expected = [&lines[0], &lines[1]].map(|line| writer.expected_bytes(line, &place));
        let mut counts = Counts::default();
        for trial in 0..repetitions(1, 20) {
            clear(&place);
            let draws = Draws::new(writer.name, "other", trial);
            let took = Duration::from_secs(1);
            let ends = both(writer, [&lines[0], &lines[1]], (&place, &draws, took));
            let context = format!("{trial}: {ends:#?}");
            assert!(!ends.iter().all(|end| end.is(0)), "{context}");
            let due = [0, USAGE, PARTIAL, STOPPED];
            assert!(ends.iter().all(|end| due.iter().any(|code| end.is(*code))), "{context}");
            // Every model belongs to one of the two sweeps.
            for (name, content) in writer.bytes(&place) {
                if name.ends_with("model.safetensors") {
                    let is_whole = |all: &BTreeMap<_, _>| all.get(&name) == Some(&content);
                    assert!(expected.iter().any(is_whole), "{name}: {context}");
                }
            }
            counts.add(&ends);
        }
        counts.report(writer, "other settings");
    }
}

#[test]
fn two_shards_at_once_complete_the_output() {
    let writers = writers();
    let whole = writers.named(&["score"]).next().expect("a command");
    let place = writers.place("shards");
    let line = whole.line(&place);
    let expected = whole.expected_bytes(&line, &place);
    let shard = |which: &str| [&line[..], &["--shard", which].map(OsString::from)].concat();
    let lines = [shard("1/2"), shard("2/2")];
    for trial in 0..repetitions(1, 20) {
        clear(&place);
        let draws = Draws::new("shards", "whole", trial);
        let took = Duration::from_millis(300);
        let ends = both(whole, [&lines[0], &lines[1]], (&place, &draws, took));
        let context = format!("{trial}: {ends:#?}");
        assert!(ends.iter().all(|end| end.is(0)), "{context}");
        assert_eq!(whole.bytes(&place), expected, "{context}");
        let verify = ["verify".into(), whole.output(&place).into()];
        succeed(&mut program(&verify));
    }
    print_line(&format!("two starts, both shards: {0} of {0} whole", repetitions(1, 20)));
}

#[test]
fn waiting_job_survives_the_failure_of_the_first() {
    // The first job creates the output folder, fails, and removes it, while the second waits for
    // its lock.
    let writers = writers();
    let score = writers.named(&["score"]).next().expect("a command");
    let place = writers.place("fails");
    let mut line = score.line(&place);
    let input = line.len() - 1;
    line[input] = writers.place("missing").into();
    for trial in 0..repetitions(5, 100) {
        clear(&place);
        let draws = Draws::new("score", "fails", trial);
        let took = Duration::from_millis(40);
        let ends = both(score, [&line, &line], (&place, &draws, took));
        let context = format!("{trial}: {ends:#?}");
        assert!(ends.iter().all(|end| end.is(3) || end.is(STOPPED)), "{context}");
        let left = tree(&place);
        assert!(left.values().all(|content| content == "/"), "{left:?} {context}");
    }
}
