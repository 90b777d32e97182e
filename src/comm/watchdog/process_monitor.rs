//! Monitors the processes of the job on this node, without MPI.
//!
//! There are no ranks before `MPI_Init`, and no heartbeats (`watchdog`) before an output folder is
//! open or after the last collective. A process that is stopped or lost then leaves the others
//! waiting inside the library. So a thread of each rank reads in `/proc` the processes that the
//! same launcher has started on its node. A process that is stopped or gone for half of the
//! deadline ends the job with exit code 5; the message names rank, host and process. A start of MPI
//! that takes longer than the deadline or [`SHORTEST`], and an end that takes longer than the
//! deadline or [`LEAVING`], end the job too. Then a rank on another node is missing, which this
//! node cannot name. While heartbeats are read, which are more specific, this thread pauses.
//!
//! As in `watchdog`, time is counted in turns of the watching thread, so that a job that is
//! suspended as a whole finds no stopped process when it resumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::state::{GRACE, SILENT_SHARE, pause_of};
use crate::comm::host::{environment_rank, host};
use crate::error::{Error, Fault, Result};
use crate::terminal::print_error;

/// Shortest time after which an unknown rank is missed: large jobs start slowly.
const SHORTEST: Duration = Duration::from_secs(60);
/// Shortest time at the end, where rank 0 may still be writing a page on the work of all ranks.
const LEAVING: Duration = Duration::from_secs(600);
/// Head start of the first waiting process for its message, before the others print theirs.
const HEAD_START: Duration = Duration::from_secs(2);
/// Largest environment of a process that is read [bytes].
const LARGEST_ENVIRONMENT: usize = 4 << 20;

/// Phase of this process with respect to MPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In `MPI_Init`, or before all ranks are connected.
    Start,
    /// Between the start and the end of MPI, without heartbeats.
    Work,
    /// Heartbeats are read.
    Watched,
    /// In `MPI_Finalize`.
    End,
    /// Nothing is monitored any more.
    Over,
}

/// Monitor of the processes of this node; dropping it ends it.
pub(crate) struct ProcessMonitor {
    shared: Arc<MonitorState>,
}

struct MonitorState {
    phase: Mutex<Phase>,
    news: Condvar,
}

impl ProcessMonitor {
    /// Starts the monitor; without a deadline it does nothing. `abort` ends all ranks while MPI is
    /// running.
    pub(crate) fn watch(deadline: Option<Duration>, abort: fn(u8) -> !) -> Result<ProcessMonitor> {
        let shared =
            Arc::new(MonitorState { phase: Mutex::new(Phase::Start), news: Condvar::new() });
        let monitor = ProcessMonitor { shared: Arc::clone(&shared) };
        let (Some(deadline), Some(job)) = (deadline, JobProcesses::own()) else {
            return Ok(monitor);
        };
        let watcher = Watcher {
            shared,
            job,
            pause: pause_of(deadline),
            limit: deadline.mul_f64(SILENT_SHARE),
            longest: deadline.max(SHORTEST),
            abort,
        };
        std::thread::Builder::new()
            .name("processes".to_string())
            .spawn(move || watcher.run())
            .map_err(|error| Fault::new("cannot start a thread").found(error).environment())?;
        Ok(monitor)
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        *self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.shared.news.notify_all();
    }
}

impl Drop for ProcessMonitor {
    fn drop(&mut self) {
        self.enter(Phase::Over);
    }
}

/// Properties shared by the processes of one job on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct JobProcesses {
    /// The job name of the launcher; without one, the processes have the same parent.
    name: Option<String>,
    parent: u32,
    /// Device and inode of the program.
    program: (u64, u64),
}

/// A process of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: u32,
    /// Time of its start, because process numbers are reused.
    started: u64,
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

impl Stat {
    fn of(process: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Parses a line; the program name, in parentheses, may contain blanks and parentheses.
    fn parse(text: &str) -> Option<Stat> {
        let mut words = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = words.next()?.chars().next()?;
        let parent = words.next()?.parse().ok()?;
        let started = words.nth(17)?.parse().ok()?;
        Some(Stat { state, parent, started })
    }

    fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

impl JobProcesses {
    /// Returns the job of this process.
    fn own() -> Option<JobProcesses> {
        JobProcesses::of(std::process::id()).map(|(job, _)| job)
    }

    /// Returns the job of a process, and its rank there.
    fn of(process: u32) -> Option<(JobProcesses, usize)> {
        let program = fs::metadata(format!("/proc/{process}/exe")).ok()?;
        let bytes = fs::read(format!("/proc/{process}/environ")).ok()?;
        if bytes.len() > LARGEST_ENVIRONMENT {
            return None;
        }
        let variables: BTreeMap<&str, &str> = bytes
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
            .collect();
        let lookup = |name: &str| variables.get(name).map(|value| (*value).to_string());
        let name = lookup("PMIX_NAMESPACE")
            .or_else(|| Some(format!("{}.{}", lookup("SLURM_JOB_ID")?, lookup("SLURM_STEP_ID")?)));
        let (parent, rank) = (Stat::of(process)?.parent, environment_rank(lookup)?);
        Some((JobProcesses { name, parent, program: (program.dev(), program.ino()) }, rank))
    }

    /// Returns whether a process with these properties belongs to the job.
    fn has(&self, other: &JobProcesses) -> bool {
        let together = match (&self.name, &other.name) {
            (Some(own), Some(other)) => own == other,
            (None, None) => self.parent == other.parent,
            _ => false,
        };
        together && self.program == other.program
    }

    /// Returns the processes of this job on this node, by rank. Processes of other users are not
    /// readable, and do not belong to this job.
    fn processes(&self) -> BTreeMap<usize, Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter_map(|id| {
            let (_, rank) = JobProcesses::of(id).filter(|(job, _)| self.has(job))?;
            Some((rank, Process { id, started: Stat::of(id)?.started }))
        })
        .collect()
    }
}

/// History of a process.
#[derive(Debug, Default)]
struct ProcessHistory {
    stopped: Duration,
    gone: Duration,
    /// Run time in the account of the scheduler.
    ran: Option<String>,
}

impl ProcessHistory {
    /// Adds a state that was read after `elapsed` more time of watching. A process that was
    /// continued briefly in between has run.
    fn look(&mut self, stat: Option<Stat>, ran: Option<String>, elapsed: Duration) {
        let grown = |is: bool, time: Duration| if is { time + elapsed } else { Duration::ZERO };
        let stopped = stat.is_some_and(|stat| stat.state == 'T') && ran == self.ran;
        self.stopped = grown(stopped, self.stopped);
        self.gone = grown(stat.is_none_or(Stat::is_dead), self.gone);
        self.ran = ran;
    }
}

struct Watcher {
    shared: Arc<MonitorState>,
    job: JobProcesses,
    pause: Duration,
    limit: Duration,
    longest: Duration,
    abort: fn(u8) -> !,
}

impl Watcher {
    /// Monitors the processes until the phase is over; ends the job when one is missing.
    fn run(self) {
        let (mut known, mut seen) = (BTreeMap::new(), BTreeMap::new());
        let (mut last, mut spent) = (Phase::Start, Duration::ZERO);
        let mut turn = Instant::now();
        loop {
            let phase = self.shared.next(self.pause, last);
            // A longer turn means that this process itself was stopped.
            let elapsed = turn.elapsed().min(2 * self.pause);
            turn = Instant::now();
            let before = std::mem::replace(&mut last, phase);
            spent = if phase == before { spent + elapsed } else { Duration::ZERO };
            if phase == Phase::Over {
                return;
            }
            // At the end of the start all processes are present, and no further ones come.
            if before == Phase::Start {
                known.extend(self.job.processes());
            }
            if phase == Phase::Watched {
                seen.clear();
                continue;
            }
            read_all(&known, &mut seen, elapsed);
            if let Some(complaint) = self.complaint(phase, spent, &known, &seen) {
                self.end(phase, &known, &seen, &complaint);
            }
        }
    }

    /// Returns the error to report, if there is one.
    fn complaint(
        &self,
        phase: Phase,
        spent: Duration,
        known: &BTreeMap<usize, Process>,
        seen: &BTreeMap<usize, ProcessHistory>,
    ) -> Option<Error> {
        // A rank that has nothing left to do may leave before the others.
        let patience = match phase {
            Phase::Start => self.limit,
            Phase::Work => self.limit.max(SHORTEST),
            _ => Duration::MAX,
        };
        let missing: Vec<String> = seen
            .iter()
            .filter_map(|(rank, seen)| {
                Some(describe(*rank, known.get(rank)?, self.fault_of(seen, patience)?))
            })
            .collect();
        if !missing.is_empty() {
            let what = match phase {
                Phase::Start => "a rank is missing from the start of MPI",
                Phase::End => "a rank is missing from the end of MPI, after all work was done",
                _ => "a rank is missing from the work",
            };
            return Some(
                Fault::new(what)
                    .found(missing.join("; "))
                    .advice("check that node, exclude it if it is broken, and run the same command again")
                    .environment(),
            );
        }
        let (what, longest) = match phase {
            Phase::Start => ("MPI does not start", self.longest),
            Phase::End => ("MPI does not end, after all work was done", self.longest.max(LEAVING)),
            _ => return None,
        };
        (spent >= longest).then(|| {
            let ranks: Vec<String> = known.keys().map(ToString::to_string).collect();
            Fault::new(what)
                .expected(format!("less than {} s", longest.as_secs()))
                .found(format!("ranks {} present on {}", ranks.join(", "), host()))
                .advice(
                    "a rank on another node is missing, or the nodes cannot reach each other: check the messages \
                     of the launcher and the network",
                )
                .environment()
        })
    }

    /// Returns the fault of a process and its duration: stopped for the limit, or gone for
    /// `patience`.
    fn fault_of(
        &self,
        seen: &ProcessHistory,
        patience: Duration,
    ) -> Option<(&'static str, Duration)> {
        match seen {
            seen if seen.stopped >= self.limit => Some(("has been stopped for", seen.stopped)),
            seen if seen.gone >= patience => Some(("has been gone for", seen.gone)),
            _ => None,
        }
    }

    /// Ends the job; the first process that still runs prints the reason.
    fn end(
        &self,
        phase: Phase,
        known: &BTreeMap<usize, Process>,
        seen: &BTreeMap<usize, ProcessHistory>,
        complaint: &Error,
    ) -> ! {
        let runs = |rank: &&usize| {
            seen.get(rank).is_some_and(|seen| seen.stopped.is_zero() && seen.gone.is_zero())
        };
        let first = known.keys().find(runs).and_then(|rank| known.get(rank));
        if first.is_some_and(|first| first.id != std::process::id()) {
            std::thread::sleep(HEAD_START);
        }
        print_error(complaint);
        let code = complaint.exit_code();
        if phase == Phase::Work {
            std::thread::spawn(move || {
                std::thread::sleep(GRACE);
                signal_hook::low_level::exit(i32::from(code))
            });
            (self.abort)(code)
        }
        // MPI must not be called while it starts or ends; the launcher ends the other ranks.
        signal_hook::low_level::exit(i32::from(code))
    }
}

/// Describes a process with a fault, for messages.
fn describe(rank: usize, process: &Process, (fault, time): (&str, Duration)) -> String {
    let (host, time) = (host(), time.as_secs_f64());
    format!("rank {rank} on {host} (process {}) {fault} {time:.1} s", process.id)
}

impl MonitorState {
    /// Returns the phase after a pause, or sooner if it differs from `last`.
    fn next(&self, pause: Duration, last: Phase) -> Phase {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(phase, pause, |phase| *phase == last);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Adds the present state of all known processes to their histories.
fn read_all(
    known: &BTreeMap<usize, Process>,
    seen: &mut BTreeMap<usize, ProcessHistory>,
    elapsed: Duration,
) {
    for (rank, process) in known {
        let stat = Stat::of(process.id).filter(|stat| stat.started == process.started);
        let ran = fs::read_to_string(format!("/proc/{}/schedstat", process.id)).ok();
        seen.entry(*rank).or_default().look(stat, ran, elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(100);

    fn stat(state: char) -> Stat {
        Stat { state, parent: 1, started: 7 }
    }

    #[test]
    fn name_with_blanks_and_parentheses_is_parsed() {
        let text =
            "4242 (a ) b (c) T 17 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";
        assert_eq!(Stat::parse(text), Some(Stat { state: 'T', parent: 17, started: 987_654 }));
        for cut in ["", "4242 (a", "4242 (a) T", "4242 (a) T 17 1 2 3"] {
            assert_eq!(Stat::parse(cut), None, "{cut}");
        }
        let own = Stat::of(std::process::id()).expect("this process");
        assert!(!own.is_dead() && own.started > 0);
    }

    #[test]
    fn briefly_continued_process_is_slow_not_stopped() {
        let mut seen = ProcessHistory::default();
        for turn in 0..10 {
            seen.look(Some(stat('T')), Some(format!("{turn}")), TURN);
        }
        assert_eq!((seen.stopped, seen.gone), (Duration::ZERO, Duration::ZERO));
        for _ in 0..3 {
            seen.look(Some(stat('T')), Some("9".to_string()), TURN);
        }
        assert_eq!(seen.stopped, 3 * TURN);
        seen.look(Some(stat('S')), Some("9".to_string()), TURN);
        assert_eq!(seen.stopped, Duration::ZERO);
        for state in ['Z', 'X'] {
            seen.look(Some(stat(state)), None, TURN);
        }
        seen.look(None, None, TURN);
        assert_eq!(seen.gone, 3 * TURN);
    }

    fn watcher(limit: Duration) -> Watcher {
        Watcher {
            shared: Arc::new(MonitorState {
                phase: Mutex::new(Phase::Start),
                news: Condvar::new(),
            }),
            job: JobProcesses { name: None, parent: 1, program: (0, 0) },
            pause: TURN,
            limit,
            longest: SHORTEST,
            abort: |_| panic!("aborted"),
        }
    }

    #[test]
    fn only_stopped_or_gone_processes_are_named() {
        let watcher = watcher(Duration::from_secs(2));
        let known: BTreeMap<usize, Process> =
            (0..3).map(|rank| (rank, Process { id: 100 + rank as u32, started: 1 })).collect();
        let with = |stopped: u64, gone: u64| {
            let (stopped, gone) = (Duration::from_secs(stopped), Duration::from_secs(gone));
            BTreeMap::from([
                (0, ProcessHistory::default()),
                (2, ProcessHistory { stopped, gone, ran: None }),
            ])
        };
        let complaint = |phase: Phase, spent: u64, seen: &BTreeMap<usize, ProcessHistory>| {
            let found = watcher.complaint(phase, Duration::from_secs(spent), &known, seen);
            found.map(|error| (error.exit_code(), error.to_string()))
        };
        for (phase, what) in [
            (Phase::Start, "the start of MPI"),
            (Phase::Work, "a rank is missing"),
            (Phase::End, "the end of MPI"),
        ] {
            let (code, text) = complaint(phase, 3, &with(2, 0)).expect("a complaint");
            assert_eq!(code, 5);
            for part in [what, "rank 2 on ", &host(), "(process 102) has been stopped for 2.0 s"] {
                assert!(text.contains(part), "'{part}' is not in: {text}");
            }
            assert_eq!(complaint(phase, 3, &with(1, 0)), None);
        }
        let (_, text) = complaint(Phase::Start, 3, &with(0, 2)).expect("a complaint");
        assert!(text.contains("has been gone for"), "{text}");
        assert_eq!(complaint(Phase::Work, 30, &with(0, 30)), None);
        assert!(complaint(Phase::Work, 70, &with(0, 61)).is_some());
        assert_eq!(complaint(Phase::End, 30, &with(0, 30)), None);
        // Of other nodes it is only known that their ranks do not arrive.
        for (phase, limit) in [(Phase::Start, 60), (Phase::End, 600)] {
            assert_eq!(complaint(phase, limit - 1, &with(0, 0)), None);
            let (_, text) = complaint(phase, limit, &with(0, 0)).expect("a complaint");
            assert!(text.contains("ranks 0, 1, 2 present on"), "{text}");
        }
        assert_eq!(complaint(Phase::Work, 6000, &with(0, 0)), None);
    }
}
