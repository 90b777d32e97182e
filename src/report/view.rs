//! Builds the values that the template prints: texts and tables, with no computation left.
//!
//! Numbers are formatted here, with suitable digits and a true minus sign; a missing value is an
//! en dash.

use super::elements::{Assessed, ReportFigure, ReportTable};
use super::outline::{Node, outline};
use super::{ReportInputs, RunData, comparison, evaluation, training};
use crate::error::Result;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Page {
    pub title: String,
    pub program: String,
    pub overview: Option<ReportTable>,
    pub evaluations: Vec<Assessed>,
    run: Option<Trained>,
}

#[derive(Serialize)]
struct Trained {
    figures: Vec<ReportFigure>,
    tables: Vec<ReportTable>,
    model: Vec<Node>,
    provenance: Vec<Node>,
    configuration: String,
}

impl Page {
    /// Builds a page of sections that are not evaluations.
    pub(super) fn of_sections(title: String, sections: Vec<Assessed>) -> Page {
        Page { title, program: program(), overview: None, evaluations: sections, run: None }
    }

    /// Builds the page of evaluations and a run.
    pub(super) fn of(inputs: &ReportInputs) -> Result<Page> {
        let evaluations: Result<Vec<Assessed>> =
            inputs.evaluations.iter().map(evaluation::section).collect();
        let mut sections = evaluations?;
        sections.extend(inputs.comparisons.iter().map(comparison::section));
        Ok(Page {
            title: inputs.title.clone(),
            program: program(),
            overview: (inputs.evaluations.len() > 1)
                .then(|| evaluation::overview(&inputs.evaluations)),
            evaluations: sections,
            run: inputs.run.as_ref().map(Trained::of).transpose()?,
        })
    }
}

fn program() -> String {
    format!("taiga-flow {}", env!("CARGO_PKG_VERSION"))
}

impl Trained {
    fn of(run: &RunData) -> Result<Trained> {
        Ok(Trained {
            figures: training::figure(&run.metrics)?.into_iter().collect(),
            tables: training::table(&run.metrics).into_iter().collect(),
            model: outline(&run.model),
            provenance: outline(&run.provenance),
            configuration: run.configuration.clone(),
        })
    }
}
