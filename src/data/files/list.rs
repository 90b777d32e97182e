//! Lists the files of paths, folders, patterns and lists of paths.

use super::pattern;
use super::walk;
use crate::bounded;
use crate::error::{Error, Fault, Result, nearest, path_text};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A longer file is not a list of files.
const LONGEST_LIST: u64 = 64 << 20; // bytes

/// Lists the files of paths. A folder gives all `*.h5`, `*.hdf5` and `*.hdf` in it and below,
/// sorted by name, without hidden entries; a pattern gives the paths that match it; `@list` gives
/// the paths in it.
///
/// # Errors
/// `Input` if there is no file, a path cannot be read, or a file is listed twice.
pub(crate) fn list_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    list_all(paths, &mut files)?;
    refuse_twice(&files)?;
    Ok(files)
}

/// Appends the files of paths, at least one. A file that is listed twice is appended twice. Entries of
/// folders that are left out are logged in one line.
pub(crate) fn list_all(paths: &[PathBuf], files: &mut Vec<PathBuf>) -> Result<()> {
    let mut others = Vec::new();
    collect_all(paths, files, &mut others)?;
    log_others(&others);
    Ok(())
}

fn collect_all(
    paths: &[PathBuf],
    files: &mut Vec<PathBuf>,
    others: &mut Vec<PathBuf>,
) -> Result<()> {
    let before = files.len();
    for path in paths {
        collect(path, files, others)?;
    }
    if files.len() == before {
        return Err(Fault::new("no input files").advice("give files or folders").input());
    }
    Ok(())
}

/// Logs the entries of input folders that are not HDF5 files.
fn log_others(others: &[PathBuf]) {
    if let Some(first) = others.first() {
        log::info!(
            "{} file(s) of other kinds in the input folders are left out (first: {})",
            others.len(),
            path_text(first)
        );
    }
}

/// Returns the list of an argument `@LIST`; `None` if a file of the whole name exists.
pub(crate) fn list_in(given: &Path) -> Option<&Path> {
    let list = given.to_str()?.strip_prefix('@')?;
    std::fs::symlink_metadata(given).is_err().then_some(Path::new(list))
}

/// Returns whether an argument is a pattern, and not the name of an existing file.
pub(crate) fn is_pattern(given: &Path) -> bool {
    std::fs::symlink_metadata(given).is_err()
        && list_in(given).is_none()
        && given.to_str().is_some_and(pattern::has_wildcards)
}

/// Appends the files of one path, as [`list_all`] does.
pub(crate) fn list_path(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut others = Vec::new();
    collect(path, files, &mut others)?;
    log_others(&others);
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>, others: &mut Vec<PathBuf>) -> Result<()> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        // A link to a file is an input, even if the file is absent now.
        Err(_) if path.is_symlink() && walk::is_hdf5_name(path) => {
            files.push(path.to_path_buf());
            return Ok(());
        }
        Err(error) => {
            return match list_in(path) {
                Some(list) => {
                    lines_of(list)?.iter().try_for_each(|path| collect(path, files, others))
                }
                None if is_pattern(path) => list_pattern(path, files, others),
                None => Err(unreachable(path, &error)),
            };
        }
    };
    if !metadata.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let before = files.len();
    let (found, left_out) = walk::hdf5_files_and_others(path)?;
    files.extend(found);
    others.extend(left_out);
    if files.len() == before {
        return Err(Fault::new("no HDF5 file in this folder")
            .file(path)
            .expected("files that end in .h5, .hdf5 or .hdf")
            .advice("for CSV tables use `taiga-flow convert` first")
            .input());
    }
    Ok(())
}

/// Returns a path, or the paths in it if it is an `@list`.
pub(crate) fn expand_lists(given: &Path) -> Vec<PathBuf> {
    match list_in(given) {
        Some(list) => lines_of(list).unwrap_or_default(),
        None => vec![given.to_path_buf()],
    }
}

/// Returns the paths in a list, one per line, relative to the folder of the list; blank lines and
/// those that begin with `#` mean nothing.
fn lines_of(list: &Path) -> Result<Vec<PathBuf>> {
    std::fs::metadata(list).map_err(|error| unreachable(list, &error))?;
    // A training reads it more than once.
    bounded::refuse_irregular(list)?;
    let text = bounded::read_text(list, LONGEST_LIST).map_err(|error| {
        Fault::new("cannot read the list of files").file(list).found(error).input()
    })?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let lines = text.lines().map(str::trim).enumerate();
    let mut paths = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('@') {
            let fault = Fault::new("a list within a list").file(list).row(number as u64 + 1);
            return Err(fault.input());
        }
        paths.push(folder.join(line));
    }
    Ok(paths)
}

fn list_pattern(path: &Path, files: &mut Vec<PathBuf>, others: &mut Vec<PathBuf>) -> Result<()> {
    let before = files.len();
    for found in pattern::fitting(path)? {
        collect(&found, files, others)?;
    }
    if files.len() == before {
        return Err(Fault::new("no file fits this pattern")
            .file(path)
            .advice("check the path")
            .input());
    }
    Ok(())
}

/// Refuses a file that is in two lists; each list is given with its name.
///
/// # Errors
/// `Input`, with the file and both names; those of [`list_files`], except for files that one list
/// has twice.
pub(crate) fn refuse_shared(lists: &[(&str, &[PathBuf])]) -> Result<()> {
    let mut known: BTreeMap<(u64, u64), (&str, PathBuf)> = BTreeMap::new();
    for (name, paths) in lists.iter().filter(|(_, paths)| !paths.is_empty()) {
        let mut files = Vec::new();
        // They are listed, and logged, when they are opened.
        collect_all(paths, &mut files, &mut Vec::new())?;
        for path in files {
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let place = (metadata.dev(), metadata.ino());
            let (other, first) = known.entry(place).or_insert_with(|| (name, path.clone()));
            if other != name {
                return Err(Fault::new(format!("{other} and {name} have the same file"))
                    .file(&path)
                    .found(format!("{} in {other}", path_text(first)))
                    .advice("give it in one of them: its events cannot be both")
                    .input());
            }
        }
    }
    Ok(())
}

/// Returns the lengths of all files [bytes]; refuses a file that is absent or listed twice.
pub(crate) fn refuse_twice(files: &[PathBuf]) -> Result<Vec<u64>> {
    lengths(files)?.into_iter().collect()
}

/// Returns the length of each file [bytes], or the error of a file without metadata.
///
/// # Errors
/// `Input` if a file is listed twice.
pub(crate) fn lengths(files: &[PathBuf]) -> Result<Vec<Result<u64>>> {
    let mut known: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    let mut lengths = Vec::with_capacity(files.len());
    for path in files {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                lengths.push(Err(unreachable(path, &error)));
                continue;
            }
        };
        if let Some(other) = known.insert((metadata.dev(), metadata.ino()), path) {
            return Err(Fault::new("the same file is listed twice")
                .file(path)
                .found(format!("also as {}", path_text(other)))
                .advice("list it once: its events would count twice")
                .input());
        }
        lengths.push(Ok(metadata.len()));
    }
    Ok(lengths)
}

/// Returns the error of a path without metadata.
pub(crate) fn unreachable(path: &Path, error: &std::io::Error) -> Error {
    match walk::broken_link(path, error) {
        Some(fault) => fault.input(),
        None if error.kind() == ErrorKind::NotFound => missing_path(path),
        None => Fault::new("cannot read the file")
            .file(path)
            .found(error)
            .advice("check the path, and the owner and mode of its folders")
            .input(),
    }
}

/// Returns the error of an absent path, with the nearest name in its folder.
fn missing_path(path: &Path) -> Error {
    let fault = Fault::new("file not found").file(path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries =
        std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => fault.advice(format!("did you mean '{near}'?")).input(),
        None => fault.advice("check the path").input(),
    }
}
