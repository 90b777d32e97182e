//! Takes up files that an extraction could not read: their events are missing from the scores too.
//!
//! An input that is the output folder of `extract` has a manifest, which names them.

use super::{MANIFEST, Options};
use crate::data::report::FailedFile;
use crate::error::{Fault, Result};
use crate::extract;
use crate::world::{World, is_root};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Returns the manifests that the inputs would have as outputs of `extract`.
pub fn manifests(options: &Options) -> Vec<PathBuf> {
    options.inputs.iter().filter(|input| input.is_dir()).map(|dir| dir.join(MANIFEST)).collect()
}

/// Returns the files that extractions of the inputs could not read, by their path; the same on all
/// ranks. Of several shards, the first one takes them up.
pub fn failed(world: &dyn World, options: &Options) -> Result<BTreeMap<String, FailedFile>> {
    let is_first = options.shard.0 == 0;
    let own = if is_root(world) && is_first { read_all(options) } else { BTreeMap::new() };
    let broken = |e: serde_json::Error| Fault::new("cannot exchange findings").found(e).internal();
    let mut bytes = serde_json::to_vec(&own).map_err(broken)?;
    world.broadcast(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(broken)
}

fn read_all(options: &Options) -> BTreeMap<String, FailedFile> {
    let mut failed = BTreeMap::new();
    for path in manifests(options) {
        // Any other manifest, or none, says nothing.
        let Ok(Some(extraction)) = extract::Summary::read(&path) else { continue };
        for (input, file) in FailedFile::of_reasons(&extraction.failed) {
            let reason = format!("was not extracted: {}", file.reason);
            let output = path.display().to_string();
            failed.insert(input, FailedFile { output, reason, ..file });
        }
    }
    failed
}
