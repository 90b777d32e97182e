//! Elements of a page: sections, named values, figures and tables.

use serde::Serialize;

/// One evaluation, or another section of a page.
#[derive(Default, Serialize)]
pub(super) struct Assessed {
    pub heading: String,
    pub facts: Vec<Fact>,
    pub headline: Vec<Fact>,
    pub warnings: Vec<String>,
    /// Distributions of the features.
    pub parameters: Vec<ReportFigure>,
    pub figures: Vec<ReportFigure>,
    pub tables: Vec<ReportTable>,
}

/// A named value with a note in small print.
#[derive(Serialize)]
pub(super) struct Fact {
    pub name: String,
    pub value: String,
    pub note: String,
}

/// A plot with its legend and caption.
#[derive(Serialize)]
pub(super) struct ReportFigure {
    pub title: String,
    pub svg: String,
    pub keys: Vec<LegendEntry>,
    pub caption: String,
}

/// An entry of the legend of a figure; `mark` is a class of the style sheet.
#[derive(Serialize)]
pub(super) struct LegendEntry {
    mark: String,
    text: String,
}

/// A table with a title and a header row.
#[derive(Serialize)]
pub(super) struct ReportTable {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl LegendEntry {
    pub(super) fn new(mark: &str, text: impl Into<String>) -> LegendEntry {
        LegendEntry { mark: mark.to_owned(), text: text.into() }
    }
}

/// Returns a named value with a note.
pub(super) fn fact(name: &str, value: impl Into<String>, note: impl Into<String>) -> Fact {
    Fact { name: name.to_owned(), value: value.into(), note: note.into() }
}

/// Returns the header cells of a table.
pub(super) fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
