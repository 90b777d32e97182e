//! Counts all score files of a folder, distributed over the ranks.

use super::counting::candidates::{BestCandidates, Candidate};
use super::counting::counts::{RunCounts, RunKey};
use super::counting::labels::Labels;
use super::counting::repeated::CountedEvents;
use super::counting::scan::{Scanned, scan};
use super::folder::{Folder, ScoreFileEntry};
use super::plan::SeasonPlan;
use crate::comm::{Communicator, Work, gather_values, mark_shared, sync_result};
use crate::config::SeasonSettings;
use crate::error::{Error, Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most files that an error names.
const NAMED: usize = 20;

/// Counts of a folder.
#[derive(Debug, Default)]
pub struct Counted {
    pub runs: BTreeMap<RunKey, RunCounts>,
    pub candidates: Vec<Candidate>,
    /// Score files that could not be used, with the reason.
    pub failed: BTreeMap<String, String>,
    /// Warning about all events.
    pub warning: Option<String>,
    /// Events of known class.
    pub labels: Labels,
}

/// Counts of one rank, as they are sent.
#[derive(Serialize, Deserialize)]
struct RankCounts {
    runs: Vec<(RunKey, RunCounts)>,
    candidates: Vec<Candidate>,
    failed: Vec<(String, u8, String)>,
    events: CountedEvents,
    labels: Labels,
}

/// Reads all files of a folder, each on one rank. Every rank gets the counts, which do not depend on
/// the order of reading. Files that cannot be used are listed.
///
/// # Errors
/// The error of the first file if no file can be used; `Input` for duplicate events.
pub fn count(
    comm: &dyn Communicator,
    folder: &Folder,
    plan: &SeasonPlan,
    settings: &SeasonSettings,
) -> Result<Counted> {
    let mut mine = CountCollector {
        runs: BTreeMap::new(),
        best: BestCandidates::new(plan.candidates),
        events: CountedEvents::default(),
        labels: Labels::default(),
    };
    let (mut failed, mut fatal) = (Vec::new(), Ok(()));
    for file in folder.of_rank(comm.rank(), comm.size()) {
        let path = &file.path;
        let is_same = file.refuse_altered(|| comm.progress(Work::Hashing, 0));
        let scanned = is_same.and_then(|()| scan(path, &file.name, plan, settings));
        let outcome = scanned.and_then(|scanned| {
            let events: u64 = scanned.runs.values().map(|run| run.sum().events).sum();
            // In a simulation only gammas count.
            if events != file.rows && !plan.simulated {
                return Err(Fault::new("the rows are not those of the manifest")
                    .file(path)
                    .expected(file.rows)
                    .found(events)
                    .advice("verify the scores, and score again")
                    .input());
            }
            Ok(scanned)
        });
        match outcome {
            Ok(mut scanned) => {
                let by_name = |known: &ScoreFileEntry| known.name.cmp(&file.name);
                let index = folder.files.binary_search_by(by_name);
                scanned.events.of_file(index.unwrap_or_default());
                mine.take(scanned);
            }
            Err(error @ (Error::Environment(_) | Error::Internal(_))) => {
                fatal = Err(error);
                break;
            }
            Err(error) => {
                failed.push((file.name.clone(), error.exit_code(), error.to_string()));
            }
        }
    }
    sync_result(comm, fatal)?;
    let of_rank = RankCounts {
        runs: mine.runs.into_iter().collect(),
        candidates: mine.best.finish(),
        failed,
        events: mine.events,
        labels: mine.labels,
    };
    let (mut counted, events) = merge(comm, &of_rank, plan, folder.files.len())?;
    if !settings.allow_repeated_events {
        counted.warning = mark_shared(events.refuse_repeated(&folder.files, plan.simulated))?;
    }
    Ok(counted)
}

struct CountCollector {
    runs: BTreeMap<RunKey, RunCounts>,
    best: BestCandidates,
    events: CountedEvents,
    labels: Labels,
}

impl CountCollector {
    fn take(&mut self, scanned: Scanned) {
        for (key, counts) in scanned.runs {
            self.runs.entry(key).or_default().merge(&counts);
        }
        self.best.extend(scanned.best.finish());
        self.events.merge(scanned.events);
        self.labels.merge(scanned.labels);
    }
}

fn merge(
    comm: &dyn Communicator,
    mine: &RankCounts,
    plan: &SeasonPlan,
    files: usize,
) -> Result<(Counted, CountedEvents)> {
    let mut counted = Counted::default();
    let mut best = BestCandidates::new(plan.candidates);
    let mut failed = Vec::new();
    let mut events = CountedEvents::default();
    for of_rank in gather_values(comm, mine)? {
        for (key, counts) in of_rank.runs {
            counted.runs.entry(key).or_default().merge(&counts);
        }
        best.extend(of_rank.candidates);
        failed.extend(of_rank.failed);
        events.merge(of_rank.events);
        counted.labels.merge(of_rank.labels);
    }
    counted.candidates = best.finish();
    failed.sort();
    if let (true, Some((_, code, text))) = (failed.len() == files, failed.first()) {
        return mark_shared(Err(Error::from_code(*code, Fault::new(text.clone()))));
    }
    counted.failed = failed.into_iter().map(|(file, _, text)| (file, text)).collect();
    Ok((counted, events))
}

/// Returns the files that could not be scored or read, with the reason.
pub fn not_in_figures(folder: &Folder, counted: &Counted) -> BTreeMap<String, String> {
    let of_scoring = folder.failed.iter().map(|(file, why)| (file.clone(), why.to_string()));
    of_scoring.chain(counted.failed.clone()).collect()
}

/// Refuses scores with more than `allowed` missing files.
///
/// # Errors
/// `Partial`, with the names of the files.
pub fn refuse_failed(folder: &Folder, counted: &Counted, allowed: usize) -> Result<()> {
    let failed = not_in_figures(folder, counted);
    let total = folder.files.len() + folder.failed.len();
    if failed.len() <= allowed {
        return Ok(());
    }
    let more = if failed.len() > NAMED { "; …" } else { "" };
    let named: Vec<String> =
        failed.iter().take(NAMED).map(|(file, why)| format!("{file}: {why}")).collect();
    let fault =
        Fault::new(format!("{} of {total} files could not be scored or read", failed.len()))
            .file(&folder.label)
            .expected(format!("at most {allowed} (--allow-failed)"))
            .found(format!("{}{more}", named.join("; ")))
            .advice(format!(
                "mend these files and score again, or leave them out with --allow-failed {}",
                failed.len()
            ));
    Err(Error::Partial(Box::new(fault)))
}
