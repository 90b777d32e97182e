//! Random sequences of archive changes and scorings, compared with a model of the output folder.

use crate::support::{
    Watched, arguments, folder, kill, print_line, program, ranks, repetitions, run, seed,
    simulated, succeed, trained,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;
use tempfile::TempDir;

const STEPS: u64 = 10;
const USAGE: i32 = 2;
const INPUT: i32 = 3;
const PARTIAL: i32 = 4;
/// Longest time until a kill.
const LATEST_KILL: Duration = Duration::from_millis(500);

/// Number of a file content; equal numbers mean equal bytes.
type Content = u64;
/// Path below the archive or below the output folder, without extension.
type Name = String;
type Files = BTreeMap<Name, Content>;

/// One step of a sequence.
#[derive(Debug, Clone)]
enum Operation {
    Add(Name),
    Remove(Name),
    Change(Name),
    /// Copies a file to a second name.
    Copy(Name, Name),
    /// Creates a hard link to a file.
    Link(Name, Name),
    Score(Scope),
    /// Scores on two ranks.
    ScoreOnRanks,
    /// Scores all files again.
    Overwrite,
    /// Scores all files; outputs and failed inputs that no longer exist leave the manifest.
    Forget,
    /// Starts a scoring, perhaps of all files again, and kills it after this time.
    Interrupt(Scope, Rerun, Duration),
    DeleteOutput(Name),
    /// Changes the number of shards.
    Parts(usize),
}

/// Treatment of outputs and entries of earlier scorings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rerun {
    Keep,
    Overwrite,
    Forget,
}

/// The files that a scoring has to score.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    All,
    Night(String),
    /// Shard, from 0, and number of shards.
    Shard(usize, usize),
}

/// Content of the manifest of an output folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Manifest {
    files: Files,
    failed: BTreeSet<Name>,
    complete: bool,
}

/// Content of the manifest of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    listing: Files,
    files: Files,
    failed: BTreeSet<Name>,
}

/// File system attributes of an input.
#[derive(Debug, Clone, Copy)]
struct OnDisk {
    bytes: u64,
    inode: u64,
}

/// Expected state of archive and output folder.
#[derive(Debug, Clone, Default)]
struct Model {
    archive: Files,
    outputs: Files,
    manifest: Option<Manifest>,
    parts: BTreeMap<(usize, usize), Part>,
    /// Folders that were scored: the whole archive, or nights.
    given: BTreeSet<Option<String>>,
    /// Whether outputs are being replaced: a scoring with `--overwrite` was killed.
    overwriting: bool,
}

impl Model {
    fn listed(&self, scope: &Scope) -> Files {
        let is_in = |name: &Name| match scope {
            Scope::Night(night) => night_of(name) == night,
            Scope::All | Scope::Shard(..) => true,
        };
        self.archive.iter().filter(|(n, _)| is_in(n)).map(|(n, c)| (n.clone(), *c)).collect()
    }

    /// Predicts the exit code of a scoring, and updates the expected state.
    fn score(&mut self, scope: &Scope, rerun: Rerun, disk: &BTreeMap<Name, OnDisk>) -> i32 {
        let listed = self.listed(scope);
        let inodes: BTreeSet<u64> = listed.keys().map(|name| disk[name].inode).collect();
        if listed.is_empty() || inodes.len() < listed.len() {
            return INPUT;
        }
        let shard = if let Scope::Shard(k, n) = scope { (*k, *n) } else { (0, 1) };
        let mine = part(&listed, disk, shard);
        let resumes = self.overwriting && shard.1 == 1;
        let overwrite = rerun == Rerun::Overwrite || resumes;
        let is_stale = |name: &Name| {
            !overwrite && self.outputs.get(name).is_some_and(|content| *content != listed[name])
        };
        let failed: BTreeSet<Name> = mine.iter().filter(|name| is_stale(name)).cloned().collect();
        let (earlier, lost) = self.earlier(&listed, scope, rerun == Rerun::Forget);
        // Other shards, and files of earlier runs, need a manifest in any case.
        let is_alone = shard.1 == 1 && earlier.files.is_empty();
        if is_alone && !mine.is_empty() && failed.len() == mine.len() {
            return USAGE;
        }
        let files: Files = mine
            .iter()
            .filter(|name| !failed.contains(*name))
            .map(|n| (n.clone(), listed[n]))
            .collect();
        if overwrite && !resumes && earlier.files.is_empty() {
            self.parts.clear();
            self.given.clear();
        }
        let works = overwrite || files.keys().any(|name| !self.outputs.contains_key(name));
        if works {
            self.begin(&earlier, shard);
        }
        self.outputs.extend(files.clone());
        self.given.insert(if let Scope::Night(night) = scope { Some(night.clone()) } else { None });
        let merged = if shard.1 == 1 {
            Some((files, failed.clone()))
        } else {
            self.parts
                .insert(shard, Part { listing: listed.clone(), files, failed: failed.clone() });
            let others = (0..shard.1).map(|k| self.parts.get(&(k, shard.1)));
            let others: Vec<&Part> = others.flatten().collect();
            if others.iter().any(|other| other.listing != listed) {
                return PARTIAL;
            }
            let is_gone =
                |(name, content): (&Name, &Content)| self.outputs.get(name) != Some(content);
            if others.iter().any(|other| other.files.iter().any(is_gone)) {
                return PARTIAL;
            }
            (others.len() == shard.1).then(|| {
                let files = others.iter().flat_map(|part| part.files.clone()).collect();
                (files, others.iter().flat_map(|part| part.failed.clone()).collect())
            })
        };
        let mut contents =
            self.parts.get(&shard).map(|part| part.files.clone()).unwrap_or_default();
        if let Some((mut files, mut failed)) = merged {
            files.extend(earlier.files);
            failed.extend(earlier.failed);
            contents.clone_from(&files);
            self.manifest = Some(Manifest { files, failed, complete: true });
        }
        if shard.1 == 1 {
            self.overwriting = false;
        }
        let mut seen = BTreeSet::new();
        let is_doubled = contents.values().any(|content| !seen.insert(content));
        if failed.is_empty() && !lost && !is_doubled { 0 } else { PARTIAL }
    }

    /// Returns the entries of earlier runs that stay in the manifest, and whether some are lost.
    fn earlier(&self, listed: &Files, scope: &Scope, forget: bool) -> (Manifest, bool) {
        let Some(mut earlier) = self.manifest.clone() else { return Default::default() };
        earlier.files.retain(|name, _| !listed.contains_key(name));
        earlier.failed.retain(|name| !listed.contains_key(name));
        earlier.complete = false;
        let is_there = |name: &Name, content: &Content| self.outputs.get(name) == Some(content);
        let is_given = |name: &Name| match scope {
            Scope::Night(night) => night_of(name) == night,
            Scope::All | Scope::Shard(..) => true,
        };
        if forget {
            earlier.files.retain(|name, content| is_there(name, content));
            earlier.failed.retain(|name| self.archive.contains_key(name));
            return (earlier, false);
        }
        let lost = earlier.files.iter().any(|(name, content)| !is_there(name, content))
            || earlier.failed.iter().any(|n| !self.archive.contains_key(n) && is_given(n));
        (earlier, lost)
    }

    /// Updates the manifest to its state while a scoring runs.
    fn begin(&mut self, earlier: &Manifest, shard: (usize, usize)) {
        self.manifest = (!earlier.files.is_empty()).then(|| earlier.clone());
        if shard.1 > 1 {
            self.parts.remove(&shard);
        }
    }

    /// Returns the names that `verify` must report.
    fn wrong(&self) -> BTreeSet<String> {
        let Some(manifest) = self.manifest.as_ref().filter(|manifest| manifest.complete) else {
            return BTreeSet::from(["not complete".to_string()]);
        };
        let mut wrong = BTreeSet::new();
        let mut contents = BTreeSet::new();
        for (name, content) in &manifest.files {
            if self.outputs.get(name) != Some(content) || !contents.insert(content) {
                wrong.insert(name.clone());
            }
        }
        wrong.extend(manifest.failed.iter().cloned());
        let is_listed =
            |name: &&Name| manifest.files.contains_key(*name) || manifest.failed.contains(*name);
        wrong.extend(self.outputs.keys().filter(|n| !manifest.files.contains_key(*n)).cloned());
        let is_given = |name: &&Name| {
            self.given.iter().any(|g| g.as_deref().is_none_or(|night| night == night_of(name)))
        };
        let archive = self.archive.keys();
        wrong.extend(archive.filter(is_given).filter(|name| !is_listed(name)).cloned());
        wrong
    }

    /// Returns whether only failed inputs are reported.
    fn only_failed(&self, wrong: &BTreeSet<String>) -> bool {
        let Some(manifest) = &self.manifest else { return false };
        let is_unlisted =
            |name: &String| self.outputs.contains_key(name) && !manifest.files.contains_key(name);
        wrong.iter().all(|name| manifest.failed.contains(name) && !is_unlisted(name))
    }
}

fn night_of(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// Returns the files of a shard: longest first, each to the shard with the fewest bytes so far.
fn part(listed: &Files, disk: &BTreeMap<Name, OnDisk>, (k, n): (usize, usize)) -> BTreeSet<Name> {
    let mut order: Vec<&Name> = listed.keys().collect();
    order.sort_by(|a, b| disk[*b].bytes.cmp(&disk[*a].bytes).then(a.cmp(b)));
    let mut load = vec![0; n];
    let mut mine = BTreeSet::new();
    for name in order {
        let least = (0..n).min_by_key(|i| load[*i]).unwrap_or(0);
        load[least] += disk[name].bytes;
        if least == k {
            mine.insert(name.clone());
        }
    }
    mine
}

/// A sequence: archive, output folder, and their expected state.
struct Sequence {
    folder: TempDir,
    stream: Stream,
    drawn: u64,
    model: Model,
    next: Content,
    shards: usize,
    extension: &'static str,
    /// Operations so far, for the message of a failure.
    history: String,
    killed: usize,
    /// Whether the last kill has left temporary files, which the next scoring removes.
    leaves_parts: bool,
}

impl Sequence {
    fn new(number: u64) -> Sequence {
        let stream = Stream::new(seed(), "archive sequences", &[number]);
        let extension = if stream.bits(u64::MAX).is_multiple_of(4) { "csv" } else { "h5" };
        let mut sequence = Sequence {
            folder: folder(),
            stream,
            drawn: 0,
            model: Model::default(),
            next: 0,
            shards: 2,
            extension,
            history: format!("seed {}, sequence {number}, {extension}\n", seed()),
            killed: 0,
            leaves_parts: false,
        };
        for run in 0..4 {
            sequence.write(&format!("night-{}/run-{run}", run / 2));
        }
        sequence
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.drawn += 1;
        self.stream.bits(self.drawn) % below
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("scores")
    }

    fn input(&self, name: &str) -> PathBuf {
        self.archive().join(format!("{name}.h5"))
    }

    fn output_of(&self, name: &str) -> PathBuf {
        self.output().join(format!("{name}.{}", self.extension))
    }

    /// Writes a file with a new content.
    fn write(&mut self, name: &str) {
        self.next += 1;
        let path = self.input(name);
        let _ = std::fs::remove_file(&path);
        simulated(path, Class::Gamma, rows_of(self.next), 1000 + self.next);
        self.model.archive.insert(name.to_string(), self.next);
    }

    fn chosen(&mut self, from: &Files) -> Option<Name> {
        let names: Vec<&Name> = from.keys().collect();
        if names.is_empty() {
            return None;
        }
        let index = self.draw(names.len() as u64) as usize;
        Some(names[index].clone())
    }

    fn new_name(&mut self) -> Name {
        self.next += 1;
        format!("night-{}/run-{}", self.draw(3), 100 + self.next)
    }

    fn scope(&mut self) -> Scope {
        match self.draw(3) {
            0 => Scope::All,
            1 => Scope::Night(format!("night-{}", self.draw(3))),
            _ => {
                let shards = self.shards;
                Scope::Shard(self.draw(shards as u64) as usize, shards)
            }
        }
    }

    fn operation(&mut self) -> Operation {
        let archive = self.model.archive.clone();
        loop {
            let drawn = self.draw(23);
            let operation = match drawn {
                0 | 1 => Some(Operation::Add(self.new_name())),
                2 => self.chosen(&archive).map(Operation::Remove),
                3 => self.chosen(&archive).map(Operation::Change),
                4 | 5 => {
                    let (of, name) = (self.chosen(&archive), self.new_name());
                    let make = if drawn == 4 { Operation::Copy } else { Operation::Link };
                    of.map(|of| make(of, name))
                }
                6..=8 => Some(Operation::Score(Scope::All)),
                9..=14 => Some(Operation::Score(self.scope())),
                15 => Some(Operation::ScoreOnRanks),
                16 => Some(Operation::Overwrite),
                17..=19 => {
                    let after = LATEST_KILL.mul_f64(self.draw(1000) as f64 / 1000.0);
                    Some(match self.draw(4) {
                        0 => Operation::Interrupt(Scope::All, Rerun::Overwrite, after),
                        _ => Operation::Interrupt(self.scope(), Rerun::Keep, after),
                    })
                }
                20 => {
                    let outputs = self.model.outputs.clone();
                    self.chosen(&outputs).map(Operation::DeleteOutput)
                }
                21 => Some(Operation::Forget),
                _ => Some(Operation::Parts(2 + self.draw(2) as usize)),
            };
            if let Some(operation) = operation {
                return operation;
            }
        }
    }

    /// Returns the command line of a scoring.
    fn line(&self, scope: &Scope, rerun: Rerun) -> Vec<OsString> {
        let model = &trained().model;
        let archive = self.archive();
        let format = if self.extension == "csv" { "csv" } else { "hdf5" };
        let mut line = Vec::from(arguments!["score", "-m", model, "-o", self.output()]);
        line.extend(arguments!["--format", format, "--threads", "1"]);
        match rerun {
            Rerun::Keep => {}
            Rerun::Overwrite => line.push("--overwrite".into()),
            Rerun::Forget => line.push("--forget-missing".into()),
        }
        match scope {
            Scope::All => line.push(archive.into()),
            Scope::Night(night) => {
                line.extend(arguments!["--root", &archive, archive.join(night)]);
            }
            Scope::Shard(k, n) => {
                line.extend(arguments!["--shard", format!("{}/{n}", k + 1), archive]);
            }
        }
        line
    }

    fn on_disk(&self) -> BTreeMap<Name, OnDisk> {
        let look = |name: &Name| {
            let metadata = std::fs::metadata(self.input(name)).expect("a file");
            OnDisk { bytes: metadata.len(), inode: metadata.ino() }
        };
        self.model.archive.keys().map(|name| (name.clone(), look(name))).collect()
    }

    fn step(&mut self, operation: &Operation) {
        let _ = writeln!(self.history, "{operation:?}");
        match operation {
            Operation::Add(name) | Operation::Change(name) => self.write(name),
            Operation::Remove(name) => {
                std::fs::remove_file(self.input(name)).expect("a file");
                self.model.archive.remove(name);
            }
            Operation::Copy(of, name) | Operation::Link(of, name) => {
                let (from, to) = (self.input(of), self.input(name));
                std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
                if matches!(operation, Operation::Copy(..)) {
                    std::fs::copy(from, to).expect("a copy");
                } else {
                    std::fs::hard_link(from, to).expect("a link");
                }
                self.model.archive.insert(name.clone(), self.model.archive[of]);
            }
            Operation::Score(scope) => {
                let line = self.line(scope, Rerun::Keep);
                self.scored(&mut program(&line), scope, Rerun::Keep);
            }
            Operation::ScoreOnRanks => {
                let line = self.line(&Scope::All, Rerun::Keep);
                self.scored(&mut ranks(2, &line), &Scope::All, Rerun::Keep);
            }
            Operation::Overwrite | Operation::Forget => {
                let is_overwrite = matches!(operation, Operation::Overwrite);
                let rerun = if is_overwrite { Rerun::Overwrite } else { Rerun::Forget };
                let line = self.line(&Scope::All, rerun);
                self.scored(&mut program(&line), &Scope::All, rerun);
            }
            Operation::Interrupt(scope, rerun, after) => self.interrupt(scope, *rerun, *after),
            Operation::DeleteOutput(name) => {
                std::fs::remove_file(self.output_of(name)).expect("an output");
                self.model.outputs.remove(name);
            }
            Operation::Parts(shards) => self.shards = *shards,
        }
        self.compare();
    }

    fn scored(&mut self, command: &mut Command, scope: &Scope, rerun: Rerun) {
        let disk = self.on_disk();
        let code = self.model.score(scope, rerun, &disk);
        let outcome = run(command);
        let _ = writeln!(self.history, "  → {:?}, expected {code}", outcome.code);
        assert_eq!(outcome.code, Some(code), "{}{}", self.history, outcome.stderr);
        self.leaves_parts &= code == INPUT;
    }

    /// Kills a scoring and reads the state it left. It must be the state before, the state after a
    /// complete scoring, or one between them.
    fn interrupt(&mut self, scope: &Scope, rerun: Rerun, after: Duration) {
        let disk = self.on_disk();
        let before = self.model.clone();
        let mut whole = before.clone();
        let code = whole.score(scope, rerun, &disk);
        let shard = if let Scope::Shard(k, n) = scope { (*k, *n) } else { (0, 1) };
        let part = self.output().join(format!("ledger/{}-of-{}.json", shard.0 + 1, shard.1));
        let part_before = std::fs::read(&part).ok();
        let scoring = Watched::start(&mut program(&self.line(scope, rerun)));
        std::thread::sleep(after);
        kill(scoring.id());
        let ended = scoring.wait().code();
        let _ = writeln!(self.history, "  → {ended:?}");
        assert!(ended.is_none() || ended == Some(code), "{}", self.history);
        self.killed += usize::from(ended.is_none());
        self.leaves_parts = if ended.is_none() {
            has_parts(&self.output())
        } else {
            self.leaves_parts && code == INPUT
        };
        self.model.outputs.clear();
        walk(&self.output(), &self.output(), self.extension, &mut self.model.outputs);
        for (name, content) in &self.model.outputs {
            let known = [before.outputs.get(name), whole.outputs.get(name)];
            assert!(known.contains(&Some(content)), "{}{name}: {content}", self.history);
        }
        let started = std::fs::read_to_string(self.output().join("ledger/started.json"));
        self.model.overwriting = started.is_ok_and(|text| text.contains("\"overwrites\":true"));
        let mut begun = before.clone();
        begun.begin(&before.earlier(&before.listed(scope), scope, false).0, shard);
        let found = self.found_manifest();
        let known = [&before.manifest, &begun.manifest, &whole.manifest];
        assert!(known.contains(&&found), "{}{found:#?}\n{known:#?}", self.history);
        self.model.manifest = found;
        let given = std::fs::read_to_string(self.output().join("ledger/inputs.json"));
        let given = given.map_or(0, |text| text.matches("inputs").count());
        if given == whole.given.len() {
            self.model.given.clone_from(&whole.given);
        } else if given == 0 {
            self.model.given.clear();
        }
        let ledgers = self.output().join("ledger");
        self.model
            .parts
            .retain(|(k, n), _| ledgers.join(format!("{}-of-{n}.json", k + 1)).exists());
        if shard.1 > 1 {
            let left = std::fs::read(&part).ok();
            let of = if left == part_before { &before } else { &whole };
            self.model.parts.remove(&shard);
            if left.is_some() {
                let of = of.parts.get(&shard);
                let of = of.unwrap_or_else(|| panic!("no part was due: {}", self.history));
                self.model.parts.insert(shard, of.clone());
            }
        }
    }

    /// Reads a manifest; the number of rows identifies a content.
    fn read_manifest(&self, path: &Path) -> Option<Manifest> {
        let text = std::fs::read(path).ok()?;
        let read: Value = serde_json::from_slice(&text).expect("JSON");
        let stem = |name: &str| {
            let name = name.strip_suffix(".h5").or(name.strip_suffix(".csv")).unwrap_or(name);
            let below = name.strip_prefix(&*self.archive().to_string_lossy()).unwrap_or(name);
            below.trim_start_matches('/').to_string()
        };
        let mut manifest = Manifest::default();
        for file in read["files"].as_array().expect("files") {
            let rows = file["rows"].as_u64().expect("rows");
            manifest.files.insert(stem(file["output"].as_str().expect("a name")), rows - ROWS);
        }
        manifest.failed =
            read["failed"].as_object().expect("failed").keys().map(|n| stem(n)).collect();
        manifest.complete = read["complete"].as_bool().unwrap_or(true);
        Some(manifest)
    }

    fn found_manifest(&self) -> Option<Manifest> {
        self.read_manifest(&self.output().join("manifest.json"))
    }

    /// Compares outputs, manifest and `verify` with the model.
    fn compare(&self) {
        let mut found = Files::new();
        walk(&self.output(), &self.output(), self.extension, &mut found);
        assert_eq!(found, self.model.outputs, "outputs: {}", self.history);
        assert_eq!(self.found_manifest(), self.model.manifest, "manifest: {}", self.history);
        assert!(self.leaves_parts || !has_parts(&self.output()), "parts: {}", self.history);
    }

    fn verify(&self) {
        let outcome = run(&mut program(&arguments!["verify", self.output()]));
        let wrong = self.model.wrong();
        let code = match () {
            () if self.leaves_parts || !self.model.only_failed(&wrong) => INPUT,
            () if wrong.is_empty() => 0,
            () => PARTIAL,
        };
        let context = format!("{}{wrong:?}\n{}{}", self.history, outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, Some(code), "{context}");
        let complete = self.model.manifest.as_ref().is_some_and(|manifest| manifest.complete);
        for name in wrong.iter().filter(|_| complete) {
            assert!(outcome.stdout.contains(name), "'{name}' is not named: {context}");
        }
    }

    /// Follows the advice of the program until `verify` passes. Then the outputs must equal those
    /// of a scoring from scratch.
    fn finish(&mut self) {
        let archive = self.model.archive.clone();
        let mut seen = BTreeSet::new();
        let copies = archive.iter().filter(|(_, content)| !seen.insert(**content));
        copies.for_each(|(name, _)| self.step(&Operation::Remove(name.clone())));
        let outputs = self.model.outputs.clone();
        for (name, content) in outputs {
            if self.model.archive.get(&name) != Some(&content) {
                self.step(&Operation::DeleteOutput(name));
            }
        }
        if self.model.archive.is_empty() {
            self.step(&Operation::Add("night-0/last".to_string()));
        }
        self.step(&Operation::Forget);
        assert!(self.model.wrong().is_empty(), "{}{:?}", self.history, self.model.wrong());
        self.verify();
        let scratch = self.folder.path().join("scratch");
        let mut line = self.line(&Scope::All, Rerun::Keep);
        line[4].clone_from(&scratch.clone().into());
        succeed(&mut program(&line));
        let bytes = |folder: &Path| {
            let mut all = crate::support::tree(folder);
            all.retain(|name, hash| hash != "/" && !name.starts_with('.'));
            all
        };
        assert_eq!(bytes(&self.output()), bytes(&scratch), "{}", self.history);
    }
}

/// Rows of a file with content 0; the number of rows identifies a content.
const ROWS: u64 = 20;

fn rows_of(content: Content) -> u64 {
    ROWS + content
}

/// Collects the outputs below a folder with their content numbers.
fn walk(root: &Path, folder: &Path, extension: &str, found: &mut Files) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(root, &path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let rows = if extension == "csv" {
                std::fs::read_to_string(&path).expect("a table").lines().count() as u64 - 1
            } else {
                let file = hdf5::File::open(&path).expect("an output");
                file.dataset("scores/score").expect("scores").size() as u64
            };
            let name = path.with_extension("");
            let name = name.strip_prefix(root).expect("below").display().to_string();
            found.insert(name, rows - ROWS);
        }
    }
}

/// Returns whether a kill has left a temporary file of an output or a manifest below a folder.
fn has_parts(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let is_ledger = path.ends_with("ledger");
        if path.is_dir() { !is_ledger && has_parts(&path) } else { is_part(&path) }
    })
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part")
}

#[test]
fn random_sequences_agree_with_the_model() {
    let sequences = repetitions(3, 200);
    let (mut steps, mut killed) = (0, 0);
    for number in 0..sequences as u64 {
        let mut sequence = Sequence::new(number);
        for _ in 0..STEPS {
            let operation = sequence.operation();
            sequence.step(&operation);
            sequence.verify();
            steps += 1;
        }
        sequence.finish();
        killed += sequence.killed;
        if number % 20 == 19 {
            print_line(&format!("archive sequences: {} of {sequences} so far", number + 1));
        }
    }
    print_line(&format!(
        "archive sequences: {sequences} of {sequences} agree with the model: {steps} operations, {killed} kills (seed {})",
        seed()
    ));
}

/// Runs a fixed sequence of operations.
fn scripted(operations: &[Operation]) -> Sequence {
    let mut sequence = Sequence::new(0);
    for operation in operations {
        sequence.step(operation);
        sequence.verify();
    }
    sequence
}

const ALL: Operation = Operation::Score(Scope::All);

#[test]
fn added_hard_link_is_named_by_verify() {
    let link = Operation::Link("night-0/run-0".to_string(), "night-1/run-9".to_string());
    scripted(&[ALL, link]).finish();
}

#[test]
fn removed_failed_input_stays_until_forgotten() {
    let name = || "night-0/run-0".to_string();
    let (change, remove) = (Operation::Change(name()), Operation::Remove(name()));
    let delete = Operation::DeleteOutput(name());
    let sequence = scripted(&[ALL, change, ALL, remove, delete, ALL, Operation::Forget]);
    assert!(sequence.model.wrong().is_empty(), "{}", sequence.history);
}

#[test]
fn killed_overwrite_is_resumed_without_the_flag() {
    let soon = Duration::from_millis(1);
    for after in [50, 100, 150, 200, 300] {
        let overwrite = Operation::Interrupt(Scope::All, Rerun::Overwrite, soon * after);
        let change = Operation::Change("night-1/run-2".to_string());
        scripted(&[ALL, change, overwrite, ALL]).finish();
    }
}

#[test]
fn leftover_parts_are_removed_by_the_next_run() {
    let mut sequence = scripted(&[ALL]);
    // Temporary files of a different host: no process holds the lock.
    let names = ["manifest.json", "night-0/run-0.h5", "ledger/1-of-2.json"];
    let parts = names.map(|name| sequence.output().join(format!("{name}.0123abcd-4194305.part")));
    let own = sequence.output().join("ledger/notes.part");
    for path in parts.iter().chain([&own]) {
        std::fs::write(path, "torn").expect("a leftover");
    }
    sequence.step(&ALL);
    assert!(parts.iter().all(|part| !part.exists()));
    std::fs::remove_file(own).expect("a file of somebody else");
    sequence.verify();
}
