//! Catalogs the files of a job: paths, schemas, rows, and hashes of their content.
//!
//! A path is a file, a folder, a pattern (`runs/*/gamma-??.h5`), or `@` and a list of paths, one per
//! line. Only rank 0 lists; each rank opens (for metadata) and hashes its share, in bounded memory.
//!
//! - Folders and patterns are listed in a fixed order, by name, so that global row numbers are the
//!   same everywhere.
//! - A file that is listed twice is refused, also under a different name.
//! - The result, and the error that is reported, do not depend on the number of ranks.

use super::host_copies;
use super::output::extraction::Extractions;
use super::source::Source;
use crate::comm::wire::{Decoder, Encoder};
use crate::comm::{Communicator, Work, gather_values, host, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::data::files::list::{list_all, refuse_twice};
use crate::data::files::stamp::{copied, hash_file_with_progress, hash_text, same_content};
use crate::data::schema::{BUILT_IN, Schema, built_in};
use crate::data::table::InputFile;
use crate::error::{Error, Fault, Result, path_text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Paths with one role: a class, or `None` for files with a class column.
pub(crate) type Role<'a> = (&'a [PathBuf], Option<Class>);

/// An examination of every file while it is open; its results are compared between files.
pub(crate) type Look<'a> = &'a dyn Fn(&Source, &mut InputFile) -> Result<String>;

/// The files of a job, known to every rank.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    pub sources: Vec<Source>,
    /// Different results of the examination, each with its first file; more than one if files
    /// differ.
    pub said: Vec<(usize, String)>,
}

/// Returns the files of all roles, in their order, with schema and rows. Each rank opens its share.
/// A collective.
///
/// # Errors
/// `Input` if a file is listed twice, also in two roles; those of opening the first bad file.
pub(crate) fn sources(
    comm: &dyn Communicator,
    roles: &[Role],
    schema: Option<&str>,
) -> Result<Vec<Source>> {
    Ok(catalogue(comm, roles, schema, &|_, _| Ok(String::new()))?.sources)
}

/// Returns the same files, with the results of `look`. A collective.
///
/// # Errors
/// Those of [`sources`] and of `look`.
pub(crate) fn catalogue(
    comm: &dyn Communicator,
    roles: &[Role],
    schema: Option<&str>,
    look: Look,
) -> Result<Catalog> {
    let asked = sync_result(comm, Schema::of_option(schema))?;
    let listed = from_root(comm, || list_roles(roles))?;
    see_listed(comm, &listed.iter().map(|file| (&*file.path, file.bytes)).collect::<Vec<_>>())?;
    let mut mine = Vec::new();
    let mut failure = None;
    for (i, file) in listed.iter().enumerate().skip(comm.rank()).step_by(comm.size()) {
        comm.progress(Work::Reading, i as u64);
        match file.open(asked.as_ref(), roles, look) {
            Ok(found) => mine.push((i, found)),
            Err(error) => {
                failure = Some((i, error));
                break;
            }
        }
    }
    sync_first_failure(comm, failure)?;
    let shares = gather_values(comm, &CatalogShare::new(mine))?;
    mark_shared(assemble(&listed, roles, asked.as_ref(), shares))
}

/// A file as rank 0 has listed it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CatalogFile {
    path: PathBuf,
    role: usize,
    bytes: u64,
}

impl CatalogFile {
    fn open(&self, asked: Option<&Arc<Schema>>, roles: &[Role], look: Look) -> Result<FileSummary> {
        let (source, mut file) = Source::open(&self.path, asked, roles[self.role].1)?;
        // Ranks exchange the number of a built-in schema; any other schema is that of the option.
        let number = BUILT_IN.iter().position(|(name, _)| *name == source.schema.name);
        let finding = look(&source, &mut file).map_err(|error| error.in_file(&self.path))?;
        Ok(FileSummary { rows: source.rows, schema: number.unwrap_or(BUILT_IN.len()), finding })
    }
}

impl Encode for CatalogFile {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.role as u64).number(self.bytes).path(&self.path);
    }

    fn decode(decoder: &mut Decoder) -> Result<CatalogFile> {
        let (role, bytes) = (decoder.number()? as usize, decoder.number()?);
        Ok(CatalogFile { role, bytes, path: decoder.path()? })
    }
}

/// A file as a rank has opened it.
struct FileSummary {
    rows: u64,
    /// Number of its built-in schema; the number of built-in schemas for any other schema.
    schema: usize,
    finding: String,
}

/// The files of one rank, as ranks exchange them.
#[derive(Serialize, Deserialize)]
struct CatalogShare {
    /// Rows and number of the schema of each file.
    files: Vec<(u64, usize)>,
    /// Different findings, each with its first file.
    findings: BTreeMap<String, usize>,
}

impl CatalogShare {
    fn new(files: Vec<(usize, FileSummary)>) -> CatalogShare {
        let mut share = CatalogShare { files: Vec::new(), findings: BTreeMap::new() };
        for (i, FileSummary { rows, schema, finding }) in files {
            share.files.push((rows, schema));
            share.findings.entry(finding).or_insert(i);
        }
        share
    }
}

/// Returns the catalog of the files in their order, from the shares of all ranks.
fn assemble(
    listed: &[CatalogFile],
    roles: &[Role],
    asked: Option<&Arc<Schema>>,
    shares: Vec<CatalogShare>,
) -> Result<Catalog> {
    let own: Vec<Arc<Schema>> = built_in()?.iter().cloned().map(Arc::new).collect();
    let broken = || Fault::new("ranks have opened other files than were listed").internal();
    let ranks = shares.len();
    let mut sources = Vec::with_capacity(listed.len());
    for (i, file) in listed.iter().enumerate() {
        let (rows, schema) = *shares[i % ranks].files.get(i / ranks).ok_or_else(broken)?;
        sources.push(Source {
            path: file.path.clone(),
            schema: asked.or(own.get(schema)).cloned().ok_or_else(broken)?,
            rows,
            class: roles[file.role].1,
            view: None,
        });
    }
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (text, i) in shares.into_iter().flat_map(|share| share.findings) {
        let known = first.entry(text).or_insert(i);
        *known = i.min(*known);
    }
    let mut said: Vec<(usize, String)> = first.into_iter().map(|(text, i)| (i, text)).collect();
    said.sort_unstable();
    Ok(Catalog { sources, said })
}

/// Returns the error of the first failed file on all ranks. A collective.
fn sync_first_failure(comm: &dyn Communicator, failure: Option<(usize, Error)>) -> Result<()> {
    let mine = failure.as_ref().map_or(u64::MAX, |(i, _)| *i as u64);
    let all = comm.all_gather(&mine.to_le_bytes())?;
    let first = all.iter().filter_map(|message| Decoder::new(message).number().ok()).min();
    let is_first = Some(mine) == first;
    sync_result(comm, failure.filter(|_| is_first).map_or(Ok(()), |(_, error)| Err(error)))
}

/// A value that rank 0 broadcasts. Paths may contain any bytes, which JSON could not represent.
pub(super) trait Encode: Sized {
    fn encode(&self, encoder: &mut Encoder);
    fn decode(decoder: &mut Decoder) -> Result<Self>;
}

impl Encode for u64 {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(*self);
    }

    fn decode(decoder: &mut Decoder) -> Result<u64> {
        decoder.number()
    }
}

/// Returns the values that rank 0 finds, on all ranks, so that the file system is read once. A
/// collective.
pub(super) fn from_root<T: Encode>(
    comm: &dyn Communicator,
    find: impl FnOnce() -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let found = sync_result(comm, if is_root(comm) { find() } else { Ok(Vec::new()) })?;
    if comm.size() == 1 {
        return Ok(found);
    }
    let mut encoder = Encoder::default();
    found.iter().for_each(|item| item.encode(&mut encoder));
    let mut bytes = encoder.into_bytes();
    comm.broadcast(&mut bytes)?;
    if is_root(comm) {
        return Ok(found);
    }
    let (mut decoder, mut items) = (Decoder::new(&bytes), Vec::new());
    while !decoder.is_over() {
        items.push(T::decode(&mut decoder)?);
    }
    Ok(items)
}

/// Least number of files that a rank checks, whatever its share.
const LEAST_CHECKED: usize = 16;

/// Refuses files that a rank sees with a different path or length than rank 0, and files whose
/// sampled content differs between hosts. Each rank checks its share, and more if there are few
/// files; together the ranks check all files. A collective.
pub(super) fn see_listed(comm: &dyn Communicator, files: &[(&Path, u64)]) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let share = files.len().div_ceil(comm.size());
    let first = share * comm.rank();
    let checked = share.max(LEAST_CHECKED).min(files.len());
    let unseen = (first..first + checked).map(|i| files[i % files.len()]).find_map(|file| {
        let (path, bytes) = file;
        let found = match std::fs::metadata(path) {
            Ok(data) if data.len() == bytes => return None,
            Ok(data) => format!("{} bytes", data.len()),
            Err(error) => error.to_string(),
        };
        Some(
            Fault::new("an input is not the same on all ranks")
                .file(path)
                .expected(format!("{bytes} bytes, as on rank 0"))
                .found(format!("{found}, on {}", host()))
                .advice("name it by a path on a file system that all nodes of the job share")
                .environment(),
        )
    });
    sync_result(comm, unseen.map_or(Ok(()), Err))?;
    let paths: Vec<&Path> = files.iter().map(|(path, _)| *path).collect();
    host_copies::refuse_different(comm, &host(), &paths)
}

/// Lists the files of all roles in their order.
fn list_roles(roles: &[Role]) -> Result<Vec<CatalogFile>> {
    let (mut files, mut of_role) = (Vec::new(), Vec::new());
    for (role, (paths, _)) in roles.iter().enumerate().filter(|(_, role)| !role.0.is_empty()) {
        list_all(paths, &mut files)?;
        of_role.resize(files.len(), role);
    }
    let lengths = refuse_twice(&files)?;
    let extractions = Extractions::of(files.iter().map(PathBuf::as_path))?;
    extractions.refuse_unlisted()?;
    let given: Vec<PathBuf> = roles.iter().flat_map(|role| role.0).cloned().collect();
    extractions.warn_of_absent(&given);
    drop(extractions);
    let all = files.into_iter().zip(of_role).zip(lengths);
    Ok(all.map(|((path, role), bytes)| CatalogFile { path, role, bytes }).collect())
}

/// Returns the blake3 hash of each file, on every rank. A collective.
///
/// # Errors
/// `Input` for two files of equal content, whose events would count twice.
pub(crate) fn hash_files(comm: &dyn Communicator, paths: &[&Path]) -> Result<Vec<String>> {
    let hashes = hashes(comm, paths)?;
    let mut known: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, hash) in paths.iter().zip(&hashes) {
        if let Some(other) = known.insert(hash, path) {
            return Err(same_content(path, other));
        }
    }
    Ok(hashes)
}

/// Returns the blake3 hash of each file, on every rank; each rank hashes its share.
fn hashes(comm: &dyn Communicator, paths: &[&Path]) -> Result<Vec<String>> {
    let mine = paths.iter().enumerate().skip(comm.rank()).step_by(comm.size()).map(|(i, path)| {
        let hash = hash_file_with_progress(path, || comm.progress(Work::Hashing, i as u64))?;
        Ok((i, hash_text(&hash)))
    });
    let mine: Vec<(usize, String)> = sync_result(comm, mine.collect())?;
    let mut hashes = vec![String::new(); paths.len()];
    for (i, hash) in gather_values(comm, &mine)?.into_iter().flatten() {
        hashes[i] = hash;
    }
    Ok(hashes)
}

/// Refuses files of equal content: their events would count twice, or as gammas and as hadrons.
/// Files without rows may be equal. A collective.
///
/// # Errors
/// `Input`, with the first copy and its original; those of reading a file.
pub(crate) fn refuse_copies(comm: &dyn Communicator, sources: &[Source]) -> Result<()> {
    let equal: Vec<&Source> =
        of_equal_length(comm, sources)?.into_iter().map(|i| &sources[i]).collect();
    let paths: Vec<&Path> = equal.iter().map(|source| source.path.as_path()).collect();
    let hashes = hashes(comm, &paths)?;
    let mut known: BTreeMap<&str, &Source> = BTreeMap::new();
    for (source, hash) in equal.into_iter().zip(&hashes) {
        let Some(other) = known.insert(hash, source) else { continue };
        let mut found = format!("a copy of {}", path_text(&other.path));
        if source.class != other.class {
            let [other, own] = [other, source].map(|of| match of.class {
                Some(class) => format!("as {class}s"),
                None => "with its class column".to_string(),
            });
            found = format!("{found}, given {other} and here {own}");
        }
        return mark_shared(Err(copied(&source.path, found)));
    }
    Ok(())
}

/// Returns the files with rows that share their length with a different file, in their order. All
/// other files differ in content. Only rank 0 reads lengths.
fn of_equal_length(comm: &dyn Communicator, sources: &[Source]) -> Result<Vec<usize>> {
    let mut by_rows: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, source) in sources.iter().enumerate().filter(|(_, source)| source.rows > 0) {
        by_rows.entry(source.rows).or_default().push(i);
    }
    let alike: Vec<usize> = by_rows.into_values().filter(|of| of.len() > 1).flatten().collect();
    let length = |i: &usize| std::fs::metadata(&sources[*i].path).map_or(0, |data| data.len());
    let lengths = from_root(comm, || Ok(alike.iter().map(length).collect()))?;
    let mut by_length: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, length) in alike.into_iter().zip(lengths) {
        by_length.entry(length).or_default().push(i);
    }
    let mut equal: Vec<usize> =
        by_length.into_values().filter(|of| of.len() > 1).flatten().collect();
    equal.sort_unstable();
    Ok(equal)
}

#[cfg(test)]
mod tests;
