//! Lists the paths that match a pattern such as `runs/*/gamma-??.h5`, in the order of their names.
//!
//! A component may contain `*`, `?` and `[…]`; `**` matches any number of folders.
//!
//! - A folder that cannot be listed is an error.
//! - A broken link is listed if it matches the whole pattern. In the place of a folder it is an
//!   error.

use super::walk::{self, broken_link, is_hdf5_name};
use crate::error::{Fault, Result};
use glob::Pattern;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// Most levels of folders that `**` matches.
const DEEPEST_FOLDER: usize = 32;

/// Returns the paths that match a pattern.
///
/// # Errors
/// `Input` if the pattern is malformed, a folder cannot be listed, or a link to a folder is broken.
pub(crate) fn fitting(pattern: &Path) -> Result<BTreeSet<PathBuf>> {
    let parts = pattern.components().filter(|component| *component != Component::CurDir);
    let parts = parts.map(|component| PatternPart::new(component.as_os_str()));
    let parts: Vec<PatternPart> =
        parts.collect::<std::result::Result<_, _>>().map_err(|error| {
            Fault::new("cannot follow the pattern").file(pattern).found(error).input()
        })?;
    let only_folders = pattern.as_os_str().as_encoded_bytes().ends_with(b"/");
    let mut search = PatternSearch { found: BTreeSet::new(), only_folders };
    search.folder(Path::new(""), &parts, 0)?;
    Ok(search.found)
}

/// Returns whether a text contains a wildcard.
pub(crate) fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

enum PatternPart {
    Name(OsString),
    Fits(Pattern),
    /// `**`
    Folders,
}

impl PatternPart {
    fn new(component: &OsStr) -> std::result::Result<PatternPart, glob::PatternError> {
        match component.to_str() {
            Some("**") => Ok(PatternPart::Folders),
            Some(text) if has_wildcards(text) => Pattern::new(text).map(PatternPart::Fits),
            _ => Ok(PatternPart::Name(component.to_os_string())),
        }
    }
}

struct PatternSearch {
    found: BTreeSet<PathBuf>,
    only_folders: bool,
}

impl PatternSearch {
    /// Adds the paths in a folder that match `parts`.
    fn folder(&mut self, folder: &Path, parts: &[PatternPart], depth: usize) -> Result<()> {
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        match part {
            PatternPart::Name(name) => self.path(folder.join(name), None, rest),
            PatternPart::Fits(pattern) => {
                let fits = |name: &OsStr| pattern.matches(&name.to_string_lossy());
                let shows_hidden = pattern.as_str().starts_with('.');
                for (name, kind) in listed(folder)?.into_iter().filter(|(name, _)| fits(name)) {
                    let path = folder.join(&name);
                    let is_hidden = walk::is_hidden(&name) && !shows_hidden;
                    if !(is_hidden && kind.is_symlink() && std::fs::metadata(&path).is_err()) {
                        self.path(path, Some(kind), rest)?;
                    }
                }
                Ok(())
            }
            PatternPart::Folders => {
                self.folder(folder, rest, depth)?;
                self.folders_below(folder, parts, depth)
            }
        }
    }

    /// Adds the paths below a folder that match `parts`, of which the first is `**`.
    fn folders_below(&mut self, folder: &Path, parts: &[PatternPart], depth: usize) -> Result<()> {
        if depth > DEEPEST_FOLDER {
            return Err(walk::too_deep(folder, DEEPEST_FOLDER));
        }
        for (name, kind) in listed(folder)? {
            let path = folder.join(&name);
            let is_link = kind.is_symlink();
            let is_folder = kind.is_dir() || is_link && is_folder(&path, &name)?;
            if !is_folder || is_link && walk::leads_up(folder, &path) {
                continue;
            }
            if parts.len() == 1 {
                self.found.insert(path.clone());
            }
            self.folder(&path, parts, depth + 1)?;
        }
        Ok(())
    }

    /// Adds a path that matches the pattern so far, or the paths below it that match the rest.
    fn path(&mut self, path: PathBuf, kind: Option<FileType>, rest: &[PatternPart]) -> Result<()> {
        let is_last = rest.is_empty();
        if is_last && kind.is_some() && !self.only_folders {
            self.found.insert(path);
            return Ok(());
        }
        match std::fs::metadata(&path) {
            Ok(data) if is_last && (data.is_dir() || !self.only_folders) => {
                self.found.insert(path);
            }
            Ok(data) if data.is_dir() && !is_last => self.folder(&path, rest, 0)?,
            Ok(_) => {}
            Err(error) => match broken_link(&path, &error) {
                Some(_) if is_last && !self.only_folders => {
                    self.found.insert(path);
                }
                Some(_) if is_hdf5_name(&path) => {}
                Some(fault) => return Err(fault.input()),
                None if error.kind() == ErrorKind::NotFound => {}
                None => {
                    return Err(Fault::new("cannot follow the pattern")
                        .file(&path)
                        .found(error)
                        .advice("check the owner and mode of the folder")
                        .input());
                }
            },
        }
        Ok(())
    }
}

/// Returns whether a link leads to a folder.
fn is_folder(link: &Path, name: &OsStr) -> Result<bool> {
    match std::fs::metadata(link) {
        Ok(data) => Ok(data.is_dir()),
        Err(_) if walk::is_hidden(name) || is_hdf5_name(link) => Ok(false),
        Err(error) => broken_link(link, &error).map_or(Ok(false), |fault| Err(fault.input())),
    }
}

/// Returns the names and kinds in a folder; the empty path is the current folder.
fn listed(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    walk::listed(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn archive() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.h5", "n1/b.h5", "n1/.c.h5", "n2/b.h5", "n2/deep/d.h5", "n2/note.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    const PATTERNS: [&str; 12] = [
        "*",
        "*.h5",
        "n?/b.h5",
        "n[12]/*",
        "**/*.h5",
        "n2/**/*.h5",
        "**/deep/*",
        "*/",
        "n*/../*.h5",
        "n2/**",
        "*/deep",
        "nothing/*",
    ];

    #[test]
    fn plain_archive_fits_as_by_the_glob_crate() {
        let folder = archive();
        for pattern in PATTERNS {
            let pattern = folder.path().join(pattern);
            let expected: Vec<PathBuf> =
                glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect();
            let found: Vec<PathBuf> = fitting(&pattern).unwrap().into_iter().collect();
            assert_eq!(found, expected, "{}", pattern.display());
        }
    }

    #[test]
    fn broken_link_is_listed_or_refused() {
        let folder = archive();
        let fit = |pattern: &str| fitting(&folder.path().join(pattern));
        let plain = PATTERNS.map(|pattern| fit(pattern).unwrap());
        symlink("nowhere", folder.path().join("n1/.#lock")).unwrap();
        assert_eq!(PATTERNS.map(|pattern| fit(pattern).unwrap()), plain);
        symlink("nowhere", folder.path().join("n1/z.h5")).unwrap();
        assert!(fit("*/z.h5").unwrap().contains(&folder.path().join("n1/z.h5")));
        assert!(fit("**/*.h5").unwrap().contains(&folder.path().join("n1/z.h5")));
        symlink("nowhere", folder.path().join("n3")).unwrap();
        assert!(fit("*").unwrap().contains(&folder.path().join("n3")));
        for pattern in ["*/b.h5", "n3/b*", "**/*.h5", "**/b.h5", "*/"] {
            let error = fit(pattern).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{pattern}");
            assert!(error.to_string().contains("n3: the symbolic link"), "{pattern}: {error}");
        }
    }

    #[test]
    fn links_back_up_end_the_search() {
        let folder = archive();
        let fit = || fitting(&folder.path().join("**/*.h5")).unwrap();
        let plain = fit();
        symlink("..", folder.path().join("n2/up")).unwrap();
        symlink(".", folder.path().join("n2/deep/here")).unwrap();
        assert_eq!(fit(), plain);
    }
}
