//! Streams and disks that cannot be written, for every command: the exit code is right, no output
//! is lost, and the same command then ends with the same bytes.

use crate::support::writers::{Writer, clear, writers};
use crate::support::{
    Outcome, arguments, print_line, program, repetitions, run, seed, skip, succeed, trained,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use taiga_flow_gpu::random::Stream;

const ENVIRONMENT: i32 = 5;
const PROGRAM: &str = env!("CARGO_BIN_EXE_taiga-flow");

/// Ways to make a stream unwritable: name, shell redirection, exit code.
const STREAMS: [(&str, &str, i32); 7] = [
    ("full stdout", "exec \"$0\" \"$@\" >/dev/full", ENVIRONMENT),
    ("full stderr", "exec \"$0\" \"$@\" 2>/dev/full", 0),
    ("both full", "exec \"$0\" \"$@\" >/dev/full 2>&1", ENVIRONMENT),
    ("closed stdout", "exec \"$0\" \"$@\" >&-", 0),
    ("closed stderr", "exec \"$0\" \"$@\" 2>&-", 0),
    ("all closed", "exec \"$0\" \"$@\" <&- >&- 2>&-", 0),
    ("both to a closed pipe", BROKEN_PIPE, 0),
];

/// Pipe whose reader ends before the program starts; the exit code is that of the program.
const BROKEN_PIPE: &str = "{ { sleep 0.05; \"$0\" \"$@\" 2>&1; echo $? >&3; } | true; } 3>&1 >&4";

/// Returns the program started through a shell line.
fn through(shell: &str, line: &[OsString]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", shell, PROGRAM]).args(line).env_remove("TAIGA_FLOW_LOG");
    command
}

/// Returns the ways for one command: two of them, or all in a soak.
fn drawn(name: &str) -> impl Iterator<Item = (&'static str, &'static str, i32)> {
    let first = Stream::new(seed(), name, &[]).bits(0) as usize % STREAMS.len();
    (0..repetitions(2, STREAMS.len())).map(move |i| STREAMS[(first + 2 * i) % STREAMS.len()])
}

/// Returns the exit code of the program with the streams that `shell` sets up.
fn code_with(shell: &str, line: &[OsString]) -> Option<i32> {
    if shell != BROKEN_PIPE {
        return run(&mut through(shell, line)).code;
    }
    let outcome = run(&mut through(&format!("{{ {shell}; }} 4>/dev/null"), line));
    outcome.stdout.trim().parse().ok()
}

#[test]
fn unwritable_streams_lose_no_output() {
    let writers = writers();
    let place = writers.place("streams");
    let mut tried = 0;
    for writer in &writers.all {
        let line = writer.line(&place);
        let expected = writer.expected_bytes(&line, &place);
        for (name, shell, due) in drawn(writer.name) {
            clear(&place);
            let code = code_with(shell, &line);
            assert_eq!(code, Some(due), "{}, {name}", writer.name);
            assert_eq!(writer.bytes(&place), expected, "{}, {name}", writer.name);
            tried += 1;
        }
        writer.again(&line);
        assert_eq!(writer.bytes(&place), expected, "{}", writer.name);
    }
    print_line(&format!(
        "streams: {tried} of {tried} commands with the code due and whole outputs"
    ));
}

#[test]
fn unwritable_reader_streams_give_expected_code() {
    let writers = writers();
    let at = |name: &str| writers.place(name);
    let (model, archive) = (&trained().model, at("archive"));
    let train = writers.named(&["train"]).next().expect("a command").line(&at("dry"));
    let readers = [
        arguments!["check", &archive].to_vec(),
        arguments!["status", at("other-run")].to_vec(),
        arguments!["verify", at("scores-a")].to_vec(),
        arguments!["compare", at("scores-a"), at("scores-b"), "--threshold", "0"].to_vec(),
        [&train[..], &["--dry-run".into()]].concat(),
        arguments!["--help"].to_vec(),
        arguments!["help", "score"].to_vec(),
        arguments!["--version"].to_vec(),
    ];
    for line in &readers {
        for (name, shell, due) in STREAMS {
            assert_eq!(code_with(shell, line), Some(due), "{line:?}, {name}");
        }
    }
    // An error keeps its code.
    let failing = [
        (arguments!["score", "-m", at("none"), "-o", at("o"), &archive].to_vec(), 3),
        (arguments!["score", "-m", model, "-o", at("o"), at("none")].to_vec(), 3),
        (arguments!["score", "--unknown"].to_vec(), 2),
        (arguments!["verify", at("archive")].to_vec(), 3),
        (arguments!["report", at("none"), "-o", at("page.html")].to_vec(), 2),
    ];
    for (line, due) in &failing {
        for (name, shell, _) in STREAMS {
            assert_eq!(code_with(shell, line), Some(*due), "{line:?}, {name}");
        }
    }
}

/// Output location of a command, and the expected result.
struct Target<'a> {
    writer: &'a Writer,
    place: &'a Path,
    line: Vec<OsString>,
    expected: BTreeMap<String, String>,
    /// Bytes of the output, and of its longest file.
    total: u64,
    longest: u64,
}

impl<'a> Target<'a> {
    fn new(writer: &'a Writer, place: &'a Path) -> Target<'a> {
        let line = writer.line(place);
        clear(place);
        succeed(&mut program(&line));
        let (expected, sizes) = (writer.bytes(place), sizes(place));
        let total = sizes.iter().sum();
        let longest = sizes.into_iter().max().unwrap_or(0);
        clear(place);
        Target { writer, place, line, expected, total, longest }
    }

    /// Checks the output of a disturbed command: no partial file, and the expected bytes after the
    /// same command.
    fn check(&self, outcome: &Outcome, how: &str) {
        let context = format!("{}, {how}: {:?} {}", self.writer.name, outcome.code, outcome.stderr);
        let found = self.writer.bytes(self.place);
        if outcome.code == Some(0) {
            assert_eq!(found, self.expected, "{context}");
        } else {
            assert_eq!(outcome.code, Some(ENVIRONMENT), "{context}");
        }
        for (name, content) in &found {
            assert!(!name.contains(".part"), "{name} is left: {context}");
            let is_output = ["h5", "csv", "html", "safetensors"].iter().any(|extension| {
                Path::new(name).extension().is_some_and(|found| found == *extension)
            });
            let is_whole = self.expected.get(name) == Some(content);
            assert!(!is_output || is_whole, "{name} is not whole: {context}");
        }
        self.writer.again(&self.line);
        assert_eq!(self.writer.bytes(self.place), self.expected, "again: {context}");
    }
}

/// Returns the lengths of all files below a folder.
fn sizes(folder: &Path) -> Vec<u64> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sizes(&path));
        } else {
            all.push(entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    all
}

fn can_mount() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["-r", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]);
    let works = tried.output().is_ok_and(|outcome| outcome.status.success());
    if !works {
        skip("file systems cannot be mounted here (unshare -r -m)");
    }
    works
}

/// Runs a command with a file system of its own at `place`, and copies its final content to
/// `kept`.
fn on_disk(target: &Target, options: &str, kept: &Path) -> Outcome {
    let place = target.place.display();
    let shell = format!(
        "mount -t tmpfs -o {options} tmpfs '{place}' && {{ \"$0\" \"$@\"; code=$?; \
         cp -a '{place}/.' '{}'; exit $code; }}",
        kept.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "bash", "-c", &shell, PROGRAM]).args(&target.line);
    run(command.env_remove("TAIGA_FLOW_LOG"))
}

#[test]
fn full_disks_lose_no_output() {
    if !can_mount() {
        return;
    }
    let writers = writers();
    let (place, kept) = (writers.place("full-disk"), writers.place("full-kept"));
    let (mut full, mut fits) = (0, 0);
    for writer in &writers.all {
        let target = Target::new(writer, &place);
        let stream = Stream::new(seed(), "full disks", &[target.total]);
        for trial in 0..repetitions(1, 12) {
            // From no space to slightly more than needed.
            let share = stream.bits(trial as u64) as f64 / u64::MAX as f64;
            let bytes = (4096.0 + 1.3 * share * target.total as f64) as u64;
            clear(&place);
            clear(&kept);
            let outcome = on_disk(&target, &format!("size={bytes}"), &kept);
            std::fs::remove_dir(&place).expect("an empty folder");
            std::fs::rename(&kept, &place).expect("a move");
            let how = format!("a disk of {bytes} bytes");
            let ended = outcome.code == Some(ENVIRONMENT);
            assert!(!ended || outcome.stderr.contains("disk full"), "{}", outcome.stderr);
            target.check(&outcome, &how);
            full += usize::from(ended);
            fits += usize::from(!ended);
        }
    }
    print_line(&format!(
        "full disks: {0} of {0} with the code due and the same bytes again, {full} full, {fits} large enough (seed {1})",
        full + fits,
        seed()
    ));
}

#[test]
fn read_only_disks_are_refused() {
    if !can_mount() {
        return;
    }
    let writers = writers();
    let (place, kept) = (writers.place("read-only-disk"), writers.place("read-only-kept"));
    for writer in &writers.all {
        let target = Target::new(writer, &place);
        clear(&kept);
        let outcome = on_disk(&target, "ro", &kept);
        assert_eq!(outcome.code, Some(ENVIRONMENT), "{}: {}", writer.name, outcome.stderr);
        assert!(outcome.stderr.contains("cannot "), "{}: {}", writer.name, outcome.stderr);
        target.check(&outcome, "a read-only disk");
        // A finished output stays finished.
        let mut bound = Command::new("unshare");
        let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        bound.args(["-r", "-m", "bash", "-c", mount]).arg(&place).arg(PROGRAM).args(&target.line);
        let outcome = run(&mut bound);
        // A sweep writes its table in every run.
        let due = if writer.name == "sweep" { ENVIRONMENT } else { 2 * i32::from(!writer.resumes) };
        assert_eq!(outcome.code, Some(due), "{} is finished: {}", writer.name, outcome.stderr);
        assert_eq!(writer.bytes(&place), target.expected, "{}", writer.name);
    }
    print_line(&format!("read-only disks: {0} of {0} refused", writers.all.len()));
}

#[test]
fn quotas_lose_no_output() {
    let writers = writers();
    let place = writers.place("quota");
    let (mut ended, mut tried) = (0, 0);
    for writer in &writers.all {
        let target = Target::new(writer, &place);
        let stream = Stream::new(seed(), "quotas", &[target.total]);
        let other = writer.other(&place).filter(|_| !writer.resumes);
        for trial in 0..repetitions(1, 12) {
            let share = stream.bits(trial as u64) as f64 / u64::MAX as f64;
            let blocks = (share * target.longest as f64 / 1024.0) as u64;
            let limited = format!("ulimit -f {blocks}; exec \"$0\" \"$@\"");
            clear(&place);
            let outcome = run(&mut through(&limited, &target.line));
            assert_eq!(outcome.code, Some(ENVIRONMENT), "{}: {}", writer.name, outcome.stderr);
            target.check(&outcome, &format!("files of {blocks} KiB at most"));
            (ended, tried) = (ended + 1, tried + 1);
            // An existing output stays until the new one is complete.
            let Some(other) = &other else { continue };
            succeed(&mut program(&[&other[..], &["--overwrite".into()]].concat()));
            let old = writer.bytes(&place);
            let replace = [&target.line[..], &["--overwrite".into()]].concat();
            let outcome = run(&mut through(&limited, &replace));
            for (name, content) in &old {
                let found = writer.bytes(&place);
                let known = [Some(content), target.expected.get(name)];
                let context = format!("{}, {blocks} KiB: {name}: {}", writer.name, outcome.stderr);
                assert!(known.contains(&found.get(name)), "{context}");
            }
            writer.again(&target.line);
            assert_eq!(writer.bytes(&place), target.expected, "{}", writer.name);
        }
    }
    print_line(&format!(
        "quotas: {ended} of {tried} with exit code 5 and the same bytes again (seed {})",
        seed()
    ));
}

#[test]
fn failed_write_of_last_file_ends_scoring() {
    let writers = writers();
    let place = writers.place("last");
    let archive = writers.place("archive/night-1/run-3.h5");
    for writer in writers.named(&["score-csv"]) {
        let mut line = writer.line(&place);
        let archive = archive.clone().into();
        for argument in &mut line {
            if argument.to_string_lossy().ends_with("/archive") {
                argument.clone_from(&archive);
            }
        }
        for _ in 0..repetitions(5, 50) {
            clear(&place);
            let outcome = run(&mut through("ulimit -f 1; exec \"$0\" \"$@\"", &line));
            assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
        }
    }
}
