//! `completions`: writes shell completions and man pages.

use super::init::Summary;
use crate::error::{Fault, Result};
use crate::storage;
use clap::Command;
use clap_complete::{Generator, shells};
use clap_mangen::Man;
use std::path::Path;

const NAME: &str = "taiga-flow";

/// Writes the files; writes nothing if one of them exists and may not be replaced.
pub(super) fn run(command: Command, folder: &Path, overwrite: bool) -> Result<Summary> {
    let files = files(command)?;
    for (name, _) in &files {
        storage::refuse_existing(&folder.join(name), overwrite)?;
    }
    let mut written = Vec::new();
    for (name, text) in files {
        let target = folder.join(name);
        storage::create_folder(target.parent().unwrap_or(folder))?;
        storage::write_file(&target, &text)?;
        written.push(target);
    }
    Ok(Summary::new(written, format!("man pages: man -l {}/man/man1/{NAME}.1", folder.display())))
}

/// Returns the relative path and content of every file.
fn files(mut command: Command) -> Result<Vec<(String, Vec<u8>)>> {
    command.build();
    let mut files = vec![
        (format!("{NAME}.bash"), completion(&command, shells::Bash)),
        (format!("_{NAME}"), completion(&command, shells::Zsh)),
        (format!("{NAME}.fish"), completion(&command, shells::Fish)),
        (format!("man/man1/{NAME}.1"), page(command.clone())?),
    ];
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{NAME}-{}", sub.get_name());
        files.push((format!("man/man1/{name}.1"), page(sub.clone().display_name(name))?));
    }
    Ok(files)
}

/// Returns the completion script of a shell.
fn completion(command: &Command, shell: impl Generator) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), NAME, &mut text);
    text
}

/// Returns the man page of a command.
fn page(command: Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let outcome = Man::new(command).render(&mut text);
    outcome.map_err(|e| Fault::new("cannot write a man page").found(e).internal())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn completions_and_pages_are_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        run(Cli::command(), folder.path(), false).unwrap();
        for name in
            ["taiga-flow.bash", "_taiga-flow", "taiga-flow.fish", "man/man1/taiga-flow-train.1"]
        {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains("train") && text.len() > 500, "{name}: {text}");
        }
        assert!(!folder.path().join("man/man1/taiga-flow-probe-file.1").exists());
        assert_eq!(run(Cli::command(), folder.path(), false).unwrap_err().exit_code(), 2);
        run(Cli::command(), folder.path(), true).unwrap();
    }
}
