//! `init`: writes the commented configurations, schemas and job scripts of this version.
//!
//! With `--overwrite`, a file that differs from the new one is kept under its name with `.old`.

use crate::data::schema::BUILT_IN;
use crate::error::{Fault, Result};
use crate::storage;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

const CONFIGS: [(&str, &str); 13] = [
    ("configs/quickstart.toml", include_str!("../../configs/quickstart.toml")),
    ("configs/reference-study.toml", include_str!("../../configs/reference-study.toml")),
    ("configs/off-source.toml", include_str!("../../configs/off-source.toml")),
    ("configs/images.toml", include_str!("../../configs/images.toml")),
    ("configs/magic.toml", include_str!("../../configs/magic.toml")),
    ("configs/magic/one-class.toml", include_str!("../../configs/magic/one-class.toml")),
    ("configs/magic/synthetic-push.toml", include_str!("../../configs/magic/synthetic-push.toml")),
    (
        "configs/magic/synthetic-ratio.toml",
        include_str!("../../configs/magic/synthetic-ratio.toml"),
    ),
    ("configs/magic/ratio.toml", include_str!("../../configs/magic/ratio.toml")),
    ("configs/magic/ratio-10.toml", include_str!("../../configs/magic/ratio-10.toml")),
    ("configs/magic/reference-cuts.toml", include_str!("../../configs/magic/reference-cuts.toml")),
    ("configs/score/archive.toml", include_str!("../../configs/score/archive.toml")),
    ("configs/season/season.toml", include_str!("../../configs/season/season.toml")),
];

/// Scripts that submit jobs; `env.sh` contains the settings of a site.
const JOBS: [(&str, &str); 13] = [
    ("jobs/README.md", include_str!("../../jobs/README.md")),
    ("jobs/env.sh", include_str!("../../jobs/env.sh")),
    ("jobs/lib.sh", include_str!("../../jobs/lib.sh")),
    ("jobs/submit.sh", include_str!("../../jobs/submit.sh")),
    ("jobs/pipeline.sh", include_str!("../../jobs/pipeline.sh")),
    ("jobs/train.sbatch", include_str!("../../jobs/train.sbatch")),
    ("jobs/score.sbatch", include_str!("../../jobs/score.sbatch")),
    ("jobs/score-array.sbatch", include_str!("../../jobs/score-array.sbatch")),
    ("jobs/sweep.sbatch", include_str!("../../jobs/sweep.sbatch")),
    ("jobs/run.sbatch", include_str!("../../jobs/run.sbatch")),
    ("jobs/smoke.sbatch", include_str!("../../jobs/smoke.sbatch")),
    ("jobs/condor/score.sub", include_str!("../../jobs/condor/score.sub")),
    ("jobs/condor/score.sh", include_str!("../../jobs/condor/score.sh")),
];

/// Returns path and text of every file; the schemas are those that the program itself uses.
fn files() -> Vec<(String, &'static str)> {
    let named = |(name, text): &(&str, &'static str)| ((*name).to_string(), *text);
    let schema =
        |(name, text): &(&str, &'static str)| (format!("configs/schema/{name}.toml"), *text);
    CONFIGS
        .iter()
        .map(named)
        .chain(BUILT_IN.iter().map(schema))
        .chain(JOBS.iter().map(named))
        .collect()
}

#[derive(Debug, Serialize)]
pub struct Summary {
    files: Vec<PathBuf>,
    #[serde(skip)]
    next: String,
    /// Earlier files that differ from the new ones, with their new names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<PathBuf>,
}

impl Summary {
    /// Returns the summary of written files; `next` is the last line of the text.
    pub(super) fn new(files: Vec<PathBuf>, next: String) -> Summary {
        Summary { files, next, kept: Vec::new() }
    }
}

/// Writes the files. With `overwrite`, an existing file that differs is renamed to NAME.old.
///
/// # Errors
/// `Usage`, before anything is written, if a file exists and `overwrite` is not set, or if
/// NAME.old exists too.
pub(super) fn run(folder: &Path, overwrite: bool) -> Result<Summary> {
    let targets: Vec<PathBuf> = files().iter().map(|(name, _)| folder.join(name)).collect();
    let mut changed = Vec::new();
    for (target, (_, text)) in targets.iter().zip(files()) {
        storage::refuse_existing(target, overwrite)?;
        if differs(target, text) {
            refuse_old(target)?;
            changed.push(target);
        }
    }
    for target in &changed {
        storage::move_to(target, &old_name(target))?;
    }
    for (target, (_, text)) in targets.iter().zip(files()) {
        if let Some(parent) = target.parent() {
            storage::create_folder(parent)?;
        }
        storage::write_file(target, text.as_bytes())?;
    }
    let next = format!("next: taiga-flow train -c {} -o RUN", targets[0].display());
    let kept = changed.into_iter().map(|target| old_name(target)).collect();
    Ok(Summary { kept, ..Summary::new(targets, next) })
}

/// Returns whether an existing file has different content, or cannot be read.
fn differs(target: &Path, text: &str) -> bool {
    match std::fs::symlink_metadata(target) {
        Ok(data) if data.len() == text.len() as u64 && data.is_file() => {
            std::fs::read(target).map_or(true, |found| found != text.as_bytes())
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

/// Returns the name under which a replaced file is kept.
fn old_name(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_os_string();
    name.push(".old");
    PathBuf::from(name)
}

/// Refuses to replace a file that is kept from an earlier call.
fn refuse_old(target: &Path) -> Result<()> {
    let old = old_name(target);
    if std::fs::symlink_metadata(&old).is_err() {
        return Ok(());
    }
    Err(Fault::new("a file of an earlier `init --overwrite` would be lost")
        .file(&old)
        .expected(format!("no such file, because {} is renamed to it", target.display()))
        .advice("move or remove it, or write into a different folder")
        .usage())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.kept {
            writeln!(f, "kept the earlier file as {}", file.display())?;
        }
        for file in &self.files {
            writeln!(f, "wrote {}", file.display())?;
        }
        f.write_str(&self.next)
    }
}
