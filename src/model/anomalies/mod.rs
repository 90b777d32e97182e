//! Synthetic anomalies: events that represent everything except the normal class.
//!
//! One generator of a weighted mixture makes an anomaly from a normal event. Every draw comes from
//! a stream that the caller names by (seed, epoch, event), so it depends neither on ranks nor on
//! other draws. Events are scaled features, row by row; physical conditions (widths, angles) are
//! checked on the quantities. A draw that no telescope could have recorded is repeated: see
//! [`AnomalyMaker::is_valid`].

mod chi_square;
mod physics;

pub(crate) use physics::Regression;

use crate::config::{Anomalies, Draw, Generator, Transform};
use crate::data::schema::features::{self, ScaledFeature};
use crate::data::selection::Selection;
use physics::PhysicsMaker;
use taiga_flow_gpu::random::Stream;

/// Words of a stream that one attempt may use.
const WORDS: u64 = 256;

/// Statistics of normal events that the generators use.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct NormalStatistics {
    /// Regression of con2 on size, width and length; absent if one of them is not a feature.
    pub con2: Option<Regression>,
    /// Quantile of dist for each physics generator, in the order of the mixture [deg].
    pub dist: Vec<f64>,
}

/// Makes anomalies of one mixture.
#[derive(Debug)]
pub(crate) struct AnomalyMaker<'a> {
    features: &'a [ScaledFeature],
    selection: &'a Selection,
    attempts: u64,
    draws: Vec<(f64, AnomalySource<'a>)>, // cumulative weight, generator
}

#[derive(Debug)]
enum AnomalySource<'a> {
    Plain(&'a Generator),
    Physics(PhysicsMaker),
}

/// Result of one attempt to make an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnomalyOutcome {
    /// The output is an anomaly.
    Whole,
    /// The output is a latent point, for the inverse flow.
    Latent { below_quantile: bool },
    /// No attempt gave a valid event.
    Nothing,
}

impl<'a> AnomalyMaker<'a> {
    /// Creates the mixture of `anomalies` for these features.
    pub(crate) fn new(
        anomalies: &'a Anomalies,
        features: &'a [ScaledFeature],
        selection: &'a Selection,
        normals: &NormalStatistics,
    ) -> AnomalyMaker<'a> {
        let total: f64 = anomalies.generators.iter().map(|d| d.weight).sum();
        let (mut cumulative, mut dist) = (0.0, normals.dist.iter());
        let mut draws = Vec::new();
        for Draw { weight, generator } in &anomalies.generators {
            cumulative += weight / total;
            let source = match generator {
                Generator::Physics(p) => AnomalySource::Physics(PhysicsMaker::new(
                    *p,
                    features,
                    normals.con2.as_ref(),
                    dist.next().copied(),
                )),
                plain => AnomalySource::Plain(plain),
            };
            draws.push((cumulative, source));
        }
        AnomalyMaker { features, selection, attempts: anomalies.attempts, draws }
    }

    /// Writes an anomaly made from `event` into `out`, both (features). `partner` returns a
    /// different normal event for a number in 0 … 1, `filed` an event of the files of anomalies.
    pub(crate) fn make<'e>(
        &self,
        stream: Stream,
        event: &[f32],
        partner: impl Fn(f64) -> &'e [f32],
        filed: impl Fn(f64) -> Option<&'e [f32]>,
        out: &mut [f32],
    ) -> AnomalyOutcome {
        let choice = stream.uniform(0);
        let source = self.draws.iter().find(|(edge, _)| choice < *edge).or(self.draws.last());
        let Some((_, source)) = source else { return AnomalyOutcome::Nothing };
        for attempt in 1..=self.attempts {
            let draw = AttemptDraws { stream, first: attempt * WORDS };
            match source {
                AnomalySource::Physics(physics) => physics.make(draw, self.features, event, out),
                AnomalySource::Plain(Generator::LatentShell { quantile }) => {
                    shell(draw, *quantile, out);
                    return AnomalyOutcome::Latent { below_quantile: false };
                }
                AnomalySource::Plain(Generator::LowDensity { spread, .. }) => {
                    for (d, z) in out.iter_mut().enumerate() {
                        *z = (spread * draw.normal(d)) as f32;
                    }
                    return AnomalyOutcome::Latent { below_quantile: true };
                }
                AnomalySource::Plain(Generator::File {}) => match filed(draw.uniform(0)) {
                    Some(row) => self.take(draw, row, out),
                    None => return AnomalyOutcome::Nothing,
                },
                AnomalySource::Plain(generator) => plain(generator, draw, event, &partner, out),
            }
            if self.is_valid(out) {
                return AnomalyOutcome::Whole;
            }
        }
        AnomalyOutcome::Nothing
    }

    /// Copies an event of a file, with random signs for signed features.
    fn take(&self, draw: AttemptDraws, row: &[f32], out: &mut [f32]) {
        out.copy_from_slice(row);
        for (d, (x, feature)) in out.iter_mut().zip(self.features).enumerate() {
            let signed = feature.feature.transform == Transform::Signed;
            if signed && draw.uniform(1 + d) < 0.5 {
                *x = -*x;
            }
        }
    }

    /// Returns whether a telescope could have recorded the event: width ≤ length, 0 ≤ alpha ≤ 90
    /// deg, 0 < con2 ≤ 1, no negative lengths, inside the cuts.
    pub(crate) fn is_valid(&self, event: &[f32]) -> bool {
        let quantities: Vec<f64> =
            self.features.iter().zip(event).map(|(f, z)| f.quantity(*z)).collect();
        let of = |name: &str| {
            self.features.iter().position(|f| f.feature.name == name).map(|d| quantities[d])
        };
        let within =
            |name: &str, low: f64, high: f64| of(name).is_none_or(|x| (low..=high).contains(&x));
        let narrow = of("width").zip(of("length")).is_none_or(|(width, length)| width <= length);
        quantities.iter().all(|x| x.is_finite())
            && narrow
            && within("alpha", 0.0, 90.0)
            && within("con1", f64::MIN_POSITIVE, 1.0)
            && within("con2", f64::MIN_POSITIVE, 1.0)
            && ["size", "dist", "width", "length"].iter().all(|n| within(n, 0.0, f64::INFINITY))
            && self
                .features
                .iter()
                .zip(&quantities)
                .zip(event)
                .all(|((f, x), z)| features::transform(&f.feature, *x).is_finite() && z.is_finite())
            && self.selection.inside(&quantities)
    }

    /// Returns the quantile of normal log p below which low-density candidates must be.
    pub(crate) fn low_density_quantile(anomalies: &Anomalies) -> Option<f64> {
        anomalies.generators.iter().find_map(|d| match d.generator {
            Generator::LowDensity { quantile, .. } => Some(quantile),
            _ => None,
        })
    }
}

/// Random numbers of one attempt.
#[derive(Debug, Clone, Copy)]
struct AttemptDraws {
    stream: Stream,
    first: u64,
}

impl AttemptDraws {
    fn uniform(self, n: usize) -> f64 {
        self.stream.uniform(self.first + n as u64)
    }

    /// Draws a normal number, independent of the uniform ones of the same attempt.
    fn normal(self, n: usize) -> f64 {
        self.stream.normal(u64::midpoint(self.first, WORDS / 2) + n as u64)
    }
}

/// Draws a latent point with a radius beyond the quantile of χ² (D degrees of freedom).
fn shell(draw: AttemptDraws, quantile: f64, out: &mut [f32]) {
    let direction: Vec<f64> = (0..out.len()).map(|d| draw.normal(d)).collect();
    let norm = libm::sqrt(direction.iter().map(|z| z * z).sum()).max(f64::MIN_POSITIVE);
    let beyond = quantile + (1.0 - quantile) * draw.uniform(0);
    let radius = libm::sqrt(chi_square::quantile(out.len(), beyond));
    for (z, u) in out.iter_mut().zip(direction) {
        *z = (radius * u / norm) as f32;
    }
}

/// Draws an anomaly by a generator without physics.
fn plain<'e>(
    generator: &Generator,
    draw: AttemptDraws,
    event: &[f32],
    partner: &impl Fn(f64) -> &'e [f32],
    out: &mut [f32],
) {
    out.copy_from_slice(event);
    match generator {
        Generator::Box { reach } => {
            for (d, x) in out.iter_mut().enumerate() {
                *x = (reach * (2.0 * draw.uniform(d) - 1.0)) as f32;
            }
        }
        Generator::Permutation { fraction } => {
            let last = (draw.uniform(0) * out.len() as f64) as usize; // at least this one
            for (d, x) in out.iter_mut().enumerate() {
                if d == last || draw.uniform(1 + 2 * d) < *fraction {
                    *x = partner(draw.uniform(2 + 2 * d))[d];
                }
            }
        }
        Generator::Noise { spread } => {
            for (d, x) in out.iter_mut().enumerate() {
                *x += (spread * draw.normal(d)) as f32;
            }
        }
        Generator::Extrapolation { reach } => {
            let (other, u) = (partner(draw.uniform(0)), reach * draw.uniform(1));
            for (x, y) in out.iter_mut().zip(other) {
                *x += (u * f64::from(*x - *y)) as f32;
            }
        }
        Generator::LatentShell { .. }
        | Generator::LowDensity { .. }
        | Generator::Physics(_)
        | Generator::File {} => {}
    }
}

#[cfg(test)]
mod tests;
