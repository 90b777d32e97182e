//! Hadron-like images as Hillas parameters, from gammas and shower physics alone.
//!
//! Hadronic showers come from all directions, so alpha is uniform in 0…90 deg. dist² is uniform up to
//! the limit of the trigger, which is taken from the gammas. Images of hadrons are wider and longer
//! and fluctuate more at a given size, because transverse momenta and sub-showers spread the light.
//! So ln width and ln length grow by broad normals. The concentration of the light depends on size,
//! width and length much as in any image: con2 comes from a regression on gammas, with noise.

use crate::config::{Physics, Transform};
use crate::data::schema::features::{self, ScaledFeature};

use super::AttemptDraws;

/// Smallest width and length in a logarithm [deg]: images on one line have 0.
const THINNEST: f64 = 0.003;
/// Terms of the regression: 1, ln size, ln width, ln length.
const TERMS: usize = 4;

/// Least squares of the coordinate of con2 on ln size, ln width and ln length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Regression {
    pub coefficients: [f64; TERMS],
}

/// Sums of a regression, which are added over shards.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegressionSums {
    matrix: [[f64; TERMS]; TERMS],
    target: [f64; TERMS],
}

/// Index of the feature for each quantity.
#[derive(Debug, Clone, Copy)]
struct Places {
    size: Option<usize>,
    width: Option<usize>,
    length: Option<usize>,
    con2: Option<usize>,
    dist: Option<usize>,
    alpha: Option<usize>,
}

impl Places {
    fn of(features: &[ScaledFeature]) -> Places {
        let at = |name: &str| features.iter().position(|f| f.feature.name == name);
        Places {
            size: at("size"),
            width: at("width"),
            length: at("length"),
            con2: at("con2"),
            dist: at("dist"),
            alpha: at("alpha"),
        }
    }
}

fn terms(size: f64, width: f64, length: f64) -> [f64; TERMS] {
    let log = |x: f64| libm::log(x.max(THINNEST));
    [1.0, libm::log(size.max(1.0)), log(width), log(length)]
}

impl Regression {
    /// Number of values in the sums of a shard.
    pub const WORDS: usize = TERMS * (TERMS + 1);

    /// Computes the sums over scaled events; `None` if a quantity is not a feature.
    pub fn sums<'e>(
        features: &[ScaledFeature],
        events: impl Iterator<Item = &'e [f32]>,
    ) -> Option<Vec<f64>> {
        let at = Places::of(features);
        let (size, width, length, con2) = (at.size?, at.width?, at.length?, at.con2?);
        let mut sums = RegressionSums::default();
        for event in events {
            let of = |d: usize| features[d].quantity(event[d]);
            let x = terms(of(size), of(width), of(length));
            let y = f64::from(event[con2]) * features[con2].std + features[con2].mean;
            for i in 0..TERMS {
                for j in 0..TERMS {
                    sums.matrix[i][j] += x[i] * x[j];
                }
                sums.target[i] += x[i] * y;
            }
        }
        Some(sums.matrix.iter().flatten().chain(&sums.target).copied().collect())
    }

    /// Solves the normal equations of summed shards; `None` if they are singular.
    pub fn solve(words: &[f64]) -> Option<Regression> {
        let mut rows = [[0.0; TERMS + 1]; TERMS];
        for (i, row) in rows.iter_mut().enumerate() {
            row[..TERMS].copy_from_slice(&words[i * TERMS..(i + 1) * TERMS]);
            row[TERMS] = words[TERMS * TERMS + i];
        }
        for c in 0..TERMS {
            let pivot =
                (c..TERMS).max_by(|a, b| rows[*a][c].abs().total_cmp(&rows[*b][c].abs()))?;
            rows.swap(c, pivot);
            if rows[c][c].abs() < 1e-9 {
                return None;
            }
            for r in (0..TERMS).filter(|r| *r != c) {
                let factor = rows[r][c] / rows[c][c];
                for k in c..=TERMS {
                    rows[r][k] -= factor * rows[c][k];
                }
            }
        }
        let mut coefficients = [0.0; TERMS];
        for (i, coefficient) in coefficients.iter_mut().enumerate() {
            *coefficient = rows[i][TERMS] / rows[i][i];
        }
        Some(Regression { coefficients })
    }

    fn predict(&self, size: f64, width: f64, length: f64) -> f64 {
        terms(size, width, length).iter().zip(&self.coefficients).map(|(x, c)| x * c).sum()
    }
}

/// Multiplies a width or length by the exponential of `ln_factor`.
fn grow(x: f64, ln_factor: f64) -> f64 {
    // An image on one line has few pixels, for any shower.
    if x < THINNEST { x.max(0.0) } else { x * libm::exp(ln_factor) }
}

/// Sets feature `d` of a scaled event to a quantity; nothing if either is absent.
fn set_quantity(out: &mut [f32], features: &[ScaledFeature], d: Option<usize>, x: Option<f64>) {
    if let (Some(d), Some(x)) = (d, x) {
        out[d] = features[d].scale(features::transform(&features[d].feature, x));
    }
}

/// The generator for given features.
#[derive(Debug)]
pub struct PhysicsMaker {
    physics: Physics,
    places: Places,
    con2: Option<Regression>,
    dist: Option<f64>,
}

impl PhysicsMaker {
    /// Creates the generator; `dist` is the limit of the trigger [deg].
    pub fn new(
        physics: Physics,
        features: &[ScaledFeature],
        con2: Option<&Regression>,
        dist: Option<f64>,
    ) -> PhysicsMaker {
        PhysicsMaker { physics, places: Places::of(features), con2: con2.cloned(), dist }
    }

    /// Writes an anomaly made from `event` into `out`, both (features).
    pub fn make(
        &self,
        draw: AttemptDraws,
        features: &[ScaledFeature],
        event: &[f32],
        out: &mut [f32],
    ) {
        out.copy_from_slice(event);
        let (p, at) = (&self.physics, &self.places);
        let quantity = |d: Option<usize>| d.map(|d| features[d].quantity(event[d]));
        let grown = |d, n: usize, shift: f64, spread: f64| {
            quantity(d).map(|x| grow(x, shift + spread * draw.normal(n)))
        };
        let size = quantity(at.size).map(|x| x * libm::exp(p.size_spread * draw.normal(0)));
        let width = grown(at.width, 1, p.width_shift, p.width_spread);
        let length = grown(at.length, 2, p.length_shift, p.length_spread);
        let dist = self.dist.map(|limit| limit * libm::sqrt(draw.uniform(0)));
        let alpha = 90.0 * (2.0 * draw.uniform(1) - 1.0);
        let mut set = |d: Option<usize>, x: Option<f64>| set_quantity(out, features, d, x);
        if p.size_spread > 0.0 {
            set(at.size, size);
        }
        set(at.width, width);
        set(at.length, length);
        set(at.dist, dist);
        if let Some(d) = at.alpha {
            let signed = features[d].feature.transform == Transform::Signed;
            set(at.alpha, Some(if signed { alpha } else { alpha.abs() }));
        }
        if let (Some(d), Some(con2), Some(size), Some(width), Some(length)) =
            (at.con2, &self.con2, size, width, length)
        {
            let coordinate = con2.predict(size, width, length) + p.con2_spread * draw.normal(3);
            out[d] = features[d].scale(coordinate);
        }
    }
}
