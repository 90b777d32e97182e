//! Documents agree with the program: links and paths exist, commands and options are those
//! of the help texts, every page is in the table of contents.

use crate::support::{arguments, program, succeed};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Documents outside the book.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "jobs/README.md",
    "bench/README.md",
    "bench/scaling/README.md",
];

/// Folders of the book, and the table of contents in it.
const BOOK: &str = "docs/src";
const GUIDE: &str = "docs/src/guide";
const CONTENTS: &str = "SUMMARY.md";

/// Largest sizes in bytes: details belong to the book.
const SIZES: [(&str, usize); 2] = [("README.md", 9000), ("ARCHITECTURE.md", 12_000)];

/// Folders of the repository that documents name files in.
const NAMED: [&str; 8] =
    ["src/", "gpu/src/", "gpu/tests/", "tests/", "configs/", "jobs/", "bench/", "docs/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns all files with the extension `md` below a folder, sorted.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns all documents, of the book and outside it.
fn documents() -> Vec<PathBuf> {
    let outside = DOCUMENTS.iter().map(|name| root().join(name));
    outside.chain(pages(&root().join(BOOK))).collect()
}

/// Splits a text into its prose and its code blocks, line by line.
fn prose_and_code(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut prose, mut code, mut in_code) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if in_code {
            code.push(line);
        } else {
            prose.push(line);
        }
    }
    (prose, code)
}

/// Returns the targets of the links in a line of prose.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// Returns the anchor of a heading as mdBook and GitHub make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = prose_and_code(text);
    let headings = prose.iter().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Returns the fault of a link in a document, if it has one.
fn fault_of_link(document: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let folder = document.parent().expect("a document in a folder");
    let target = if path.is_empty() { document.to_path_buf() } else { folder.join(path) };
    if !target.exists() {
        return Some(format!("{}: no file '{link}'", document.display()));
    }
    let known = fragment.is_empty() || anchors(&read(&target)).contains(fragment);
    (!known).then(|| format!("{}: no heading '{link}'", document.display()))
}

/// Returns the paths of the repository that a line names between backticks.
fn named_paths(line: &str) -> Vec<&str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let words = quoted.flat_map(|text| text.split([' ', ',', ';']));
    let literal = |word: &&str| {
        NAMED.iter().any(|folder| word.starts_with(folder))
            && !word.contains(['*', '…', '?', '{', '<'])
            // Placeholders are in upper case.
            && !word.split(['/', '.']).any(|part| part.len() > 1 && part.chars().all(is_upper))
    };
    words.filter(literal).map(|word| word.split('#').next().unwrap_or(word)).collect()
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase() || c == '-'
}

/// Returns the long options of a help text.
fn long_options(text: &str) -> BTreeSet<String> {
    let option = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c: char| !option(c)).filter(|word| word.starts_with("--"));
    words.filter(|word| word.len() > 2).map(str::to_string).collect()
}

/// Returns the commands of the program.
fn commands() -> Vec<String> {
    let help = succeed(&mut program(&arguments!["--help"])).stdout;
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = list.take_while(|line| !line.is_empty()).filter(|line| {
        // Descriptions continue further to the right.
        line.starts_with("  ") && !line.starts_with("   ")
    });
    named.filter_map(|line| line.split_whitespace().next()).map(str::to_string).collect()
}

/// Returns the help text of every command but `help`.
fn help_texts() -> BTreeMap<String, String> {
    let named = commands().into_iter().filter(|command| command != "help");
    let help = |command: String| {
        let text = succeed(&mut program(&arguments![&command, "--help"])).stdout;
        (command, text)
    };
    named.map(help).collect()
}

/// Returns the arguments of each call of the program in a code block. Lines that end with `\`
/// are joined, and comments are dropped.
fn calls(code: &[&str]) -> Vec<Vec<String>> {
    let joined = code.join("\n").replace("\\\n", " ");
    let mut found = Vec::new();
    for line in joined.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "taiga-flow") {
            found.push(words[at + 1..].iter().map(|word| (*word).to_string()).collect());
        }
    }
    found
}

/// Returns the faults of a call: an unknown command, or options that it does not have.
fn faults_of_call(call: &[String], help: &BTreeMap<String, String>) -> Vec<String> {
    let Some(command) = call.iter().find(|word| !word.starts_with('-')) else {
        return Vec::new();
    };
    if command == "help" {
        return Vec::new();
    }
    let Some(text) = help.get(command) else {
        return vec![format!("no command '{command}'")];
    };
    let known = long_options(text);
    let given = call.iter().filter(|word| word.starts_with("--"));
    let names = given.filter_map(|word| word.split('=').next());
    let unknown = names.filter(|name| !known.contains(*name));
    unknown.map(|name| format!("'{command}' has no option '{name}'")).collect()
}

#[test]
fn links_in_documents_lead_to_files() {
    let mut faults = Vec::new();
    for document in documents() {
        let text = read(&document);
        let (prose, _) = prose_and_code(&text);
        let links = prose.iter().flat_map(|line| links(line));
        faults.extend(links.filter_map(|link| fault_of_link(&document, link)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn paths_in_documents_exist() {
    let mut faults = Vec::new();
    // The changelog names files of earlier versions too.
    for document in documents().iter().filter(|path| !path.ends_with("CHANGELOG.md")) {
        let text = read(document);
        let (prose, _) = prose_and_code(&text);
        for path in prose.iter().flat_map(|line| named_paths(line)) {
            let below = document.parent().expect("a document in a folder").join(path);
            if !root().join(path).exists() && !below.exists() {
                faults.push(format!("{}: no file '{path}'", document.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn commands_in_the_guide_exist() {
    let help = help_texts();
    let (mut checked, mut faults) = (BTreeSet::new(), Vec::new());
    for page in pages(&root().join(GUIDE)) {
        let text = read(&page);
        let (_, code) = prose_and_code(&text);
        for call in calls(&code) {
            checked.extend(call.first().cloned());
            let found = faults_of_call(&call, &help);
            faults.extend(found.iter().map(|fault| format!("{}: {fault}", page.display())));
        }
    }
    assert!(checked.len() > 10, "only these calls were found: {checked:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn readme_lists_every_command() {
    let text = read(&root().join("README.md"));
    let missing: Vec<String> = commands()
        .into_iter()
        .filter(|command| command != "help" && !text.contains(&format!("\n| `{command}` |")))
        .collect();
    assert!(missing.is_empty(), "not in the table of README.md: {missing:?}");
}

#[test]
fn every_page_is_in_the_contents_once() {
    let book = root().join(BOOK);
    let contents = read(&book.join(CONTENTS));
    let listed: Vec<PathBuf> =
        contents.lines().flat_map(links).map(|link| book.join(link)).collect();
    let distinct: BTreeSet<PathBuf> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a page is listed twice");
    let existing: BTreeSet<PathBuf> =
        pages(&book).into_iter().filter(|page| !page.ends_with(CONTENTS)).collect();
    assert_eq!(distinct, existing);
}

#[test]
fn command_line_page_is_that_of_the_program() {
    let page = read(&root().join(BOOK).join("reference/cli.md"));
    let mut script = Command::new("bash");
    script.arg(root().join("docs/cli.sh")).arg(env!("CARGO_BIN_EXE_taiga-flow"));
    let expected = succeed(&mut script).stdout;
    assert!(page == expected, "run 'bash docs/cli.sh > docs/src/reference/cli.md'");
}

#[test]
fn short_documents_stay_short() {
    for (name, limit) in SIZES {
        let size = read(&root().join(name)).len();
        assert!(size <= limit, "{name} has {size} bytes, more than {limit}");
    }
}

#[test]
fn table_of_layers_names_every_module() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let table: String = text.lines().filter(|line| line.starts_with("| ")).collect();
    for entry in std::fs::read_dir(root().join("src")).expect("sources").flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_string();
        assert!(table.contains(&format!("`{name}`")), "'{name}' is in no layer");
    }
}

#[test]
fn defects_of_documents_are_found() {
    let document = root().join("README.md");
    for link in ["no-such-page.md", "README.md#no-such-heading", "#no-such-heading"] {
        assert!(fault_of_link(&document, link).is_some(), "{link}");
    }
    for link in ["https://arxiv.org", "jobs/README.md", "#limits", "README.md#quick-start"] {
        assert_eq!(fault_of_link(&document, link), None);
    }
    assert_eq!(named_paths("see `src/a/b.rs`, `jobs/NAME.sh` and `runs/x`"), ["src/a/b.rs"]);
    let help = BTreeMap::from([("train".to_string(), "  -c, --config <CONFIG>".to_string())]);
    let code = ["$ mpirun -n 2 taiga-flow train --config=a \\", "    --nothing  # --comment"];
    let faults: Vec<String> =
        calls(&code).iter().flat_map(|call| faults_of_call(call, &help)).collect();
    assert_eq!(faults, ["'train' has no option '--nothing'"]);
    let unknown = calls(&["taiga-flow trian -c a"]);
    assert_eq!(faults_of_call(&unknown[0], &help), ["no command 'trian'"]);
}
