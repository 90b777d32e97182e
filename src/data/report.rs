//! What became of the files of an archive: each rank's report, put together on all.

use crate::error::{Error, Fault, Result};
use crate::world::{World, common};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// An input that could not be used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub file: String,
    pub exit_code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(input: &Path, error: &Error) -> Failure {
        Failure {
            file: input.display().to_string(),
            exit_code: error.exit_code(),
            text: told_without(error, input),
        }
    }
}

/// The error's text, without the file's name in front.
fn told_without(error: &Error, file: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", file.display())).map_or(text.clone(), str::to_string)
}

/// Finished files, and those that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report<F> {
    pub files: Vec<F>,
    pub failures: Vec<Failure>,
}

impl<F> Default for Report<F> {
    fn default() -> Report<F> {
        Report { files: Vec::new(), failures: Vec::new() }
    }
}

impl<F: Serialize + DeserializeOwned> Report<F> {
    /// All ranks' reports, files in the order of their outputs.
    pub fn gather(&self, world: &dyn World, output: impl Fn(&F) -> &str) -> Result<Report<F>> {
        let broken =
            |e: serde_json::Error| Fault::new("cannot exchange reports").found(e).internal();
        let mut all = Report::default();
        for bytes in world.all_gather(&serde_json::to_vec(self).map_err(broken)?)? {
            let report: Report<F> = serde_json::from_slice(&bytes).map_err(broken)?;
            all.files.extend(report.files);
            all.failures.extend(report.failures);
        }
        all.files.sort_by(|a, b| output(a).cmp(output(b)));
        all.failures.sort_by(|a, b| a.file.cmp(&b.file));
        // Pieces of one file may fail on several ranks.
        all.failures.dedup_by(|a, b| a.file == b.file);
        Ok(all)
    }

    /// Returns the first file's error if all files of all ranks failed.
    pub fn refuse_all_failed(&self) -> Result<()> {
        let (true, Some(first)) = (self.files.is_empty(), self.failures.first()) else {
            return Ok(());
        };
        let fault = Fault::new(first.text.clone()).file(&first.file);
        common(Err(Error::from_code(first.exit_code, fault)))
    }

    /// Input path → what was wrong with it.
    pub fn failed(self) -> BTreeMap<String, String> {
        self.failures.into_iter().map(|f| (f.file, f.text)).collect()
    }
}

/// Partial if some of `total` files failed; `again` is what to do with them once mended.
pub fn partial(failed: &BTreeMap<String, String>, total: usize, again: &str) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = failed.keys().map(String::as_str).collect();
    let fault = Fault::new(format!("{} of {total} files failed", names.len()))
        .found(names.join(", "))
        .advice(format!("the other outputs are complete; mend these files and {again} them again"));
    Err(Error::Partial(Box::new(fault)).shared())
}
