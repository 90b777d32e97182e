//! Starts a real Slurm cluster of virtual nodes on this machine (`tests/slurm/cluster.sh`), and
//! submits jobs to it.

use super::process::kill;
use super::{arguments, case::text, folder, skip};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_taiga-flow");
/// Time limit of a job of a test.
const LIMIT: Duration = Duration::from_secs(240);

/// A cluster, and a folder with `jobs/` as a user has it, except `env.sh`.
pub struct Slurm {
    /// Stops all daemons when its standard input ends.
    daemons: Child,
    pub folder: tempfile::TempDir,
}

/// A job as the controller reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub state: String,
    pub reason: String,
    pub exit_code: u8,
    pub restarts: u32,
}

impl Slurm {
    /// Starts a cluster. Returns `None` with a message where Slurm is not installed or cannot be
    /// started; `TAIGA_FLOW_SLURM=required` makes this a failure.
    pub fn start(nodes: usize, cpus: usize) -> Option<Slurm> {
        let installed = ["/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd"]
            .iter()
            .all(|daemon| Path::new(daemon).is_file());
        // SAFETY: geteuid(2) reads a number and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        if !installed || !root {
            let why = "no Slurm: needs root and the packages slurm-wlm and munge";
            assert!(
                std::env::var("TAIGA_FLOW_SLURM").is_err(),
                "TAIGA_FLOW_SLURM is set, but {why}"
            );
            skip(why);
            return None;
        }
        let folder = folder();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut daemons = Command::new("bash")
            .arg(sources.join("tests/slurm/cluster.sh"))
            .arg(folder.path().join("slurm"))
            .args([nodes.to_string(), cpus.to_string()])
            .env("SLURMD_TIMEOUT", "8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut printed = String::new();
        let output = daemons.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut printed).expect("a line");
        assert_eq!(printed, "up\n", "no cluster");
        let slurm = Slurm { daemons, folder };
        let mut copied = Command::new("cp");
        copied.arg("-r").arg(sources.join("jobs")).arg(slurm.folder.path());
        assert!(copied.status().expect("cp").success());
        slurm.settings("srun --mpi=pmix");
        Some(slurm)
    }

    /// Writes `env.sh` as a site would.
    pub fn settings(&self, launch: &str) {
        // Virtual nodes share this host, but MPI must not use shared memory between them. More
        // ranks than cores must not spin.
        let text = format!(
            "TAIGA_FLOW_PROGRAM={PROGRAM}\nTAIGA_FLOW_LAUNCH='{launch}'\nTAIGA_FLOW_RESTARTS=5\n\
             export TAIGA_FLOW_PROGRAM TAIGA_FLOW_LAUNCH TAIGA_FLOW_RESTARTS\n\
             export OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=lo \
             OMPI_MCA_mpi_yield_when_idle=1\n"
        );
        std::fs::write(self.at("jobs/env.sh"), text).expect("env.sh");
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a Slurm command in the folder, and returns its standard output.
    pub fn query(&self, command: &str, arguments: &[OsString]) -> String {
        let output = self.command(command, arguments).output().expect("Slurm's commands");
        let (printed, wrong) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command} {arguments:?}: {printed}{wrong}");
        printed.trim().to_string()
    }

    pub fn command(&self, command: &str, arguments: &[OsString]) -> Command {
        let mut prepared = Command::new(command);
        prepared
            .args(arguments)
            .current_dir(self.folder.path())
            .env("SLURM_CONF", self.at("slurm/slurm.conf"))
            .env_remove("TAIGA_FLOW_LOG");
        prepared
    }

    /// Submits one of the job scripts, with the log file `log`, and returns the job id.
    pub fn submit(&self, options: &[&str], script: &str, more: &[OsString], log: &str) -> String {
        let mut all = Vec::from(arguments!["--parsable", format!("--output={log}")]);
        all.extend(options.iter().map(OsString::from));
        all.push(format!("jobs/{script}").into());
        all.extend(more.iter().cloned());
        self.query("sbatch", &all)
    }

    pub fn log(&self, name: &str) -> String {
        text(&self.at(name))
    }

    pub fn job(&self, id: &str) -> Job {
        let printed = self.query("scontrol", &arguments!["show", "job", "--oneliner", id]);
        let last = printed.lines().last().unwrap_or_default();
        let fact = |name: &str| {
            let found =
                last.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_string()
        };
        let code = fact("ExitCode");
        Job {
            state: fact("JobState"),
            reason: fact("Reason"),
            exit_code: code.split(':').next().and_then(|c| c.parse().ok()).unwrap_or(u8::MAX),
            restarts: fact("Restarts").parse().unwrap_or(0),
        }
    }

    /// Polls a job until `wanted` holds.
    pub fn wait_for(&self, id: &str, log: &str, wanted: impl Fn(&Job) -> bool) -> Job {
        let since = Instant::now();
        loop {
            let job = self.job(id);
            if wanted(&job) {
                return job;
            }
            assert!(since.elapsed() < LIMIT, "job {id} is {job:?}: {}", self.log(log));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts a requeued job as soon as its last step has ended. Slurm itself would wait two
    /// minutes.
    pub fn start_again(&self, id: &str, log: &str) {
        self.wait_for(id, log, |job| job.state == "PENDING");
        let since = Instant::now();
        // Cleanup of the last start must not hit the next one.
        let is_there =
            || self.sockets(id) || self.job_processes(None).into_iter().any(|p| belongs_to(p, id));
        while is_there() && since.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.query("scontrol", &arguments!["update", format!("jobid={id}"), "StartTime=now"]);
    }

    /// Returns whether a node still has sockets of the last step of the job.
    fn sockets(&self, id: &str) -> bool {
        let name = format!("stepd.slurm.pmix.{id}.");
        let folders = std::fs::read_dir(self.at("slurm/spool")).expect("spool").flatten();
        let files = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten();
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with(&name))
    }

    pub fn finish(&self, id: &str, log: &str) -> Job {
        const OVER: [&str; 6] =
            ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"];
        self.wait_for(id, log, |job| OVER.contains(&job.state.as_str()))
    }

    /// Returns the ranks of the program in this cluster, on one virtual node or on all.
    pub fn ranks(&self, node: Option<&str>) -> Vec<u32> {
        let is_rank = |process: &u32| {
            text(&PathBuf::from(format!("/proc/{process}/comm"))).starts_with("taiga-flow")
        };
        self.job_processes(node).into_iter().filter(is_rank).collect()
    }

    /// Returns the processes of jobs: batch scripts, `srun`, ranks.
    fn job_processes(&self, node: Option<&str>) -> Vec<u32> {
        let conf = format!("SLURM_CONF={}", self.at("slurm/slurm.conf").display());
        let mine = |process: &u32| {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let has = |wanted: &str| environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes());
            let name = |node| format!("SLURMD_NODENAME={node}");
            has(&conf) && has("SLURM_JOB_USER=root") && node.is_none_or(|node| has(&name(node)))
        };
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(mine).collect()
    }

    /// Kills everything that runs on a node at once, like a power cut.
    pub fn kill_node(&self, node: &str) {
        kill(self.daemon(node));
        let jobs = self.job_processes(Some(node));
        let parent = |process: &u32| {
            let status = text(&PathBuf::from(format!("/proc/{process}/status")));
            status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
        };
        let is_step = |process: &u32| {
            text(&PathBuf::from(format!("/proc/{process}/comm"))).starts_with("slurmstepd")
        };
        // The step daemons are killed first, because they would report to the controller.
        let steps: Vec<u32> = jobs.iter().filter_map(parent).filter(is_step).collect();
        steps.into_iter().chain(jobs).for_each(kill);
    }

    /// Returns the process id of a daemon: `slurmctld`, `node1`, ….
    pub fn daemon(&self, name: &str) -> u32 {
        let pids = text(&self.at("slurm/pids"));
        let line = pids.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|id| id.parse().ok()).expect("a daemon of that name")
    }

    /// Starts the daemon of a node again; `cluster.sh` stops it together with the others.
    #[allow(clippy::zombie_processes)] // the daemon outlives this call; `cluster.sh` stops it
    pub fn restart_daemon(&self, node: &str) {
        let conf = self.at("slurm/slurm.conf");
        let daemon = self
            .command("slurmd", &arguments!["-D", "-N", node, "-f", conf])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("slurmd");
        let line = format!("{node} {}\n", daemon.id());
        let file = std::fs::OpenOptions::new().append(true).open(self.at("slurm/pids"));
        std::io::Write::write_all(&mut file.expect("pids"), line.as_bytes()).expect("a line");
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        drop(self.daemons.stdin.take());
        let _ = self.daemons.wait();
    }
}

/// Returns whether a process belongs to a job, or to an array element given as `JOB_ELEMENT`.
fn belongs_to(process: u32, id: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let has = |wanted: String| environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes());
    match id.split_once('_') {
        Some((job, element)) => {
            has(format!("SLURM_ARRAY_JOB_ID={job}"))
                && has(format!("SLURM_ARRAY_TASK_ID={element}"))
        }
        None => has(format!("SLURM_JOB_ID={id}")),
    }
}
