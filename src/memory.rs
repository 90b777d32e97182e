//! Recognises a lack of memory: limits such as `ulimit -v` make allocations fail.
//!
//! Libraries report a failed allocation as anything. [`is_near_limit`] and [`is_scarce`] tell
//! whether memory is the reason, or a damaged file. An allocation of this program that fails
//! aborts it, as Rust's standard library does.

/// An allocation that fails below this many bytes is a lack of memory; no sound file needs more
/// at a time.
const PROBE_BYTES: usize = 1 << 30;
/// A process that came so near to its limit may have met it.
const NEAR_BYTES: u64 = 128 << 20;
pub const ADVICE: &str =
    "raise the limit (ulimit -v, or --mem of the job), or use fewer ranks or --threads";

/// Whether an allocation fails that any sound file leaves room for.
pub fn is_scarce() -> bool {
    Vec::<u8>::new().try_reserve_exact(PROBE_BYTES).is_err()
}

/// Whether the process has come near to its limit of address space (`ulimit -v`), if it has one.
pub fn is_near_limit() -> bool {
    let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    let limits = text("limits").unwrap_or_default();
    let limit = number_after(&limits, "Max address space");
    let peak = text("status").ok().and_then(|status| number_after(&status, "VmPeak:"));
    let near = |(limit, peak): (u64, u64)| limit.saturating_sub(1024 * peak) < NEAR_BYTES;
    limit.zip(peak).is_some_and(near)
}

/// The number that follows a name at the start of a line; none for "unlimited".
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Whether a panic says that no thread could be started: a lack of memory or of processes.
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
