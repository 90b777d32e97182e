//! Writes a report as text: one aligned table per file, then its findings.

use std::fmt::{self, Display, Formatter};

use super::report::refuses;
use super::{CheckReport, Classes, ColumnReport, FileContents, FileReport};
use crate::error::path_text;

impl Display for CheckReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, file) in self.files.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{file}")?;
        }
        let refused =
            |file: &&FileReport| !file.refused.is_empty() || refuses(&self.set, &file.path);
        let refused = self.files.iter().filter(refused).count();
        if self.files.len() > 1 {
            let (rows, bytes) = (self.rows, size(self.bytes));
            write!(f, "\n{} files, {refused} refused; {rows} rows, {bytes}\n", self.files.len())?;
        }
        for finding in &self.set {
            let kind = if finding.refused { "refused" } else { "warning" };
            writeln!(f, "  {kind}: {}", finding.text)?;
        }
        for flow in &self.cuts {
            writeln!(f, "{flow}")?;
        }
        if let Some(reason) = &self.training {
            writeln!(f, "  refused by training: {reason}")?;
        }
        Ok(())
    }
}

impl Display for FileReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.contents {
            Some(contents) => {
                let FileContents { schema, rows, bytes, .. } = contents;
                let path = path_text(&self.path);
                writeln!(f, "{path}: {rows} rows, {}, schema {schema}", size(*bytes))?;
                write!(f, "{contents}")?;
            }
            None => writeln!(f, "{}: not readable", path_text(&self.path))?,
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        for reason in &self.refused {
            writeln!(f, "  refused: {reason}")?;
        }
        Ok(())
    }
}

impl Display for FileContents {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let head = ["column", "unit", "min", "mean", "max", "remarks"].map(str::to_string);
        let cells: Vec<[String; 6]> =
            std::iter::once(head).chain(self.columns.iter().map(cells)).collect();
        let width = |i: usize| cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        let [name_width, unit_width, min_width, mean_width, max_width] = [0, 1, 2, 3, 4].map(width);
        for [name, unit, min, mean, max, remarks] in &cells {
            let line = format!(
                "  {name:name_width$}  {unit:unit_width$}  {min:>min_width$}  \
                 {mean:>mean_width$}  {max:>max_width$}  {remarks}"
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        if let Some(Classes { gamma, hadron, unknown }) = self.classes {
            writeln!(f, "  classes: {gamma} gamma, {hadron} hadron, {unknown} unknown")?;
        }
        writeln!(f, "  keys: {}; shower: {}", list(&self.keys), list(&self.shower))
    }
}

fn cells(column: &ColumnReport) -> [String; 6] {
    let counts =
        [(column.nan, "NaN"), (column.infinite, "infinite"), (column.impossible, "impossible")];
    let mut remarks: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if column.constant {
        remarks.push("constant".to_string());
    }
    let [min, mean, max] = [column.min, column.mean, column.max].map(number);
    [column.name.clone(), column.unit.clone(), min, mean, max, remarks.join(", ")]
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_string(),
        Some(0.0) => "0".to_string(),
        Some(value) if (1e-3..1e6).contains(&value.abs()) => format!("{value:.4}"),
        Some(value) => format!("{value:.3e}"),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

/// Returns a number of bytes in the unit that keeps it below 1000.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}
