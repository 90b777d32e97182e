//! Identity of an output folder while a command writes to it.

use super::disk_fault;
use crate::error::{Fault, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder that a command has opened, by path, device and inode.
#[derive(Debug, Clone)]
pub struct FolderIdentity {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl FolderIdentity {
    /// Records the identity of an existing folder.
    ///
    /// # Errors
    /// `Environment` if it cannot be looked at.
    pub fn of(path: &Path) -> Result<FolderIdentity> {
        let device_and_inode = device_and_inode(path)?;
        Ok(FolderIdentity { path: path.to_path_buf(), device_and_inode })
    }

    /// Checks that the path still leads to the folder. If the folder was moved or removed, a new
    /// folder with its name may be the output of another command.
    ///
    /// # Errors
    /// `Environment`.
    pub fn check(&self) -> Result<()> {
        if device_and_inode(&self.path).ok() == Some(self.device_and_inode) {
            return Ok(());
        }
        let what = "the output folder was moved, removed or replaced while it was written";
        Err(Fault::new(what)
            .file(&self.path)
            .expected("the folder that this command has opened")
            .advice("move it back and run the same command again, or choose another folder")
            .environment())
    }
}

fn device_and_inode(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)
        .map_err(|e| disk_fault("look at", path, &e.to_string(), e.kind()))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_and_replaced_folders_are_found() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("scores");
        std::fs::create_dir(&path).unwrap();
        let folder = FolderIdentity::of(&path).unwrap();
        folder.check().unwrap();
        std::fs::rename(&path, parent.path().join("moved")).unwrap();
        assert_eq!(folder.check().unwrap_err().exit_code(), 5);
        std::fs::create_dir(&path).unwrap();
        assert_eq!(folder.check().unwrap_err().exit_code(), 5);
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(parent.path().join("moved"), &path).unwrap();
        folder.check().unwrap();
    }
}
