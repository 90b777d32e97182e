//! Keeps the inputs on which a fuzz test failed, together with the reasons.

use std::path::{Path, PathBuf};

/// Returns the folder of kept inputs: `TAIGA_FLOW_FAILURES`, or a folder in the build folder.
fn failures_folder() -> PathBuf {
    let named = std::env::var_os("TAIGA_FLOW_FAILURES").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-failures"))
}

/// Writes a failing input as `name` and its reason as `name.reason`, and returns a line that names
/// both. The line starts with `fuzz:`, so that a soak keeps it.
pub fn keep_failure(name: &str, input: &[u8], reason: &str) -> String {
    let folder = failures_folder();
    std::fs::create_dir_all(&folder).expect("the folder of failures");
    let path = folder.join(name);
    std::fs::write(&path, input).expect("a failing input");
    std::fs::write(folder.join(format!("{name}.reason")), reason).expect("a reason");
    let first = reason.lines().next().unwrap_or_default();
    format!("fuzz: FAILED: {first}; input and reason are kept as {}", path.display())
}

#[test]
fn failing_input_and_reason_are_kept() {
    let name = format!("self-test-{}", std::process::id());
    let line = keep_failure(&name, b"\xff input", "first line\nsecond line");
    let path = failures_folder().join(&name);
    let reason = failures_folder().join(format!("{name}.reason"));
    assert!(line.starts_with("fuzz: FAILED: first line;"), "{line}");
    assert!(line.ends_with(&path.display().to_string()), "{line}");
    assert_eq!(std::fs::read(&path).expect("the input"), b"\xff input");
    assert_eq!(std::fs::read(&reason).expect("the reason"), b"first line\nsecond line");
    [path, reason].iter().for_each(|path| std::fs::remove_file(path).expect("a kept file"));
}
