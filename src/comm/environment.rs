//! Detects how this process was launched, and opens the matching communicator.
//!
//! Launchers pass the number of processes in the environment. One process, or no number, means
//! [`SingleRank`](super::SingleRank), without MPI. Several processes mean MPI, and `MPI_COMM_WORLD`
//! must then have that size. If launcher and MPI library use different PMI versions, N separate
//! copies start. Each would do the whole work and overwrite the outputs of the others without an
//! error.

use super::host::environment_rank;
use super::mpi::{Mpi, abort_on_panic, library_version};
use super::{Communicator, SingleRank, is_root, preflight, sync_result};
use crate::error::{Error, Fault, Result, path_text};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Variables with the number of processes, the innermost launcher first: `mpirun` starts its
/// daemons with `srun`, and the count of `srun` is then the number of daemons.
const COUNTS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Number of tasks of an `srun` step. A job that is submitted within a step inherits the variable;
/// [`start`] then refuses it.
const STEP_TASKS: &str = "SLURM_STEP_NUM_TASKS";

/// Variables that prove a launcher without giving the number of processes.
const RANKS: [&str; 2] = ["PMI_RANK", "PMIX_RANK"];

const JOB_END: &str = "SLURM_JOB_END_TIME";

/// Step numbers from here on are not steps of `srun`, but batch scripts, interactive shells or
/// external processes.
const FIRST_SPECIAL_STEP: usize = 0xffff_fff0;

/// The launch described by the environment, with the variable that gave the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaunchEnvironment {
    Alone,
    /// One of this many processes.
    Ranks(usize, &'static str),
    /// The process with this rank; the number of processes is unknown.
    Rank(usize, &'static str),
}

/// Returns the number of processes that the launcher started; `None` without a launcher or a
/// number.
pub fn launched_ranks() -> Option<usize> {
    match launch(|name| std::env::var(name).ok()) {
        LaunchEnvironment::Ranks(ranks, _) => Some(ranks),
        LaunchEnvironment::Alone | LaunchEnvironment::Rank(..) => None,
    }
}

/// Returns the rank that the launcher gave this process; 0 without one.
pub fn launched_rank() -> usize {
    environment_rank(|name| std::env::var(name).ok()).unwrap_or(0)
}

/// Returns whether launchers and schedulers use this variable of the environment for their own
/// processes. A child process of a rank must not inherit it.
pub fn is_launcher_variable(name: &OsStr) -> bool {
    const PREFIXES: [&str; 11] = [
        "OMPI_", "PMIX_", "PMI_", "MV2_", "SLURM_", "PRTE_", "ORTE_", "OPAL_", "HYDRA_", "I_MPI_",
        "MPIR_",
    ];
    PREFIXES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

/// Returns the job number as the commands of the scheduler take it.
pub fn job_number() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
        (Some(job), Some(task)) => Some(format!("{job}_{task}")),
        _ => variable("SLURM_JOB_ID"),
    }
}

/// Returns the time at which the scheduler will end this job, if it is known: `SLURM_JOB_END_TIME`,
/// in seconds since 1970. A time in the past belongs to an earlier job.
pub fn job_end() -> Option<SystemTime> {
    parse_job_end(std::env::var(JOB_END).ok().as_deref(), SystemTime::now())
}

fn parse_job_end(text: Option<&str>, now: SystemTime) -> Option<SystemTime> {
    let seconds = text?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|end| *end > now)
}

/// Opens the communicator of this process. Call it once, on the main thread, after all checks that
/// need no other rank (flags, help, the text of the configuration).
///
/// With MPI, a panic on any thread ends all ranks with exit code 1. With a deadline, a stopped or
/// lost process of this node ends them as well.
///
/// # Errors
/// `Environment` if launcher and MPI library do not match, or the program differs between ranks.
pub fn start(deadline: Option<Duration>) -> Result<Box<dyn Communicator>> {
    let launch = launch(|name| std::env::var(name).ok());
    if matches!(launch, LaunchEnvironment::Alone | LaunchEnvironment::Ranks(..=1, _)) {
        return Ok(Box::new(SingleRank));
    }
    check_launcher(&library_version(), |name| std::env::var(name).ok())?;
    let comm = Mpi::initialise(deadline)?;
    abort_on_panic();
    sync_result(&comm, check_size(launch, comm.size()))?;
    preflight::same_program(&comm)?;
    comm.started();
    Ok(Box::new(comm))
}

/// Checks that the MPI library can connect the tasks of an `srun` step. Its own message would come
/// late, be long, and not name a remedy.
fn check_launcher(library: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<()> {
    let number = |name: &str| lookup(name)?.trim().parse::<usize>().ok();
    let is_set = |names: &[&str]| names.iter().any(|name| lookup(name).is_some());
    let open_mpi = library.contains("Open MPI");
    if !open_mpi
        || !in_step(number)
        || is_set(&["PMIX_NAMESPACE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE"])
    {
        return Ok(());
    }
    let tasks = number(STEP_TASKS).unwrap_or(1);
    if !is_set(&["PMI_FD", "PMI_RANK"]) {
        // Every task of the step finds this on its own.
        return Err(launcher_mismatch(
            &format!("{tasks} ranks ({STEP_TASKS})"),
            "`srun` without PMI",
        )
        .shared());
    }
    if number("SLURM_PROCID") == Some(0) {
        log::warn!(
            "`srun` uses PMI-2 here, Open MPI usually PMIx: if the start fails, use `srun --mpi=pmix`"
        );
    }
    Ok(())
}

fn check_size(launch: LaunchEnvironment, found: usize) -> Result<()> {
    let expected = match launch {
        LaunchEnvironment::Ranks(ranks, variable) if ranks != found => {
            format!("{ranks} ranks ({variable})")
        }
        LaunchEnvironment::Rank(rank, variable) if rank >= found => {
            format!("a rank {rank} ({variable})")
        }
        _ => return Ok(()),
    };
    Err(launcher_mismatch(&expected, &format!("{found} in MPI_COMM_WORLD")))
}

fn launcher_mismatch(expected: &str, found: &str) -> Error {
    Fault::new("the launcher and the MPI library do not find each other")
        .expected(expected)
        .found(found)
        .advice(
            "start with `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH; `srun --mpi=list` \
             lists the available ones), or with the mpirun of the MPI library that this program was \
             built with",
        )
        .environment()
}

fn launch(lookup: impl Fn(&str) -> Option<String>) -> LaunchEnvironment {
    let number = |name: &str| lookup(name)?.trim().parse::<usize>().ok();
    let find = |names: &[&'static str], launch: fn(usize, &'static str) -> LaunchEnvironment| {
        names.iter().find_map(|name| number(name).map(|count| launch(count, name)))
    };
    find(&COUNTS, LaunchEnvironment::Ranks)
        .or_else(|| in_step(number).then(|| find(&[STEP_TASKS], LaunchEnvironment::Ranks))?)
        .or_else(|| find(&RANKS, LaunchEnvironment::Rank))
        .unwrap_or(LaunchEnvironment::Alone)
}

/// Returns whether `srun` started this process. A batch script is one process, whatever the number
/// of tasks of its job, and has no step number or a special one.
fn in_step(number: impl Fn(&str) -> Option<usize>) -> bool {
    number("SLURM_STEP_ID").is_some_and(|step| step < FIRST_SPECIAL_STEP)
}

/// Variable with the path of a file that rank 0 creates when all ranks are connected.
const STARTED: &str = "TAIGA_FLOW_STARTED";

/// Creates the file that a job script has named. The script can then distinguish a launcher that
/// started nothing from a command that had nothing left to do. An existing file is not changed.
pub fn mark_start(comm: &dyn Communicator) {
    let named = std::env::var_os(STARTED).filter(|path| !path.is_empty() && is_root(comm));
    let Some(path) = named else { return };
    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    if let Err(error) = created.map(drop)
        && error.kind() != ErrorKind::AlreadyExists
    {
        log::warn!("{}: cannot create the file of {STARTED}: {error}", path_text(Path::new(&path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched_with(variables: &[(&str, &str)]) -> LaunchEnvironment {
        launch(|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn process_without_launcher_is_single() {
        assert_eq!(launched_with(&[]), LaunchEnvironment::Alone);
        assert_eq!(launched_with(&[("OMPI_COMM_WORLD_SIZE", "many")]), LaunchEnvironment::Alone);
    }

    #[test]
    fn ranks_are_read_from_every_launcher() {
        for name in COUNTS {
            assert_eq!(launched_with(&[(name, "4")]), LaunchEnvironment::Ranks(4, name));
        }
        assert_eq!(launched_with(&[("PMIX_RANK", "3")]), LaunchEnvironment::Rank(3, "PMIX_RANK"));
    }

    #[test]
    fn tasks_of_srun_are_ranks() {
        let step = [("SLURM_STEP_ID", "0"), (STEP_TASKS, "8"), ("PMIX_RANK", "5")];
        assert_eq!(launched_with(&step), LaunchEnvironment::Ranks(8, STEP_TASKS));
    }

    #[test]
    fn batch_script_is_single_in_any_job() {
        let batch = [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "64"), ("SLURM_PROCID", "0")];
        assert_eq!(launched_with(&batch), LaunchEnvironment::Alone);
        let interactive = [("SLURM_STEP_ID", "4294967290"), (STEP_TASKS, "64")];
        assert_eq!(launched_with(&interactive), LaunchEnvironment::Alone);
    }

    #[test]
    fn mpirun_daemons_are_not_counted() {
        let nested = [("SLURM_STEP_ID", "0"), (STEP_TASKS, "2"), ("OMPI_COMM_WORLD_SIZE", "16")];
        assert_eq!(launched_with(&nested), LaunchEnvironment::Ranks(16, "OMPI_COMM_WORLD_SIZE"));
    }

    #[test]
    fn separate_copies_are_refused_with_number() {
        let error = check_size(LaunchEnvironment::Ranks(4, STEP_TASKS), 1).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(
            text.contains("expected 4 ranks (SLURM_STEP_NUM_TASKS), found 1 in MPI_COMM_WORLD")
        );
        assert!(text.contains("srun --mpi=pmix"));
        assert_eq!(
            check_size(LaunchEnvironment::Rank(1, "PMIX_RANK"), 1).unwrap_err().exit_code(),
            5
        );
    }

    #[test]
    fn open_mpi_without_pmi_is_refused_before_start() {
        let met = |library: &str, more: &[(&str, &str)]| {
            let step = [("SLURM_STEP_ID", "0"), (STEP_TASKS, "4"), ("SLURM_PROCID", "0")];
            check_launcher(library, |name| {
                let (_, value) = step.iter().chain(more).find(|(known, _)| *known == name)?;
                Some((*value).to_owned())
            })
        };
        let error = met("Open MPI v4.1.4", &[]).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("expected 4 ranks") && text.contains("srun --mpi=pmix"), "{text}");
        met("MPICH Version: 4.0.2", &[]).unwrap();
        for pmi in ["PMIX_RANK", "PMI_FD", "OMPI_COMM_WORLD_SIZE"] {
            met("Open MPI v4.1.4", &[(pmi, "3")]).unwrap();
        }
    }

    #[test]
    fn job_end_is_read_unless_it_has_passed() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(parse_job_end(Some("1060"), now), Some(now + Duration::from_secs(60)));
        for none in [None, Some("940"), Some("soon"), Some("-3"), Some("99999999999999999999")] {
            assert_eq!(parse_job_end(none, now), None);
        }
    }

    #[test]
    fn matching_sizes_are_accepted() {
        assert!(check_size(LaunchEnvironment::Ranks(4, STEP_TASKS), 4).is_ok());
        assert!(check_size(LaunchEnvironment::Rank(1, "PMIX_RANK"), 2).is_ok());
    }
}
