//! The report: a single self-contained HTML document.
//!
//! [`page`] renders evaluations and, if present, a training run as a page with inline style and
//! inline SVG: no script, no link, no external resource. The template engine escapes text from
//! files; only the SVG of this program is not escaped. Every part is optional: a missing one is
//! omitted or stated to be missing. The page of a season ([`write_season`]) uses the same parts.

mod comparison;
mod elements;
mod evaluation;
mod format;
mod load;
mod outline;
mod plots;
mod season;
mod training;
mod view;

pub(crate) use load::{PAGE, load, write};
pub(crate) use season::{SEASON_PAGE, write_season};

use crate::error::{Fault, Result};
use crate::metrics::EpochMetrics;
use crate::season::SeasonComparison;
use crate::statistics::Evaluation;
use minijinja::{Environment, UndefinedBehavior};

/// The name of the template ends in `.html`, which enables escaping.
const TEMPLATE: &str = "page.html";

#[derive(Debug, Clone, Default)]
pub(crate) struct ReportInputs {
    pub title: String,
    pub run: Option<RunData>,
    pub evaluations: Vec<Evaluation>,
    pub comparisons: Vec<SeasonComparison>,
}

/// Content of a run folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunData {
    /// The effective configuration (TOML).
    pub configuration: String,
    pub provenance: serde_json::Value,
    pub metrics: Vec<EpochMetrics>,
    /// The model card, or its displayed part.
    pub model: serde_json::Value,
}

/// Returns the whole document.
pub(crate) fn page(inputs: &ReportInputs) -> Result<String> {
    render(&view::Page::of(inputs)?)
}

fn render(view: &view::Page) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(TEMPLATE, include_str!("page.html")).map_err(|e| broken(&e))?;
    let template = environment.get_template(TEMPLATE).map_err(|e| broken(&e))?;
    template.render(minijinja::value::Serde(view)).map_err(|e| broken(&e))
}

fn broken(error: &minijinja::Error) -> crate::error::Error {
    Fault::new("the report template does not render").found(format!("{error:#}")).internal()
}

#[cfg(test)]
mod tests;
