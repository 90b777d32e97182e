//! Recognises a lack of memory: limits such as `ulimit -v` make allocations fail.
//!
//! Libraries report a failed allocation in many ways. [`is_near_limit`] and [`is_scarce`] tell a
//! lack of memory from a damaged file. A failed allocation of this program aborts it, as in Rust's
//! standard library.

/// An allocation of this size that fails means a lack of memory; no intact file needs more at a
/// time.
const PROBE_BYTES: usize = 1 << 30;
/// A process this near to its limit may have reached it.
const NEAR_BYTES: u64 = 128 << 20;
pub const ADVICE: &str =
    "raise the limit (ulimit -v, or --mem of the job), or use fewer ranks or --threads";

/// Returns whether an allocation fails that is possible after reading any intact file.
pub(crate) fn is_scarce() -> bool {
    Vec::<u8>::new().try_reserve_exact(PROBE_BYTES).is_err()
}

/// Returns whether the process has come near to its limit of address space (`ulimit -v`), if it has
/// one.
pub(crate) fn is_near_limit() -> bool {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    let limit = text("limits").ok().and_then(|limits| number_after(&limits, "Max address space"));
    let peak = text("status").ok().and_then(|status| number_after(&status, "VmPeak:"));
    let near = |(limit, peak): (u64, u64)| limit.saturating_sub(1024 * peak) < NEAR_BYTES;
    limit.zip(peak).is_some_and(near)
}

/// Returns the number that follows a name at the start of a line; `None` for "unlimited".
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns whether a panic reports that no thread could be started: a lack of memory or of
/// processes.
pub fn is_lack_of_threads(panic: &str) -> bool {
    panic.contains("failed to spawn thread")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_not_scarce_without_a_limit() {
        assert!(!is_scarce() && !is_near_limit());
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        let limits =
            "Max data size   unlimited unlimited bytes\nMax address space   4096   8192   bytes\n";
        assert_eq!(number_after(limits, "Max address space"), Some(4096));
        assert_eq!(number_after(limits, "Max data size"), None);
        assert_eq!(number_after("VmPeak:\t  17 kB", "VmPeak:"), Some(17));
    }
}
