//! Checks of everything that must be the same on all ranks, before any work.
//!
//! Ranks that differ cause no failure but wrong results. A different binary or configuration on one
//! node gives different sums; a folder that is not shared scatters outputs over local disks. The
//! checks report all of it before the first step, with the hosts that differ.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Communicator, host, is_root, mark_shared, sync_result};
use crate::error::{Fault, Result, path_text};

/// Name of the file that rank 0 creates in the output folder for the other ranks to read.
pub const MARK: &str = ".seen";
/// Clock differences from which a warning is logged, and from which the job is refused: heartbeats
/// and ends of jobs are checked with limits below a minute.
const SKEW: Duration = Duration::from_secs(2);
const MAX_SKEW: Duration = Duration::from_secs(30);
/// Time within which a file of one rank must be visible to the others (NFS caches folders).
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);

/// Refuses ranks whose value of `what` differs; `mine` is the text or a hash of it.
///
/// # Errors
/// `Environment`, with the values and their ranks, on all ranks.
pub fn same_on_all(comm: &dyn Communicator, what: &str, mine: &str, advice: &str) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let all = comm.all_gather(format!("{}\n{mine}", host()).as_bytes())?;
    let Some(found) = describe_differences(&all) else { return Ok(()) };
    mark_shared(Err(Fault::new(format!("{what} is not the same on all ranks"))
        .found(found)
        .advice(advice)
        .environment()))
}

/// Refuses ranks that run different builds of the program.
///
/// # Errors
/// As [`same_on_all`].
pub fn same_program(comm: &dyn Communicator) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let path = std::env::current_exe().map_or_else(|_| "it".into(), |path| path_text(&path));
    // If the file cannot be read (deleted, no /proc), only the version is compared.
    let hash =
        std::fs::read("/proc/self/exe").map(|bytes| blake3::hash(&bytes).to_hex().to_string());
    let mine = format!(
        "version {} {}",
        env!("CARGO_PKG_VERSION"),
        hash.map_or_else(|_| "unread".to_string(), |hash| hash[..16].to_string())
    );
    let advice = format!(
        "start the same file on every node, from a file system that all nodes share; this rank runs {path}"
    );
    same_on_all(comm, "the program", &mine, &advice)
}

/// Describes the values if they differ, the most frequent one first, with ranks and hosts.
fn describe_differences(all: &[Vec<u8>]) -> Option<String> {
    let mut by_value: BTreeMap<&[u8], Vec<String>> = BTreeMap::new();
    for (rank, message) in all.iter().enumerate() {
        let line = message.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let host = String::from_utf8_lossy(&message[..line]);
        by_value
            .entry(&message[(line + 1).min(message.len())..])
            .or_default()
            .push(format!("rank {rank} on {host}"));
    }
    if by_value.len() < 2 {
        return None;
    }
    let mut groups: Vec<(&[u8], Vec<String>)> = by_value.into_iter().collect();
    groups.sort_by_key(|(_, ranks)| std::cmp::Reverse(ranks.len()));
    Some(groups.iter().map(group_text).collect::<Vec<_>>().join("; "))
}

/// Formats a value and the ranks that have it.
fn group_text((value, ranks): &(&[u8], Vec<String>)) -> String {
    let value: String = String::from_utf8_lossy(value).chars().take(80).collect();
    let more =
        if ranks.len() > 4 { format!(" and {} more", ranks.len() - 4) } else { String::new() };
    format!("'{value}' of {}{more}", ranks[..ranks.len().min(4)].join(", "))
}

/// Refuses ranks whose clocks differ by much, and warns if they differ by little: ends of jobs,
/// times of files and heartbeats are then wrong.
///
/// # Errors
/// `Environment`, on all ranks.
pub fn compare_clocks(comm: &dyn Communicator) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    comm.barrier()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let all = comm.all_gather(format!("{} {}", now.as_millis(), host()).as_bytes())?;
    let texts: Vec<String> = all.iter().map(|t| String::from_utf8_lossy(t).to_string()).collect();
    let Some((difference, difference_text)) = skew(&texts) else { return Ok(()) };
    if difference > MAX_SKEW {
        return mark_shared(Err(Fault::new("the clocks of the ranks differ")
            .expected(format!("at most {} s", MAX_SKEW.as_secs()))
            .found(difference_text)
            .advice("set the clocks of the nodes (NTP, chrony), or exclude that node: the end of the job and heartbeats depend on the clock")
            .environment()));
    }
    if is_root(comm) {
        log::warn!(
            "{difference_text}: times of log lines and files, and the end of the job, are inaccurate"
        );
    }
    Ok(())
}

/// Returns the largest difference of `milliseconds host` from rank 0, with its description, if it
/// exceeds `SKEW`.
fn skew(all: &[String]) -> Option<(Duration, String)> {
    let read = |text: &String| {
        let (time, host) = text.split_once(' ')?;
        Some((time.parse::<i128>().ok()?, host.to_string()))
    };
    let clocks: Vec<(i128, String)> = all.iter().filter_map(read).collect();
    let (first, _) = clocks.first()?;
    let (rank, (time, host)) =
        clocks.iter().enumerate().max_by_key(|(_, (time, _))| (time - first).unsigned_abs())?;
    let ahead = time - first;
    let difference = Duration::from_millis(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX));
    (difference > SKEW).then(|| {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let seconds = difference.as_secs_f64();
        (
            difference,
            format!(
                "the clock of rank {rank} on {host} is {seconds:.1} s {direction} that of rank 0"
            ),
        )
    })
}

/// Refuses an output folder that a rank does not see. Rank 0 passes the folder, which exists.
///
/// # Errors
/// `Environment`, on all ranks.
pub fn shared_folder(comm: &dyn Communicator, folder: Option<&Path>) -> Result<()> {
    let mark = folder.map(|folder| {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        absolute.join(MARK)
    });
    if comm.size() == 1 {
        // A killed job may have left the file.
        let _ = mark.map(std::fs::remove_file);
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let word = format!("{} {} {}", host(), std::process::id(), now.as_nanos());
    let created = mark.as_ref().map_or(Ok(()), |mark| std::fs::write(mark, &word));
    if let (Err(_), Some(mark)) = (&created, &mark) {
        // The file may exist without content.
        let _ = std::fs::remove_file(mark);
    }
    let cannot = |error: std::io::Error| {
        let fault = Fault::new("cannot write in the output folder").found(error);
        mark.as_ref().map_or(fault.clone(), |mark| fault.file(mark)).environment()
    };
    sync_result(comm, created.map_err(cannot))?;
    let mut message = mark.as_ref().map_or_else(Vec::new, |mark| {
        [word.as_bytes(), b"\n", mark.as_os_str().as_encoded_bytes()].concat()
    });
    comm.broadcast(&mut message)?;
    let outcome = match decode_mark(&message) {
        Some((word, path)) if !is_visible(path, word, VISIBLE_WITHIN) => Err(unseen(path)),
        _ => Ok(()),
    };
    let outcome = sync_result(comm, outcome);
    // The file is not an output.
    let _ = mark.map(std::fs::remove_file);
    outcome
}

/// Returns the word and the path of the file of rank 0; `None` without a folder.
fn decode_mark(message: &[u8]) -> Option<(&[u8], &Path)> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    Some((&message[..end], Path::new(OsStr::from_bytes(&message[end + 1..]))))
}

/// Waits until the file is visible with the content of this job, not of an earlier one.
fn is_visible(mark: &Path, word: &[u8], within: Duration) -> bool {
    let since = Instant::now();
    // Reading the folder makes network file systems refresh it. A missing parent folder will not
    // appear either.
    while !std::fs::read(mark).is_ok_and(|found| found == word) {
        let folder = mark.parent().unwrap_or(Path::new("/"));
        let there = std::fs::read_dir(folder).is_ok_and(|entries| entries.count() > 0);
        if since.elapsed() >= if there { within } else { within / 6 } {
            return false;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    true
}

fn unseen(mark: &Path) -> crate::error::Error {
    Fault::new("the output folder is not shared by all ranks")
        .file(mark.parent().unwrap_or(mark))
        .expected("the file that rank 0 has just created in it")
        .found(format!("no such file on {}", host()))
        .advice("choose a folder on a file system that all nodes of the job share, not one on a local disk")
        .environment()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{SingleRank, Threads};

    #[test]
    fn differing_ranks_are_named_with_their_values() {
        let outcomes = Threads::run(5, |comm| {
            let mine = if comm.rank() == 3 { "odd" } else { "even" };
            same_on_all(comm, "the configuration", mine, "copy it")
        });
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.exit_code(), 5);
            let text = error.to_string();
            for part in ["the configuration is not the same", "'odd' of rank 3 on ", "copy it"] {
                assert!(text.contains(part), "'{part}' is not in: {text}");
            }
        }
        for outcome in Threads::run(3, |comm| same_on_all(comm, "x", "same", "")) {
            outcome.unwrap();
        }
    }

    #[test]
    fn skewed_clock_is_reported_slow_message_is_not() {
        let times =
            |other: i64| vec!["1000000 a".to_string(), format!("{} node7", 1_000_000 + other)];
        assert_eq!(skew(&times(1500)), None);
        assert_eq!(skew(&times(-1999)), None);
        let (difference, difference_text) = skew(&times(-65_250)).unwrap();
        assert_eq!(difference.as_millis(), 65_250);
        assert!(
            difference_text.contains("rank 1 on node7")
                && difference_text.contains("65.2 s behind"),
            "{difference_text}"
        );
        assert!(skew(&times(3000)).unwrap().1.contains("3.0 s ahead of"));
    }

    #[test]
    fn existing_folder_is_visible_and_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        for outcome in
            Threads::run(3, |comm| shared_folder(comm, is_root(comm).then_some(folder.path())))
        {
            outcome.unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mark = folder.path().join(MARK);
        let short = Duration::from_millis(600);
        assert!(!is_visible(&folder.path().join("nowhere/mark"), b"word", short));
        // The file of an earlier job proves nothing about this one.
        std::fs::write(&mark, "another").unwrap();
        assert!(!is_visible(&mark, b"word", short) && is_visible(&mark, b"another", short));
        shared_folder(&SingleRank, Some(folder.path())).unwrap();
        assert!(!mark.exists());
    }
}
