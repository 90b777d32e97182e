//! How this process was launched, and the world that follows from it.
//!
//! Launchers tell their processes through the environment how many they are. One
//! process, or nothing told, means [`SingleRank`](super::SingleRank) without touching MPI. Several
//! means MPI, whose world must then have the promised size: where launcher and MPI
//! library speak different PMI, N lone copies would each do the whole work and write
//! over each other, without a word.

use super::mpi::{Mpi, abort_on_panic, library_version};
use super::{Communicator, SingleRank, is_root, preflight, sync_result};
use crate::error::{Error, Fault, Result, path_text};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells the number of processes, the innermost launcher first: `mpirun` starts
/// its daemons by `srun`, whose count is then one of daemons.
const COUNTS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"];

/// What tells the number of tasks of a step of `srun`; a job submitted from within a
/// step inherits it, and then [`start`] refuses it rather than trust it.
const STEP_TASKS: &str = "SLURM_STEP_NUM_TASKS";

/// What tells that there is a launcher, but not how many processes it started.
const RANKS: [&str; 2] = ["PMI_RANK", "PMIX_RANK"];

const JOB_END: &str = "SLURM_JOB_END_TIME";

/// Slurm's numbers for what is not a step of `srun` (batch script, interactive shell,
/// outside processes) begin here.
const FIRST_SPECIAL_STEP: usize = 0xffff_fff0;

/// What the environment tells, and which variable tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaunchEnvironment {
    Alone,
    /// One of so many processes.
    Ranks(usize, &'static str),
    /// The process of this rank, among nobody says how many.
    Rank(usize, &'static str),
}

/// How many processes the launcher says it started; `None` where no launcher tells.
pub fn launched_ranks() -> Option<usize> {
    match launch(|name| std::env::var(name).ok()) {
        LaunchEnvironment::Ranks(ranks, _) => Some(ranks),
        LaunchEnvironment::Alone | LaunchEnvironment::Rank(..) => None,
    }
}

/// Which of its processes the launcher says this one is; 0 where it does not.
pub fn launched_rank() -> usize {
    environment_rank(|name| std::env::var(name).ok()).unwrap_or(0)
}

/// The same of a process with this environment; `None` where its launcher does not say.
pub(super) fn environment_rank(lookup: impl Fn(&str) -> Option<String>) -> Option<usize> {
    const NAMES: [&str; 5] =
        ["OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];
    NAMES.iter().find_map(|name| lookup(name)?.trim().parse().ok())
}

/// Whether a variable of the environment is one by which launchers and schedulers speak to the
/// processes that they started: a child process of a rank must not take it for its own.
pub fn is_launcher_variable(name: &OsStr) -> bool {
    const PREFIXES: [&str; 11] = [
        "OMPI_", "PMIX_", "PMI_", "MV2_", "SLURM_", "PRTE_", "ORTE_", "OPAL_", "HYDRA_", "I_MPI_",
        "MPIR_",
    ];
    PREFIXES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

/// The scheduler's number of this job, as its commands take it.
pub fn job_number() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
        (Some(job), Some(task)) => Some(format!("{job}_{task}")),
        _ => variable("SLURM_JOB_ID"),
    }
}

/// When the scheduler will end this job, where it tells: Slurm's `SLURM_JOB_END_TIME`, in
/// seconds since 1970. A moment that has passed is of an earlier job.
pub fn job_end() -> Option<SystemTime> {
    parse_job_end(std::env::var(JOB_END).ok().as_deref(), SystemTime::now())
}

fn parse_job_end(text: Option<&str>, now: SystemTime) -> Option<SystemTime> {
    let seconds = text?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|end| *end > now)
}

/// The world this process belongs to. To be called once, on the main thread, after
/// everything that needs no other rank (flags, help, the text of the configuration).
///
/// With MPI running, a panic on any thread ends all ranks with exit code 1, and a process of
/// this node that is stopped or gone ends them within the deadline, if there is one.
pub fn start(deadline: Option<Duration>) -> Result<Box<dyn Communicator>> {
    let launch = launch(|name| std::env::var(name).ok());
    if matches!(launch, LaunchEnvironment::Alone | LaunchEnvironment::Ranks(..=1, _)) {
        return Ok(Box::new(SingleRank));
    }
    meet_launcher(&library_version(), |name| std::env::var(name).ok())?;
    let comm = Mpi::initialise(deadline)?;
    abort_on_panic();
    sync_result(&comm, promise_kept(launch, comm.size()))?;
    preflight::same_program(&comm)?;
    comm.started();
    Ok(Box::new(comm))
}

/// Whether an MPI library can find the other tasks of a step of `srun`: where it cannot, its
/// own message comes late, is long, and does not say what to type.
fn meet_launcher(library: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<()> {
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
        // Every task of the step finds this by itself.
        return Err(launcher_mismatch(
            &format!("{tasks} ranks ({STEP_TASKS})"),
            "`srun` without PMI",
        )
        .shared());
    }
    if number("SLURM_PROCID") == Some(0) {
        log::warn!(
            "`srun` speaks PMI-2 here, Open MPI mostly PMIx: if it fails now, start with `srun --mpi=pmix`"
        );
    }
    Ok(())
}

fn promise_kept(launch: LaunchEnvironment, found: usize) -> Result<()> {
    let expected = match launch {
        LaunchEnvironment::Ranks(ranks, told_by) if ranks != found => {
            format!("{ranks} ranks ({told_by})")
        }
        LaunchEnvironment::Rank(rank, told_by) if rank >= found => {
            format!("a rank {rank} ({told_by})")
        }
        _ => return Ok(()),
    };
    Err(launcher_mismatch(&expected, &format!("a world of {found}")))
}

fn launcher_mismatch(expected: &str, found: &str) -> Error {
    Fault::new("the launcher and the MPI library do not find each other")
        .expected(expected)
        .found(found)
        .advice(
            "start with `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH; `srun --mpi=list` \
             names what there is), or with the mpirun of the MPI library that this program was \
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

/// Whether `srun` started this process. A batch script is one process whatever the
/// number of tasks of its job, and has no step number or a special one.
fn in_step(number: impl Fn(&str) -> Option<usize>) -> bool {
    number("SLURM_STEP_ID").is_some_and(|step| step < FIRST_SPECIAL_STEP)
}

/// Names a file that rank 0 creates when all ranks are connected.
const STARTED: &str = "TAIGA_FLOW_STARTED";

/// Creates the file that a job script has named, so that the script can tell a launcher that
/// started nothing from a command that had nothing left to do. An existing file stays as it is.
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

/// Name of this node, in one word.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.split_whitespace().next().unwrap_or("unknown").to_string()
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
    fn a_plain_process_is_alone() {
        assert_eq!(launched_with(&[]), LaunchEnvironment::Alone);
        assert_eq!(launched_with(&[("OMPI_COMM_WORLD_SIZE", "many")]), LaunchEnvironment::Alone);
    }

    #[test]
    fn every_launcher_is_heard() {
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
    fn a_batch_script_is_alone_whatever_its_job_has() {
        let batch = [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "64"), ("SLURM_PROCID", "0")];
        assert_eq!(launched_with(&batch), LaunchEnvironment::Alone);
        let interactive = [("SLURM_STEP_ID", "4294967290"), (STEP_TASKS, "64")];
        assert_eq!(launched_with(&interactive), LaunchEnvironment::Alone);
    }

    #[test]
    fn the_daemons_of_mpirun_are_not_counted() {
        let nested = [("SLURM_STEP_ID", "0"), (STEP_TASKS, "2"), ("OMPI_COMM_WORLD_SIZE", "16")];
        assert_eq!(launched_with(&nested), LaunchEnvironment::Ranks(16, "OMPI_COMM_WORLD_SIZE"));
    }

    #[test]
    fn lone_copies_are_refused_with_promised_number() {
        let error = promise_kept(LaunchEnvironment::Ranks(4, STEP_TASKS), 1).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let text = error.to_string();
        assert!(text.contains("expected 4 ranks (SLURM_STEP_NUM_TASKS), found a world of 1"));
        assert!(text.contains("srun --mpi=pmix"));
        assert_eq!(
            promise_kept(LaunchEnvironment::Rank(1, "PMIX_RANK"), 1).unwrap_err().exit_code(),
            5
        );
    }

    #[test]
    fn open_mpi_without_pmi_is_refused_before_start() {
        let met = |library: &str, more: &[(&str, &str)]| {
            let step = [("SLURM_STEP_ID", "0"), (STEP_TASKS, "4"), ("SLURM_PROCID", "0")];
            meet_launcher(library, |name| {
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
    fn kept_promises_pass() {
        assert!(promise_kept(LaunchEnvironment::Ranks(4, STEP_TASKS), 4).is_ok());
        assert!(promise_kept(LaunchEnvironment::Rank(1, "PMIX_RANK"), 2).is_ok());
    }
}
