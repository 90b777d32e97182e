//! Note of a command that has begun to fill an output folder, kept until its manifest is written.
//!
//! The note states whether earlier outputs are replaced. A start that resumes such a command keeps
//! the outputs written since and replaces the rest, also without `--overwrite`: a requeued job need
//! not know which outputs existed before.

use super::ledger;
use crate::bounded;
use crate::comm::{Communicator, value_of_root};
use crate::error::{Fault, Result};
use crate::storage;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest note read [bytes].
const LARGEST: u64 = 1 << 16;

/// Command that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Whether existing outputs are replaced.
    pub overwrites: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_blake3: Option<String>,
    pub settings_blake3: String,
}

impl Started {
    /// Returns whether an earlier start of part `part` (index from 0, and number of parts) has begun
    /// to replace outputs, with this model and these settings, and has not finished.
    fn resumes_overwriting(&self, output: &Path, part: (usize, usize)) -> bool {
        Started::read(output, part)
            .is_some_and(|earlier| earlier == Started { overwrites: true, ..self.clone() })
    }

    /// Reads the note of a part; `None` if there is none, or it is damaged.
    pub fn read(output: &Path, part: (usize, usize)) -> Option<Started> {
        let text = bounded::read(&path(output, part), LARGEST).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the note of a part.
    fn write(&self, output: &Path, part: (usize, usize)) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|e| Fault::new("cannot note the start").found(e).internal())?;
        storage::create_folder(&output.join(ledger::FOLDER))?;
        storage::write_file(&path(output, part), &text)
    }
}

/// Start of a command, compared with an earlier one.
#[derive(Debug)]
pub struct Start {
    started: Started,
    /// Whether an earlier start has begun to replace the outputs: those that it has finished
    /// are kept.
    pub resumes_overwriting: bool,
}

impl Start {
    /// Compares a start with the note of an earlier start, on rank 0. A collective.
    pub fn new(
        comm: &dyn Communicator,
        output: &Path,
        part: (usize, usize),
        started: Started,
    ) -> Result<Start> {
        let resumes_overwriting =
            value_of_root(comm, || Ok(started.resumes_overwriting(output, part)))?;
        let overwrites = started.overwrites || resumes_overwriting;
        Ok(Start { started: Started { overwrites, ..started }, resumes_overwriting })
    }

    /// Returns whether existing outputs are replaced.
    pub fn overwrites(&self) -> bool {
        self.started.overwrites
    }

    /// Returns whether the ledgers of earlier starts are removed: not if they also list files of
    /// earlier runs that stay.
    pub fn clears_ledgers(&self, has_earlier: bool) -> bool {
        self.started.overwrites && !self.resumes_overwriting && !has_earlier
    }

    /// Writes the note of the start.
    pub fn note(&self, output: &Path, part: (usize, usize)) -> Result<()> {
        self.started.write(output, part)
    }
}

/// Removes the note of a part: its manifest is written, or nothing was begun.
pub fn remove(output: &Path, part: (usize, usize)) -> Result<()> {
    storage::remove_file(&path(output, part))
}

fn path(output: &Path, (index, count): (usize, usize)) -> PathBuf {
    let name = match count {
        1 => "started.json".to_string(),
        _ => format!("started-{}-of-{count}.json", index + 1),
    };
    output.join(ledger::FOLDER).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_unfinished_overwrite_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path();
        let of = |overwrites: bool, settings: &str| Started {
            overwrites,
            model_blake3: Some("m".to_string()),
            settings_blake3: settings.to_string(),
        };
        assert!(!of(true, "a").resumes_overwriting(output, (0, 1)));
        of(false, "a").write(output, (0, 1)).unwrap();
        assert!(!of(true, "a").resumes_overwriting(output, (0, 1)));
        of(true, "a").write(output, (0, 1)).unwrap();
        assert!(of(false, "a").resumes_overwriting(output, (0, 1)));
        assert!(!of(true, "b").resumes_overwriting(output, (0, 1)));
        assert!(!of(true, "a").resumes_overwriting(output, (0, 2)), "another part");
        remove(output, (0, 1)).unwrap();
        assert!(!of(true, "a").resumes_overwriting(output, (0, 1)));
    }
}
