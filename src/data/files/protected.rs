//! Refuses outputs that are inputs of the same command.
//!
//! Files are compared by device and inode, which recognises other names, links and hard links of
//! an input. The check does not depend on `--overwrite`: replacing an input while it
//! is being read would destroy it.

use crate::error::{Fault, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that a command reads, by device and inode.
#[derive(Debug, Default)]
pub(crate) struct ProtectedInputs {
    files: BTreeMap<(u64, u64), PathBuf>,
}

impl ProtectedInputs {
    /// Collects the files that exist. The reader of a path reports that it cannot be read.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> ProtectedInputs {
        let files =
            paths.into_iter().filter_map(|path| Some((identity(path)?, path.to_path_buf())));
        ProtectedInputs { files: files.collect() }
    }

    /// Returns an error if `output` is one of the inputs.
    ///
    /// # Errors
    /// `Usage`, with both names.
    pub(crate) fn refuse(&self, output: &Path) -> Result<()> {
        match identity(output).and_then(|id| self.files.get(&id)) {
            None => Ok(()),
            Some(input) => Err(Fault::new("the output would replace an input of the same command")
                .file(output)
                .found(format!("the same file as the input {}", input.display()))
                .advice("choose another output")
                .usage()),
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_under_any_name_is_refused_as_output() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("input"), "events").unwrap();
        std::fs::write(at("other"), "events").unwrap();
        std::fs::hard_link(at("input"), at("hard")).unwrap();
        std::os::unix::fs::symlink(at("input"), at("soft")).unwrap();
        let inputs =
            ProtectedInputs::new([at("input"), at("missing")].iter().map(PathBuf::as_path));
        for name in ["input", "hard", "soft"] {
            let error = inputs.refuse(&at(name)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains("input of the same command"), "{error}");
        }
        for name in ["other", "missing", "new"] {
            inputs.refuse(&at(name)).unwrap();
        }
    }
}
