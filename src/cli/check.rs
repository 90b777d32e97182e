//! `check`: files one by one and together, and whether a training would take them.

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
use std::path::Path;
use std::sync::Arc;

/// Checks the files of `options`, or without any those that the configuration names: then what
/// its training would refuse is in the report too.
pub fn run(
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
        // What cannot be read is in the report of its file.
        let cuts = if own {
            train::cut_flows(comm, &config)
        } else {
            cut_flows(comm, &report, options.schema.as_deref(), &selection)
        };
        report.cuts = cuts.unwrap_or_default();
    }
    if own && report.outcome().is_ok() {
        report.training =
            train::validate_inputs(comm, &config, options.quick).err().map(|e| e.to_string());
    }
    Ok(report)
}

/// Counts what the cuts remove of the files of a report that can be read.
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
