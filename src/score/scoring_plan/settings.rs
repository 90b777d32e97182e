//! Text of the settings that an output states in its root attribute `settings`.
//!
//! `season` compares these texts between files. `settings_blake3` cannot be compared: it depends on
//! the schema, which may differ between the inputs of one scoring.

use crate::config::{Score, SourcePositions, WorkingPoint};
use serde_json::{Map, Value, json};

/// Returns the settings as JSON: angles of the positions [deg], the choice of DISP, bounds of the
/// quality cuts, configured working points, and the blake3 of the energy table. Settings that are
/// absent are null or empty.
pub(super) fn settings_text(score: &Score, energy_blake3: Option<&str>) -> String {
    let point = |point: &WorkingPoint| {
        (point.name.clone(), json!({"column": point.column, "threshold": point.threshold}))
    };
    let points: Map<String, Value> = score.working_points.iter().map(point).collect();
    json!({
        "positions": score.positions.as_ref().map(SourcePositions::angles),
        "disp": score.disp,
        "quality": score.quality,
        "working_points": points,
        "energy_table": energy_blake3,
    })
    .to_string()
}
