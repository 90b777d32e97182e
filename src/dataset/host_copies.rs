//! Compares the inputs that the hosts of a job read under the same paths.
//!
//! A host with a separate copy of equal length and other content would train on, or score, events
//! that are not those of the hash in the card. The ranks of each host therefore read a sample of
//! every file: whole files up to 1 MiB, otherwise both ends and blocks at seeded places. Length,
//! modification time and sample are compared; files that differ are then read whole on every host. A
//! copy of equal length and time that differs outside of the sample is not found. On a single host
//! no file is read.

use crate::comm::{Communicator, Work, mark_shared};
use crate::data::files::stamp::{hash_file_with_progress, hash_text};
use crate::error::{Fault, Result};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use taiga_flow_gpu::random::Stream;

/// Largest file that is compared whole [bytes].
const WHOLE: u64 = 1 << 20;
/// Bytes of a block of a sample.
const BLOCK: u64 = 16 << 10;
/// Blocks of a sample: both ends, and seeded ones.
const SEEDED: u64 = 4;
const SEED: u64 = 17;
/// Most files that are compared, evenly spread over a longer list.
const MOST_FILES: usize = 4096;
/// Values shown in a message.
const SHOWN: usize = 16; // letters of a hash

/// Refuses files whose content differs between hosts. A collective: all ranks pass the same list and
/// the name of their host.
///
/// # Errors
/// `Input`, with the first such file and the hosts.
pub(super) fn refuse_different(comm: &dyn Communicator, host: &str, files: &[&Path]) -> Result<()> {
    if comm.size() == 1 || files.is_empty() {
        return Ok(());
    }
    let hosts = Hosts::new(comm, host)?;
    if hosts.count == 1 {
        return Ok(());
    }
    let compared = compared(files.len());
    let sampled = |i: usize| sample(files[i]);
    let suspects = hosts.differing(comm, &compared, &sampled)?;
    let whole = |i: usize| {
        let hash = hash_file_with_progress(files[i], || comm.progress(Work::Hashing, i as u64));
        hash.map_or_else(|error| error.to_string(), |hash| hash_text(&hash))
    };
    let different = hosts.differing(comm, &suspects, &whole)?;
    let Some(first) = different.first() else {
        if comm.rank() == 0 && !suspects.is_empty() {
            log::info!(
                "{} input(s) have other times of change on other hosts, but the same content",
                suspects.len()
            );
        }
        return Ok(());
    };
    // The message needs the values of all hosts.
    let mine = if hosts.place == 0 { format!("{host}\n{}", whole(*first)) } else { String::new() };
    let all = comm.all_gather(mine.as_bytes())?;
    mark_shared(Err(Fault::new("the content of an input is not the same on all hosts")
        .file(files[*first])
        .expected("one content")
        .found(format!("{}; {} file(s) differ", describe_hosts(&all), different.len()))
        .advice("name it by a path on a file system that all nodes of the job share, or copy it to all nodes again")
        .input()))
}

/// Distribution of the ranks over the hosts.
struct Hosts {
    count: u64,
    /// Index of this rank among those of its host, and their number.
    place: usize,
    ranks: usize,
}

impl Hosts {
    fn new(comm: &dyn Communicator, host: &str) -> Result<Hosts> {
        let mut names = comm.all_gather(host.as_bytes())?;
        let is_own = |name: &&Vec<u8>| name.as_slice() == host.as_bytes();
        let place = names[..comm.rank()].iter().filter(is_own).count();
        let ranks = names.iter().filter(is_own).count();
        names.sort_unstable();
        names.dedup();
        Ok(Hosts { count: names.len() as u64, place, ranks })
    }

    /// Returns the files whose values differ between hosts, on all ranks. The files are distributed
    /// over the ranks of each host. Hashes are summed: a host whose hash is not the mean reports it.
    fn differing(
        &self,
        comm: &dyn Communicator,
        files: &[usize],
        value: &dyn Fn(usize) -> String,
    ) -> Result<Vec<usize>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mut own = vec![0_i64; files.len()];
        for slot in (self.place..files.len()).step_by(self.ranks) {
            comm.progress(Work::Hashing, slot as u64);
            let hash = blake3::hash(value(files[slot]).as_bytes());
            own[slot] = i64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]));
        }
        let mut sums = own.clone();
        comm.all_reduce_sum(&mut sums)?;
        let mut differs = vec![0_i64; files.len()];
        for slot in (self.place..files.len()).step_by(self.ranks) {
            let expected = own[slot].wrapping_mul(self.count as i64);
            differs[slot] = i64::from(sums[slot] != expected);
        }
        comm.all_reduce_sum(&mut differs)?;
        let differing = files.iter().zip(differs).filter(|(_, differs)| *differs > 0);
        Ok(differing.map(|(file, _)| *file).collect())
    }
}

/// Returns the indices of the files that are compared.
fn compared(files: usize) -> Vec<usize> {
    let count = files.min(MOST_FILES);
    (0..count).map(|i| i * files / count).collect()
}

/// Returns length, modification time and a hash of blocks of a file, or why it cannot be read.
fn sample(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let data = std::fs::metadata(path)?;
        // Reading a pipe would wait; the reader of the file refuses it.
        if !data.is_file() {
            return Ok("not a regular file".to_string());
        }
        let file = File::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut block = Vec::new();
        for (start, length) in blocks(data.len()) {
            block.resize(length as usize, 0);
            file.read_exact_at(&mut block, start)?;
            hasher.update(&block);
        }
        let changed = format!("{}.{:09}", data.mtime(), data.mtime_nsec());
        Ok(format!("{} {changed} {}", data.len(), hasher.finalize()))
    };
    read().unwrap_or_else(|error| error.to_string())
}

/// Returns start and length of the blocks of a file of this length.
fn blocks(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= WHOLE {
        return vec![(0, bytes)];
    }
    let stream = Stream::new(SEED, "host copies", &[bytes]);
    let last = bytes - BLOCK;
    let seeded = (0..SEEDED).map(|i| (stream.uniform(i) * last as f64) as u64);
    [0, last].into_iter().chain(seeded).map(|start| (start, BLOCK)).collect()
}

/// Describes the hosts by value, those of the majority first.
fn describe_hosts(all: &[Vec<u8>]) -> String {
    let texts = all.iter().map(|message| String::from_utf8_lossy(message).to_string());
    let mut values: Vec<(String, Vec<String>)> = Vec::new();
    for (host, value) in
        texts.filter_map(|t| t.split_once('\n').map(|(h, v)| (h.to_string(), v.to_string())))
    {
        match values.iter_mut().find(|(known, _)| *known == value) {
            Some((_, hosts)) => hosts.push(host),
            None => values.push((value, vec![host])),
        }
    }
    values.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
    let line = |(value, hosts): &(String, Vec<String>)| {
        let hash: String = value.chars().take(SHOWN).collect();
        let more = if hosts.len() > 4 { ", …" } else { "" };
        format!("blake3 {hash}… on {}{more}", hosts[..hosts.len().min(4)].join(", "))
    };
    values.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    /// A folder per host with the same two files, the second of which is long.
    fn copies(hosts: usize) -> (tempfile::TempDir, Vec<Vec<PathBuf>>) {
        let folder = tempfile::tempdir().unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let of_host = |host: usize| {
            let write = |(i, bytes): (usize, u64)| {
                let path = folder.path().join(format!("{host}-{i}.h5"));
                std::fs::write(&path, vec![i as u8; bytes as usize]).unwrap();
                File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
                path
            };
            [5000, WHOLE + 3_000_000].into_iter().enumerate().map(write).collect()
        };
        let paths = (0..hosts).map(of_host).collect();
        (folder, paths)
    }

    /// Compares on `ranks` ranks, assigned to the hosts in turns.
    fn compare(ranks: usize, paths: &[Vec<PathBuf>]) -> Vec<Result<()>> {
        Threads::run(ranks, |comm| {
            let host = comm.rank() % paths.len();
            let own: Vec<&Path> = paths[host].iter().map(PathBuf::as_path).collect();
            refuse_different(comm, &format!("node{host}"), &own)
        })
    }

    fn change(path: &Path, at: u64, keep_time: bool) {
        let file = File::options().write(true).open(path).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&[0xff], at).unwrap();
        if keep_time {
            file.set_modified(time).unwrap();
        }
    }

    #[test]
    fn equal_copies_pass_also_with_other_times() {
        let (_folder, paths) = copies(3);
        File::options()
            .write(true)
            .open(&paths[1][1])
            .unwrap()
            .set_modified(SystemTime::now())
            .unwrap();
        for ranks in [1, 2, 3, 7] {
            assert!(compare(ranks, &paths).iter().all(Result::is_ok), "{ranks} ranks");
        }
    }

    #[test]
    fn different_copy_is_refused_by_file_and_host() {
        for (file, at, keep_time) in
            [(0, 4999, true), (1, WHOLE + 2_999_999, true), (1, 99_999, false)]
        {
            for ranks in [3, 5, 7] {
                let (_folder, paths) = copies(3);
                change(&paths[2][file], at, keep_time);
                for outcome in compare(ranks, &paths) {
                    let error = outcome.unwrap_err();
                    assert_eq!(error.exit_code(), 3);
                    let text = error.to_string();
                    for part in [&format!("-{file}.h5: "), "on node0, node1; ", "on node2"] {
                        assert!(text.contains(part), "'{part}' is not in: {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_host_reads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let outcomes = Threads::run(4, |comm| refuse_different(comm, "node", &[missing.as_path()]));
        assert!(outcomes.iter().all(Result::is_ok));
    }

    #[test]
    fn samples_and_lists_are_bounded() {
        for bytes in [0, 1, WHOLE, WHOLE + 1, 1 << 40] {
            let blocks = blocks(bytes);
            assert!(blocks.iter().all(|(start, length)| start + length <= bytes));
            assert!(blocks.iter().map(|(_, length)| length).sum::<u64>() <= WHOLE);
        }
        for files in [1, 4096, 4097, 1_000_000] {
            let compared = compared(files);
            assert_eq!(compared.len(), files.min(MOST_FILES));
            assert!(compared.is_sorted_by(|a, b| a < b) && compared[compared.len() - 1] < files);
        }
    }
}
