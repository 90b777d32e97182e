//! `check`: checks files one by one and together, and whether a training would accept them.

use crate::comm::Communicator;
use crate::config::{self, Config};
use crate::data::selection::Selection;
use crate::data::selection::cut_flow::CutFlow;
use crate::data::{InputFile, Schema};
use crate::dataset::check::{self, CheckReport, Options};
use crate::dataset::cut_flow;
use crate::dataset::source::Source;
use crate::error::Result;
use crate::train;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files, folders, patterns in quotes, or @LIST with one path per line
    #[arg(required_unless_present_any = ["gamma", "hadron", "config"])]
    files: Vec<PathBuf>,
    /// Files of gammas
    #[arg(long, num_args = 1..)]
    gamma: Vec<PathBuf>,
    /// Files of hadrons
    #[arg(long, num_args = 1..)]
    hadron: Vec<PathBuf>,
    /// Configuration with schema, features and cuts; without files, those of the configuration
    /// are checked
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Read metadata only: no rows, keys or contents
    #[arg(long)]
    quick: bool,
    /// Built-in schema or schema file [default: detected from the file]
    #[arg(long)]
    schema: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, comm: &dyn Communicator) -> Result<CheckReport> {
        let options = Options {
            files: self.files.clone(),
            gamma: self.gamma.clone(),
            hadron: self.hadron.clone(),
            schema: self.schema.clone(),
            quick: self.quick,
            ..Options::default()
        };
        run(comm, options, self.config.as_deref())
    }
}

/// Checks the files of `options`, or without any those of the configuration; then the report also
/// contains the error of its training, if there is one.
///
/// # Errors
/// A usage error for a wrong configuration; findings about files are in the report.
fn run(
    comm: &dyn Communicator,
    mut options: Options,
    config: Option<&Path>,
) -> Result<CheckReport> {
    let Some(path) = config else { return check::run(&options) };
    let config = config::load(path, &[])?;
    let Config { data, features, cuts, .. } = config.clone();
    let mut selection = Selection::new(&features.columns, &cuts)?;
    if let Some(bins) = &config.thresholds {
        selection = selection.with_bins(&bins.per, &bins.edges)?;
    }
    selection = selection.with_weight(data.weight.as_deref())?;
    options.selection = Some(selection.clone());
    options.schema = options.schema.or(data.schema);
    let own = options.files.is_empty() && options.gamma.is_empty() && options.hadron.is_empty();
    if own {
        options.files = data.mixed;
        (options.gamma, options.hadron, options.off) = (data.gamma, data.hadron, data.off);
        options.anomalies = config.anomalies.clone().map_or_else(Vec::new, |a| a.files);
    }
    let mut report = check::run(&options)?;
    if !options.quick && !config.cuts.is_empty() {
        let cuts = if own {
            train::cut_flows(comm, &config)
        } else {
            cut_flows(comm, &report, options.schema.as_deref(), &selection)
        };
        // The report already has an unreadable file, and a refusal of the training.
        report.cuts = match cuts {
            Err(error) if !own && report.outcome().is_ok() => return Err(error),
            cuts => cuts.unwrap_or_else(|_| Vec::new()),
        };
    }
    if own && report.outcome().is_ok() {
        report.training =
            train::validate_inputs(comm, &config, options.quick).err().map(|e| e.to_string());
    }
    Ok(report)
}

/// Counts the rows that the cuts remove from the readable files of a report.
fn cut_flows(
    comm: &dyn Communicator,
    report: &CheckReport,
    schema: Option<&str>,
    selection: &Selection,
) -> Result<Vec<CutFlow>> {
    let schema = Schema::of_option(schema)?;
    let mut sources = Vec::new();
    for file in report.files.iter().filter(|file| file.contents.is_some()) {
        let input = InputFile::open(&file.path, schema.as_ref())?;
        sources.push(Source {
            path: file.path.clone(),
            schema: Arc::clone(input.schema()),
            rows: input.rows(),
            class: file.role,
            view: None,
        });
    }
    cut_flow::count(comm, &sources, selection, None)
}
