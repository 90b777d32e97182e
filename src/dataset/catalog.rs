//! The files of a job: which they are, what each is, and what their bytes hash to.
//!
//! A path is a file, a folder, a pattern (`runs/*/gamma-??.h5`), or `@` and a list of
//! paths, one per line. Promises: folders and patterns are gone through in a fixed order
//! (by name), so that global row numbers are the same everywhere; the same file listed
//! twice is refused, also under another name; rank 0 alone lists, every rank opens (for
//! metadata alone) and hashes its share, in bounded memory, and what is found, also which
//! fault is told, is the same on any number of ranks. Left to others: the columns (`table`),
//! and what is wrong with the rows (`check`).

use super::host_copies;
use super::output::extraction::Extractions;
use super::source::Source;
use crate::comm::wire::{Decoder, Encoder};
use crate::comm::{Communicator, Work, host, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::data::files::list::{list_all, refuse_twice};
use crate::data::files::stamp::{copied, hash_file_with_progress, hash_text, same_content};
use crate::data::schema::{BUILT_IN, Schema, built_in};
use crate::data::table::InputFile;
use crate::error::{Error, Fault, Result, path_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Paths that have one role: a class, or none where the files tell it themselves.
pub type Role<'a> = (&'a [PathBuf], Option<Class>);

/// An examination of every file while it is open; its results are compared between files.
pub type Look<'a> = &'a dyn Fn(&Source, &mut InputFile) -> Result<String>;

/// The files of a job, known to every rank.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub sources: Vec<Source>,
    /// What was said of the files, each time with the first file it was said of; more than
    /// one where files differ.
    pub said: Vec<(usize, String)>,
}

/// The files of all roles, in their order, with schema and rows; a file that stands twice,
/// also in two roles, is refused. To be called by all ranks, each of which opens its share.
pub fn sources(
    comm: &dyn Communicator,
    roles: &[Role],
    schema: Option<&str>,
) -> Result<Vec<Source>> {
    Ok(catalogue(comm, roles, schema, &|_, _| Ok(String::new()))?.sources)
}

/// The same, and what `look` says of them.
pub fn catalogue(
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
    let messages = comm.all_gather(&FileSummary::encode_all(&mine))?;
    drop(mine);
    mark_shared(assemble(&listed, roles, asked.as_ref(), &messages))
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
        let said = look(&source, &mut file).map_err(|error| error.in_file(&self.path))?;
        Ok(FileSummary { rows: source.rows, schema: number.unwrap_or(BUILT_IN.len()), said })
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

/// What a file was found to be.
#[derive(Debug)]
struct FileSummary {
    rows: u64,
    /// Number of its built-in schema; that of all of them if it is another one.
    schema: usize,
    said: String,
}

impl FileSummary {
    /// Of the files of a share, two numbers each; what was said of them once for all that
    /// it was said of.
    fn encode_all(share: &[(usize, FileSummary)]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.number(share.len() as u64);
        let mut said: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, found) in share {
            encoder.number(found.rows).number(found.schema as u64);
            said.entry(&found.said).or_insert(*i);
        }
        for (text, first) in said {
            encoder.number(first as u64).text(text.as_bytes());
        }
        encoder.into_bytes()
    }
}

/// The files in their order, from what every rank tells of its share.
fn assemble(
    listed: &[CatalogFile],
    roles: &[Role],
    asked: Option<&Arc<Schema>>,
    messages: &[Vec<u8>],
) -> Result<Catalog> {
    let own: Vec<Arc<Schema>> = built_in()?.iter().cloned().map(Arc::new).collect();
    let broken = || Fault::new("ranks told of other files than were listed").internal();
    let mut shares: Vec<Decoder> = messages.iter().map(|bytes| Decoder::new(bytes)).collect();
    let files = shares.iter_mut().map(Decoder::number).sum::<Result<u64>>()?;
    if files != listed.len() as u64 {
        return Err(broken());
    }
    let ranks = shares.len();
    let mut sources = Vec::with_capacity(listed.len());
    for (i, file) in listed.iter().enumerate() {
        let share = &mut shares[i % ranks];
        let (rows, schema) = (share.number()?, share.number()? as usize);
        sources.push(Source {
            path: file.path.clone(),
            schema: asked.or(own.get(schema)).cloned().ok_or_else(broken)?,
            rows,
            class: roles[file.role].1,
            view: None,
        });
    }
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for share in &mut shares {
        while !share.is_over() {
            let (i, text) = (share.number()? as usize, share.string()?);
            let known = first.entry(text).or_insert(i);
            *known = i.min(*known);
        }
    }
    let mut said: Vec<(usize, String)> = first.into_iter().map(|(text, i)| (i, text)).collect();
    said.sort_unstable();
    Ok(Catalog { sources, said })
}

/// Fails on all ranks if one did, with the fault of the first file, whichever rank has it.
fn sync_first_failure(comm: &dyn Communicator, failure: Option<(usize, Error)>) -> Result<()> {
    let mine = failure.as_ref().map_or(u64::MAX, |(i, _)| *i as u64);
    let all = comm.all_gather(&mine.to_le_bytes())?;
    let first = all.iter().filter_map(|message| Decoder::new(message).number().ok()).min();
    let is_first = Some(mine) == first;
    sync_result(comm, failure.filter(|_| is_first).map_or(Ok(()), |(_, error)| Err(error)))
}

/// What rank 0 tells all others.
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

/// What rank 0 alone finds out, on all ranks: a file system is asked once for all.
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

/// Fewest files that a rank looks for, whatever its share of all.
const LOOKED_FOR: usize = 16;

/// Refuses ranks that do not see the files as rank 0 has listed them: path and length, and
/// between hosts a sample of the content. Each
/// looks for its share, and for some more where there are few; the ranks together look for all.
pub(super) fn see_listed(comm: &dyn Communicator, files: &[(&Path, u64)]) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let share = files.len().div_ceil(comm.size());
    let first = share * comm.rank();
    let looked_for = share.max(LOOKED_FOR).min(files.len());
    let unseen = (first..first + looked_for).map(|i| files[i % files.len()]).find_map(|file| {
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

/// The files of all roles in their order.
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

/// blake3 of each file, which every rank gets. Two files of equal content are refused: their
/// events would count twice.
pub fn hash_files(comm: &dyn Communicator, paths: &[&Path]) -> Result<Vec<String>> {
    let hashes = hashes(comm, paths)?;
    let mut known: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, hash) in paths.iter().zip(&hashes) {
        if let Some(other) = known.insert(hash, path) {
            return Err(same_content(path, other));
        }
    }
    Ok(hashes)
}

/// blake3 of each file, which every rank gets; every rank hashes its share.
fn hashes(comm: &dyn Communicator, paths: &[&Path]) -> Result<Vec<String>> {
    let mut mine = Vec::new();
    let mut failure = None;
    for (i, path) in paths.iter().enumerate().filter(|(i, _)| i % comm.size() == comm.rank()) {
        match hash_file_with_progress(path, || comm.progress(Work::Hashing, i as u64)) {
            Ok(hash) => {
                mine.extend((i as u64).to_le_bytes());
                mine.extend(hash);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    sync_result(comm, failure.map_or(Ok(()), Err))?;
    let mut hashes = vec![String::new(); paths.len()];
    for messages in comm.all_gather(&mine)? {
        for entry in messages.as_chunks::<40>().0 {
            let (mut index, mut hash) = ([0; 8], [0; 32]);
            index.copy_from_slice(&entry[..8]);
            hash.copy_from_slice(&entry[8..]);
            hashes[u64::from_le_bytes(index) as usize] = hash_text(&hash);
        }
    }
    Ok(hashes)
}

/// Refuses files of equal content, on all ranks alike: their events would count twice, or as
/// gammas and as hadrons. Files without rows may be equal.
///
/// # Errors
/// Input, with the first copy and its original; what reading a file gives.
pub fn refuse_copies(comm: &dyn Communicator, sources: &[Source]) -> Result<()> {
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

/// Returns the files that have rows and the length of another one, in their order: all others
/// differ in content. Rank 0 alone asks for lengths.
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
