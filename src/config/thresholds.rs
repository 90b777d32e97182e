//! The section `[thresholds]`: bins of a quantity with one threshold each, by the rule of
//! `[calibration]`.

use super::range::check;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Largest number of edges: a model card lists the bins, and a page shows them.
pub(crate) const MAX_EDGES: usize = 63;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BinnedThresholdConfig {
    /// A quantity, or an expression over quantities, such as "log10(size) + 0.2*dist".
    pub per: String,
    /// Edges between the bins, ascending: n edges make n + 1 bins, and the
    /// outer bins are unbounded. A value on an edge belongs to the upper bin.
    pub edges: Vec<f64>,
    /// Smallest number of held-out events of each class that the rule uses, per bin.
    #[serde(default = "default_least")]
    pub least: u64,
    /// Treatment of a bin with fewer events.
    #[serde(default)]
    pub few: Few,
}

/// Treatment of a bin with too few events for the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Few {
    /// The run ends and names the bins.
    #[default]
    Refuse,
    /// The bin gets the threshold of all events, and is marked.
    Global,
}

/// The bin of an event whose quantity has no value.
pub const NO_BIN: u16 = u16::MAX;

/// Returns the bin of a value; [`NO_BIN`] for NaN.
pub fn bin_of(edges: &[f64], value: f64) -> u16 {
    if value.is_nan() { NO_BIN } else { edges.partition_point(|edge| *edge <= value) as u16 }
}

fn default_least() -> u64 {
    100
}

impl BinnedThresholdConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let count = self.edges.len();
        let allowed = (1..=MAX_EDGES).contains(&count);
        check("number of thresholds.edges", count, allowed, &format!("1 to {MAX_EDGES}"))?;
        let ascending = self.edges.is_sorted_by(|a, b| a < b);
        let usable = ascending && self.edges.iter().all(|edge| edge.is_finite());
        let found = format!("{:?}", self.edges);
        check("thresholds.edges", found, usable, "finite numbers, each above the one before")?;
        check("thresholds.least", self.least, self.least > 0, "1 or more")?;
        if self.per.trim().is_empty() {
            return Err(Fault::new("configuration: thresholds.per is empty")
                .expected("a quantity, such as \"size\", or an expression over quantities")
                .usage());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bin_and_nan_in_none() {
        let edges = [1.0, 2.5, 7.0];
        let bins = [-3.0, 0.999, 1.0, 2.4, 2.5, 7.0, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(bins.map(|x| bin_of(&edges, x)), [0, 0, 1, 1, 2, 3, 3, 0]);
        assert_eq!(bin_of(&edges, f64::NAN), NO_BIN);
    }

    #[test]
    fn invalid_bins_are_refused() {
        let good = BinnedThresholdConfig {
            per: "size".into(),
            edges: vec![1.0, 2.0],
            least: 1,
            few: Few::Refuse,
        };
        good.validate().unwrap();
        for wrong in [
            BinnedThresholdConfig { edges: vec![], ..good.clone() },
            BinnedThresholdConfig { edges: vec![1.0, 1.0], ..good.clone() },
            BinnedThresholdConfig { edges: vec![2.0, 1.0], ..good.clone() },
            BinnedThresholdConfig { edges: vec![f64::NAN], ..good.clone() },
            BinnedThresholdConfig { edges: vec![1.0, f64::INFINITY], ..good.clone() },
            BinnedThresholdConfig { edges: (0..64).map(f64::from).collect(), ..good.clone() },
            BinnedThresholdConfig { per: " ".into(), ..good.clone() },
            BinnedThresholdConfig { least: 0, ..good.clone() },
        ] {
            assert_eq!(wrong.validate().unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
