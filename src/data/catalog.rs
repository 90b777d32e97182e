//! The files of a job: which, how many rows in each, where each begins in the global
//! numbering of rows, and what their bytes hash to.
//!
//! Promises: folders are searched in a fixed order (by name), so that global row numbers
//! are the same everywhere; the same file listed twice is refused, also under another
//! name; hashing reads in bounded memory. Left to others: the columns (`table`).

use super::h5;
use super::schema::Schema;
use super::table::Table;
use crate::error::{Error, Fault, Result, nearest};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["h5", "hdf5", "hdf"];
/// Deeper folders are a loop of links.
const DEEPEST_FOLDER: usize = 32;

/// The files of a job, in the order of their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    pub files: Vec<CatalogFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFile {
    pub path: PathBuf,
    pub rows: u64,
    /// blake3 of the content, where it was asked for.
    pub hash: Option<[u8; 32]>,
    pub bytes: u64,
}

impl Catalog {
    /// Opens every file of the list (see [`list_files`]) for its rows; without a schema
    /// each file's own is detected.
    pub fn open(paths: &[PathBuf], schema: Option<&Schema>) -> Result<Catalog> {
        let paths = list_files(paths)?;
        let files = paths.into_iter().map(|path| CatalogFile::open(path, schema));
        Ok(Catalog { files: files.collect::<Result<_>>()? })
    }

    /// Rows of all files together.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Global row number of the first row of each file.
    pub fn offsets(&self) -> Vec<u64> {
        let mut next = 0;
        let begin = |file: &CatalogFile| {
            next += file.rows;
            next - file.rows
        };
        self.files.iter().map(begin).collect()
    }

    /// File and row in it of a global row; none past the end.
    pub fn locate(&self, global_row: u64) -> Option<(usize, u64)> {
        let mut first = 0;
        for (index, file) in self.files.iter().enumerate() {
            if global_row - first < file.rows {
                return Some((index, global_row - first));
            }
            first += file.rows;
        }
        None
    }

    /// Fills in the content hashes, and refuses two files of equal content: their events
    /// would count twice.
    pub fn hash(&mut self) -> Result<()> {
        let mut known: BTreeMap<[u8; 32], PathBuf> = BTreeMap::new();
        for file in &mut self.files {
            let hash = hash_file(&file.path)?;
            file.hash = Some(hash);
            if let Some(other) = known.insert(hash, file.path.clone()) {
                return Err(Fault::new("two files have the same content")
                    .file(&file.path)
                    .found(format!("a copy of {}", other.display()))
                    .advice("leave one of them out: its events would count twice")
                    .input());
            }
        }
        Ok(())
    }
}

impl CatalogFile {
    fn open(path: PathBuf, schema: Option<&Schema>) -> Result<CatalogFile> {
        let bytes = h5::file_length(&path)?;
        let rows = match schema {
            Some(schema) => Table::open(&path, schema)?.rows(),
            None => Table::open(&path, &Schema::detect(&path)?)?.rows(),
        };
        Ok(CatalogFile { path, rows, hash: None, bytes })
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
/// `*.hdf5` and `*.hdf` in them and below, sorted by name; hidden entries are left out.
pub fn list_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|_| not_found(path))?;
        if metadata.is_dir() {
            let before = files.len();
            list_folder(path, 0, &mut files)?;
            if files.len() == before {
                return Err(Fault::new("no HDF5 file in this folder")
                    .file(path)
                    .expected("files that end in .h5, .hdf5 or .hdf")
                    .advice("for CSV tables use `taiga-flow convert` first")
                    .input());
            }
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        return Err(Fault::new("no input files").advice("give files or folders").input());
    }
    refuse_twice(&files)?;
    Ok(files)
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

    fn own() -> Schema {
        Schema::by_name_or_path("taiga-events").unwrap()
    }

    #[test]
    fn a_folder_is_listed_by_name_and_rows_are_numbered_through() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        write(&root.join("b/2.h5"), 5, 1.0);
        write(&root.join("b/1.hdf5"), 3, 2.0);
        write(&root.join("a.HDF"), 7, 3.0);
        std::fs::write(root.join("notes.txt"), "x").unwrap();
        std::fs::write(root.join("c.h5.part"), "x").unwrap();
        let catalog = Catalog::open(std::slice::from_ref(&root), Some(&own())).unwrap();
        let names: Vec<_> =
            catalog.files.iter().map(|f| f.path.strip_prefix(&root).unwrap()).collect();
        assert_eq!(names, ["a.HDF", "b/1.hdf5", "b/2.h5"].map(Path::new));
        assert_eq!(catalog.rows(), 15);
        assert_eq!(catalog.offsets(), [0, 7, 10]);
        assert_eq!(catalog.locate(9), Some((1, 2)));
        assert_eq!(catalog.locate(10), Some((2, 0)));
        assert_eq!(catalog.locate(15), None);
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
        write(&folder.path().join("a.h5"), 3, 1.0);
        write(&folder.path().join("b.h5"), 3, 2.0);
        let paths = [folder.path().to_path_buf()];
        let mut catalog = Catalog::open(&paths, Some(&own())).unwrap();
        catalog.hash().unwrap();
        let expected = blake3::hash(&std::fs::read(folder.path().join("a.h5")).unwrap());
        assert_eq!(catalog.files[0].hash, Some(*expected.as_bytes()));
        std::fs::copy(folder.path().join("a.h5"), folder.path().join("c.h5")).unwrap();
        let error = Catalog::open(&paths, Some(&own())).unwrap().hash().unwrap_err();
        assert!(error.to_string().contains("same content"), "{error}");
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
