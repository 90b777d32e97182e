//! All commands that write files, with their inputs, for tests that disturb each of them.

use super::process::{kill, program, ranks, succeed};
use super::{arguments, configuration, simulated, trained, tree};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use taiga_flow::config::Class;

/// Placeholder for the output in a command line.
const OUTPUT: &str = "OUTPUT";
/// Files of runs that contain times, or are written at times that vary.
const TIMED: [&str; 4] = ["provenance.json", "train.log", "report.html", "checkpoints"];

/// A command that writes one file or one folder.
pub struct Writer {
    pub name: &'static str,
    line: Vec<OsString>,
    /// The same command with other settings or another model; `None` if it has no settings.
    other: Option<Vec<OsString>>,
    /// Name of the output.
    output: &'static str,
    /// Whether the command exits with 0 if its output is finished, instead of refusing it.
    pub resumes: bool,
    pub is_parallel: bool,
    /// Whether the output is a run folder, or contains run folders.
    is_run: bool,
}

/// All commands that write, and the folder of their inputs.
pub struct Writers {
    pub folder: PathBuf,
    pub all: Vec<Writer>,
}

impl Writer {
    /// Returns the command line that writes below `place`.
    pub fn line(&self, place: &Path) -> Vec<OsString> {
        self.filled(&self.line, place)
    }

    /// Returns the command line with other settings, if it has any.
    pub fn other(&self, place: &Path) -> Option<Vec<OsString>> {
        self.other.as_ref().map(|line| self.filled(line, place))
    }

    fn filled(&self, line: &[OsString], place: &Path) -> Vec<OsString> {
        let output = self.output(place);
        let fill = |argument: &OsString| {
            if argument == OUTPUT { output.clone().into() } else { argument.clone() }
        };
        line.iter().map(fill).collect()
    }

    pub fn output(&self, place: &Path) -> PathBuf {
        place.join(self.output)
    }

    /// Returns the output below `place` and the files next to it as path → hash, without the files
    /// in [`TIMED`].
    pub fn bytes(&self, place: &Path) -> BTreeMap<String, String> {
        if !place.exists() {
            return BTreeMap::new();
        }
        let output = self.output(place);
        let mut found = if output.is_dir() { tree(&output) } else { tree(place) };
        if self.is_run {
            found.retain(|name, _| !name.split('/').any(|part| TIMED.contains(&part)));
        }
        found
    }

    /// Runs the command without disturbance below a new `place`, returns its bytes and removes
    /// them.
    pub fn expected_bytes(&self, line: &[OsString], place: &Path) -> BTreeMap<String, String> {
        clear(place);
        succeed(&mut program(line));
        let found = self.bytes(place);
        assert!(!found.is_empty(), "{} has written nothing", self.name);
        clear(place);
        found
    }

    /// Runs the command again where its output may be finished.
    pub fn again(&self, line: &[OsString]) -> super::Outcome {
        let mut line = line.to_vec();
        if !self.resumes {
            line.push("--overwrite".into());
        }
        succeed(&mut program(&line))
    }

    /// Returns the command as one process, or on two ranks if it can distribute its work.
    pub fn start(&self, line: &[OsString], on_ranks: bool) -> Command {
        if on_ranks && self.is_parallel { ranks(2, line) } else { program(line) }
    }
}

/// Empties a folder, and creates it if needed.
pub fn clear(place: &Path) {
    let _ = std::fs::remove_dir_all(place);
    std::fs::create_dir_all(place).expect("a folder");
}

/// Returns the commands with their inputs, shared by all tests of this process.
pub fn writers() -> &'static Writers {
    static WRITERS: OnceLock<Writers> = OnceLock::new();
    WRITERS.get_or_init(|| {
        let folder = super::shared_folder().join("writers");
        std::fs::create_dir_all(&folder).expect("a folder");
        let inputs = Inputs::new(&folder);
        let all = [inputs.simulating(), inputs.training(), inputs.scoring(), inputs.reporting()];
        Writers { all: all.into_iter().flatten().collect(), folder }
    })
}

impl Writers {
    /// Returns a new folder for outputs.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the commands with these names.
    pub fn named<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a Writer> {
        self.all.iter().filter(move |writer| names.contains(&writer.name))
    }
}

/// Inputs of the commands.
struct Inputs<'a> {
    folder: &'a Path,
    configuration: PathBuf,
    other_model: PathBuf,
}

impl Inputs<'_> {
    fn new(folder: &Path) -> Inputs<'_> {
        let gamma = simulated(folder.join("gamma.h5"), Class::Gamma, 2000, 11);
        simulated(folder.join("hadron.h5"), Class::Hadron, 2000, 12);
        for run in 0..4 {
            let path = folder.join(format!("archive/night-{}/run-{run}.h5", run / 2));
            simulated(path, Class::Hadron, 400 + 100 * run, 20 + run);
        }
        for (name, seed) in [("table.csv", 0), ("other.csv", 1)] {
            std::fs::write(folder.join(name), table(seed)).expect("a table");
        }
        let short = "[train]\nepochs = 3\nbatch = 512\nshards = 2\nlearning_rate = 1e-2\n\
                     [run]\ncheckpoint_seconds = 0\n";
        let configuration = configuration(folder, &gamma, short);
        let other = folder.join("other-run");
        let train = arguments!["train", "-q", "-c", &configuration, "-o", &other, "--threads", "1"];
        succeed(&mut program(&train));
        let inputs = Inputs { folder, configuration, other_model: other.join("model.safetensors") };
        inputs.derived();
        inputs
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Creates the inputs that the program itself writes: images, scores, evaluations.
    fn derived(&self) {
        let run = |line: &[OsString]| succeed(&mut program(line));
        for (class, seed) in [("gamma", "1"), ("hadron", "2")] {
            let output = self.at(&format!("images/{class}.h5"));
            let images = arguments!["simulate", "--level", "images", "--class", class, "--seed"];
            run(&[&images[..], &arguments![seed, "--events", "40", "-o", output]].concat());
        }
        std::fs::create_dir_all(self.at("gammas")).expect("a folder");
        std::fs::copy(self.at("images/gamma.h5"), self.at("gammas/gamma.h5")).expect("a copy");
        let positions = ["--set", "score.positions=2"].map(OsString::from);
        for (model, output) in [(&trained().model, "scores-a"), (&self.other_model, "scores-b")] {
            let score = arguments!["score", "-q", "-m", model, "-o", self.at(output)];
            run(&[&score[..], &positions, &arguments![self.at("archive")]].concat());
        }
        for (model, output) in [(&trained().model, "found-a"), (&self.other_model, "found-b")] {
            run(&self.evaluate(model, self.at(output).into()));
        }
    }

    fn evaluate(&self, model: &Path, output: OsString) -> Vec<OsString> {
        let files = arguments!["--gamma", self.at("gamma.h5"), "--hadron", self.at("hadron.h5")];
        [&arguments!["evaluate", "-m", model, "-o", output, "--part", "all"][..], &files].concat()
    }

    fn simulating(&self) -> Vec<Writer> {
        let toy = |level: &str, events: &str, seed: &str| {
            arguments![
                "simulate", "-o", OUTPUT, "--class", "gamma", "--level", level, "--events", events,
                "--seed", seed
            ]
        };
        let images = self.at("images");
        let extract = arguments!["extract", "-o", OUTPUT, &images];
        let anomalies = arguments!["anomalies", "-o", OUTPUT, self.at("gammas")];
        let convert = |table: &str| arguments!["convert", self.at(table), "-o", OUTPUT];
        vec![
            Writer::new("init", "start", &arguments!["init", OUTPUT], None),
            Writer::new(
                "simulate",
                "events.h5",
                &toy("hillas", "60000", "1"),
                Some(&toy("hillas", "60000", "2")),
            ),
            Writer::new(
                "simulate-images",
                "images.h5",
                &toy("images", "60", "1"),
                Some(&toy("images", "60", "2")),
            ),
            Writer::new("convert", "made.h5", &convert("table.csv"), Some(&convert("other.csv"))),
            Writer::new(
                "extract",
                "hillas",
                &extract,
                Some(&[&extract[..], &arguments!["--high", "10", "--low", "5"]].concat()),
            )
            .resuming(),
            Writer::new(
                "anomalies",
                "made",
                &anomalies,
                Some(&[&anomalies[..], &arguments!["--seed", "2"]].concat()),
            ),
        ]
    }

    fn training(&self) -> Vec<Writer> {
        let train = arguments!["train", "-c", &self.configuration, "-o", OUTPUT, "--threads", "1"];
        let sweep = arguments![
            "sweep",
            "-c",
            &self.configuration,
            "-o",
            OUTPUT,
            "--grid",
            "model.hidden=[8],[16]",
            "--threads",
            "1"
        ];
        let other = arguments!["--set", "train.seed=3"];
        vec![
            Writer::new("train", "run", &train, Some(&[&train[..], &other].concat()))
                .with_run_folders(),
            Writer::new("sweep", "sweep", &sweep, Some(&[&sweep[..], &other].concat()))
                .with_run_folders(),
        ]
    }

    fn scoring(&self) -> Vec<Writer> {
        let score = |model: &Path, more: &[&str]| -> Vec<OsString> {
            let line = arguments!["score", "-m", model, "-o", OUTPUT, self.at("archive")];
            line.into_iter().chain(more.iter().map(OsString::from)).collect()
        };
        let (own, other) = (&trained().model, &self.other_model);
        [
            ("score", &[][..]),
            ("score-csv", &["--format", "csv"]),
            ("score-shard", &["--shard", "1/2"]),
            ("score-shard-csv", &["--shard", "2/2", "--format", "csv"]),
        ]
        .map(|(name, more)| {
            Writer::new(name, "scores", &score(own, more), Some(&score(other, more))).resuming()
        })
        .into()
    }

    fn reporting(&self) -> Vec<Writer> {
        let [a, b] = [self.at("scores-a"), self.at("scores-b")];
        let least = ["--threshold", "0"].map(OsString::from);
        let season =
            |scores: &Path| [&arguments!["season", scores, "-o", OUTPUT][..], &least].concat();
        let compare =
            |a: &Path, b: &Path| [&arguments!["compare", a, b, "-o", OUTPUT][..], &least].concat();
        let report = |found: &str| arguments!["report", self.at(found), "-o", OUTPUT];
        let evaluate = |model: &Path| self.evaluate(model, OUTPUT.into());
        vec![
            Writer::new(
                "evaluate",
                "found",
                &evaluate(&trained().model),
                Some(&evaluate(&self.other_model)),
            )
            .on_ranks(),
            Writer::new("season", "season", &season(&a), Some(&season(&b))).on_ranks(),
            Writer::new("compare", "compared", &compare(&a, &b), Some(&compare(&b, &a))).on_ranks(),
            Writer::new("report", "page.html", &report("found-a"), Some(&report("found-b"))),
        ]
    }
}

impl Writer {
    fn new(
        name: &'static str,
        output: &'static str,
        line: &[OsString],
        other: Option<&[OsString]>,
    ) -> Writer {
        let other = other.map(<[OsString]>::to_vec);
        Writer {
            name,
            line: line.to_vec(),
            other,
            output,
            resumes: false,
            is_parallel: false,
            is_run: false,
        }
    }

    fn on_ranks(self) -> Writer {
        Writer { is_parallel: true, ..self }
    }

    fn resuming(self) -> Writer {
        Writer { resumes: true, is_parallel: true, ..self }
    }

    fn with_run_folders(self) -> Writer {
        Writer { resumes: true, is_parallel: true, is_run: true, ..self }
    }
}

/// Returns a table in the dialect of MAGIC.
fn table(seed: u32) -> String {
    let mut text = String::new();
    for row in 0..400 {
        let x = f64::from(row % 37 + seed) / 10.0;
        let class = if row % 3 == 0 { 'h' } else { 'g' };
        let _ = writeln!(
            text,
            "{:.4},{:.4},{:.4},0.39,0.2,{:.4},{:.4},-8.2,{:.4},{:.4},{class}",
            28.8 + x,
            16.0 + x / 2.0,
            2.6 + x / 20.0,
            27.7 - x,
            22.0 + x,
            40.1 - x,
            81.9 + f64::from(row) / 10.0
        );
    }
    text
}

/// Kills processes that may already have ended, and waits until all have.
pub fn kill_all(processes: &[u32]) {
    processes.iter().for_each(|process| kill(*process));
    let is_there = |process: &&u32| Path::new(&format!("/proc/{process}/exe")).exists();
    while processes.iter().any(|process| is_there(&process)) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
