//! Group, keys and root attributes of the event files of the project.
//!
//! Features are f32 with the attribute `units`, keys are i64, `class` is i8 (1 gamma,
//! 0 hadron, −1 unknown). Attributes are a function of the inputs alone (no times,
//! hosts or paths), so that equal inputs give byte-identical files.

use crate::data::schema::columns::Attribute;
use crate::data::schema::{EVENT_FORMAT, EVENT_VERSION};

/// The group that holds one dataset per column.
pub(crate) const GROUP: &str = "events";

/// Names of columns that are always keys, also when stored as floating point or as short integers.
pub(crate) const KEYS: [&str; 10] = [
    "run",
    "run_id",
    "obs_id",
    "portion",
    "event_id",
    "axis_scatter",
    "clean_number",
    "tel_id",
    "telescope_id",
    "row_hash",
];

/// Largest share of repeated rows that is not refused: different events of rounded values can be
/// equal (0.6 % of MAGIC's public table).
pub const MOST_REPEATED: f64 = 0.02;

/// Values of the column `class`.
pub(crate) const GAMMA: i8 = 1;
pub(crate) const HADRON: i8 = 0;
pub(crate) const UNKNOWN: i8 = -1;

/// Returns the root attributes of an event file: those of the format, then `origin`.
pub fn attributes(origin: &[(&str, &str)]) -> Vec<(String, Attribute)> {
    let own = [
        ("format".to_string(), Attribute::Text(EVENT_FORMAT.to_string())),
        ("version".to_string(), Attribute::Integer(EVENT_VERSION)),
    ];
    let origin = origin
        .iter()
        .map(|(name, text)| ((*name).to_string(), Attribute::Text((*text).to_string())));
    own.into_iter().chain(origin).collect()
}
