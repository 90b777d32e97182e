//! Compares simulated hadrons with real ones before training.
//!
//! If they differ, a ratio of simulated gammas to real hadrons may learn the simulation (night-sky
//! noise, dead pixels) instead of showers. Each feature is compared by Kolmogorov–Smirnov distance
//! and stability index. All features together are compared by a small classifier: a logistic
//! regression on the scaled features, their squares and products. It is fitted on one half of the
//! events and measured on the other, and vice versa.

use crate::comm::Communicator;
use crate::dataset::event_store::{EventRows, EventStore};
use crate::error::Result;
use crate::model::{ComparedFeature, HadronComparison};
use crate::statistics::{Auc, Distribution, Sample};

/// Largest number of events of each kind that are compared.
const MOST: usize = 20_000;
/// Fewest events of a kind for a comparison.
const FEWEST: usize = 100;
/// Limit of scaled features, so that a few outliers do not decide.
const REACH: f64 = 5.0;
/// Weight of the penalty on the coefficients, per event.
const RIDGE: f64 = 1e-3;
const NEWTON_STEPS: usize = 12;

/// Compares scaled training events of two stores; `None` if there are too few.
pub fn compare(
    comm: &dyn Communicator,
    names: &[String],
    real: &EventStore,
    simulated: &EventStore,
    shards: u64,
) -> Result<Option<HadronComparison>> {
    let real = gathered(comm, real, shards)?;
    let simulated = gathered(comm, simulated, shards)?;
    let width = names.len();
    let [n, m] = [&real, &simulated].map(|rows| rows.len() / width);
    if n.min(m) < FEWEST {
        return Ok(None);
    }
    let columns = names.iter().enumerate();
    let features =
        columns.filter_map(|(d, name)| compare_feature(name, &real[d..], &simulated[d..], width));
    let features: Vec<_> = features.collect();
    let auc = classifier_area(&real, &simulated, width)?;
    Ok(Some(HadronComparison { real: n as u64, simulated: m as u64, auc, features }))
}

/// Compares a feature, given by its first value and those of the following events.
fn compare_feature(
    name: &str,
    real: &[f32],
    simulated: &[f32],
    width: usize,
) -> Option<ComparedFeature> {
    let [own, reference] = [real, simulated].map(|values| {
        let mut distribution = Distribution::default();
        values.iter().step_by(width).for_each(|x| distribution.add(*x));
        distribution
    });
    let drift = own.drift_from(&reference)?;
    Some(ComparedFeature { name: name.to_string(), ks: drift.ks, psi: drift.psi })
}

/// Returns the comparison as one line.
pub fn describe(comparison: &HadronComparison) -> String {
    let each: Vec<String> = comparison
        .features
        .iter()
        .map(|f| format!("{} KS {:.3} PSI {:.3}", f.name, f.ks, f.psi))
        .collect();
    format!(
        "simulated hadrons ({}) compared with real ones ({}): a small classifier separates them with AUC {:.3}; {}",
        comparison.simulated,
        comparison.real,
        comparison.auc.unwrap_or(0.5),
        each.join(", ")
    )
}

/// Returns features (events, features) of at most [`MOST`] training events of all ranks: the same
/// number of each shard, in the order of shards.
fn gathered(comm: &dyn Communicator, store: &EventStore, shards: u64) -> Result<Vec<f32>> {
    let most = MOST.div_ceil(shards as usize);
    let mut mine = Vec::new();
    for shard in &store.shards {
        let rows: &EventRows = &shard.train;
        let taken = rows.len().min(most);
        mine.extend(shard.id.to_le_bytes());
        mine.extend((taken as u64).to_le_bytes());
        let values = rows.rows().take(taken).flatten();
        values.for_each(|x| mine.extend(x.to_le_bytes()));
    }
    let mut of_shards: Vec<(u64, Vec<f32>)> = Vec::new();
    for bytes in comm.all_gather(&mine)? {
        let mut rest = bytes.as_slice();
        while let Some((head, more)) = rest.split_at_checked(16) {
            let word =
                |at: usize| head[at..at + 8].iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
            let length = (word(8) as usize * store.features * 4).min(more.len());
            let (values, left) = more.split_at(length);
            let values = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            of_shards.push((word(0), values.collect()));
            rest = left;
        }
    }
    of_shards.sort_by_key(|(id, _)| *id);
    Ok(of_shards.into_iter().flat_map(|(_, values)| values).collect())
}

/// Returns the area under the curve of the classifier, on events that it was not fitted to.
fn classifier_area(real: &[f32], simulated: &[f32], width: usize) -> Result<Option<f64>> {
    let events = |rows: &[f32], of: bool| -> Vec<(Vec<f64>, bool)> {
        rows.chunks_exact(width).map(|row| (terms(row), of)).collect()
    };
    let mut all = events(real, true);
    all.extend(events(simulated, false));
    let half = |which: usize| -> Vec<&(Vec<f64>, bool)> {
        all.iter().enumerate().filter(|(i, _)| i % 2 == which).map(|(_, event)| event).collect()
    };
    let mut areas = Vec::new();
    for which in 0..2 {
        let weights = fitted(&half(which));
        let (scores, of): (Vec<f64>, Vec<bool>) =
            half(1 - which).iter().map(|(x, of)| (dot(x, &weights), *of)).unzip();
        areas.extend(Auc::of(&Sample::new(&scores, &of)?).map(|auc| auc.value));
    }
    Ok((!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64))
}

/// Returns 1, each feature, and all products of two.
fn terms(row: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = row.iter().map(|x| f64::from(*x).clamp(-REACH, REACH)).collect();
    let products = (0..x.len()).flat_map(|i| (i..x.len()).map(move |j| (i, j)));
    let products: Vec<f64> = products.map(|(i, j)| x[i] * x[j]).collect();
    [vec![1.0], x, products].concat()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Fits the logistic regression by Newton's method; both kinds have equal weight.
fn fitted(events: &[&(Vec<f64>, bool)]) -> Vec<f64> {
    let width = events.first().map_or(0, |(x, _)| x.len());
    let own = events.iter().filter(|(_, of)| *of).count().max(1) as f64;
    let others = (events.len() as f64 - own).max(1.0);
    let mut weights = vec![0.0; width];
    for _ in 0..NEWTON_STEPS {
        let mut gradient = vec![0.0; width];
        let mut curvature = vec![0.0; width * width];
        for (x, of) in events {
            let share = if *of { 0.5 / own } else { 0.5 / others };
            let p = 1.0 / (1.0 + libm::exp(-dot(x, &weights)));
            let slope = share * (p - f64::from(u8::from(*of)));
            let bend = share * (p * (1.0 - p)).max(1e-9);
            for i in 0..width {
                gradient[i] += slope * x[i];
                for j in 0..=i {
                    curvature[i * width + j] += bend * x[i] * x[j];
                }
            }
        }
        for i in 0..width {
            gradient[i] += RIDGE * weights[i];
            curvature[i * width + i] += RIDGE;
        }
        let step = solved(curvature, gradient, width);
        weights.iter_mut().zip(step).for_each(|(w, s)| *w -= s);
    }
    weights
}

/// Solves A x = b for a positive definite matrix, given by its lower half (Cholesky).
fn solved(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let below: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - below;
            a[i * n + j] = if i == j { rest.max(1e-12).sqrt() } else { rest / a[j * n + j] };
        }
    }
    for i in 0..n {
        let below: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - below) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let above: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - above) / a[i * n + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn normals(purpose: &str, count: u64, of: impl Fn(f64, f64) -> [f64; 2]) -> Vec<f32> {
        let stream = Stream::new(crate::test_seed(), purpose, &[]);
        let event = |i: u64| of(stream.normal(2 * i), stream.normal(2 * i + 1));
        (0..count).flat_map(event).map(|x| x as f32).collect()
    }

    #[test]
    fn only_events_of_two_kinds_are_separated() {
        let simulated = normals("simulated", 4000, |a, b| [a, b]);
        let alike = classifier_area(&normals("alike", 3000, |a, b| [a, b]), &simulated, 2).unwrap();
        assert!((alike.unwrap() - 0.5).abs() < 0.06, "{alike:?}");
        // Shifted by a standard deviation: Φ(1/√2) = 0.760.
        let shifted = normals("shifted", 3000, |a, b| [a + 1.0, b]);
        let found = classifier_area(&shifted, &simulated, 2).unwrap().unwrap();
        assert!((found - 0.760).abs() < 0.03, "{found}");
        // Each feature is unchanged, but they are correlated: no single feature shows it.
        let linked = normals("linked", 3000, |a, b| [a, 0.9 * a + 0.436 * b]);
        assert!(classifier_area(&linked, &simulated, 2).unwrap().unwrap() > 0.7);
    }

    #[test]
    fn differing_features_are_named_on_separation() {
        let feature = |name: &str, ks, psi| ComparedFeature { name: name.into(), ks, psi };
        let features = vec![feature("size", 0.02, 0.01), feature("width", 0.3, 0.5)];
        let of =
            |auc| HadronComparison { real: 200, simulated: 300, auc, features: features.clone() };
        assert!(describe(&of(Some(0.7))).contains("width KS 0.300 PSI 0.500"));
        assert!(of(Some(0.7)).differs() && of(Some(0.7)).warning().contains("; width)"));
        assert!(!of(Some(0.55)).differs() && !of(None).differs());
    }

    #[test]
    fn linear_system_is_solved() {
        let x = solved(vec![4.0, 0.0, 2.0, 3.0], vec![2.0, 5.0], 2);
        assert!((4.0 * x[0] + 2.0 * x[1] - 2.0).abs() < 1e-12);
        assert!((2.0 * x[0] + 3.0 * x[1] - 5.0).abs() < 1e-12);
    }
}
