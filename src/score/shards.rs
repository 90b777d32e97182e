//! Parts of an archive that separate jobs score without MPI (`--shard I/N`).
//!
//! A part depends on the list of files alone. Each part has its own manifest in the folder of the
//! ledger. The part that finishes last merges them: the manifest of the whole has the same bytes as
//! that of an undivided scoring.

use super::earlier::{self, EarlierScores};
use super::{MANIFEST, Options, ScoredFile, Summary};
use crate::comm::Communicator;
use crate::dataset::assignment::Assignment;
use crate::dataset::output::earlier::has_recorded_length;
use crate::dataset::output::ledger;
use crate::error::{Error, Fault, Result};
use crate::storage;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Returns the index of this rank and the number of ranks, over all shards.
pub fn part_of(comm: &dyn Communicator, options: &Options) -> (usize, usize) {
    let (shard, shards) = options.shard;
    (shard * comm.size() + comm.rank(), shards * comm.size())
}

/// Refuses to overwrite a part of outputs that were scored with another number of parts: their
/// ledgers would be wrong.
///
/// # Errors
/// `Usage`.
pub fn refuse_other_parts(options: &Options, ranks: usize) -> Result<()> {
    let folder = options.output.join(ledger::FOLDER);
    let parts = options.shard.1 * ranks;
    if options.shard.1 == 1 || !folder.is_dir() {
        return Ok(());
    }
    match ledger_names(options)?.into_iter().find(|name| !is_of(name, parts)) {
        Some(name) => Err(Fault::new("the outputs were scored with another number of parts")
            .file(folder.join(name))
            .expected(format!("ledgers of {parts} parts"))
            .advice(
                "score them again with the same --shard I/N and ranks, or all at once with --overwrite",
            )
            .usage()),
        None => Ok(()),
    }
}

/// Removes the manifest of this part on `ranks` ranks, and its ledgers if all files that they list
/// are scored again.
pub fn begin(options: &Options, ranks: usize, clears_ledgers: bool) -> Result<()> {
    let (shard, shards) = options.shard;
    if shards == 1 {
        return if clears_ledgers { ledger::remove_all(&options.output) } else { Ok(()) };
    }
    storage::remove_file(&manifest_of(options, shard))?;
    let parts = shards * ranks;
    let own = (shard * ranks..(shard + 1) * ranks).filter(|_| clears_ledgers);
    let folder = options.output.join(ledger::FOLDER);
    let mut own = own.map(|part| folder.join(format!("{}-of-{parts}.jsonl", part + 1)));
    own.try_for_each(|path| storage::remove_file(&path))
}

fn ledger_names(options: &Options) -> Result<Vec<String>> {
    let folder = options.output.join(ledger::FOLDER);
    let entries = std::fs::read_dir(&folder)
        .map_err(|e| Fault::new("cannot list").file(&folder).found(e).environment())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| ledger::is_ledger(Path::new(name))).collect())
}

fn is_of(ledger: &str, shards: usize) -> bool {
    ledger.strip_suffix(".jsonl").is_some_and(|name| name.ends_with(&format!("-of-{shards}")))
}

fn manifest_of(options: &Options, shard: usize) -> PathBuf {
    let name = format!("{}-of-{}.json", shard + 1, options.shard.1);
    options.output.join(ledger::FOLDER).join(name)
}

/// Returns a hash of the names, lengths and modification times of the files of all parts. Parts
/// with different lists are not merged.
pub fn listing_hash(listed: &Assignment) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(listed.jobs.len());
    for job in &listed.jobs {
        let changed = std::fs::metadata(&job.input).map_or((0, 0), |m| (m.mtime(), m.mtime_nsec()));
        lines.push(format!("{:?} {} {}.{:09}", job.name, job.bytes, changed.0, changed.1));
    }
    lines.sort_unstable();
    blake3::hash(lines.join("\n").as_bytes()).to_hex().to_string()
}

/// Returns the error of parts that were scored from different lists of files, or by different models
/// or settings.
fn parts_differ(manifest: &Path, different: &[usize], shards: usize) -> Error {
    let again: Vec<String> = different.iter().map(|i| format!("{}/{shards}", i + 1)).collect();
    let fault =
        Fault::new("the parts were scored from different lists of files, or otherwise differ")
            .file(manifest)
            .expected("the files, model and settings of this part")
            .found("others: the archive has grown or shrunk, or the command was different")
            .advice(format!("score again: --shard {}", again.join(", --shard ")));
    Error::Partial(Box::new(fault))
}

/// Writes the manifest of a part, and that of the whole if all parts are finished. Returns the
/// manifest of the whole, or of the part if others are unfinished.
///
/// # Errors
/// `Partial` if another part was scored from a different list of files, so that some files may
/// be in both parts or in neither, or if outputs of a different part are missing. No manifest of the
/// whole is written then.
pub fn write_manifest(
    options: &Options,
    summary: &Summary,
    earlier: &EarlierScores,
    listing: &str,
) -> Result<Summary> {
    let target = options.output.join(MANIFEST);
    let (shard, shards) = options.shard;
    if shards == 1 {
        let whole = earlier::merged(earlier, summary.clone());
        storage::write_if_changed(&target, &whole.to_bytes()?)?;
        return Ok(whole);
    }
    let entries = ledger::read(&options.output)?.entries;
    let own = Summary { listing: Some(listing.to_string()), ..summary.clone() };
    storage::write_if_changed(&manifest_of(options, shard), &own.to_bytes()?)?;
    let mut whole = Summary { files: Vec::new(), rows: 0, ..summary.clone() };
    let (mut unfinished, mut different, mut gone) = (false, Vec::new(), Vec::new());
    for other in 0..shards {
        match Summary::read(&manifest_of(options, other))? {
            Some(part) if part.listing != own.listing || !part.is_like(summary) => {
                different.push(other);
            }
            Some(part) => {
                let is_gone = |file: &&ScoredFile| {
                    has_recorded_length(&options.output, *file, &entries) == Some(false)
                };
                gone.extend(
                    part.files.iter().find(is_gone).map(|file| (other, file.output.clone())),
                );
                whole.files.extend(part.files);
                whole.failed.extend(part.failed);
            }
            None => unfinished = true,
        }
    }
    if let Some(first) = different.first() {
        return Err(parts_differ(&manifest_of(options, *first), &different, shards));
    }
    if let Some((part, output)) = gone.first() {
        let fault =
            Fault::new("an output of a different part was changed or removed since it was written")
                .file(options.output.join(output))
                .advice(format!("score again: --shard {}/{shards}", part + 1));
        return Err(Error::Partial(Box::new(fault)));
    }
    if unfinished {
        return Ok(own);
    }
    // Two parts may end at once: each writes the same bytes, to a temporary file of its process.
    let whole = earlier::merged(earlier, whole);
    storage::write_if_changed(&target, &whole.to_bytes()?)?;
    Ok(whole)
}
