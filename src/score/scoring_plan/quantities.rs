//! Quantities that a scoring reads, each once.

use crate::config::Score;
use crate::engine::OF_POSITION;
use crate::error::{Fault, Result};

/// Quantities that are valid only for the source position of the file.
pub(super) const OF_THE_SOURCE: [&str; 4] = ["miss", "azwidth", "dist_anti", "alpha_anti"];

/// Quantity to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuantityRequest {
    /// Names of the quantity; the first one that a file has is read.
    pub names: Vec<String>,
    /// Whether a file without it is refused. Otherwise the column stays empty.
    pub needed: bool,
}

/// Requested quantities, each once.
pub(super) struct QuantitySlots {
    pub(super) wanted: Vec<Option<QuantityRequest>>,
}

impl QuantitySlots {
    /// Returns the slot of a quantity, which is added if it is new.
    pub(super) fn add(&mut self, names: &[&str], needed: bool) -> usize {
        let known = |w: &Option<QuantityRequest>| {
            w.as_ref().is_some_and(|w| w.names == names || names == [w.names[0].as_str()])
        };
        if let Some(slot) = self.wanted.iter().position(known) {
            if let Some(wanted) = &mut self.wanted[slot] {
                wanted.needed |= needed;
            }
            return slot;
        }
        let names = names.iter().map(|name| (*name).to_string()).collect();
        self.wanted.push(Some(QuantityRequest { names, needed }));
        self.wanted.len() - 1
    }
}

/// Returns the name of the column of a copied quantity.
pub(super) fn copied_name(name: &str) -> String {
    // `energy` is the column of the look-up table.
    if name == "energy" { "energy_true".to_string() } else { name.to_string() }
}

/// Refuses quantities that differ between positions, for a value that a row has once.
pub(super) fn refuse_of_position(score: &Score, names: &[String], place: &str) -> Result<()> {
    let of_position = names.iter().find(|name| OF_POSITION.contains(&name.as_str()));
    match of_position {
        Some(name) if score.positions.is_some() => {
            Err(Fault::new(format!("{place} needs a quantity that differs between positions"))
                .column(name)
                .advice("cut on it in [cuts] of the model, or on the columns of the output")
                .usage())
        }
        _ => Ok(()),
    }
}
