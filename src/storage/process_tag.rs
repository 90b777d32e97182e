//! Identifies the process that writes an unfinished output, and removes those of dead processes.

use super::operations::{PART, remove_file, with_suffix};
use crate::error::{Fault, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Identifier of a process, which distinguishes its unfinished outputs from those of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTag {
    /// Hash of the name of the host and its last start.
    host: String,
    process: u32,
}

impl ProcessTag {
    /// Returns the tag of this process.
    ///
    /// # Errors
    /// `Environment` if the system does not identify the host: processes of different hosts could
    /// then not be distinguished.
    pub fn own() -> Result<ProcessTag> {
        let (boot, name) = (kernel_text("random/boot_id")?, kernel_text("hostname")?);
        let hash = blake3::hash(format!("{name}{boot}").as_bytes()).to_hex();
        Ok(ProcessTag { host: hash[..8].to_string(), process: std::process::id() })
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
        ProcessTag::own().is_ok_and(|own| own.host == self.host) && !is_running(self.process)
    }

    /// Returns the name under which this process writes a file.
    pub(super) fn part_of(&self, target: &Path) -> PathBuf {
        with_suffix(target, &format!(".{self}{PART}"))
    }

    /// Returns the process that has written an unfinished file, from its name.
    fn of_part(part: &Path) -> Option<ProcessTag> {
        let name = part.file_name()?.to_str()?.strip_suffix(PART)?;
        Some(ProcessTag::parse(name.rsplit_once('.')?.1))
    }
}

/// Returns the content of a file below /proc/sys/kernel.
fn kernel_text(name: &str) -> Result<String> {
    let path = Path::new("/proc/sys/kernel").join(name);
    fs::read_to_string(&path).map_err(|error| {
        Fault::new("the host cannot be identified").file(&path).found(error).environment()
    })
}

/// Returns whether a process of this host exists and has not ended; one that its parent has not
/// waited for still exists.
fn is_running(process: u32) -> bool {
    let folder = PathBuf::from(format!("/proc/{process}"));
    // The name of the program, in parentheses, may contain blanks.
    let Ok(stat) = fs::read_to_string(folder.join("stat")) else { return folder.exists() };
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
///
/// # Errors
/// `Environment` if the disk fails.
pub fn remove_dead_parts(folder: &Path, is_locked: bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let own = ProcessTag::own()?;
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
///
/// # Errors
/// `Environment` if the disk fails.
pub fn remove_dead_parts_below(folder: &Path, is_locked: bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let own = ProcessTag::own()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_process_is_dead_before_its_parent_waits() {
        assert!(is_running(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let tag = ProcessTag { process: child.id(), ..ProcessTag::own().unwrap() };
        let start = std::time::Instant::now();
        while !tag.is_dead() {
            assert!(start.elapsed().as_secs() < 20);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(tag.is_dead());
    }
}
