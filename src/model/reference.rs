//! Describes the training events of a model, to recognise these events and events unlike them.

use crate::config::{Class, Transform};
use crate::data::schema::features::ScaledFeature;
use crate::dataset::sketch::{self, Sketch};
use crate::error::{Fault, Result};
use crate::statistics::{Bounds, FeatureBounds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fractions of the quantiles in a new card.
pub const FRACTIONS: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// Training events of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Fractions of all quantiles, ascending; the first and the last bound the usual range.
    pub fractions: Vec<f64>,
    /// Each real class in the training events.
    pub classes: Vec<ClassReference>,
    /// Sketch of the showers, identified by class and key; absent if no file has keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<SketchCard>,
    /// Sketch of the rows, identified by the values of their features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<SketchCard>,
}

/// Quantiles of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassReference {
    pub class: Class,
    /// Training events.
    pub events: u64,
    /// Quantiles of each feature over the training events, in its unit.
    pub features: BTreeMap<String, Vec<f64>>,
    /// Held-out events.
    pub held_out: u64,
    /// Quantiles of log p in the flow of this class over the held-out events [nats]; empty without
    /// held-out events.
    pub log_prob: Vec<f64>,
}

impl ClassReference {
    /// Returns whether all quantiles are ascending, and as many as there are fractions.
    fn is_valid(&self, fractions: usize) -> bool {
        let fits = |q: &[f64]| q.len() == fractions && is_ascending(q);
        let log_prob = self.log_prob.is_empty() || fits(&self.log_prob);
        log_prob && self.features.values().all(|q| fits(q))
    }
}

/// Returns whether all numbers are finite and ascending.
fn is_ascending(numbers: &[f64]) -> bool {
    numbers.iter().all(|x| x.is_finite()) && numbers.is_sorted()
}

/// A sketch; its bits are a tensor of bytes in the model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchCard {
    /// Number of inserted names.
    pub names: u64,
    /// One in this many names is kept; a power of 2.
    pub one_in: u64,
    pub bytes: u64,
    pub blake3: String,
}

impl SketchCard {
    /// Returns the card of a sketch; `None` if nothing was inserted.
    pub fn of(sketch: &Sketch) -> Option<SketchCard> {
        (sketch.names > 0).then(|| SketchCard {
            names: sketch.names,
            one_in: sketch.shape.one_in,
            bytes: sketch.shape.bytes as u64,
            blake3: blake3::hash(&sketch.bits).to_hex().to_string(),
        })
    }

    /// Returns the sketch of this card with the bits of the model file.
    ///
    /// # Errors
    /// Input error if the bits differ from those that were written.
    pub fn sketch(&self, bits: &[u8]) -> Result<Sketch> {
        let found = blake3::hash(bits).to_hex().to_string();
        if bits.len() as u64 != self.bytes || found != self.blake3 {
            return Err(Fault::new("the model file is damaged")
                .expected(format!("a sketch of {} bytes, {}", self.bytes, self.blake3))
                .found(format!("{} bytes, {found}", bits.len()))
                .advice("copy the file again; it was changed after it was written")
                .input());
        }
        let shape = sketch::SketchShape { bytes: bits.len(), one_in: self.one_in };
        Ok(Sketch { shape, bits: bits.to_vec(), names: self.names })
    }

    fn is_valid(&self) -> bool {
        let one_in = self.one_in;
        (1..=sketch::LARGEST as u64).contains(&self.bytes) && one_in.is_power_of_two()
    }
}

/// Nats below the 1 % quantile of the held-out events.
const LOG_PROB_MARGIN: f64 = 50.0;
/// Rounding of a scaled coordinate after conversion to a quantity and back.
const ROUNDING: f32 = 1e-3;
/// Rounding of a quantity, relative to the larger end of its range.
const ROUNDING_OF_RANGE: f64 = 1e-6;
/// Widths by which the usual range of a feature is extended: for events of a trained class, and for
/// others.
const WIDTHS: [f32; 2] = [0.5, 1.0];

/// Returns 0 for an end of a range that differs from 0 by rounding only. Quantiles are computed
/// through the inverse of a coordinate.
fn without_rounding(end: f64, range: [f64; 2]) -> f64 {
    let size = range[0].abs().max(range[1].abs());
    if end.abs() < ROUNDING_OF_RANGE * size { 0.0 } else { end }
}

/// Returns the bounds of a feature in some classes; the usual range is extended by `widths` of its
/// width.
fn feature_bounds(
    classes: &[&ClassReference],
    feature: &ScaledFeature,
    widths: f32,
) -> Option<FeatureBounds> {
    let name = &feature.feature.name;
    let quantiles = classes.iter().filter_map(|class| class.features.get(name));
    let ends = quantiles.filter_map(|q| Some([*q.first()?, *q.last()?]));
    let usual = ends.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])])?;
    let usual = usual.map(|x| without_rounding(x, usual));
    let scaled = usual.map(|x| feature.scaled(x as f32));
    let (low, high) = (scaled[0].min(scaled[1]), scaled[0].max(scaled[1]));
    if !(low.is_finite() && high.is_finite()) {
        return None;
    }
    // A value that all events share may differ by rounding.
    let margin = widths * (high - low) + ROUNDING;
    Some(FeatureBounds {
        name: name.clone(),
        unit: feature.unit.clone(),
        usual,
        low: low - margin,
        high: high + margin,
        signed: feature.feature.transform == Transform::Signed,
    })
}

impl Reference {
    /// Returns the bounds to compare events of a class with. Without a class, or for a class that
    /// was not trained on, these are the ranges of all classes together. `flows` has the classes of
    /// the flows, in their order.
    pub fn bounds(
        &self,
        features: &[ScaledFeature],
        flows: &[Class],
        class: Option<Class>,
    ) -> Bounds {
        let own = class.and_then(|class| self.of(class));
        let classes: Vec<&ClassReference> = match own {
            Some(own) => vec![own],
            None => self.classes.iter().collect(),
        };
        let known = own.is_some() || self.classes.len() > 1;
        let widths = WIDTHS[usize::from(!known)];
        let of_feature = |feature: &ScaledFeature| feature_bounds(&classes, feature, widths);
        let least = |flow: &Class| {
            let of_flow = classes.iter().find(|class| class.class == *flow)?;
            of_flow.log_prob.first().map(|least| least - LOG_PROB_MARGIN)
        };
        Bounds {
            // A reference with other features cannot be compared.
            features: features.iter().map(of_feature).collect::<Option<_>>().unwrap_or_default(),
            min_log_prob: flows.iter().map(least).collect(),
        }
    }

    /// Returns the quantiles of a class, if it was trained on.
    pub fn of(&self, class: Class) -> Option<&ClassReference> {
        self.classes.iter().find(|of| of.class == class)
    }

    /// Checks that events can be compared with this section.
    ///
    /// # Errors
    /// Input error if quantiles are missing, not finite or not ascending.
    pub fn validate(&self) -> Result<()> {
        let count = self.fractions.len();
        let fractions = count >= 2 && is_ascending(&self.fractions);
        let classes = self.classes.iter().all(|class| class.is_valid(count));
        let sketches = self.keys.iter().chain(&self.contents).all(SketchCard::is_valid);
        if fractions && classes && sketches {
            return Ok(());
        }
        Err(Fault::new("a reference that cannot be used")
            .expected("ascending quantiles and sketches of some bytes")
            .input())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_end_within_rounding_becomes_0() {
        let cleaned = |range: [f64; 2]| range.map(|end| without_rounding(end, range));
        assert_eq!(cleaned([-7e-10, 1.2]), [0.0, 1.2]);
        assert_eq!(cleaned([-90.0, 3e-9]), [-90.0, 0.0]);
        assert_eq!(cleaned([-1e-3, 1.2]), [-1e-3, 1.2]);
        assert_eq!(cleaned([1e-9, 3e-9]), [1e-9, 3e-9]);
    }
}
