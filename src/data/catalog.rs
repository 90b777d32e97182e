//! The files of a job: which they are, what each is, and what their bytes hash to.
//!
//! A path is a file, a folder, a pattern (`runs/*/gamma-??.h5`), or `@` and a list of
//! paths, one per line. Promises: folders and patterns are gone through in a fixed order
//! (by name), so that global row numbers are the same everywhere; the same file listed
//! twice is refused, also under another name; opening reads metadata alone; hashing reads
//! in bounded memory, each rank its share. Left to others: the columns (`table`), and what
//! is wrong with the rows (`check`).

use super::store::Source;
use crate::config::Class;
use crate::error::{Error, Fault, Result, nearest};
use crate::world::{Work, World, agree};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["h5", "hdf5", "hdf"];
/// Deeper folders are a loop of links.
const DEEPEST_FOLDER: usize = 32;
/// A longer list of files is something else.
const LONGEST_LIST: u64 = 64 << 20; // bytes

/// Paths that have one role: a class, or none where the files tell it themselves.
pub type Role<'a> = (&'a [PathBuf], Option<Class>);

/// Opens the files of all roles, in their order, for schema and rows; a file that stands
/// twice, also in two roles, is refused.
pub fn sources(roles: &[Role], schema: Option<&str>) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for (paths, class) in roles.iter().filter(|(paths, _)| !paths.is_empty()) {
        files.extend(list_files(paths)?.into_iter().map(|path| (path, *class)));
    }
    let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
    refuse_twice(&paths)?;
    files.iter().map(|(path, class)| Source::open(path, schema, *class)).collect()
}

/// blake3 of each file, which every rank gets; every rank hashes its share. Two files of
/// equal content are refused: their events would count twice.
pub fn hash_files(world: &dyn World, paths: &[&Path]) -> Result<Vec<String>> {
    let mut mine = Vec::new();
    let mut failure = None;
    for (i, path) in paths.iter().enumerate().filter(|(i, _)| i % world.size() == world.rank()) {
        match hash_file_telling(path, || world.progress(Work::Hashing, i as u64)) {
            Ok(hash) => {
                mine.extend((i as u64).to_le_bytes());
                mine.extend(hash);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    agree(world, failure.map_or(Ok(()), Err))?;
    let mut hashes = vec![String::new(); paths.len()];
    for told in world.all_gather(&mine)? {
        for entry in told.as_chunks::<40>().0 {
            let (mut index, mut hash) = ([0; 8], [0; 32]);
            index.copy_from_slice(&entry[..8]);
            hash.copy_from_slice(&entry[8..]);
            hashes[u64::from_le_bytes(index) as usize] = hash_text(&hash);
        }
    }
    let mut known: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, hash) in paths.iter().zip(&hashes) {
        if let Some(other) = known.insert(hash, path) {
            return Err(Fault::new("two files have the same content")
                .file(path)
                .found(format!("a copy of {}", other.display()))
                .advice("leave one of them out: its events would count twice")
                .input());
        }
    }
    Ok(hashes)
}

/// What tells whether a file was changed: length, time of the last change, and which
/// file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    length: u64,
    changed: (i64, i64),
    file: (u64, u64),
}

impl Stamp {
    /// None if the file cannot be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let data = std::fs::metadata(path).ok()?;
        Some(Stamp {
            length: data.len(),
            changed: (data.mtime(), data.mtime_nsec()),
            file: (data.dev(), data.ino()),
        })
    }

    /// The file itself, under whatever name.
    pub fn file(&self) -> (u64, u64) {
        self.file
    }
}

/// blake3 of a file's content, streamed.
pub fn hash_file(path: &Path) -> Result<[u8; 32]> {
    hash_file_telling(path, || ())
}

/// The same, with a call whenever some of the file has been read.
pub fn hash_file_telling(path: &Path, progress: impl Fn()) -> Result<[u8; 32]> {
    let unreadable = |error: std::io::Error| {
        Fault::new("cannot read the file").file(path).found(error).advice("check the path").input()
    };
    let file = Telling { file: File::open(path).map_err(unreadable)?, progress };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(unreadable)?;
    Ok(*hasher.finalize().as_bytes())
}

struct Telling<F> {
    file: File,
    progress: F,
}

impl<F: Fn()> Read for Telling<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.progress)();
        self.file.read(buffer)
    }
}

/// A hash as text.
pub fn hash_text(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// The files that a list of paths stands for: files as given, folders by all `*.h5`,
/// `*.hdf5` and `*.hdf` in them and below, sorted by name (hidden entries are left out),
/// patterns by what fits them, `@list` by the paths in it.
pub fn list_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        list_path(path, &mut files)?;
    }
    if files.is_empty() {
        return Err(Fault::new("no input files").advice("give files or folders").input());
    }
    refuse_twice(&files)?;
    Ok(files)
}

/// What one path stands for; nothing is said about a file that is there twice.
pub fn list_path(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let text = path.to_str().unwrap_or_default();
    let Ok(metadata) = std::fs::metadata(path) else {
        // A name that is there is a name, whatever letters it has.
        return match text.strip_prefix('@') {
            Some(list) => list_of(Path::new(list), files),
            None if text.contains(['*', '?', '[']) => list_pattern(path, text, files),
            None => Err(not_found(path)),
        };
    };
    if !metadata.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let before = files.len();
    list_folder(path, 0, files)?;
    if files.len() == before {
        return Err(Fault::new("no HDF5 file in this folder")
            .file(path)
            .expected("files that end in .h5, .hdf5 or .hdf")
            .advice("for CSV tables use `taiga-flow convert` first")
            .input());
    }
    Ok(())
}

/// The paths in a list, one per line, relative to the folder of the list; blank lines and
/// those that begin with `#` mean nothing.
fn list_of(list: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let length = std::fs::metadata(list).map_err(|_| not_found(list))?.len();
    let unreadable =
        |what: String| Fault::new("cannot read the list of files").file(list).found(what).input();
    if length > LONGEST_LIST {
        return Err(unreadable(format!("{length} bytes")));
    }
    let text = std::fs::read_to_string(list).map_err(|error| unreadable(error.to_string()))?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let lines = text.lines().map(str::trim).enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('@') {
            let fault = Fault::new("a list within a list").file(list).row(number as u64 + 1);
            return Err(fault.input());
        }
        list_path(&folder.join(line), files)?;
    }
    Ok(())
}

fn list_pattern(path: &Path, pattern: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| {
        Fault::new("cannot follow the pattern").file(path).found(error).input()
    };
    let found = glob::glob(pattern).map_err(|error| wrong(&error))?;
    let before = files.len();
    for entry in found {
        list_path(&entry.map_err(|error| wrong(&error))?, files)?;
    }
    if files.len() == before {
        return Err(Fault::new("no file fits this pattern")
            .file(path)
            .advice("check the path")
            .input());
    }
    Ok(())
}

fn list_folder(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        Fault::new("cannot list the folder").file(folder).found(error).input()
    };
    if depth > DEEPEST_FOLDER {
        return Err(Fault::new("folders are nested too deeply")
            .file(folder)
            .expected(format!("at most {DEEPEST_FOLDER} levels"))
            .advice("look for a link that leads back up")
            .input());
    }
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    names.sort();
    for name in names {
        let path = folder.join(&name);
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Ok(metadata) = std::fs::metadata(&path) else { continue }; // a dangling link
        if metadata.is_dir() {
            list_folder(&path, depth + 1, files)?;
        } else if is_hdf5_name(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_hdf5_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.to_lowercase().as_str()))
}

fn refuse_twice(files: &[PathBuf]) -> Result<()> {
    let mut known: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    for path in files {
        let metadata = std::fs::metadata(path).map_err(|_| not_found(path))?;
        if let Some(other) = known.insert((metadata.dev(), metadata.ino()), path) {
            return Err(Fault::new("the same file is listed twice")
                .file(path)
                .found(format!("also as {}", other.display()))
                .advice("list it once: its events would count twice")
                .input());
        }
    }
    Ok(())
}

/// The fault of a path that is not there, with the nearest name beside it.
fn not_found(path: &Path) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ColumnSpec, ColumnWriter, Kind, Values};

    fn write(path: &Path, rows: usize, value: f32) {
        let specs = [ColumnSpec::new("size", Kind::F32, Some("p.e."))];
        let mut writer = ColumnWriter::create(path, "events", &specs, false).unwrap();
        writer.append(&[Values::F32(&vec![value; rows])]).unwrap();
        writer.finish(&[]).unwrap();
    }

    #[test]
    fn folders_patterns_and_lists_are_gone_through_in_a_fixed_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        write(&root.join("b/2.h5"), 5, 1.0);
        write(&root.join("b/1.hdf5"), 3, 2.0);
        write(&root.join("a.HDF"), 7, 3.0);
        std::fs::write(root.join("notes.txt"), "x").unwrap();
        std::fs::write(root.join("c.h5.part"), "x").unwrap();
        let names = |path: PathBuf| -> Vec<String> {
            let files = list_files(&[path]).unwrap();
            let relative =
                files.iter().map(|f| f.strip_prefix(&root).unwrap().display().to_string());
            relative.collect()
        };
        assert_eq!(names(root.clone()), ["a.HDF", "b/1.hdf5", "b/2.h5"]);
        assert_eq!(names(root.join("b/?.h*")), ["b/1.hdf5", "b/2.h5"]);
        assert_eq!(names(root.join("*")).len(), 5);
        std::fs::write(root.join("list"), "# two\n\nb/2.h5\n a.HDF \n").unwrap();
        let list = PathBuf::from(format!("@{}", root.join("list").display()));
        assert_eq!(names(list), ["b/2.h5", "a.HDF"]);
        let refused = |path: PathBuf| list_files(&[path]).unwrap_err().to_string();
        assert!(refused(root.join("z*.h5")).contains("no file fits"));
        assert!(refused(PathBuf::from("@nowhere")).contains("file not found"));
        std::fs::write(root.join("loop"), "@loop\n").unwrap();
        let list = PathBuf::from(format!("@{}", root.join("loop").display()));
        assert!(refused(list).contains("a list within a list"));
    }

    #[test]
    fn a_name_that_looks_like_a_pattern_is_a_name_where_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("γ [1] *.h5");
        write(&path, 3, 1.0);
        assert_eq!(list_files(std::slice::from_ref(&path)).unwrap(), [path]);
    }

    #[test]
    fn the_same_file_listed_twice_is_refused_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
        write(&a, 3, 1.0);
        std::os::unix::fs::symlink(&a, &b).unwrap();
        for paths in [[a.clone(), a.clone()], [a.clone(), b.clone()]] {
            let error = list_files(&paths).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("listed twice"), "{error}");
        }
    }

    #[test]
    fn files_of_equal_content_are_refused_when_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
        write(&a, 3, 1.0);
        write(&b, 3, 2.0);
        let hashes = hash_files(&crate::world::Solo, &[&a, &b]).unwrap();
        assert_eq!(hashes[0], blake3::hash(&std::fs::read(&a).unwrap()).to_hex().to_string());
        std::fs::copy(&a, &c).unwrap();
        let error = hash_files(&crate::world::Solo, &[&a, &b, &c]).unwrap_err();
        assert!(error.to_string().contains("same content"), "{error}");
    }

    #[test]
    fn a_file_in_two_roles_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        write(&path, 3, 1.0);
        let paths = [path];
        let roles: [Role; 2] = [(&paths, Some(Class::Gamma)), (&paths, Some(Class::Hadron))];
        let error = sources(&roles, Some("taiga-events")).unwrap_err();
        assert!(error.to_string().contains("listed twice"), "{error}");
        let found = sources(&roles[..1], Some("taiga-events")).unwrap();
        assert_eq!((found[0].rows, found[0].class), (3, Some(Class::Gamma)));
    }

    #[test]
    fn what_is_not_there_is_named_with_the_nearest() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("gamma.h5"), 3, 1.0);
        let error = list_files(&[folder.path().join("gamam.h5")]).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("did you mean 'gamma.h5'?"), "{error}");
        assert_eq!(list_files(&[]).unwrap_err().exit_code(), 3);
        let empty = tempfile::tempdir().unwrap();
        let error = list_files(&[empty.path().to_path_buf()]).unwrap_err();
        assert!(error.to_string().contains("no HDF5 file"), "{error}");
    }
}
