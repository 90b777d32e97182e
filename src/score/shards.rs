//! Parts of an archive that are scored by jobs of their own, without MPI: `--shard I/N`.
//!
//! A part is a function of the list of files alone. Each has a manifest of its own in the
//! folder of the ledger; whoever finishes and finds all others finished writes the manifest of
//! the whole, the very bytes of an undivided scoring.

use super::{MANIFEST, Options, Summary, ledger};
use crate::data::durable;
use crate::error::{Fault, Result};
use crate::world::World;
use std::path::{Path, PathBuf};

/// Index and number of this rank's part, among the ranks of all shards.
pub fn part_of(world: &dyn World, options: &Options) -> (usize, usize) {
    let (shard, shards) = options.shard;
    (shard * world.size() + world.rank(), shards * world.size())
}

/// Makes ready for a part on so many ranks: with `--overwrite` its ledgers begin anew.
pub fn prepare(options: &Options, ranks: usize) -> Result<()> {
    let (shard, shards) = options.shard;
    let folder = options.output.join(ledger::FOLDER);
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

/// Writes the manifest of a scoring; of a part, and of the whole if no other is missing.
pub fn write_manifest(options: &Options, summary: &Summary) -> Result<()> {
    let target = options.output.join(MANIFEST);
    let (shard, shards) = options.shard;
    if shards == 1 {
        return durable::write_file(&target, &summary.to_bytes()?);
    }
    durable::write_file(&manifest_of(options, shard), &summary.to_bytes()?)?;
    let mut whole = Summary { files: Vec::new(), rows: 0, ..summary.clone() };
    for other in 0..shards {
        match Summary::read(&manifest_of(options, other))? {
            Some(part) if part.model_blake3 == whole.model_blake3 => {
                whole.rows += part.rows;
                whole.files.extend(part.files);
                whole.failed.extend(part.failed);
            }
            _ => return Ok(()),
        }
    }
    whole.files.sort_by(|a, b| a.output.cmp(&b.output));
    // Two parts may end at once: each writes the same bytes under a name of its own first.
    let own = manifest_of(options, shard).with_extension("whole");
    durable::write_file(&own, &whole.to_bytes()?)?;
    durable::move_to(&own, &target)
}
