//! Takes up files that an extraction could not read: their events are missing from the scores too.
//!
//! An input that is the output folder of `extract` has a manifest, which names them.

use super::{LARGEST_MANIFEST, MANIFEST, Options};
use crate::data::report::FailedFile;
use crate::error::{Fault, Result};
use crate::world::{World, is_root};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How the format of an extraction's manifest begins.
const FORMAT: &str = "taiga-flow-extraction";

#[derive(Deserialize)]
struct Manifest {
    format: String,
    #[serde(default)]
    failed: BTreeMap<String, FailedFile>,
}

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
        for (input, file) in read(&path).map(|manifest| manifest.failed).unwrap_or_default() {
            let reason = format!("was not extracted: {}", file.reason);
            let output = path.display().to_string();
            failed.insert(input, FailedFile { output, reason, ..file });
        }
    }
    failed
}

/// Any other manifest, or none, says nothing.
fn read(path: &Path) -> Option<Manifest> {
    let length = std::fs::metadata(path).ok()?.len();
    let text = std::fs::read(path).ok().filter(|_| length <= LARGEST_MANIFEST)?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    manifest.format.starts_with(FORMAT).then_some(manifest)
}
