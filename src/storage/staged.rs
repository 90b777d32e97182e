//! Outputs that get their name only when they are complete.

use super::operations::{
    create_folder, needing, parent_of, perform, put, refuse_existing, refuse_irregular,
    remove_file, rename, sync_file, sync_folder,
};
use super::process_tag::ProcessTag;
use crate::error::Result;
use std::fs::File;
use std::path::{Path, PathBuf};

/// An output that other code writes at [`Staged::part`]; [`Staged::commit`] gives it its name.
/// Dropped without a commit, it leaves no file.
#[derive(Debug)]
pub struct Staged {
    part: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl Staged {
    /// Returns a stage for `target`, and creates its folders.
    ///
    /// # Errors
    /// `Usage` if the target may not be replaced, `Environment` if the disk fails.
    pub fn new(target: &Path, overwrite: bool) -> Result<Staged> {
        refuse_existing(target, overwrite)?;
        create_folder(&parent_of(target))?;
        let part = ProcessTag::own()?.part_of(target);
        remove_file(&part)?; // of an earlier failure of this process
        Ok(Staged { part, target: target.to_path_buf(), committed: false })
    }

    /// Returns the path at which the file is written before it is committed.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Returns the final path of the file.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Syncs the unfinished file, renames it, and syncs the folder.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub fn commit(mut self) -> Result<()> {
        sync_file(&self.part)?;
        refuse_irregular(&self.target)?;
        rename(&self.part, &self.target)?;
        self.committed = true;
        sync_folder(&parent_of(&self.target))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Another error is already returned: a second one could only hide it.
        if !self.committed {
            let _ = remove_file(&self.part);
        }
    }
}

/// A file of this program that is written piece by piece, and gets its name only when it is
/// complete. Dropped without [`StagedFile::commit`], it leaves no file.
#[derive(Debug)]
pub struct StagedFile {
    file: File, // closed before the part is removed
    staged: Staged,
    length: u64,
}

impl StagedFile {
    /// Creates the unfinished file.
    ///
    /// # Errors
    /// As [`Staged::new`].
    pub fn create(target: &Path, overwrite: bool) -> Result<StagedFile> {
        let staged = Staged::new(target, overwrite)?;
        let file = perform("create", staged.part(), || File::create_new(staged.part()))?;
        Ok(StagedFile { file, staged, length: 0 })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        put("write", self.staged.part(), &mut self.file, bytes)
            .map_err(|error| needing(error, self.length))
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub fn commit(self) -> Result<()> {
        let StagedFile { file, staged, length } = self;
        drop(file);
        staged.commit().map_err(|error| needing(error, length))
    }
}
