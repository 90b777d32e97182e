//! Describes the training events for the model card.

use super::flows::Population;
use super::objectives::quantile;
use super::validation::Validation;
use crate::comm::Communicator;
use crate::config::{Class, Transform};
use crate::data::schema::features::{ScaledFeature, inverse, scaler_log_det};
use crate::dataset::sketch::Sketches;
use crate::error::Result;
use crate::model::{ClassReference, FRACTIONS, ModelSketches, Reference, SketchCard};
use std::collections::BTreeMap;

/// Smallest coordinate of a power that is inverted.
const LEAST_COORDINATE: f64 = 1e-12;

/// Computes the quantiles of every real class.
pub(crate) fn classes(
    comm: &dyn Communicator,
    validation: Validation,
) -> Result<Vec<ClassReference>> {
    let mut classes = Vec::new();
    for (population, of) in validation.events.plan.populations.iter().enumerate() {
        if let Population::Real(class) = of {
            classes.push(class_reference(comm, validation, population, *class)?);
        }
    }
    Ok(classes)
}

/// Merges the sketches of all ranks, and describes them with the classes.
pub(crate) fn with_sketches(
    comm: &dyn Communicator,
    sketches: &mut Sketches,
    classes: Vec<ClassReference>,
) -> Result<(Reference, ModelSketches)> {
    sketches.merge(comm)?;
    let [keys, contents] = [&sketches.keys, &sketches.contents];
    let reference = Reference {
        fractions: FRACTIONS.to_vec(),
        classes,
        keys: SketchCard::of(keys),
        contents: SketchCard::of(contents),
    };
    let sketches = ModelSketches {
        keys: reference.keys.is_some().then(|| keys.clone()),
        contents: reference.contents.is_some().then(|| contents.clone()),
    };
    Ok((reference, sketches))
}

fn class_reference(
    comm: &dyn Communicator,
    validation: Validation,
    population: usize,
    class: Class,
) -> Result<ClassReference> {
    let events = validation.events;
    let mut features = BTreeMap::new();
    for (d, feature) in events.scaler.iter().enumerate() {
        let rows = events.stores[population].shards.iter().flat_map(|s| s.train.rows());
        let values: Vec<f32> = rows.map(|row| magnitude(feature, row[d])).collect();
        let found = quantile::quantiles(comm, &values, &FRACTIONS)?;
        let mut found: Vec<f64> = found.into_iter().map(|z| quantity(feature, z)).collect();
        // A decreasing transform reverses the order; the fractions are symmetric.
        found.sort_unstable_by(f64::total_cmp);
        features.insert(feature.feature.name.clone(), found);
    }
    let (rows, calibration) = (&events.rows[population], events.has_calibration());
    let log_prob = own_log_prob(validation, population, calibration)?;
    let log_prob = quantile::quantiles(comm, &log_prob, &FRACTIONS)?;
    Ok(ClassReference {
        class,
        events: rows.train,
        features,
        held_out: if calibration { rows.calibration } else { rows.validation },
        log_prob: log_prob.into_iter().map(f64::from).collect(),
    })
}

/// Returns the finite log p of this rank's held-out events of a population in its own flow.
fn own_log_prob(validation: Validation, population: usize, calibration: bool) -> Result<Vec<f32>> {
    let Validation { events, flows } = validation;
    let own = events.plan.flows.iter().position(|flow| flow.population == population);
    let Some(own) = own else { return Ok(Vec::new()) };
    let log_det = scaler_log_det(&events.scaler);
    let mut all = Vec::new();
    for shard in &events.stores[population].shards {
        let rows = if calibration { &shard.calibration } else { &shard.validation };
        for chunk in rows.chunks() {
            let log_prob = flows.log_prob(own, chunk)?;
            let with_scaler = |l: f32| (f64::from(l) + log_det) as f32;
            all.extend(log_prob.into_iter().map(with_scaler).filter(|l| l.is_finite()));
        }
    }
    Ok(all)
}

/// Returns the quantity of a scaled value. Rounding may move a power near 0 below 0, where it has
/// no inverse.
fn quantity(feature: &ScaledFeature, scaled: f32) -> f64 {
    let found = feature.quantity(scaled);
    if found.is_finite() { found } else { inverse(&feature.feature, LEAST_COORDINATE) }
}

/// Returns the scaled value without the sign that training draws.
fn magnitude(feature: &ScaledFeature, scaled: f32) -> f32 {
    match feature.feature.transform {
        Transform::Signed => scaled.abs(),
        _ => scaled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Feature;
    use crate::data::schema::features::transform;

    #[test]
    fn quantity_near_zero_is_finite() {
        for exponent in [0.7, -0.7] {
            let name = "dist".to_string();
            let transform_of = Transform::Power;
            let feature =
                Feature { name, transform: transform_of, offset: 0.0, exponent, quantum: 0.0 };
            let scaled = ScaledFeature { feature, unit: "deg".to_string(), mean: 1.3, std: 0.7 };
            let below = scaled.scale(0.0).next_down();
            assert!(scaled.quantity(below).is_nan());
            assert!(quantity(&scaled, below).is_finite());
            let z = scaled.scaled(0.4);
            let back = transform(&scaled.feature, quantity(&scaled, z));
            assert!((back - transform(&scaled.feature, 0.4)).abs() < 1e-6);
        }
    }
}
