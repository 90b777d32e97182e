//! Heartbeats: one small file per rank in a folder that all ranks see.
//!
//! The monitor of a rank writes its file several times within a deadline; the other ranks read it.
//! This needs no message from a rank that has failed, no port and no extra memory of MPI. It works
//! wherever the output folder is shared, and costs nothing per step. The files are not outputs:
//! they are not synced, have no meaning after the job, and are overwritten or removed by the next
//! one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the folder within the output folder.
pub(crate) const FOLDER: &str = ".ranks";
/// Every file has this length, so that a reader never finds it cut short.
const RECORD_BYTES: usize = 256;

/// State of the main thread of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Work between collectives.
    Working,
    /// Waiting in a collective.
    Waiting(Collective),
    /// Finished in order; the rank will call no more collectives.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collective {
    Reduce,
    Gather,
    Broadcast,
    Barrier,
}

/// Phases of a command, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Start,
    Hashing,
    Reading,
    Training,
    Measuring,
    Scoring,
    Extracting,
}

const CALLS: [(Collective, &str); 4] = [
    (Collective::Reduce, "all-reduce"),
    (Collective::Gather, "all-gather"),
    (Collective::Broadcast, "broadcast"),
    (Collective::Barrier, "barrier"),
];

const WORKS: [(Work, &str); 7] = [
    (Work::Start, "starting"),
    (Work::Hashing, "hashing"),
    (Work::Reading, "reading"),
    (Work::Training, "training"),
    (Work::Measuring, "measuring"),
    (Work::Scoring, "scoring"),
    (Work::Extracting, "extracting"),
];

impl Collective {
    pub(crate) fn of(code: usize) -> Collective {
        CALLS.get(code).map_or(Collective::Barrier, |(call, _)| *call)
    }

    pub(crate) fn name(self) -> &'static str {
        CALLS[self as usize].1
    }
}

impl Work {
    pub(crate) fn of(code: usize) -> Work {
        WORKS.get(code).map_or(Work::Start, |(work, _)| *work)
    }
}

/// State of a rank, as written in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Number of records written.
    pub beat: u64,
    /// Number of collectives entered.
    pub entered: u64,
    pub activity: Activity,
    /// Number of progress reports.
    pub ticks: u64,
    pub work: Work,
    /// Step, row or file of the work.
    pub at: u64,
    pub process: u32,
    pub host: String,
}

impl Record {
    /// Formats the record; `job` distinguishes files of earlier jobs.
    fn to_line(&self, job: u64) -> String {
        let activity = match self.activity {
            Activity::Working => "working",
            Activity::Waiting(call) => call.name(),
            Activity::Left => "left",
        };
        let Record { beat, entered, ticks, at, process, host, .. } = self;
        let work = WORKS[self.work as usize].1;
        let host: String = host.chars().take(64).collect();
        format!("{job:016x} {beat} {entered} {activity} {ticks} {work} {at} {process} {host} .\n")
    }

    /// Returns `None` for a line that is torn, belongs to a different job, or is not a record.
    fn from_line(line: &str, job: u64) -> Option<Record> {
        let (of, record) = Record::parse(line)?;
        (of == job).then_some(record)
    }

    /// Returns a record and its job.
    fn parse(line: &str) -> Option<(u64, Record)> {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next();
        let job = u64::from_str_radix(next()?, 16).ok()?;
        let (beat, entered) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let activity = match next()? {
            "working" => Activity::Working,
            "left" => Activity::Left,
            call => Activity::Waiting(CALLS.iter().find(|(_, name)| *name == call)?.0),
        };
        let ticks = next()?.parse().ok()?;
        let work = next()?;
        let work = WORKS.iter().find(|(_, name)| *name == work)?.0;
        let (at, process) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let host = next()?.to_string();
        let record = Record { beat, entered, activity, ticks, work, at, process, host };
        (next()? == ".").then_some((job, record))
    }

    /// Returns the last position, such as "in step 17" of training.
    pub(crate) fn place(&self) -> String {
        match self.work {
            Work::Start => "at the start".to_string(),
            Work::Training => format!("in step {}", self.at),
            Work::Measuring => format!("measuring after step {}", self.at),
            Work::Hashing => format!("hashing file {}", self.at + 1),
            Work::Reading => format!("reading, at row {}", self.at),
            Work::Scoring => format!("scoring, at row {} of a file", self.at),
            Work::Extracting => format!("extracting, at image {} of a file", self.at),
        }
    }
}

/// The folder with the files of the ranks.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeats {
    folder: PathBuf,
    job: u64,
}

impl Heartbeats {
    pub(crate) fn within(output: &Path, job: u64) -> Heartbeats {
        Heartbeats { folder: output.join(FOLDER), job }
    }

    /// Creates the folder, or empties that of an earlier job.
    pub(crate) fn clear(output: &Path) -> io::Result<()> {
        let folder = output.join(FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&folder)
    }

    /// Returns whether the folder has been removed.
    pub(crate) fn are_gone(&self) -> bool {
        !self.folder.exists()
    }

    /// Removes the folder with its content.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }

    /// Opens and closes the file each time: on NFS this makes a change visible to other nodes.
    pub(crate) fn post(&self, rank: usize, record: &Record) -> io::Result<()> {
        let mut line = record.to_line(self.job).into_bytes();
        line.resize(RECORD_BYTES, b' ');
        let path = self.path(rank);
        OpenOptions::new().create(true).write(true).truncate(false).open(path)?.write_all(&line)
    }

    /// Returns the last complete record of a rank in this job.
    pub(crate) fn read(&self, rank: usize) -> Option<Record> {
        let mut text = String::new();
        let file = File::open(self.path(rank)).ok()?;
        file.take(RECORD_BYTES as u64).read_to_string(&mut text).ok()?;
        Record::from_line(&text, self.job)
    }

    fn path(&self, rank: usize) -> PathBuf {
        self.folder.join(format!("rank-{rank}"))
    }
}

/// The last heartbeat of a rank, as seen from outside of the job.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct RankStatus {
    pub rank: usize,
    pub host: String,
    pub process: u32,
    /// Last position: "in step 17".
    pub place: String,
    /// Optimiser steps taken, during training.
    pub step: Option<u64>,
    /// Age of the heartbeat by the clock of this machine [s].
    pub age_s: Option<f64>,
}

/// Returns the heartbeats in an output folder, of any job, by rank.
pub(crate) fn read_heartbeats(output: &Path) -> Vec<RankStatus> {
    let entries = fs::read_dir(output.join(FOLDER)).into_iter().flatten().flatten();
    let mut statuses: Vec<RankStatus> = entries.filter_map(|entry| read_status(&entry)).collect();
    statuses.sort_by_key(|status| status.rank);
    statuses
}

/// Reads the heartbeat of a file; `None` for other files and torn records.
fn read_status(entry: &fs::DirEntry) -> Option<RankStatus> {
    let rank = entry.file_name().to_str()?.strip_prefix("rank-")?.parse().ok()?;
    let mut text = String::new();
    let file = File::open(entry.path()).ok()?;
    let changed = file.metadata().ok()?.modified().ok()?;
    file.take(RECORD_BYTES as u64).read_to_string(&mut text).ok()?;
    let (_, record) = Record::parse(&text)?;
    let trains = matches!(record.work, Work::Training | Work::Measuring);
    Some(RankStatus {
        rank,
        place: record.place(),
        step: trains.then_some(record.at),
        age_s: Some(changed.elapsed().unwrap_or_default().as_secs_f64()),
        host: record.host,
        process: record.process,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            beat: 7,
            entered: 1234,
            activity: Activity::Waiting(Collective::Gather),
            ticks: 99,
            work: Work::Training,
            at: 57,
            process: 4242,
            host: "node-7".to_string(),
        }
    }

    #[test]
    fn tables_have_the_order_of_their_codes() {
        assert!(CALLS.iter().enumerate().all(|(i, (call, _))| *call as usize == i));
        assert!(WORKS.iter().enumerate().all(|(i, (work, _))| *work as usize == i));
    }

    #[test]
    fn records_are_read_by_the_same_job_only() {
        let folder = tempfile::tempdir().unwrap();
        Heartbeats::clear(folder.path()).unwrap();
        let heartbeats = Heartbeats::within(folder.path(), 0xfeed);
        assert_eq!(heartbeats.read(2), None);
        for activity in [Activity::Working, Activity::Left, Activity::Waiting(Collective::Barrier)]
        {
            let posted = Record { activity, beat: 1 << 60, host: "x".repeat(64), ..record() };
            heartbeats.post(2, &posted).unwrap();
            assert_eq!(heartbeats.read(2), Some(posted));
        }
        assert_eq!(Heartbeats::within(folder.path(), 0xbeef).read(2), None);
        Heartbeats::clear(folder.path()).unwrap();
        assert_eq!(heartbeats.read(2), None);
    }

    #[test]
    fn heartbeats_of_any_job_are_read_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_heartbeats(folder.path()), []);
        Heartbeats::clear(folder.path()).unwrap();
        let heartbeats = Heartbeats::within(folder.path(), 77);
        for rank in [10, 2] {
            heartbeats.post(rank, &record()).unwrap();
        }
        std::fs::write(folder.path().join(FOLDER).join("rank-3"), "torn").unwrap();
        let signs = read_heartbeats(folder.path());
        assert_eq!(signs.iter().map(|s| s.rank).collect::<Vec<_>>(), [2, 10]);
        assert_eq!((signs[0].host.as_str(), signs[0].step), ("node-7", Some(57)));
        assert_eq!(signs[0].place, "in step 57");
    }

    #[test]
    fn torn_record_is_none() {
        let line = record().to_line(3);
        assert_eq!(Record::from_line(&line, 3), Some(record()));
        for cut in 0..line.len() - 2 {
            assert_eq!(Record::from_line(&line[..cut], 3), None, "{cut}");
        }
    }
}
