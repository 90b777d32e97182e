//! `check`: files one by one and together, and whether a training would take them.

use crate::config::{self, Config};
use crate::data::check::{self, Options, Report};
use crate::data::selection::Selection;
use crate::error::Result;
use crate::train;
use crate::world::World;
use std::path::Path;

/// Checks the files of `options`, or without any those that the configuration names: then what
/// its training would refuse is in the report too.
pub fn run(world: &dyn World, mut options: Options, config: Option<&Path>) -> Result<Report> {
    let Some(path) = config else { return check::run(&options) };
    let config = config::load(path, &[])?;
    let Config { data, features, cuts, .. } = config.clone();
    let mut selection = Selection::new(&features.columns, &cuts)?;
    if let Some(bins) = &config.thresholds {
        selection = selection.with_bins(&bins.per, &bins.edges)?;
    }
    selection = selection.with_weight(data.weight.as_deref())?;
    options.needed = selection.quantities().to_vec();
    options.schema = options.schema.or(data.schema);
    let own = options.files.is_empty() && options.gamma.is_empty() && options.hadron.is_empty();
    if own {
        options.files = data.mixed;
        (options.gamma, options.hadron, options.off) = (data.gamma, data.hadron, data.off);
        options.anomalies = config.anomalies.clone().map_or_else(Vec::new, |a| a.files);
    }
    let mut report = check::run(&options)?;
    if own && report.outcome().is_ok() {
        report.training =
            train::rehearse(world, &config, options.quick).err().map(|e| e.to_string());
    }
    Ok(report)
}
