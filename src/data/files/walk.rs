//! Lists the HDF5 files of a folder and below, by name and each once.
//!
//! Symbolic links to folders are followed. A link is left out and logged if it leads back up, or
//! to a folder or file that is listed without it. So the walk ends, and lists no file twice.
//! A broken link with the name of an HDF5 file is listed. A broken link with any other name is an
//! error, because it may have led to a folder.

use crate::error::{Error, Fault, Result, path_text};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{FileType, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["h5", "hdf5", "hdf"];
/// Most levels of folders.
const DEEPEST_FOLDER: usize = 32;
/// Most links that are logged one by one.
const MOST_LOGGED: usize = 5;

/// Device and inode.
type FileIdentity = (u64, u64);

/// Names of records that commands of the project write next to HDF5 files: they are not counted
/// as left out.
const RECORDS: [&str; 4] = ["manifest.json", "ledger", ".lock", ".pieces"];

/// Returns the HDF5 files in a folder and below; hidden entries are left out.
///
/// # Errors
/// `Input` if a folder cannot be listed, a link that may have led to a folder is broken, or folders
/// are nested more than 32 levels deep.
pub(crate) fn hdf5_files(root: &Path) -> Result<Vec<PathBuf>> {
    Ok(hdf5_files_and_others(root)?.0)
}

/// Returns the HDF5 files in a folder and below, and the entries that are left out: hidden ones,
/// and files of other kinds.
///
/// # Errors
/// Those of [`hdf5_files`].
pub(crate) fn hdf5_files_and_others(root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut walk = Walk { root: root.to_path_buf(), ..Walk::default() };
    walk.folder(root, 0, false)?;
    walk.drop_repeated_files();
    for link in walk.left_out.iter().take(MOST_LOGGED) {
        log::info!("{}: a link to what is listed without it; it is left out", path_text(link));
    }
    if walk.left_out.len() > MOST_LOGGED {
        log::info!("{} links are left out in all", walk.left_out.len());
    }
    let Walk { files, others, .. } = walk;
    Ok((files.into_iter().map(|file| file.path).collect(), others))
}

#[derive(Default)]
struct Walk {
    root: PathBuf,
    files: Vec<WalkedFile>,
    /// Folders that were reached through links.
    linked: BTreeSet<FileIdentity>,
    /// Folders that are reached without links; collected at the first link.
    unlinked: Option<BTreeSet<FileIdentity>>,
    left_out: Vec<PathBuf>,
    /// Hidden entries, and files of other kinds.
    others: Vec<PathBuf>,
}

struct WalkedFile {
    path: PathBuf,
    is_linked: bool,
}

impl Walk {
    fn folder(&mut self, folder: &Path, depth: usize, is_linked: bool) -> Result<()> {
        if depth > DEEPEST_FOLDER {
            return Err(too_deep(folder, DEEPEST_FOLDER));
        }
        for (name, kind) in listed(folder)? {
            let is_record = RECORDS.iter().any(|record| *record == name);
            let path = folder.join(&name);
            if is_hidden(&name) {
                self.others.extend((!is_record).then_some(path));
                continue;
            }
            if is_record && !(kind.is_dir() && holds_hdf5(&path)) {
                continue;
            }
            if kind.is_dir() {
                self.folder(&path, depth + 1, is_linked)?;
                continue;
            }
            if !kind.is_symlink() {
                self.file(path, is_linked);
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(target) if !target.is_dir() => self.file(path, true),
                Ok(target) if self.leads_elsewhere(folder, &path, &target) => {
                    self.folder(&path, depth + 1, true)?;
                }
                Ok(_) => self.left_out.push(path),
                Err(_) if is_hdf5_name(&path) => self.file(path, true),
                Err(error) => {
                    broken_link(&path, &error).map_or(Ok(()), |fault| Err(fault.input()))?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, is_linked: bool) {
        if is_hdf5_name(&path) {
            self.files.push(WalkedFile { path, is_linked });
        } else {
            self.others.push(path);
        }
    }

    /// Returns whether a link leads to a folder that is not reached otherwise.
    fn leads_elsewhere(&mut self, folder: &Path, link: &Path, target: &Metadata) -> bool {
        if leads_up(folder, link) {
            return false;
        }
        let root = &self.root;
        let unlinked = self.unlinked.get_or_insert_with(|| unlinked_folders(root));
        !unlinked.contains(&identity(target)) && self.linked.insert(identity(target))
    }

    /// Keeps one path of each file that was reached more than once: the path without a link, else
    /// the first.
    fn drop_repeated_files(&mut self) {
        if !self.files.iter().any(|file| file.is_linked) {
            return;
        }
        let of = |file: &WalkedFile| std::fs::metadata(&file.path).ok().map(|m| identity(&m));
        let identities: Vec<Option<FileIdentity>> = self.files.iter().map(of).collect();
        let mut kept: BTreeMap<FileIdentity, usize> = BTreeMap::new();
        for linked in [false, true] {
            let files = self.files.iter().zip(&identities).enumerate();
            for (i, (_, identity)) in files.filter(|(_, (file, _))| file.is_linked == linked) {
                identity.map(|identity| *kept.entry(identity).or_insert(i));
            }
        }
        let mut index = 0;
        let left_out = &mut self.left_out;
        self.files.retain(|file| {
            let is_kept =
                !file.is_linked || identities[index].is_none_or(|id| kept.get(&id) == Some(&index));
            index += 1;
            if !is_kept {
                left_out.push(file.path.clone());
            }
            is_kept
        });
    }
}

/// Returns whether a folder that has the name of a record has HDF5 files.
fn holds_hdf5(folder: &Path) -> bool {
    entries(folder).is_ok_and(|all| all.iter().any(|(name, _)| is_hdf5_name(Path::new(name))))
}

/// Returns the fault of a symbolic link without a readable target; `None` for any other path.
pub(crate) fn broken_link(path: &Path, error: &std::io::Error) -> Option<Fault> {
    let target = std::fs::read_link(path).ok()?;
    Some(
        Fault::new("the symbolic link leads nowhere")
            .file(path)
            .expected("a file or folder that can be read")
            .found(format!("{} ({error})", path_text(&target)))
            .advice("restore or mount what it leads to, or remove the link"),
    )
}

/// Returns whether a link in a folder leads to that folder or to one above it.
pub(crate) fn leads_up(folder: &Path, link: &Path) -> bool {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    place(folder).starts_with(place(link))
}

/// Returns the error of folders that are nested more than `most` levels deep.
pub(crate) fn too_deep(folder: &Path, most: usize) -> Error {
    Fault::new("folders are nested too deeply")
        .file(folder)
        .expected(format!("at most {most} levels"))
        .advice("give a folder that is nearer to the files")
        .input()
}

pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Returns the names and kinds in a folder, sorted by name, without hidden entries.
fn entries(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    let mut entries = listed(folder)?;
    entries.retain(|(name, _)| !is_hidden(name));
    Ok(entries)
}

/// Returns all names and kinds in a folder, sorted by name. Most folders contain the kinds of their
/// entries: a request for each entry would be the most expensive step of the walk.
pub(crate) fn listed(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    let unreadable = |error: std::io::Error| {
        Fault::new("cannot list the folder").file(folder).found(error).input()
    };
    let found = std::fs::read_dir(folder).map_err(unreadable)?;
    let found = found.map(|entry| entry.and_then(|e| Ok((e.file_name(), e.file_type()?))));
    let mut entries = found.collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Returns the folder and all folders below it that are reached without links. The walk itself
/// reports a folder that cannot be listed.
fn unlinked_folders(root: &Path) -> BTreeSet<FileIdentity> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let Ok(metadata) = std::fs::metadata(&folder) else { continue };
        if found.insert(identity(&metadata)) {
            let inner = entries(&folder).unwrap_or_default().into_iter();
            waiting.extend(inner.filter(|(_, kind)| kind.is_dir()).map(|(n, _)| folder.join(n)));
        }
    }
    found
}

fn identity(metadata: &Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino())
}

pub(crate) fn is_hdf5_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Creates a folder with the files `a.h5`, `n1/b.h5` and `n2/c.h5`.
    fn archive() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("archive");
        for name in ["a.h5", "n1/b.h5", "n2/c.h5"] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
        std::fs::write(folder.path().join("elsewhere/d.h5"), "d").unwrap();
        folder
    }

    fn names(root: &Path) -> Vec<String> {
        let files = hdf5_files(root).unwrap();
        files.iter().map(|f| f.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn links_to_parents_and_listed_folders_add_none() {
        let folder = archive();
        let root = folder.path().join("archive");
        let plain = names(&root);
        symlink(".", root.join("0-here")).unwrap();
        symlink("..", root.join("n1/up")).unwrap();
        symlink("../..", root.join("n1/above")).unwrap();
        symlink("n2", root.join("0-other")).unwrap();
        symlink("n1/b.h5", root.join("0-again.h5")).unwrap();
        assert_eq!(names(&root), plain);
    }

    #[test]
    fn entries_of_other_kinds_are_returned() {
        let folder = archive();
        let root = folder.path().join("archive");
        std::fs::create_dir(root.join("ledger")).unwrap();
        for name in ["manifest.json", "ledger/1-of-1.jsonl", ".hidden.h5", "n1/b.h5.gz"] {
            std::fs::write(root.join(name), "x").unwrap();
        }
        let (files, others) = hdf5_files_and_others(&root).unwrap();
        assert_eq!(files.len(), 3);
        assert_eq!(others, [".hidden.h5", "n1/b.h5.gz"].map(|name| root.join(name)));
    }

    #[test]
    fn broken_link_is_listed_or_refused() {
        let folder = archive();
        let root = folder.path().join("archive");
        symlink("nowhere", root.join(".#a.h5")).unwrap();
        symlink("nowhere", root.join("n1/lost.h5")).unwrap();
        // A component that is a file, and a loop.
        symlink("a.h5/below", root.join("n2/under.HDF5")).unwrap();
        assert_eq!(names(&root), ["a.h5", "n1/b.h5", "n1/lost.h5", "n2/c.h5", "n2/under.HDF5"]);
        for (target, name) in [("../not-mounted", "n1/night-3"), ("itself", "itself")] {
            symlink(target, root.join(name)).unwrap();
            let error = hdf5_files(&root).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(target), "{text}");
            std::fs::remove_file(root.join(name)).unwrap();
        }
    }

    #[test]
    fn folders_outside_are_followed_once() {
        let folder = archive();
        let root = folder.path().join("archive");
        symlink("../elsewhere", root.join("m")).unwrap();
        symlink("../../elsewhere", root.join("n1/m")).unwrap();
        // A loop between two folders outside.
        std::fs::create_dir(folder.path().join("other")).unwrap();
        symlink("../other", folder.path().join("elsewhere/to")).unwrap();
        symlink("../elsewhere", folder.path().join("other/back")).unwrap();
        assert_eq!(names(&root), ["a.h5", "m/d.h5", "n1/b.h5", "n2/c.h5"]);
    }
}
