//! Parts of an archive that are scored by jobs of their own, without MPI: `--shard I/N`.
//!
//! A part is a function of the list of files alone. Each has a manifest of its own in the
//! folder of the ledger; whoever finishes and finds all others finished writes the manifest of
//! the whole, the very bytes of an undivided scoring.

use super::earlier::{self, Earlier};
use super::{MANIFEST, Options, Summary};
use crate::data::assign::Assignment;
use crate::data::durable;
use crate::data::ledger;
use crate::error::{Error, Fault, Result};
use crate::world::World;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Index and number of this rank's part, among the ranks of all shards.
pub fn part_of(world: &dyn World, options: &Options) -> (usize, usize) {
    let (shard, shards) = options.shard;
    (shard * world.size() + world.rank(), shards * world.size())
}

/// Prepares a part on so many ranks. With `--overwrite` its ledgers are removed, unless they
/// also list files of earlier runs that stay.
pub fn prepare(options: &Options, ranks: usize, has_earlier: bool) -> Result<()> {
    let (shard, shards) = options.shard;
    let folder = options.output.join(ledger::FOLDER);
    if has_earlier {
        return Ok(());
    }
    if shards == 1 && options.overwrite {
        return durable::remove_folder(&folder);
    }
    if shards > 1 && options.overwrite && folder.is_dir() {
        let parts = shards * ranks;
        let others = ledger_names(options)?.into_iter().find(|name| !is_of(name, parts));
        if let Some(name) = others {
            return Err(Fault::new("the outputs were made in other parts")
                .file(folder.join(name))
                .expected(format!("ledgers of {parts} parts"))
                .advice(
                    "score them again with the same --shard I/N and ranks, or all at once with --overwrite",
                )
                .usage());
        }
        let mut own = (shard * ranks..(shard + 1) * ranks)
            .map(|part| folder.join(format!("{}-of-{parts}.jsonl", part + 1)));
        return own.try_for_each(|path| durable::remove_file(&path));
    }
    Ok(())
}

/// From here on an older manifest of this part would not tell the truth.
pub fn begin(options: &Options) -> Result<()> {
    if options.shard.1 > 1 {
        durable::remove_file(&manifest_of(options, options.shard.0))?;
    }
    Ok(())
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

/// Returns a hash of the files that all parts together score: names, lengths and times of
/// change. Parts with different lists do not make a whole.
pub fn listing_hash(listed: &Assignment) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(listed.jobs.len());
    for job in &listed.jobs {
        let changed = std::fs::metadata(&job.input).map_or((0, 0), |m| (m.mtime(), m.mtime_nsec()));
        lines.push(format!("{:?} {} {}.{:09}", job.name, job.bytes, changed.0, changed.1));
    }
    lines.sort_unstable();
    blake3::hash(lines.join("\n").as_bytes()).to_hex().to_string()
}

/// Writes the manifest of a part, and that of the whole if all parts are finished.
///
/// # Errors
/// `Partial` if another part was scored from a different list of files: then some files may
/// be in both parts or in neither, and there is no manifest of the whole.
pub fn write_manifest(
    options: &Options,
    summary: &Summary,
    earlier: &Earlier,
    listing: &str,
) -> Result<()> {
    let target = options.output.join(MANIFEST);
    let (shard, shards) = options.shard;
    if shards == 1 {
        let whole = earlier::merged(earlier, summary.clone());
        return durable::write_if_changed(&target, &whole.to_bytes()?);
    }
    let own = Summary { listing: Some(listing.to_string()), ..summary.clone() };
    durable::write_if_changed(&manifest_of(options, shard), &own.to_bytes()?)?;
    let mut whole = Summary { files: Vec::new(), rows: 0, ..summary.clone() };
    let (mut unfinished, mut different) = (false, Vec::new());
    for other in 0..shards {
        match Summary::read(&manifest_of(options, other))? {
            Some(part) if part.listing != own.listing || !part.is_like(summary) => {
                different.push(other);
            }
            Some(part) => {
                whole.files.extend(part.files);
                whole.failed.extend(part.failed);
            }
            None => unfinished = true,
        }
    }
    if let Some(first) = different.first() {
        let again: Vec<String> = different.iter().map(|i| format!("{}/{shards}", i + 1)).collect();
        let fault =
            Fault::new("the parts were scored from different lists of files, or otherwise differ")
                .file(manifest_of(options, *first))
                .expected("the files, model and settings of this part")
                .found("others: the archive has grown or shrunk, or the command was different")
                .advice(format!("score again: --shard {}", again.join(", --shard ")));
        return Err(Error::Partial(Box::new(fault)));
    }
    if unfinished {
        return Ok(());
    }
    // Two parts may end at once: each writes the same bytes, under a name of its process first.
    durable::write_if_changed(&target, &earlier::merged(earlier, whole).to_bytes()?)
}
