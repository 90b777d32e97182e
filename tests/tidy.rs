//! Floors, not a web: who may import whom, and which crate stands where. Read from the
//! sources, so that a breach fails a test and not a review.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules from the ground up. A module imports from the floors below its own; those of
/// one floor do not know each other.
const FLOORS: [&[&str]; 14] = [
    &["error"],
    &["bounded", "memory", "terminal"],
    &["metrics", "comm"],
    &["config", "hillas", "storage"],
    &["data", "statistics"],
    &["dataset"],
    &["model", "season", "simulate"],
    &["engine"],
    &["evaluate", "extract", "train"],
    &["score"],
    &["report"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// Where third-party crates stay.
const AT_HOME: [(&str, &[&str]); 3] =
    [("mpi", &["src/comm/mpi.rs"]), ("hdf5", &["src/data/"]), ("cubecl", &["gpu/"])];

/// Files with a reason for `unsafe`: MPI's in-place argument, kernels per instruction
/// set, HDF5's boolean, rows, records, headers and descriptors, the free room of a disk, devices.
const UNSAFE: [&str; 12] = [
    "src/comm/mpi.rs",
    "src/engine/simd/mod.rs",
    "src/engine/simd/vector.rs",
    "src/storage/mod.rs",
    "src/data/hdf5/descriptor.rs",
    "src/data/hdf5/header.rs",
    "src/data/hdf5/compound.rs",
    "src/data/hdf5/rows.rs",
    "src/data/hdf5/types.rs",
    "src/data/hdf5/numbers.rs",
    "src/data/images/dl1/fields.rs",
    "gpu/src/device/",
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Everything wrong with one source; `path` is relative to the root of the repository.
fn breaches(path: &str, source: &str) -> Vec<String> {
    let code = code_of(path, source);
    let mut found = Vec::new();
    let mut tell = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));
    let module = module_of(path);
    for (number, line) in &code {
        if let Some(module) = &module {
            for imported in imports(line).iter().filter(|imported| *imported != module) {
                match (floor(module), floor(imported)) {
                    (Some(own), Some(other)) if other < own => {}
                    (None, _) => tell(*number, format!("'{module}' stands on no floor")),
                    (_, None) => tell(*number, format!("'{imported}' stands on no floor")),
                    _ => tell(*number, format!("'{module}' imports '{imported}', not below it")),
                }
            }
        }
        for (name, homes) in AT_HOME {
            if uses_crate(line, name) && !homes.iter().any(|home| path.starts_with(home)) {
                tell(*number, format!("'{name}' belongs to {homes:?}"));
            }
        }
        for hasty in [".unwrap()", ".expect("] {
            // `self.expect(` is a parser's own.
            let own = |at: usize| line[..at].ends_with("self");
            if line.match_indices(hasty).any(|(at, _)| !own(at)) {
                tell(*number, format!("'{hasty}' outside tests"));
            }
        }
        if words(line).any(|word| word == "unsafe")
            && !UNSAFE.iter().any(|known| path.starts_with(known))
        {
            tell(*number, "'unsafe' without a place in the list".to_string());
        }
    }
    found
}

/// Lines of a source that are code and no test, with their numbers.
fn code_of(path: &str, source: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return code;
    }
    let mut lines = source.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // What follows belongs to tests, up to its end: `;` or the brace that stands
            // as far to the left as it began.
            let indent = line.len() - line.trim_start().len();
            for (_, line) in lines.by_ref() {
                let own = line.len() - line.trim_start().len() == indent;
                if own && (line.ends_with(';') || line.trim_start().starts_with('}')) {
                    break;
                }
            }
            continue;
        }
        // Text in quotes may hold anything; `//` in it is no comment.
        let line = without_texts(line);
        let line = line.split("//").next().unwrap_or_default();
        if !line.trim().is_empty() {
            code.push((index + 1, line.to_string()));
        }
    }
    code
}

fn without_texts(line: &str) -> String {
    let mut out = String::new();
    let (mut inside, mut escaped) = (false, false);
    for c in line.replace("'\"'", "' '").chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ if inside => {}
            _ => out.push(c),
        }
    }
    out
}

/// The module of the library that a path belongs to.
fn module_of(path: &str) -> Option<String> {
    let inner = path.strip_prefix("src/")?;
    let first = inner.split('/').next()?;
    Some(first.trim_end_matches(".rs").to_string())
}

/// Modules that a line names through `crate::`, or `taiga_flow::` from the binary.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "taiga_flow::"] {
        for (at, _) in line.match_indices(root) {
            let rest = &line[at + root.len()..];
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || "_$:".contains(c)) {
                continue;
            }
            let group = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            match group {
                // `use crate::{a::B, c}`: the first word after each comma.
                Some(group) => found.extend(group.split(',').filter_map(first_word)),
                None => found.extend(first_word(rest)),
            }
        }
    }
    found
}

fn first_word(text: &str) -> Option<String> {
    words(text).next().map(str::to_string)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// Whether a line names an outside crate: `name::` or `use name`, not `super::name::`.
fn uses_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let local = ["super::", "self::", "crate::", "comm::", "data::"]
            .iter()
            .any(|p| before.ends_with(p));
        let named = after.starts_with("::") || before.trim_end().ends_with("use");
        whole && !local && named && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

fn sources(root: &Path) -> Vec<(String, String)> {
    let mut folders = vec![root.join("src"), root.join("gpu/src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("a source")));
            }
        }
    }
    found
}

#[test]
fn the_sources_keep_to_their_floors() {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    let modules: BTreeSet<String> =
        sources.iter().filter_map(|(path, _)| module_of(path)).collect();
    for module in ["error", "comm", "data", "train", "score", "cli", "main"] {
        assert!(modules.contains(module), "no sources of '{module}' were read");
    }
    let found: Vec<String> =
        sources.iter().flat_map(|(path, source)| breaches(path, source)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn kernel_crate_is_free_of_ranks_files_and_flags() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("gpu/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).expect("the manifest");
    for name in ["mpi", "hdf5", "hdf5-metno", "clap", "taiga-flow"] {
        let named = manifest.lines().filter_map(|line| line.split(['=', '.']).next());
        assert!(!named.into_iter().any(|word| word.trim() == name), "gpu depends on {name}");
    }
}

#[test]
fn breaches_are_found_in_made_up_sources() {
    let broken = [
        ("src/error.rs", "use crate::comm::World;"),
        ("src/data/table/mod.rs", "use crate::train::Plan;"),
        ("src/data/table/mod.rs", "use crate::statistics::Sample;"),
        ("src/config/mod.rs", "fn f() -> crate::data::Table { g() }"),
        ("src/train/mod.rs", "use crate::{error::Result, evaluate};"),
        ("src/train/mod.rs", "pub use crate::cli::Cli;"),
        ("src/report/mod.rs", "use crate::unheard_of::X;"),
        ("src/novelty/mod.rs", "use crate::error::Result;"),
        ("src/comm/threads.rs", "use mpi::traits::Communicator;"),
        ("src/score/output.rs", "let file = hdf5::File::open(path)?;"),
        ("src/score/output.rs", "use hdf5 as h;\nfn f() {}"),
        ("src/engine/cube.rs", "use cubecl::prelude::*;"),
        ("gpu/src/layout.rs", "use hdf5::File;"),
        ("src/score/mod.rs", "let x = y.unwrap();"),
        ("src/score/mod.rs", "let x = y.expect(\"z\");"),
        ("src/score/mod.rs", "unsafe { f() }"),
        ("src/score/mod.rs", "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nlet x = y.unwrap();"),
        ("src/score/mod.rs", "#[cfg(test)]\nmod tests;\n\nlet x = y.unwrap();"),
        ("src/score/mod.rs", "let url = \"https://a\"; y.unwrap();"),
    ];
    for (path, source) in broken {
        assert_eq!(breaches(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    let whole = [
        ("src/train/mod.rs", "use crate::comm::{World, is_root};\nuse crate::storage;"),
        ("src/train/plan.rs", "use crate::train::state::TrainState;"),
        ("src/comm/environment.rs", "use super::mpi::{Mpi, abort_on_panic};"),
        ("src/comm/mpi.rs", "use mpi::traits::Communicator;\nunsafe impl Buffer for X {}"),
        ("src/data/hdf5/mod.rs", "use hdf5::File;"),
        ("src/score/mod.rs", "// x.unwrap() and hdf5:: in a comment\n/// crate::cli::Cli"),
        ("src/score/mod.rs", "let text = \"hdf5:: .unwrap() unsafe\";"),
        ("src/score/mod.rs", "let x = y.unwrap_or(3).unwrap_or_default();"),
        (
            "src/score/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::cli::Cli;\n    x.unwrap();\n}",
        ),
        ("src/config/tests.rs", "x.unwrap();"),
        ("src/data/schema/expression.rs", "self.expect(')')?;"),
        ("src/main.rs", "use taiga_flow::cli::Cli;\nuse taiga_flow::comm;"),
        ("gpu/src/reference.rs", "use crate::layout::Layout;"),
    ];
    for (path, source) in whole {
        assert_eq!(breaches(path, source), [""; 0], "{path}: {source}");
    }
}
