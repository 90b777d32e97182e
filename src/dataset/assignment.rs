//! Assigns the files of an archive to ranks, and gives each output its path.
//!
//! - Rank 0 makes the list, so it is the same on every rank. Files are assigned longest first to the
//!   rank with the least bytes so far.
//! - Output paths stay in the output folder, and two inputs have different outputs.

use super::catalog::{self, Encode};
use super::failures::Failure;
use super::output::extraction::MANIFEST;
use super::output::ledger;
use crate::comm::wire::{Decoder, Encoder};
use crate::comm::{Communicator, Work, gather_values};
use crate::data::files::list;
use crate::data::files::protected::ProtectedInputs;
use crate::error::{Error, Fault, Result};
use crate::storage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// One input and its output.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub input: PathBuf,
    pub output: PathBuf,
    /// Output path relative to the output folder.
    pub name: String,
    /// Input path relative to the folder given, or to `--root`.
    pub relative: String,
    /// Length of the input [bytes], which measures its cost.
    pub bytes: u64,
}

/// The files of a job, in the same order on every rank.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignment {
    pub jobs: Vec<Job>,
    /// Inputs whose names cannot be those of outputs, and broken links.
    pub unusable: Vec<Failure>,
}

impl Assignment {
    /// Lists the files of `inputs` (see [`crate::data::files::list::list_files`]) on rank 0, with
    /// their outputs below the folder `output`. A collective.
    ///
    /// # Errors
    /// Those of listing; `Environment` if a rank does not see a file as rank 0 does; `Usage` if two
    /// inputs have the same output.
    pub(crate) fn new(
        comm: &dyn Communicator,
        inputs: &[PathBuf],
        output: &Path,
        root: Option<&Path>,
    ) -> Result<Assignment> {
        let (mut jobs, mut unusable) = (Vec::new(), Vec::new());
        for listed in catalog::from_root(comm, || list(inputs, output, root))? {
            match listed {
                ListedInput::Job(job) => jobs.push(job),
                ListedInput::Unusable(failure) => unusable.push(failure),
            }
        }
        let files: Vec<(&Path, u64)> = jobs.iter().map(|j| (j.input.as_path(), j.bytes)).collect();
        catalog::see_listed(comm, &files)?;
        jobs.iter_mut().for_each(|job| job.output = output.join(&job.name));
        Ok(Assignment { jobs, unusable })
    }

    /// Returns the same assignment with a different extension of the outputs.
    #[must_use]
    pub(crate) fn with_extension(mut self, extension: &str) -> Assignment {
        for job in &mut self.jobs {
            job.output.set_extension(extension);
            let stem = job.name.strip_suffix("h5").unwrap_or(&job.name);
            job.name = format!("{stem}{extension}");
        }
        self
    }

    /// Returns part `index` (from 0) of `count`; all parts together are the whole assignment.
    #[must_use]
    pub(crate) fn part(&self, (index, count): (usize, usize)) -> Assignment {
        let unusable = if index == 0 { self.unusable.clone() } else { Vec::new() };
        Assignment { jobs: self.of_rank(index, count).into_iter().cloned().collect(), unusable }
    }

    /// Returns the inputs, and `others` that the command reads, as files not to be replaced.
    pub(crate) fn protected<'a>(
        &'a self,
        others: impl IntoIterator<Item = &'a Path>,
    ) -> ProtectedInputs {
        ProtectedInputs::new(self.jobs.iter().map(|job| job.input.as_path()).chain(others))
    }

    /// Removes the partial files of killed jobs next to the outputs; the output folder must be locked.
    pub(crate) fn remove_dead_parts(&self) -> Result<()> {
        let folders: BTreeSet<&Path> = self.jobs.iter().filter_map(|j| j.output.parent()).collect();
        folders.into_iter().try_for_each(|folder| storage::remove_dead_parts(folder, true))
    }

    /// Calls `look` for the files of this rank, which ranks share in turn, and returns the results
    /// of all ranks, in the order of the files. A collective.
    ///
    /// # Errors
    /// The first error of `look`, which ends the survey.
    pub(crate) fn survey<T: Serialize + DeserializeOwned>(
        &self,
        comm: &dyn Communicator,
        mut look: impl FnMut(&Job) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut mine: Vec<(usize, T)> = Vec::new();
        for (i, job) in self.jobs.iter().enumerate().skip(comm.rank()).step_by(comm.size()) {
            comm.progress(Work::Reading, i as u64);
            mine.push((i, look(job)?));
        }
        let all: BTreeMap<usize, T> = gather_values(comm, &mine)?.into_iter().flatten().collect();
        Ok(all.into_values().collect())
    }

    /// Returns the files of a rank, longest first.
    pub(crate) fn of_rank(&self, rank: usize, ranks: usize) -> Vec<&Job> {
        let mut order: Vec<&Job> = self.jobs.iter().collect();
        order.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
        let mut load = vec![0u64; ranks];
        let mut mine = Vec::new();
        for job in order {
            let least = (0..ranks).min_by_key(|r| load[*r]).unwrap_or(0);
            load[least] += job.bytes.max(1);
            if least == rank {
                mine.push(job);
            }
        }
        mine
    }
}

/// An input on the list of rank 0.
enum ListedInput {
    Job(Job),
    Unusable(Failure),
}

impl Encode for ListedInput {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            ListedInput::Job(job) => {
                encoder.number(0).number(job.bytes).path(&job.input);
                encoder.text(job.name.as_bytes()).text(job.relative.as_bytes());
            }
            ListedInput::Unusable(failure) => {
                encoder.number(u64::from(failure.exit_code));
                encoder.text(failure.file.as_bytes()).text(failure.text.as_bytes());
            }
        }
    }

    fn decode(decoder: &mut Decoder) -> Result<ListedInput> {
        let exit_code = decoder.number()?;
        if exit_code > 0 {
            let (file, text) = (decoder.string()?, decoder.string()?);
            let exit_code = u8::try_from(exit_code).unwrap_or(1);
            return Ok(ListedInput::Unusable(Failure { file, exit_code, text }));
        }
        let (bytes, input) = (decoder.number()?, decoder.path()?);
        let (name, relative) = (decoder.string()?, decoder.string()?);
        Ok(ListedInput::Job(Job { input, output: PathBuf::new(), name, relative, bytes }))
    }
}

/// Lists the files of `inputs` with the names of their outputs, as [`Assignment::new`] does. Files
/// that are listed twice and broken links are included.
pub(crate) fn output_names(
    inputs: &[PathBuf],
    output: &Path,
    root: Option<&Path>,
) -> Result<Vec<(PathBuf, String)>> {
    let (jobs, _) = places(inputs, output, root)?;
    Ok(jobs.into_iter().map(|job| (job.input, job.name)).collect())
}

/// Leaves out outputs of earlier runs if the output folder is below an input folder: files below
/// `output` with the name of the output of a different input.
fn leave_out_outputs(jobs: &mut Vec<Job>, output: &Path) {
    let Ok(output) = output.canonicalize() else { return };
    let place = |job: &Job| {
        let input = job.input.canonicalize().ok()?;
        Some(input.strip_prefix(&output).ok()?.to_path_buf())
    };
    let places: Vec<Option<PathBuf>> = jobs.iter().map(place).collect();
    let outside: BTreeSet<PathBuf> = jobs
        .iter()
        .zip(&places)
        .filter(|(_, place)| place.is_none())
        .map(|(job, _)| PathBuf::from(&job.name))
        .collect();
    let mut places = places.into_iter();
    let before = jobs.len();
    jobs.retain(|_| places.next().flatten().is_none_or(|place| !outside.contains(&place)));
    if jobs.len() < before {
        log::info!(
            "{} file(s) below the output folder are outputs and no inputs",
            before - jobs.len()
        );
    }
}

/// Lists the files with the names of their outputs; refuses a file that is listed twice.
fn list(inputs: &[PathBuf], output: &Path, root: Option<&Path>) -> Result<Vec<ListedInput>> {
    if let Some(root) = root.filter(|root| !root.as_os_str().is_empty() && !root.is_dir()) {
        return Err(Fault::new("--root: not a folder")
            .file(root)
            .expected("a folder above the inputs")
            .usage());
    }
    let (placed, mut unusable) = places(inputs, output, root)?;
    refuse_inputs_below(&placed, output)?;
    let inputs: Vec<PathBuf> = placed.iter().map(|job| job.input.clone()).collect();
    let mut jobs = Vec::with_capacity(placed.len());
    for (job, bytes) in placed.into_iter().zip(list::lengths(&inputs)?) {
        match bytes {
            Ok(bytes) => jobs.push(Job { bytes, ..job }),
            Err(error) => unusable.push(Failure::new(&job.input, &error)),
        }
    }
    if jobs.is_empty() && unusable.is_empty() {
        return Err(Fault::new("no input files").advice("give files or folders").input());
    }
    refuse_collisions(&jobs)?;
    let unusable = unusable.into_iter().map(ListedInput::Unusable);
    Ok(jobs.into_iter().map(ListedInput::Job).chain(unusable).collect())
}

/// Refuses inputs below a new output folder: the next start could not distinguish them from outputs.
/// The protection of inputs refuses one that its own output would replace.
fn refuse_inputs_below(jobs: &[Job], output: &Path) -> Result<()> {
    // A restart does not resolve the paths of a whole archive again.
    if [ledger::FOLDER, MANIFEST].iter().any(|name| output.join(name).exists()) {
        return Ok(());
    }
    let Ok(folder) = output.canonicalize() else { return Ok(()) };
    let is_below = |job: &&Job| {
        let input = job.input.canonicalize().unwrap_or_default();
        input.strip_prefix(&folder).is_ok_and(|place| place != Path::new(&job.name))
    };
    match jobs.iter().find(is_below) {
        None => Ok(()),
        Some(job) => Err(Fault::new("the output folder contains an input of the same command")
            .file(&job.input)
            .expected(format!("inputs outside of {}", output.display()))
            .advice("choose a separate output folder; it may be below the folder of the inputs")
            .usage()),
    }
}

/// Lists the files with the names of their outputs, and the files whose names are not UTF-8.
fn places(
    inputs: &[PathBuf],
    output: &Path,
    root: Option<&Path>,
) -> Result<(Vec<Job>, Vec<Failure>)> {
    let (mut jobs, mut unusable) = (Vec::new(), Vec::new());
    for given in inputs {
        let mut files = Vec::new();
        list::list_path(given, &mut files)?;
        for input in files {
            match output_name(&input, given, root)? {
                Some((name, relative)) => {
                    jobs.push(Job { input, output: PathBuf::new(), name, relative, bytes: 0 });
                }
                None => unusable.push(Failure::new(&input, &not_utf8(&input))),
            }
        }
    }
    leave_out_outputs(&mut jobs, output);
    Ok((jobs, unusable))
}

fn not_utf8(input: &Path) -> Error {
    Fault::new("the name is not UTF-8: no output can be named after it")
        .file(input)
        .advice("rename it")
        .input()
}

/// Returns the path of an output below the output folder, and of its input below the folder given
/// (or `--root`); the file name for a file given directly; `None` if it is not UTF-8.
///
/// # Errors
/// `Usage` if the input is not below the folder.
pub(crate) fn output_name(
    input: &Path,
    given: &Path,
    root: Option<&Path>,
) -> Result<Option<(String, String)>> {
    let base = match root {
        Some(root) => root,
        None if given.is_dir() => given,
        None => input.parent().unwrap_or(Path::new("")),
    };
    let escape = |why: &str| {
        Err(Fault::new("no place for the output")
            .file(input)
            .expected(format!("an input below {}", base.display()))
            .found(why.to_string())
            .usage())
    };
    let Ok(relative) = input.strip_prefix(base) else { return escape("a path outside of it") };
    if !relative.components().all(|c| matches!(c, Component::Normal(_))) {
        return escape("a path with '..'");
    }
    if relative.file_name().is_none() {
        return escape("the same path, which leaves no name");
    }
    let name = relative.with_extension("h5");
    let names = name.to_str().zip(relative.to_str());
    // The HDF5 library accepts no other paths.
    let names = names.filter(|_| input.to_str().is_some());
    Ok(names.map(|(name, relative)| (name.to_string(), relative.to_string())))
}

fn refuse_collisions(jobs: &[Job]) -> Result<()> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for job in jobs {
        if let Some(other) = seen.insert(&job.name, &job.input) {
            return Err(Fault::new("two inputs have the same output")
                .file(&job.input)
                .found(format!("'{}', as for {}", job.name, other.display()))
                .advice("give --root, a folder above both, so that their paths differ")
                .usage());
        }
    }
    Ok(())
}

/// Refuses an output whose path leaves the output folder through a link.
pub(crate) fn refuse_links(folder: &Path, output: &Path) -> Result<()> {
    let between = output.ancestors().skip(1).take_while(|place| *place != folder);
    for place in between {
        if std::fs::symlink_metadata(place).is_ok_and(|m| m.is_symlink()) {
            return Err(Fault::new("a link in the place of a folder of the outputs")
                .file(place)
                .expected(format!("a folder below {}", folder.display()))
                .advice("remove the link, or choose another output")
                .usage());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, bytes: u64) -> Job {
        let (name, relative) = (name.to_string(), name.to_string());
        Job { input: (&name).into(), output: (&name).into(), name, relative, bytes }
    }

    #[test]
    fn files_have_one_rank_each_longest_first() {
        let jobs: Vec<Job> =
            [5, 100, 1, 40, 60].iter().enumerate().map(|(i, b)| job(&i.to_string(), *b)).collect();
        let assignment = Assignment { jobs, unusable: Vec::new() };
        for ranks in [1, 2, 3, 7] {
            let mut all: Vec<&str> = (0..ranks)
                .flat_map(|r| assignment.of_rank(r, ranks))
                .map(|j| j.name.as_str())
                .collect();
            all.sort_unstable();
            assert_eq!(all, ["0", "1", "2", "3", "4"]);
        }
        let names: Vec<&str> = assignment.of_rank(0, 2).iter().map(|j| j.name.as_str()).collect();
        assert_eq!(names[0], "1");
    }

    #[test]
    fn outputs_stay_below_folder_without_collision() {
        let name = |input: &str, root: &str| {
            output_name(Path::new(input), Path::new(input), Some(Path::new(root)))
        };
        let both = ("b/c.h5".to_string(), "b/c.hdf5".to_string());
        assert_eq!(name("a/b/c.hdf5", "a").unwrap(), Some(both));
        assert_eq!(name("x/c.h5", "a").unwrap_err().exit_code(), 2);
        assert_eq!(name("a/../c.h5", "a").unwrap_err().exit_code(), 2);
        assert_eq!(
            refuse_collisions(&[job("a.h5", 1), job("a.h5", 1)]).unwrap_err().exit_code(),
            2
        );
    }

    #[test]
    fn no_output_goes_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("scores"), folder.path().join("outside"));
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("night-1")).unwrap();
        let error = refuse_links(&inside, &inside.join("night-1/deep/run.h5")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("night-1"), "{error}");
        refuse_links(&inside, &inside.join("real/run.h5")).unwrap();
        refuse_links(&inside, &inside.join("new/run.h5")).unwrap();
        // The output folder itself may be a link, because the user named it.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        refuse_links(&link, &link.join("real/run.h5")).unwrap();
    }
}
