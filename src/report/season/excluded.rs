//! The section of runs and files that are not counted.

use super::columns::telescope;
use crate::report::elements::{Assessed, ReportTable, heads};
use crate::season::Season;
use crate::statistics::measured::grouped;

pub(super) fn left_out(season: &Season) -> Option<Assessed> {
    let mut tables = Vec::new();
    if !season.refused.is_empty() {
        tables.push(ReportTable {
            title: "Runs that were not counted".into(),
            head: heads(&["run", "telescope", "events", "reason"]),
            rows: season
                .refused
                .iter()
                .map(|r| {
                    vec![r.run.clone(), telescope(r.telescope), grouped(r.events), r.reason.clone()]
                })
                .collect(),
        });
    }
    if !season.failed.is_empty() {
        tables.push(ReportTable {
            title: format!("Files that could not be scored or read: {}", season.failed.len()),
            head: heads(&["file", "reason"]),
            rows: season.failed.iter().map(|(file, why)| vec![file.clone(), why.clone()]).collect(),
        });
    }
    (!tables.is_empty()).then(|| Assessed {
        heading: "Not counted".into(),
        tables,
        ..Assessed::default()
    })
}
