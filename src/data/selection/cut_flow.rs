//! Table of the rows that each cut removes.

use serde::Serialize;
use std::fmt;

/// Largest number of cuts named in an error message.
const NAMED: usize = 3;

/// Rows of one class and the cuts that remove them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CutFlow {
    /// `gamma`, `hadron` or `unknown`.
    pub class: &'static str,
    pub rows: u64,
    /// Number of rows read per file, if it was limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_file: Option<u64>,
    /// Cuts in the order of their application.
    pub cuts: Vec<CutCount>,
}

/// One bound of a cut, or a different reason to exclude a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CutCount {
    pub cut: String,
    /// Rows that fail it.
    pub fails: u64,
    /// Rows that fail no other cut.
    pub fails_only_this: u64,
    /// Rows that pass it and all cuts before it.
    pub left: u64,
}

impl CutCount {
    /// Returns the number of rows that the cut removes, as text.
    fn summary(&self) -> String {
        let CutCount { cut, fails, fails_only_this: alone, .. } = self;
        if alone == fails {
            format!("{cut} removed {fails}")
        } else {
            format!("{cut} removed {fails} ({alone} that nothing else removes)")
        }
    }
}

impl CutFlow {
    /// Returns the cuts that removed most rows, in one line.
    pub(crate) fn summary(&self) -> String {
        let left = self.cuts.last().map_or(self.rows, |cut| cut.left);
        let mut cuts: Vec<&CutCount> = self.cuts.iter().filter(|cut| cut.fails > 0).collect();
        cuts.sort_by_key(|cut| std::cmp::Reverse(cut.fails));
        let named: Vec<String> = cuts.iter().take(NAMED).map(|cut| cut.summary()).collect();
        format!("cuts left {left} of {} {} rows: {}", self.rows, self.class, named.join(", "))
    }
}

impl fmt::Display for CutFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut flow of class {}: {} rows", self.class, self.rows)?;
        if let Some(most) = self.rows_per_file {
            write!(f, " (at most the first {most} of each file)")?;
        }
        let names = self.cuts.iter().map(|cut| cut.cut.chars().count());
        let width = names.max().unwrap_or(0).max(3);
        write!(
            f,
            "\n  {:width$}  {:>10}  {:>13}  {:>10}",
            "cut", "fails", "fails only it", "left"
        )?;
        for CutCount { cut, fails, fails_only_this, left } in &self.cuts {
            write!(f, "\n  {cut:width$}  {fails:>10}  {fails_only_this:>13}  {left:>10}")?;
        }
        Ok(())
    }
}
