//! The name of this node, and the rank that a launcher has given a process.

/// Returns the name of this node, in one word; "unknown" if the system has none.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let word = name.as_deref().and_then(|name| name.split_whitespace().next());
    word.unwrap_or("unknown").to_string()
}

/// Returns the rank in an environment of a launcher; `None` without one.
pub(super) fn environment_rank(lookup: impl Fn(&str) -> Option<String>) -> Option<usize> {
    const NAMES: [&str; 5] =
        ["OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];
    NAMES.iter().find_map(|name| lookup(name)?.trim().parse().ok())
}
