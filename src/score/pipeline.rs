//! The work of one rank: while a block is scored, the next ones are read and prepared and the
//! last ones written, across files too.
//!
//! One thread reads, one prepares, one writes, the rank's own thread scores and does all
//! talking to other ranks. Preparing and scoring share the pool of threads, so that no core
//! waits for the end of either. At most two blocks wait at each place, so that memory does not grow with files, and
//! the memory of blocks goes round: new one would have to be cleared by the system. What
//! goes wrong with a file is told and ends that file; what goes wrong with the disk, the
//! device or another rank ends the work.

use super::extracted::Extracted;
use super::input::{Facts, ScoringInput};
use super::output::{Provenance, ScoreOutput};
use super::scheduler::{Costed, Task, WorkQueue};
use super::scoring_plan::{ScoredRows, ScoringPlan};
use super::{Failure, Options, ScoredFile, ScoringReport, pieces, resume};
use crate::comm::{Communicator, StopFlag, Work};
use crate::data::files::stamp;
use crate::data::schema::Schema;
use crate::data::schema::columns::ColumnSpec;
use crate::data::table::Block;
use crate::dataset::assignment::Assignment;
use crate::dataset::failures::or_lack_of_memory;
use crate::dataset::output::ledger::{Ledger, LedgerEntry};
use crate::dataset::output::reading::ReadingNote;
use crate::engine::{Preparation, Scorer};
use crate::error::{Error, Fault, Result};
use crate::statistics::LikenessTally;
use crate::storage;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel,
    sync_channel,
};
use std::time::{Duration, Instant};

/// Blocks that wait to be scored, or to be written.
const WAITING: usize = 2;
/// A rank asks for more when what is left to it takes less [ns].
const SOON: u64 = 1_000_000_000;
/// Rows of a file that are compared with the training's, in whole blocks.
const COMPARED: u64 = 65_536;
/// How long nothing may happen before messages are looked for again.
const TICK: Duration = Duration::from_millis(2);

/// What the threads of a rank share.
pub struct PipelineContext<'a> {
    pub assignment: &'a Assignment,
    pub options: &'a Options,
    pub plan: &'a ScoringPlan,
    pub model_blake3: &'a str,
    pub extracted: &'a Extracted,
    /// Of each file, where they are known.
    pub pieces: &'a [Vec<(u64, u64)>],
    /// Signs of progress of the threads, for the watchdog.
    pub signs: AtomicU64,
}

/// A task that was begun: what its output is made of.
struct OpenedTask {
    task: Task,
    rows: Range<u64>,
    specs: Vec<ColumnSpec>,
    class: bool,
    made_of: Provenance,
    /// The portable and the exact one of the input.
    stamps: [String; 2],
}

/// What the reading thread hands over, in the order of the files, and then the preparing one.
enum Read<Rows> {
    Begin(Box<OpenedTask>),
    Rows(Rows, u64), // and the first of them in the file
    /// The end of a task, with the warnings of its first rows.
    End(Vec<String>),
    /// A piece that was there already.
    Kept(Task),
    Failed(Task, Error),
}

/// What the writing thread is told.
enum Write {
    Begin(Box<OpenedTask>),
    Rows(Box<ScoredRows>),
    End(Facts),
    Kept(Task),
    Failed(Task, Error),
}

/// What became of a task.
struct Done {
    task: Task,
    outcome: Result<Option<ScoredFile>>,
}

/// Does tasks until none are left; gives what became of the files.
pub fn run(
    comm: &dyn Communicator,
    shared: &PipelineContext,
    scorer: &Scorer,
    pool: &mut WorkQueue,
    (ledger, note): (Ledger, ReadingNote),
    stop: &StopFlag,
) -> Result<ScoringReport> {
    let (to_read, tasks) = channel();
    let (read, blocks) = sync_channel(WAITING);
    let (prepared, ready) = sync_channel(1);
    let (to_write, writes) = sync_channel(WAITING);
    let (done, outcomes) = channel();
    let (used_rows, spare_rows) = channel();
    let (used_blocks, spare_blocks) = channel();
    let preparation = scorer.preparation();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_all(shared, &tasks, &read, &spare_blocks, note));
        let preparing = scope.spawn(move || {
            let spare = (spare_rows, used_blocks);
            prepare_all(shared, preparation, &blocks, &prepared, &spare);
        });
        let writing = scope.spawn(move || write_all(shared, &writes, &done, &used_rows, ledger));
        let scored = RankScoring {
            comm,
            shared,
            scorer,
            stop,
            to_read,
            ready,
            to_write,
            outcomes,
            in_work: 0,
            left: 0,
            signs: 0,
            report: ScoringReport::default(),
            time: Spent::default(),
        }
        .go_on(pool);
        // By now all threads have lost who they wait for, and end.
        let died = |_| Fault::new("a thread of the scoring died").internal();
        reading.join().map_err(died)?;
        preparing.join().map_err(died)?;
        writing.join().map_err(died)??;
        scored
    })
}

/// The rank's own thread.
struct RankScoring<'a, 'b> {
    comm: &'a dyn Communicator,
    shared: &'a PipelineContext<'b>,
    scorer: &'a Scorer,
    stop: &'a StopFlag,
    to_read: Sender<Costed>,
    ready: Receiver<(Read<Box<ScoredRows>>, u64)>,
    to_write: SyncSender<Write>,
    outcomes: Receiver<Done>,
    in_work: usize, // tasks that were begun and are not done
    left: u64,      // cost of what is still to be read
    signs: u64,
    report: ScoringReport,
    time: Spent,
}

/// Where the time of a rank's own thread went.
#[derive(Debug, Default)]
struct Spent {
    rows: u64,
    scoring: Duration,
    /// Of it, in the engine.
    engine: Duration,
}

impl RankScoring<'_, '_> {
    fn go_on(mut self, pool: &mut WorkQueue) -> Result<ScoringReport> {
        // The file that is read, as far as it was looked at; none while one that has failed
        // is passed over.
        let (mut current, mut passed_over): (Option<(Task, Facts)>, Option<Task>) = (None, None);
        // Of the first rows of a file, until they are judged.
        let mut likeness: Option<LikenessTally> = None;
        let started = Instant::now();
        loop {
            self.check_stop()?;
            pool.poll()?;
            self.take_outcomes(pool)?;
            while let Some((task, cost)) = pool.take() {
                self.left += cost;
                self.in_work += 1;
                // A reader that has died tells why when it is joined.
                let _ = self.to_read.send((task, cost));
            }
            if self.left < SOON {
                pool.ask()?;
            }
            if self.in_work == 0 && pool.is_over() {
                let Spent { rows, scoring, engine } = self.time;
                log::debug!(
                    "rank {}: {rows} rows in {:.3} s, {:.3} s of it scoring, of that {:.3} s in the engine",
                    self.comm.rank(),
                    started.elapsed().as_secs_f64(),
                    scoring.as_secs_f64(),
                    engine.as_secs_f64()
                );
                return Ok(self.report);
            }
            self.report_progress();
            let (read, cost) = match self.ready.recv_timeout(TICK) {
                Ok(read) => read,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(self.report),
            };
            self.left = self.left.saturating_sub(cost);
            match read {
                Read::Begin(opened) => {
                    current = Some((opened.task.clone(), Facts::default()));
                    likeness = (opened.rows.start == 0).then(LikenessTally::default);
                    self.write(Write::Begin(opened), pool)?;
                }
                Read::Rows(mut rows, first) => {
                    let Some((task, facts)) = &mut current else { continue };
                    let job = &self.shared.assignment.jobs[task.job()];
                    let plan = self.shared.plan;
                    let (began, before) = (Instant::now(), rows.scored.engine_time);
                    plan.score(self.scorer, &mut rows)?;
                    self.time.rows += rows.block.rows as u64;
                    self.time.scoring += began.elapsed();
                    self.time.engine += rows.scored.engine_time.saturating_sub(before);
                    let looked = match &plan.positions {
                        Some(at) => facts.look(&rows, at, &job.input, first),
                        None => Ok(()),
                    };
                    if let Some(tally) = &mut likeness {
                        plan.compare(&rows, tally);
                    }
                    let enough = first + rows.block.rows as u64 >= COMPARED;
                    let whole = if enough { likeness.take() } else { None };
                    let looked =
                        looked.and_then(|()| self.shared.check_likeness(&job.input, whole));
                    let write = match looked {
                        Ok(()) => Write::Rows(rows),
                        Err(error) => {
                            let task = task.clone();
                            (current, passed_over) = (None, Some(task.clone()));
                            Write::Failed(task, error)
                        }
                    };
                    self.write(write, pool)?;
                }
                Read::End(warnings) => {
                    if let Some((task, mut facts)) = current.take() {
                        facts.warnings = warnings;
                        let input = &self.shared.assignment.jobs[task.job()].input;
                        let write = match self.shared.check_likeness(input, likeness.take()) {
                            Ok(()) => Write::End(facts),
                            Err(error) => Write::Failed(task, error),
                        };
                        self.write(write, pool)?;
                    }
                }
                Read::Kept(task) => self.write(Write::Kept(task), pool)?,
                Read::Failed(task, error) => {
                    current = None;
                    if passed_over.take().as_ref() != Some(&task) {
                        self.write(Write::Failed(task, error), pool)?;
                    }
                }
            }
        }
    }

    /// Hands over to the writing thread; answers other ranks while it is busy.
    fn write(&mut self, mut write: Write, pool: &mut WorkQueue) -> Result<()> {
        loop {
            write = match self.to_write.try_send(write) {
                Err(TrySendError::Full(write)) => write,
                Ok(()) => return Ok(()),
                // Why, is told when the thread is joined.
                Err(TrySendError::Disconnected(_)) => {
                    return Err(Fault::new("the writing thread ended").internal());
                }
            };
            self.check_stop()?;
            pool.poll()?;
            self.take_outcomes(pool)?;
            self.report_progress();
            std::thread::sleep(TICK / 4);
        }
    }

    fn take_outcomes(&mut self, pool: &mut WorkQueue) -> Result<()> {
        loop {
            let Done { task, outcome } = match self.outcomes.try_recv() {
                Ok(done) => done,
                Err(TryRecvError::Empty) => return Ok(()),
                // Why, is told when the thread is joined.
                Err(TryRecvError::Disconnected) => {
                    return Err(Fault::new("the writing thread ended").internal());
                }
            };
            self.in_work -= 1;
            pool.done(&task, outcome.is_ok())?;
            match outcome.map_err(or_lack_of_memory) {
                Ok(file) => self.report.files.extend(file),
                Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                    return Err(error);
                }
                Err(error) => {
                    let input = &self.shared.assignment.jobs[task.job()].input;
                    let failure = Failure::new(input, &error);
                    // Every piece of a bad file may say so.
                    if !self.report.failures.iter().any(|f| f.file == failure.file) {
                        self.report.failures.push(failure);
                    }
                }
            }
        }
    }

    /// The watchdog hears of blocks that were read and written, not of waiting for them.
    fn report_progress(&mut self) {
        let signs = self.shared.signs.load(Ordering::Relaxed);
        // A rank without tasks waits for other ones: for their answer, or for them to end.
        if signs != self.signs || self.in_work == 0 {
            self.comm.progress(Work::Scoring, signs);
        }
        self.signs = signs;
    }

    /// A request to stop ends this rank, and with it the others; finished outputs stay.
    fn check_stop(&self) -> Result<()> {
        self.stop.refuse_if_requested()
    }
}

/// The reading thread: tasks in their order, until nobody has more or wants them.
fn read_all(
    shared: &PipelineContext,
    tasks: &Receiver<Costed>,
    read: &SyncSender<(Read<Block>, u64)>,
    spare: &Receiver<Block>,
    mut note: ReadingNote,
) {
    for (task, cost) in tasks {
        let mut reading = TaskReader { shared, read, spare, cost, wanted: true };
        note.begin(&shared.assignment.jobs[task.job()]);
        let outcome = note.finish(reading.task(&task));
        let end = match outcome {
            Ok(None) => Read::Kept(task),
            Ok(Some(warnings)) => Read::End(warnings),
            Err(error) => Read::Failed(task, error),
        };
        // What is left of the cost goes with the end.
        let rest = reading.cost;
        reading.hand_over(end, rest);
        if !reading.wanted {
            return;
        }
    }
}

struct TaskReader<'a, 'b> {
    shared: &'a PipelineContext<'b>,
    read: &'a SyncSender<(Read<Block>, u64)>,
    spare: &'a Receiver<Block>,
    cost: u64, // that has not been handed over
    wanted: bool,
}

impl TaskReader<'_, '_> {
    fn hand_over(&mut self, read: Read<Block>, cost: u64) {
        let cost = cost.min(self.cost);
        self.cost -= cost;
        self.wanted &= self.read.send((read, cost)).is_ok();
    }

    /// Reads all rows of a task and returns the warnings of the first ones; `None` if an earlier
    /// start has finished it.
    fn task(&mut self, task: &Task) -> Result<Option<Vec<String>>> {
        let PipelineContext { assignment, options, plan, model_blake3, extracted, signs, .. } =
            self.shared;
        let job = &assignment.jobs[task.job()];
        let schema = Schema::for_file(&job.input, options.schema.as_deref())?;
        let mut input = ScoringInput::open(&job.input, &schema, plan)?;
        let settings = resume::settings_hash(model_blake3, &schema, options, plan);
        let stamps = input.stamps();
        let rows = task.rows(input.rows());
        if rows.end > input.rows() {
            return Err(Fault::new("the file is shorter than it was")
                .file(&job.input)
                .expected(format!("{} rows", rows.end))
                .found(input.rows())
                .input());
        }
        let piece = pieces::path_of(&options.output, &job.name, &rows);
        let is_piece = matches!(task, Task::Piece { .. });
        let hashed = || {
            signs.fetch_add(1, Ordering::Relaxed);
        };
        let made_of_piece = (settings.as_str(), stamps[0].as_str());
        if is_piece && pieces::is_finished(&piece, made_of_piece, &rows, hashed) {
            return Ok(None);
        }
        // That of a piece is taken once all pieces are there.
        let hash = if is_piece { String::new() } else { input.hash(hashed)? };
        if !is_piece {
            extracted.refuse_altered(&job.name, &job.input, &hash)?;
        }
        let made_of = Provenance {
            name: job.relative.clone(),
            input: hash,
            model: (*model_blake3).to_string(),
            settings,
        };
        self.hand_over(
            Read::Begin(Box::new(OpenedTask {
                task: task.clone(),
                rows: if matches!(task, Task::Merge { .. }) {
                    0..input.rows()
                } else {
                    rows.clone()
                },
                specs: plan.specs(&input.keys, input.class),
                class: input.class,
                made_of,
                stamps,
            })),
            0,
        );
        let blocks = (rows.end - rows.start).div_ceil(options.block_rows).max(1);
        let cost = self.cost / blocks;
        let mut first = rows.start;
        while first < rows.end && self.wanted {
            let next = (first + options.block_rows).min(rows.end);
            let mut block = self.spare.try_recv().unwrap_or_default();
            input.read(first..next, &mut block)?;
            signs.fetch_add(1, Ordering::Relaxed);
            self.hand_over(Read::Rows(block, first), cost);
            first = next;
        }
        Ok(Some(input.warnings))
    }
}

/// The preparing thread: what comes before the engine, and the memory that goes round.
fn prepare_all(
    shared: &PipelineContext,
    preparation: &Preparation,
    blocks: &Receiver<(Read<Block>, u64)>,
    ready: &SyncSender<(Read<Box<ScoredRows>>, u64)>,
    (spare_rows, used_blocks): &(Receiver<Box<ScoredRows>>, Sender<Block>),
) {
    for (read, cost) in blocks {
        let read = match read {
            Read::Rows(block, first) => {
                let mut rows = spare_rows.try_recv().unwrap_or_default();
                // Nobody waits for a spare block.
                let _ = used_blocks.send(std::mem::replace(&mut rows.block, block));
                shared.plan.prepare(preparation, &mut rows);
                Read::Rows(rows, first)
            }
            Read::Begin(opened) => Read::Begin(opened),
            Read::End(warnings) => Read::End(warnings),
            Read::Kept(task) => Read::Kept(task),
            Read::Failed(task, error) => Read::Failed(task, error),
        };
        if ready.send((read, cost)).is_err() {
            return;
        }
    }
}

/// The writing thread: outputs in the order of their tasks.
fn write_all(
    shared: &PipelineContext,
    writes: &Receiver<Write>,
    done: &Sender<Done>,
    used: &Sender<Box<ScoredRows>>,
    mut ledger: Ledger,
) -> Result<()> {
    // The output that is written; none when it has failed.
    let mut current: Option<(Box<OpenedTask>, Result<ScoreOutput>)> = None;
    for write in writes {
        shared.signs.fetch_add(1, Ordering::Relaxed);
        let (task, outcome) = match write {
            Write::Begin(opened) => {
                let output = shared.create(&opened);
                current = Some((opened, output));
                continue;
            }
            Write::Rows(rows) => {
                if let Some((_, output)) = &mut current {
                    let appended = match output {
                        Ok(open) => open.append(shared.plan, &rows),
                        Err(_) => Ok(()),
                    };
                    match appended {
                        Err(error @ Error::Environment(_)) => return Err(error),
                        Err(error) => *output = Err(error),
                        Ok(()) => {}
                    }
                }
                let _ = used.send(rows);
                continue;
            }
            Write::End(facts) => {
                let Some((opened, output)) = current.take() else { continue };
                let outcome = output.and_then(|o| shared.finish(&opened, o, facts, &mut ledger));
                (opened.task, outcome)
            }
            Write::Kept(task) => (task, Ok(None)),
            Write::Failed(task, error) => {
                let begun = current.take();
                let earlier = begun.and_then(|(_, output)| output.err());
                (task, Err(earlier.unwrap_or(error)))
            }
        };
        let _ = done.send(Done { task, outcome });
    }
    Ok(())
}

impl PipelineContext<'_> {
    /// Warns of a file whose first rows are unlike the events that the model was trained on;
    /// with `--strict` refuses it.
    fn check_likeness(&self, input: &Path, likeness: Option<LikenessTally>) -> Result<()> {
        let Some(found) = likeness.and_then(|tally| self.plan.describe_difference(&tally)) else {
            return Ok(());
        };
        if !self.options.strict {
            log::warn!("{}: {found}; --strict refuses such files", input.display());
            return Ok(());
        }
        Err(Fault::new("the events are unlike those that the model was trained on")
            .file(input)
            .found(found)
            .advice("look at units, telescope and processing; without --strict this is a warning")
            .input())
    }

    /// What stood under the name was looked at before.
    fn create(&self, opened: &OpenedTask) -> Result<ScoreOutput> {
        let PipelineContext { assignment, options, .. } = self;
        let job = &assignment.jobs[opened.task.job()];
        match &opened.task {
            Task::Piece { .. } => {
                let path = pieces::path_of(&options.output, &job.name, &opened.rows);
                ScoreOutput::create(&path, super::Format::Hdf5, &opened.specs, opened.class, true)
            }
            _ => {
                ScoreOutput::create(&job.output, options.format, &opened.specs, opened.class, true)
            }
        }
    }

    fn finish(
        &self,
        opened: &OpenedTask,
        mut output: ScoreOutput,
        facts: Facts,
        ledger: &mut Ledger,
    ) -> Result<Option<ScoredFile>> {
        let PipelineContext { assignment, options, plan, .. } = self;
        let job = &assignment.jobs[opened.task.job()];
        let (rows, made_of) = (opened.rows.end - opened.rows.start, &opened.made_of);
        let report_progress = || {
            self.signs.fetch_add(1, Ordering::Relaxed);
        };
        let facts = match &opened.task {
            Task::Piece { .. } => {
                let stamps = opened.stamps.each_ref().map(String::as_str);
                output.finish_piece(rows, &made_of.settings, stamps, &facts)?;
                let path = pieces::path_of(&options.output, &job.name, &opened.rows);
                pieces::record_hash(&path, report_progress)?;
                return Ok(None);
            }
            Task::File { .. } => facts,
            Task::Merge { job: index } => {
                let path = |(start, end): &(u64, u64)| -> (PathBuf, Range<u64>) {
                    (pieces::path_of(&options.output, &job.name, &(*start..*end)), *start..*end)
                };
                let paths: Vec<_> = self.pieces[*index].iter().map(path).collect();
                let made = (made_of.settings.as_str(), opened.stamps[0].as_str());
                pieces::merge(&paths, made, &opened.specs, &mut output, report_progress)?
            }
        };
        facts.refuse_wrong_geometry(&job.input)?;
        let counts = output.counts.clone();
        output.finish(plan, rows, made_of, &facts)?;
        let output_blake3 =
            stamp::hash_text(&stamp::hash_file_with_progress(&job.output, report_progress)?);
        let file = ScoredFile {
            output: job.name.clone(),
            rows,
            input_blake3: made_of.input.clone(),
            output_blake3,
            unusable: counts.unusable,
            outside: counts.outside,
            implausible_times: counts.implausible_times,
            warnings: facts.warnings.clone(),
            status: counts.by_name(),
        };
        let bytes = std::fs::metadata(&job.output).map_or(0, |m| m.len());
        ledger.add(&LedgerEntry {
            file: file.clone(),
            bytes,
            model_blake3: Some(made_of.model.clone()),
            settings_blake3: made_of.settings.clone(),
            input_stamp: None,
        })?;
        if matches!(opened.task, Task::Merge { .. }) {
            storage::remove_folder(&pieces::folder_of(&options.output, &job.name))?;
        }
        Ok(Some(file))
    }
}
