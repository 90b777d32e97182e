//! The only writer to disk, and so the only place where faults are injected.
//!
//! - A file or folder has its final name only when it is complete and on stable storage: it is
//!   written to `NAME.part` in the same folder, synced and renamed, and the folder is synced.
//! - An append file never keeps a torn line.
//! - An error names the operation, the path and the reason of the system; a full disk is reported
//!   as such.
//! - Only regular files are replaced: a device, pipe, socket or folder with the name of an output
//!   is refused. A symbolic link to a regular file is replaced itself, and its target remains; an
//!   append file is written through a link.
//!
//! The content of the files is up to the callers. They call [`refuse_existing`] before any work to
//! check whether an output may be replaced.

pub mod lock;

#[cfg(test)]
pub(crate) mod faults;

use crate::bounded::kind_name;
use crate::error::{Error, Fault, Result};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Name suffix of a file or folder that is being written, and of one that is being removed.
const PART: &str = ".part";
const REMOVED: &str = ".removed";

/// Refuses an output that exists, unless it is a regular file and may be replaced; call it before
/// any work.
///
/// # Errors
/// `Usage`.
pub fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    refuse_irregular(path)?;
    if overwrite {
        return Ok(());
    }
    Err(Fault::new("output already exists")
        .file(path)
        .advice("choose another output, or use --overwrite to replace it")
        .usage())
}

/// Refuses to replace anything but a regular file; a link is checked by its target.
fn refuse_irregular(path: &Path) -> Result<()> {
    let Ok(own) = fs::symlink_metadata(path) else { return Ok(()) };
    let found = match fs::metadata(path) {
        Ok(data) if data.is_file() => return Ok(()),
        Ok(data) if own.is_symlink() => format!("a link to {}", kind_name(data.file_type())),
        Ok(data) => kind_name(data.file_type()).to_string(),
        Err(_) => "a link that leads nowhere".to_string(),
    };
    let what = if own.is_dir() { "the output is a folder" } else { "not a regular file" };
    Err(Fault::new(what)
        .file(path)
        .expected("a new name, or a regular file to replace")
        .found(found)
        .advice("choose another output, or remove it yourself")
        .usage())
}

/// Creates a folder with its parents; an existing one is accepted.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_folder(&parent)?;
    perform("create the folder", path, || match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        outcome => outcome,
    })?;
    sync_folder(&parent)
}

/// Writes a whole file. After success it is on stable storage under its name; after any failure the
/// name keeps its earlier content.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = || {
        let staged = Staged::new(path, true)?;
        let mut file = perform("create", staged.part(), || File::create_new(staged.part()))?;
        put("write", staged.part(), &mut file, bytes)?;
        drop(file);
        staged.commit()
    };
    written().map_err(|error| needing(error, bytes.len() as u64))
}

/// Writes a whole file as [`write_file`] does, unless it already has these bytes: a finished output
/// needs no permission to write.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    let is_same = fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|found| found == bytes);
    if is_same { Ok(()) } else { write_file(path, bytes) }
}

/// Returns whether a folder exists and this process cannot write to it.
pub fn is_read_only(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: access(2) reads a text that ends with 0 and writes nothing.
    let answer = unsafe { libc::access(path.as_ptr(), libc::W_OK) };
    let reason = io::Error::last_os_error().kind();
    answer != 0
        && folder.is_dir()
        && matches!(reason, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// Adds the needed space to the error of a full disk.
pub fn needing(error: Error, bytes: u64) -> Error {
    match error {
        Error::Environment(fault)
            if fault.what.starts_with(FULL) || fault.what.starts_with(QUOTA) =>
        {
            fault.expected(format!("room for {bytes} bytes")).environment()
        }
        other => other,
    }
}

/// Longest file name on the file systems of Linux [bytes].
const MAX_NAME_BYTES: usize = 255;

/// Identifier of a process, which distinguishes its unfinished outputs from those of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTag {
    /// Hash of the name of the host and its last start.
    host: String,
    process: u32,
}

impl ProcessTag {
    pub fn own() -> ProcessTag {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hash = blake3::hash(format!("{name}{boot}").as_bytes()).to_hex();
        ProcessTag { host: hash[..8].to_string(), process: std::process::id() }
    }

    /// Parses the form that [`Display`](std::fmt::Display) writes; any other text belongs to no
    /// host.
    pub fn parse(text: &str) -> ProcessTag {
        let parts = text.split_once('-').and_then(|(host, id)| Some((host, id.parse().ok()?)));
        let (host, process) = parts.unwrap_or(("", 0));
        ProcessTag { host: host.to_string(), process }
    }

    /// Returns whether it was a process of this host that has ended.
    pub fn is_dead(&self) -> bool {
        self.host == ProcessTag::own().host && !is_running(self.process)
    }

    /// Returns the name under which this process writes a file.
    fn part_of(&self, target: &Path) -> PathBuf {
        with_suffix(target, &format!(".{self}{PART}"))
    }

    /// Returns the process that has written an unfinished file, from its name.
    fn of_part(part: &Path) -> Option<ProcessTag> {
        let name = part.file_name()?.to_str()?.strip_suffix(PART)?;
        Some(ProcessTag::parse(name.rsplit_once('.')?.1))
    }
}

/// Returns whether a process of this host exists and has not ended; one that its parent has not
/// waited for still exists.
fn is_running(process: u32) -> bool {
    let folder = PathBuf::from(format!("/proc/{process}"));
    // The name of the program, in parentheses, may contain blanks.
    let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    folder.exists() && !matches!(state, Some("Z" | "X"))
}

impl std::fmt::Display for ProcessTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.host, self.process)
    }
}

/// Removes the unfinished files of dead processes from a folder. Those of other hosts are removed
/// only if the caller has locked the folder exclusively.
pub fn remove_dead_parts(folder: &Path, is_locked: bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let own = ProcessTag::own();
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_dead = |tag: &ProcessTag| *tag != own && (is_locked || tag.is_dead());
        if ProcessTag::of_part(&path).is_some_and(|tag| is_dead(&tag)) && path.is_file() {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes the unfinished files of dead processes from a folder and the folders below it, as
/// [`remove_dead_parts`] does; files whose names contain no process are kept.
pub fn remove_dead_parts_below(folder: &Path, is_locked: bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let own = ProcessTag::own();
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
            remove_dead_parts_below(&path, is_locked)?;
            continue;
        }
        let is_dead =
            |tag: &ProcessTag| !tag.host.is_empty() && *tag != own && (is_locked || tag.is_dead());
        if ProcessTag::of_part(&path).is_some_and(|tag| is_dead(&tag)) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

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
    pub fn new(target: &Path, overwrite: bool) -> Result<Staged> {
        refuse_existing(target, overwrite)?;
        create_folder(&parent_of(target))?;
        let part = ProcessTag::own().part_of(target);
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
    pub fn create(target: &Path, overwrite: bool) -> Result<StagedFile> {
        let staged = Staged::new(target, overwrite)?;
        let file = perform("create", staged.part(), || File::create_new(staged.part()))?;
        Ok(StagedFile { file, staged, length: 0 })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        put("write", self.staged.part(), &mut self.file, bytes)
            .map_err(|error| needing(error, self.length))
    }

    pub fn commit(self) -> Result<()> {
        let StagedFile { file, staged, length } = self;
        drop(file);
        staged.commit().map_err(|error| needing(error, length))
    }
}

/// Returns the number of bytes that this process may still write to the file system of a folder;
/// `None` if the system does not report it.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: statvfs(3) reads a text that ends with 0, and fills the struct it is given; the
    // struct is read only if the call reports success.
    let stats = unsafe {
        if libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) != 0 {
            return None;
        }
        stats.assume_init()
    };
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// A file of lines that only grows: ledgers, metrics, logs. It has one writer.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    path: PathBuf,
    length: u64, // bytes, up to and with the last line end
}

impl AppendFile {
    /// Creates a new, empty file.
    pub fn create(path: &Path, overwrite: bool) -> Result<AppendFile> {
        refuse_existing(path, overwrite)?;
        create_folder(&parent_of(path))?;
        let file = perform("create", path, || {
            OpenOptions::new().create(true).write(true).truncate(true).open(path)
        })?;
        perform("sync", path, || file.sync_all())?;
        sync_folder(&parent_of(path))?;
        Ok(AppendFile { file, path: path.to_path_buf(), length: 0 })
    }

    /// Continues a file, or creates it; a torn last line, which a kill during a write leaves, is
    /// cut off.
    pub fn resume(path: &Path) -> Result<AppendFile> {
        if !path.exists() {
            return AppendFile::create(path, false);
        }
        refuse_irregular(path)?;
        let mut file =
            perform("open", path, || OpenOptions::new().read(true).write(true).open(path))?;
        let length = perform("read", path, || end_of_last_line(&mut file))?;
        perform("cut the torn last line of", path, || {
            file.set_len(length)?;
            file.seek(SeekFrom::Start(length))?;
            file.sync_all()
        })?;
        Ok(AppendFile { file, path: path.to_path_buf(), length })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line and syncs it; after a failure the file keeps its earlier end.
    pub fn append_line(&mut self, line: &str) -> Result<()> {
        if line.contains('\n') {
            return Err(Fault::new("a line to append contains a line end")
                .file(&self.path)
                .internal());
        }
        let bytes = format!("{line}\n").into_bytes();
        let (file, path) = (&mut self.file, &self.path);
        let outcome = put("append to", path, file, &bytes)
            .and_then(|()| perform("sync", path, || file.sync_data()));
        if outcome.is_ok() {
            self.length += bytes.len() as u64;
        } else {
            // If this fails, `resume` cuts the rest off.
            let _ = perform("cut", path, || {
                file.set_len(self.length)?;
                file.seek(SeekFrom::Start(self.length))
            });
        }
        outcome.map_err(|error| needing(error, bytes.len() as u64))
    }
}

/// A short text that is replaced in place. It survives the death of its process, but not that of
/// its host: it is not synced.
#[derive(Debug)]
pub struct NoteFile {
    file: File,
    path: PathBuf,
}

impl NoteFile {
    /// Creates the file and its folders; earlier content is lost.
    pub fn create(path: &Path) -> Result<NoteFile> {
        create_folder(&parent_of(path))?;
        refuse_irregular(path)?;
        let file = perform("create", path, || {
            OpenOptions::new().create(true).write(true).truncate(true).open(path)
        })?;
        Ok(NoteFile { file, path: path.to_path_buf() })
    }

    /// Replaces the first line; bytes after it have no meaning.
    pub fn write(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        perform("write", &self.path, || self.file.write_all_at(&bytes, 0))
    }

    /// Removes the file.
    pub fn remove(self) -> Result<()> {
        remove_file(&self.path)
    }
}

/// Returns the number of bytes up to and including the last line end. Reads backwards in blocks, so
/// that a torn line of any length costs no memory.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 65_536;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(position) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Gives a finished folder its name: syncs every file and folder in it, renames it, and syncs the
/// parent. An existing folder must be removed first.
pub fn publish_folder(part: &Path, target: &Path) -> Result<()> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(Fault::new("the folder to publish already exists")
            .file(target)
            .advice("remove it, or choose another output")
            .usage());
    }
    sync_tree(part)?;
    rename(part, target)?;
    sync_folder(&parent_of(target))
}

/// Removes a folder with its content; an absent one is accepted. It is renamed first, so that a
/// kill never leaves a partial folder under its name.
pub fn remove_folder(path: &Path) -> Result<()> {
    let doomed = with_suffix(path, REMOVED);
    remove_tree(&doomed)?;
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    rename(path, &doomed)?;
    sync_folder(&parent_of(path))?;
    remove_tree(&doomed)
}

/// Returns the outermost of the folders that [`create_folder`] would create; `None` if all exist.
pub fn outermost_missing(path: &Path) -> Option<PathBuf> {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    path.ancestors().take_while(missing).last().map(Path::to_path_buf)
}

/// Removes this folder and its parents up to `outermost`, as long as they are empty.
pub fn remove_if_empty(path: &Path, outermost: &Path) {
    for folder in path.ancestors() {
        let removed = unless_absent(fs::remove_dir(folder));
        if removed.is_err() || folder == outermost {
            return;
        }
    }
}

/// Renames or moves a file or folder within a file system; it replaces a regular file.
pub fn move_to(from: &Path, to: &Path) -> Result<()> {
    refuse_irregular(to)?;
    perform("move", from, || fs::rename(from, to))?;
    sync_folder(&parent_of(to))?;
    sync_folder(&parent_of(from))
}

/// Removes a file; an absent one is accepted.
pub fn remove_file(path: &Path) -> Result<()> {
    perform("remove", path, || unless_absent(fs::remove_file(path)))
}

/// Returns the name of an unfinished file or folder: `NAME.part` in the same folder.
pub fn part_path(target: &Path) -> PathBuf {
    with_suffix(target, PART)
}

/// Removes the remains of killed processes from a folder: unfinished outputs, and outputs that have
/// lost their name. Only for folders with one writer.
pub fn sweep_folder(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        perform("list", folder, || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    for path in entries.iter().map(fs::DirEntry::path) {
        let name = path.as_os_str().as_encoded_bytes();
        if !(name.ends_with(PART.as_bytes()) || name.ends_with(REMOVED.as_bytes())) {
            continue;
        }
        if path.is_dir() { remove_tree(&path) } else { remove_file(&path) }?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    perform("remove the folder", path, || unless_absent(fs::remove_dir_all(path)))
}

/// Accepts an absent file or folder.
fn unless_absent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    perform("rename a finished part to", to, || fs::rename(from, to))
}

fn sync_file(path: &Path) -> Result<()> {
    perform("sync", path, || File::open(path)?.sync_all())
}

/// Makes names in a folder (created, renamed, removed) survive a power failure.
fn sync_folder(path: &Path) -> Result<()> {
    perform("sync the folder", path, || File::open(path)?.sync_all())
}

fn sync_tree(folder: &Path) -> Result<()> {
    let entries =
        perform("list", folder, || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    for entry in entries {
        let path = entry.path();
        let kind = perform("read", &path, || entry.file_type())?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            sync_file(&path)?;
        }
    }
    sync_folder(folder)
}

/// Returns the folder of a path; that of a bare name is the current one.
pub(super) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Appends to the name of a path; a name that would be too long is replaced by its hash.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut longer = name.to_os_string();
    if name.len() + suffix.len() > MAX_NAME_BYTES {
        let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
        longer = OsString::from(&hash[..16]);
    }
    longer.push(suffix);
    path.with_file_name(longer)
}

/// Performs an operation on the disk; all of them use this function, except for the bytes
/// themselves.
fn perform<T>(operation: &str, path: &Path, action: impl FnOnce() -> io::Result<T>) -> Result<T> {
    #[cfg(test)]
    if let faults::FaultOutcome::Failed(error) | faults::FaultOutcome::Torn(error) =
        faults::next_outcome(operation.starts_with("create"))
    {
        return Err(disk_fault(operation, path, &error.to_string(), error.kind()));
    }
    action().map_err(|error| disk_fault(operation, path, &error.to_string(), error.kind()))
}

/// Writes bytes; all files of this program use this function.
fn put(operation: &str, path: &Path, file: &mut File, bytes: &[u8]) -> Result<()> {
    #[cfg(test)]
    let written = match faults::next_outcome(true) {
        faults::FaultOutcome::Done => file.write_all(bytes),
        faults::FaultOutcome::Failed(error) => Err(error),
        faults::FaultOutcome::Torn(error) => {
            file.write_all(&bytes[..bytes.len() / 2]).and(Err(error))
        }
    };
    #[cfg(not(test))]
    let written = file.write_all(bytes);
    written.map_err(|error| disk_fault(operation, path, &error.to_string(), error.kind()))
}

/// First words of the errors of a full disk.
const FULL: &str = "disk full";
const QUOTA: &str = "disk quota exceeded";

/// Returns the error of a failed disk operation; libraries that write to an unfinished output
/// report theirs through it too.
pub fn disk_fault(operation: &str, path: &Path, reason: &str, kind: ErrorKind) -> Error {
    if kind == ErrorKind::InvalidFilename {
        return Fault::new(format!("the name is too long: cannot {operation} this path"))
            .file(path)
            .found(reason)
            .advice("shorten it: file systems allow 255 bytes per name, also for the output")
            .input();
    }
    let (what, advice) = match kind {
        ErrorKind::StorageFull => {
            (FULL, "free space on this file system, or choose another output")
        }
        ErrorKind::QuotaExceeded => (QUOTA, "free space, or choose another output"),
        ErrorKind::FileTooLarge => (
            "the limit of file sizes is reached",
            "raise it (ulimit -f), then run the same command again",
        ),
        ErrorKind::ReadOnlyFilesystem => ("file system is read-only", "choose another output"),
        ErrorKind::PermissionDenied => {
            ("permission denied", "check the owner and mode of the folder")
        }
        ErrorKind::NotADirectory => {
            ("a file has the name of a needed folder", "choose another output")
        }
        _ => {
            ("disk error", "check that the file system is healthy, then run the same command again")
        }
    };
    Fault::new(format!("{what}: cannot {operation} this path"))
        .file(path)
        .found(reason)
        .advice(advice)
        .environment()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn ended_process_is_dead_before_its_parent_waits() {
        assert!(is_running(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let tag = ProcessTag { process: child.id(), ..ProcessTag::own() };
        let start = std::time::Instant::now();
        while !tag.is_dead() {
            assert!(start.elapsed().as_secs() < 20);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(tag.is_dead());
    }

    #[test]
    fn written_file_is_complete_without_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.txt");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(path.parent().unwrap()), ["a.txt"]);
    }

    #[test]
    fn existing_output_is_refused_unless_replaceable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_file(&path, b"one").unwrap();
        assert_eq!(refuse_existing(&path, false).unwrap_err().exit_code(), 2);
        assert_eq!(Staged::new(&path, false).unwrap_err().exit_code(), 2);
        assert_eq!(AppendFile::create(&path, false).unwrap_err().exit_code(), 2);
        refuse_existing(&path, true).unwrap();
        assert_eq!(Staged::new(folder.path(), true).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn irregular_output_is_refused_and_stays() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("pipe", at("to-pipe")).unwrap();
        symlink("folder", at("to-folder")).unwrap();
        symlink("nowhere", at("to-nowhere")).unwrap();
        let before = names(folder.path());
        for (name, found) in [
            ("pipe", "found a pipe"),
            ("socket", "found a socket"),
            ("folder", "found a folder"),
            ("to-pipe", "found a link to a pipe"),
            ("to-folder", "found a link to a folder"),
            ("to-nowhere", "found a link that leads nowhere"),
        ] {
            let path = at(name);
            write_file(&at("from"), b"1").unwrap();
            let refusals = [
                refuse_existing(&path, true),
                write_file(&path, b"1"),
                write_if_changed(&path, b""),
                Staged::new(&path, true).map(drop),
                StagedFile::create(&path, true).map(drop),
                AppendFile::create(&path, true).map(drop),
                AppendFile::resume(&path).map(drop),
                NoteFile::create(&path).map(drop),
                move_to(&at("from"), &path),
            ];
            for (i, refusal) in refusals.into_iter().enumerate() {
                let error = refusal.unwrap_err();
                assert_eq!(error.exit_code(), 2, "{i}: {error}");
                assert!(error.to_string().contains(found), "{i}: {error}");
            }
            remove_file(&at("from")).unwrap();
            assert_eq!(names(folder.path()), before);
        }
        assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
        // An irregular file that appears meanwhile.
        let staged = Staged::new(&at("late"), true).unwrap();
        fs::write(staged.part(), "1").unwrap();
        fs::create_dir(at("late")).unwrap();
        assert_eq!(staged.commit().unwrap_err().exit_code(), 2);
    }

    #[test]
    fn link_to_a_file_is_replaced_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        write_file(&target, b"old").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        assert_eq!(refuse_existing(&link, false).unwrap_err().exit_code(), 2);
        write_file(&link, b"new").unwrap();
        assert_eq!(
            (fs::read(&link).unwrap(), fs::read(&target).unwrap()),
            (b"new".to_vec(), b"old".to_vec())
        );
        assert!(!link.is_symlink());
    }

    #[test]
    fn dropped_stage_leaves_only_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_file(&path, b"old").unwrap();
        let staged = Staged::new(&path, true).unwrap();
        fs::write(staged.part(), b"half").unwrap();
        drop(staged);
        assert_eq!(names(folder.path()), ["a.txt"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn torn_last_line_is_cut_off_on_resume() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut file = AppendFile::create(&path, false).unwrap();
        file.append_line("first").unwrap();
        file.append_line("second").unwrap();
        drop(file);
        for torn in ["x".repeat(200_000), String::new(), "half".to_string()] {
            let mut bytes = b"first\nsecond\n".to_vec();
            bytes.extend(torn.as_bytes());
            fs::write(&path, &bytes).unwrap();
            AppendFile::resume(&path).unwrap().append_line("third").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\nthird\n");
        }
        fs::write(&path, "only half").unwrap();
        AppendFile::resume(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn resuming_an_absent_file_creates_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger/1-of-2.jsonl");
        AppendFile::resume(&path).unwrap().append_line("first").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\n");
        let error = AppendFile::resume(&path).unwrap().append_line("a\nb").unwrap_err();
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn folder_is_published_and_removed_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("step-10");
        let part = part_path(&target);
        create_folder(&part.join("inner")).unwrap();
        write_file(&part.join("inner/a"), b"1").unwrap();
        publish_folder(&part, &target).unwrap();
        assert_eq!(names(folder.path()), ["step-10"]);
        create_folder(&part).unwrap();
        assert_eq!(publish_folder(&part, &target).unwrap_err().exit_code(), 2);
        remove_folder(&target).unwrap();
        remove_folder(&target).unwrap();
        assert_eq!(names(folder.path()), ["step-10.part"]);
    }

    #[test]
    fn only_unused_new_folders_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (there, deep) = (folder.path().join("there"), folder.path().join("there/a/b/c"));
        create_folder(&there).unwrap();
        assert_eq!(outermost_missing(&there), None);
        let outermost = outermost_missing(&deep).unwrap();
        assert_eq!(outermost, there.join("a"));
        create_folder(&deep).unwrap();
        remove_if_empty(&deep, &outermost);
        assert!(there.is_dir() && !outermost.exists());
        // Only half of them were created.
        create_folder(&there.join("a/b")).unwrap();
        remove_if_empty(&deep, &outermost);
        assert!(there.is_dir() && !outermost.exists());
        create_folder(&deep).unwrap();
        write_file(&there.join("a/kept"), b"1").unwrap();
        remove_if_empty(&deep, &outermost);
        assert_eq!(names(&outermost), ["kept"]);
        assert_eq!(outermost_missing(Path::new("no-such/folder")), Some("no-such".into()));
    }

    #[test]
    fn disk_error_names_path_operation_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let error = write_file(&folder.path().join("file/below"), b"").unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("create the folder") && text.contains("file"), "{text}");
        // A device that is always full.
        let error = perform("write", Path::new("/dev/full"), || {
            OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("disk full") && text.contains("/dev/full"), "{text}");
    }

    /// Makes every operation of `action` fail in turn, with every kind of fault, until one run
    /// succeeds; `check` examines the remains of each.
    fn inject_faults(action: impl Fn(&Path) -> Result<()>, check: impl Fn(&Path, bool)) {
        for kind in faults::KINDS {
            for n in 0.. {
                let folder = faults::memory_folder();
                write_file(&folder.path().join("a"), b"old").unwrap();
                let (outcome, struck) = faults::with_fault(n, kind, || action(folder.path()));
                assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
                check(folder.path(), outcome.is_ok());
                action(folder.path()).unwrap();
                check(folder.path(), true);
                if !struck {
                    assert!(n > 3, "only {n} operations");
                    break;
                }
            }
        }
    }

    #[test]
    fn failed_write_leaves_old_or_new_file() {
        let new = [7; 1000];
        inject_faults(
            |folder| write_file(&folder.join("a"), &new),
            |folder, whole| {
                let found = fs::read(folder.join("a")).unwrap();
                assert!(found == new || (!whole && found == b"old"), "{} bytes", found.len());
            },
        );
        inject_faults(
            |folder| write_file(&folder.join("deep/er/b"), &new),
            |folder, whole| {
                let found = fs::read(folder.join("deep/er/b"));
                assert!(found.map_or(!whole, |found| found == new));
            },
        );
    }

    #[test]
    fn failed_append_leaves_whole_lines_on_resume() {
        let lines = ["first", "second", "third"];
        for kind in faults::KINDS {
            for n in 0.. {
                let folder = faults::memory_folder();
                let path = folder.path().join("log");
                let append = || {
                    let mut file = AppendFile::resume(&path)?;
                    lines.iter().try_for_each(|line| file.append_line(line))
                };
                let (outcome, struck) = faults::with_fault(n, kind, append);
                drop(AppendFile::resume(&path).unwrap());
                let text = fs::read_to_string(&path).unwrap();
                let found: Vec<&str> = text.lines().collect();
                assert!(text.is_empty() || text.ends_with('\n'), "{kind:?} {n}: {text:?}");
                assert_eq!(found, lines[..found.len()], "{kind:?} {n}");
                assert!(outcome.is_err() || found.len() == 3, "{kind:?} {n}: {text:?}");
                if !struck {
                    break;
                }
            }
        }
    }

    #[test]
    fn full_disk_is_reported_with_needed_space() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let write = || write_file(&path, &[1; 12345]);
        let (outcome, _) = faults::with_fault(0, faults::FaultKind::Full, write);
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        for part in ["disk full", "/a.", ".part", "room for 12345 bytes", "No space left"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
    }
}
