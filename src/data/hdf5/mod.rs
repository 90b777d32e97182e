//! Opens HDF5 inputs, reads attributes and names, and explains errors of the library.
//!
//! The inner frames of a library error name the cause, the outer ones only the way to it. Errors
//! are sorted into input and environment errors. Inputs are opened without file locks, which
//! network file systems often refuse.

pub(crate) mod compound;
pub(in crate::data) mod descriptor;
mod header;
pub(crate) mod numbers;
pub(crate) mod rows;
pub(crate) mod storage;
pub(crate) mod types;

use super::files::stamp::Stamp;
use super::files::walk::broken_link;
use crate::bounded;
use crate::error::{Error, Fault, Result, did_you_mean};
use crate::memory;
use crate::storage::disk_fault;
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, File, Group, Location};
use std::fs::Metadata;
use std::io::{ErrorKind, Read};
use std::path::Path;
use types::{is_unusual, numbers_of_type};

/// The library's own cache of chunks per dataset [bytes]; enough where chunks are small.
pub(super) const DEFAULT_CACHE: usize = 1 << 20;
const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// An input that is open.
pub(super) struct OpenInput {
    pub file: File,
    /// Stamp of the file before it was opened: any later change differs from it.
    pub stamp: Stamp,
    /// The descriptor of the file, for its bytes.
    pub bytes: std::fs::File,
}

/// Opens an input for reading.
///
/// # Errors
/// `Input`, with the reason that it cannot be opened; `Environment` if memory is short.
pub(super) fn open(path: &Path) -> Result<File> {
    open_with_cache(path, DEFAULT_CACHE)
}

/// Opens an input with a chunk cache of `cache` bytes per dataset, as [`open`] does.
pub(super) fn open_with_cache(path: &Path, cache: usize) -> Result<File> {
    open_input(path, cache).map(|input| input.file)
}

/// Opens an input once, for the library and for its bytes, as [`open_with_cache`] does.
pub(super) fn open_input(path: &Path, cache: usize) -> Result<OpenInput> {
    header::refuse_external_links();
    let metadata = regular_file(path)?;
    if metadata.len() == 0 {
        return Err(Fault::new("the file is empty")
            .file(path)
            .found("0 bytes")
            .advice("copy or write it again")
            .input());
    }
    let file = File::with_options()
        .with_fapl(|access| access.sec2().file_locking(false).chunk_cache(521, cache, 0.75))
        .open(path)
        .map_err(|error| open_fault(path, metadata.len(), &error))?;
    let bytes = descriptor::duplicate(path, &file)?;
    header::check(path, &file, &bytes)?;
    Ok(OpenInput { file, stamp: Stamp::new(&metadata), bytes })
}

/// Returns whether a file begins with the signature of HDF5.
pub(super) fn is_hdf5(path: &Path) -> bool {
    let mut head = [0u8; SIGNATURE.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *SIGNATURE
}

/// Returns the length of a regular file [bytes].
pub(super) fn file_length(path: &Path) -> Result<u64> {
    regular_file(path).map(|metadata| metadata.len())
}

/// Returns the metadata of a regular file.
///
/// # Errors
/// `Input` if there is none, or another kind of file.
fn regular_file(path: &Path) -> Result<Metadata> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let fault = broken_link(path, &error).unwrap_or_else(|| match error.kind() {
            ErrorKind::NotFound => Fault::new("file not found").file(path).advice("check the path"),
            _ => Fault::new("cannot read the file").file(path).found(error),
        });
        fault.input()
    })?;
    if metadata.is_dir() {
        return Err(Fault::new("a folder, not a file").file(path).expected("an HDF5 file").input());
    }
    if let Some(fault) = bounded::irregular_kind(path, metadata.file_type()) {
        return Err(fault.expected("an HDF5 file").input());
    }
    Ok(metadata)
}

/// Opens a group of a file.
///
/// # Errors
/// `Input`, with the nearest name, if there is no such group; `Environment` if the system fails.
pub(super) fn group(path: &Path, file: &File, name: &str) -> Result<Group> {
    if name.is_empty() {
        return file.as_group().map_err(|error| read_fault(path, "/", &error));
    }
    file.group(name).map_err(|error| {
        let fault = read_fault(path, name, &error);
        if is_failure_of_system(&fault) {
            return fault;
        }
        let names = file.member_names().unwrap_or_default();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault = Fault::new(format!("group '{name}' not found")).file(path);
        if known.is_empty() {
            fault.found("a file without any group").input()
        } else {
            fault.advice(did_you_mean(name, &known)).input()
        }
    })
}

/// Returns the names of the members of a group; empty if there is no such group.
///
/// # Errors
/// `Environment` if the system fails to read it; `Input` if the group is damaged.
pub(super) fn member_names(path: &Path, file: &File, group: &str) -> Result<Vec<String>> {
    let Some(found) = present(path, group, file.group(group))? else { return Ok(Vec::new()) };
    found.member_names().map_err(|error| read_fault(path, group, &error))
}

/// Opens a dataset; returns `None` if the file does not have it.
///
/// # Errors
/// `Environment` if the system fails to read it.
pub(super) fn optional_dataset(path: &Path, file: &File, name: &str) -> Result<Option<Dataset>> {
    present(path, name, file.dataset(name))
}

/// Reads a text attribute, as [`text_attribute`] does.
///
/// # Errors
/// `Environment` if the system fails to read it.
pub(super) fn checked_text(path: &Path, dataset: &Dataset, name: &str) -> Result<Option<String>> {
    let place = dataset.name();
    if present(path, &place, dataset.attr(name))?.is_none() {
        return Ok(None);
    }
    let text = text_attribute(dataset, name);
    let is_text = text.is_some() || !dataset.attr(name).is_ok_and(|a| is_text(&a));
    if is_text { Ok(text) } else { Err(unreadable_attribute(path, &place, name)) }
}

fn is_text(attribute: &hdf5::Attribute) -> bool {
    let descriptor = attribute.dtype().and_then(|dtype| dtype.to_descriptor());
    attribute.is_scalar()
        && matches!(descriptor, Ok(TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii))
}

fn unreadable_attribute(path: &Path, place: &str, name: &str) -> Error {
    Fault::new(format!("cannot read the attribute '{name}'"))
        .file(path)
        .dataset(place)
        .advice("the file is damaged, or its file system failed: try again, or copy it again")
        .input()
}

/// Returns the result of a library call; `None` if the object does not exist.
///
/// # Errors
/// `Environment` if the system failed, so that it is unknown whether the object exists.
pub(super) fn present<T>(path: &Path, name: &str, found: hdf5::Result<T>) -> Result<Option<T>> {
    unless_system(found.map_err(|error| read_fault(path, name, &error)))
}

/// Returns whether an object of a group can be read as far as its type: a group or a named type, or
/// a dataset whose type and shape are readable. Links without a target are not.
pub(super) fn is_readable(group: &hdf5::Group, name: &str) -> bool {
    match group.loc_type_by_name(name) {
        Ok(hdf5::LocationType::Dataset) => group
            .dataset(name)
            .is_ok_and(|dataset| dataset.dtype().is_ok() && dataset.get_shape().is_ok()),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Returns a result; `None` for an error of the file.
///
/// # Errors
/// `Environment` if the system failed.
pub(super) fn unless_system<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(fault) if is_failure_of_system(&fault) => Err(fault),
        Err(_) => Ok(None),
    }
}

/// Returns whether an error of [`read_fault`] is one of the file system or the memory, and not of
/// the file.
pub(super) fn is_failure_of_system(fault: &Error) -> bool {
    matches!(fault, Error::Environment(_))
}

/// Describes the root of a file, for messages.
pub(super) fn describe_root(file: &File) -> String {
    let names = file.member_names().unwrap_or_default();
    let described: Vec<String> = names
        .iter()
        .take(8)
        .map(|name| match file.group(name).and_then(|group| group.member_names()) {
            Ok(members) => format!("group '{name}' with {} members", members.len()),
            Err(_) => format!("dataset '{name}'"),
        })
        .collect();
    match described.len() {
        0 => "nothing in it".to_string(),
        shown if shown < names.len() => format!("{}, …", described.join(", ")),
        _ => described.join(", "),
    }
}

/// Reads a text attribute of any string type; returns `None` if it is absent or not a text.
pub(super) fn text_attribute(place: &Location, name: &str) -> Option<String> {
    let attribute = place.attr(name).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string();
    if let Ok(value) = attribute.read_scalar::<VarLenUnicode>() {
        return Some(text(value.as_bytes()));
    }
    if let Ok(value) = attribute.read_scalar::<VarLenAscii>() {
        return Some(text(value.as_bytes()));
    }
    if let Ok(value) = attribute.read_scalar::<FixedAscii<4096>>() {
        return Some(text(value.as_bytes()));
    }
    attribute.read_scalar::<FixedUnicode<4096>>().ok().map(|value| text(value.as_bytes()))
}

/// Reads a number attribute of any type; returns `None` if it is absent or not a number.
pub(super) fn number_attribute(place: &Location, name: &str) -> Option<f64> {
    usual_number(place, name)?.read_scalar::<f64>().ok()
}

/// Returns a number attribute in a usual format: converting a damaged one crashes the library.
fn usual_number(place: &Location, name: &str) -> Option<hdf5::Attribute> {
    let attribute = place.attr(name).ok()?;
    let dtype = attribute.dtype().ok()?;
    (numbers_of_type(&dtype).is_some() && !is_unusual(&dtype)).then_some(attribute)
}

/// Reads an integer attribute; returns `None` if it is absent or not a number.
pub(super) fn integer_attribute(place: &Location, name: &str) -> Option<i64> {
    usual_number(place, name)?.read_scalar::<i64>().ok()
}

/// Reads an attribute of one number or a short list; returns `None` for any other attribute.
pub(super) fn number_list_attribute(place: &Location, name: &str) -> Option<Vec<f64>> {
    const LONGEST: usize = 1024;
    let attribute = usual_number(place, name)?;
    (attribute.size() <= LONGEST).then(|| attribute.read_raw::<f64>().ok())?
}

/// Reads an attribute of two finite numbers; returns `None` for any other attribute.
pub(super) fn pair_attribute(place: &Location, name: &str) -> Option<[f64; 2]> {
    let pair = number_list_attribute(place, name)?;
    <[f64; 2]>::try_from(pair).ok().filter(|pair| pair.iter().all(|x| x.is_finite()))
}

/// Returns the message of the system in a library error; without one, the texts of all frames,
/// outermost first, without repetitions.
pub(super) fn reason(error: &hdf5::Error) -> String {
    let Some(stack) = error.stack() else { return error.to_string() };
    if let Some(system) = stack.iter().find_map(|frame| system_message(frame.desc())) {
        return system.to_string();
    }
    let mut lines: Vec<String> = Vec::new();
    for frame in stack.iter() {
        let line = frame.desc().trim().to_string();
        if !line.is_empty() && lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { error.to_string() } else { lines.join("; ") }
}

/// Returns the quoted text of `error message = '…'`, which the file driver of the library writes.
fn system_message(frame: &str) -> Option<&str> {
    let rest = &frame[frame.find("error message = '")? + 17..];
    rest.split('\'').next().filter(|text| *text != "Success")
}

/// Returns the error of a library call that wrote to `path`.
pub(super) fn write_fault(operation: &str, path: &Path, error: &hdf5::Error) -> Error {
    let reason = reason(error);
    let kind = if reason.contains("No space left") {
        ErrorKind::StorageFull
    } else if reason.contains("quota exceeded") {
        ErrorKind::QuotaExceeded
    } else if reason.contains("Permission denied") {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Other
    };
    disk_fault(operation, path, &reason, kind)
}

/// Refuses invalid parameters of filters, which the library does not check: the filter of blosc
/// uses an unknown compressor as an address.
pub(super) fn check_filters(dataset: &hdf5::Dataset) -> hdf5::Result<()> {
    dataset.dcpl()?.get_filters().map(|_| ())
}

/// Returns the error of a library call that read the dataset or group `name`.
pub(super) fn read_fault(path: &Path, name: &str, error: &hdf5::Error) -> Error {
    let reason = reason(error);
    let fault = Fault::new("cannot read the data").file(path).dataset(name);
    if reason.contains("Input/output error") || reason.contains("Stale file handle") {
        return fault
            .found(reason)
            .advice("the file system failed: try again, or copy the file elsewhere")
            .environment();
    }
    if is_lack_of_memory(&reason) {
        return out_of_memory(fault, reason);
    }
    if reason.contains("bad version number") {
        return newer(path).dataset(name).found(reason).input();
    }
    if header::is_unknown_link(&reason) {
        return fault
            .found("a link into another file")
            .advice("copy the data into the file, for example with h5copy or h5repack")
            .input();
    }
    let advice = if reason.contains("Fletcher32") {
        "the checksum does not agree: the file is damaged, copy it again"
    } else if reason.contains("filter") {
        "the compression is unknown here or the file is damaged: write it with gzip, lzf or blosc"
    } else {
        "the file is damaged: copy or write it again"
    };
    fault.found(reason).advice(advice).input()
}

fn open_fault(path: &Path, bytes: u64, error: &hdf5::Error) -> Error {
    let reason = reason(error);
    let fault = |what: &str| Fault::new(what).file(path);
    if is_lack_of_memory(&reason) {
        return out_of_memory(fault("cannot open the HDF5 file"), reason);
    }
    if reason.contains("truncated file") {
        return fault("the file is truncated")
            .found(format!("{bytes} bytes; {}", numbers_of_truncation(&reason)))
            .advice("its copy or its writing was interrupted: copy or write it again")
            .input();
    }
    if reason.contains("file signature not found") {
        return not_hdf5(path);
    }
    if reason.contains("bad version number") || reason.contains("bad superblock version") {
        return newer(path).found(reason).input();
    }
    if reason.contains("already open for write") || reason.contains("h5clear") {
        return fault("the file is being written, or its writer was killed")
            .advice("wait for the writer, or write the file again")
            .input();
    }
    if reason.contains("Permission denied") {
        return fault("no permission to read the file").advice("check its owner and mode").input();
    }
    fault("cannot open the HDF5 file").found(reason).advice("check it with h5ls or h5dump").input()
}

/// Returns whether an allocation failed for lack of memory, and not because a damaged file requests
/// more than any file needs.
fn is_lack_of_memory(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    let failed = reason.contains("alloc") || reason.contains("out of memory");
    // If memory is short, the library may also fail without a reason.
    reason.contains("cannot allocate memory")
        || failed && memory::is_scarce()
        || memory::is_near_limit()
}

fn out_of_memory(fault: Fault, reason: String) -> Error {
    let what = format!("out of memory: {}", fault.what);
    Fault { what, ..fault }.found(reason).advice(memory::ADVICE).environment()
}

fn newer(path: &Path) -> Fault {
    Fault::new("the file needs a newer HDF5 library")
        .file(path)
        .advice("write it again with libver='v110' or older, or run h5repack on it; if no newer HDF5 wrote it, it is damaged")
}

/// Returns the part of the text of the library with the expected length.
fn numbers_of_truncation(reason: &str) -> &str {
    let start = reason.find("eof").unwrap_or(0);
    reason[start..].split(';').next().unwrap_or(reason)
}

fn not_hdf5(path: &Path) -> Error {
    let mut head = [0u8; 16];
    let length = std::fs::File::open(path).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let head = &head[..length];
    let (found, advice) = if head.starts_with(SIGNATURE) {
        ("a damaged HDF5 header", "copy or write the file again")
    } else if head.starts_with(b"SIMPLE") {
        ("a FITS file", "convert it to HDF5")
    } else if head.starts_with(b"root") {
        ("a ROOT file", "convert it to HDF5")
    } else if head.starts_with(&[0x1f, 0x8b]) {
        ("a gzip file", "unpack it first")
    } else if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        ("a text file", "for CSV tables use `taiga-flow convert`")
    } else {
        ("other bytes", "check the path")
    };
    Fault::new("not an HDF5 file").file(path).found(found).advice(advice).input()
}
