//! Simulated nights on a source: isotropic toy hadrons, and gammas from the source.
//!
//! The image parameters at every position are computed by formulae written here, not by the
//! program. The score is log p of a normal density in the coordinates of the reference study,
//! fitted to gammas of other seeds: a flow without blocks.

use std::sync::OnceLock;
use taiga_flow::config::Class;
use taiga_flow::simulate::toy::{self, ToyEvent};
use taiga_flow_gpu::random::Stream;

/// 1 ON and 5 OFF positions, 60 deg apart.
pub const POSITIONS: usize = 6;
pub const ANGLES: [f64; POSITIONS] = [0.0, 60.0, 120.0, 180.0, 240.0, 300.0];
/// Seeds of the density and of the calibration; nights have other seeds.
const TRAINING_SEED: u64 = 1_000_001;
const CALIBRATION_SEED: u64 = 1_000_002;
const CALIBRATION_GAMMAS: u64 = 400_000;
/// Share of the calibration gammas inside the cuts that are above the threshold.
const EFFICIENCY: f64 = 0.7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// TAIGA's mono shape cuts with θ² < 0.05 deg².
    Theta2,
    /// Cuts of the reference study: alpha < 20 deg, dist < 3 deg.
    Study,
}

/// Image parameters of an event with respect to one source position.
#[derive(Debug, Clone, Copy)]
pub struct Projection {
    pub dist: f64,   // [deg]
    pub alpha: f64,  // [deg]
    pub theta2: f64, // [deg²]
    pub score: f32,
    pub inside: bool,
}

fn coordinates(event: &ToyEvent, dist: f64) -> [f64; 5] {
    let [size, width, length, con2] =
        [event.size, event.width, event.length, event.con2].map(f64::from);
    [size.log10(), (width + 0.01).ln(), (length + 0.01).ln(), (con2 / (1.0 - con2)).ln(), dist]
}

/// Mean and standard deviation of each coordinate of gammas, and the 68 % quantile of alpha.
struct Density {
    moments: [[f64; 2]; 5],
    alpha: f64,
}

fn density() -> &'static Density {
    static DENSITY: OnceLock<Density> = OnceLock::new();
    DENSITY.get_or_init(|| {
        let stream = toy::stream(TRAINING_SEED, Class::Gamma);
        let gammas: Vec<ToyEvent> =
            (0..20_000).filter_map(|i| toy::event(Class::Gamma, stream, i)).collect();
        let n = gammas.len() as f64;
        let of: Vec<[f64; 5]> = gammas.iter().map(|e| coordinates(e, f64::from(e.dist))).collect();
        let moments = std::array::from_fn(|c| {
            let mean = of.iter().map(|x| x[c]).sum::<f64>() / n;
            let square = of.iter().map(|x| (x[c] - mean) * (x[c] - mean)).sum::<f64>() / n;
            [mean, square.sqrt()]
        });
        // The bulk of alpha; its long tail would make the density too wide.
        let mut alpha: Vec<f64> = gammas.iter().map(|e| f64::from(e.alpha)).collect();
        alpha.sort_by(f64::total_cmp);
        Density { moments, alpha: alpha[(0.68 * n) as usize] }
    })
}

/// Hadrons of the field with a shape that can pass; nights are drawn from them.
pub struct Pool {
    pub hadrons: Vec<ToyEvent>,
    /// Number of triggered showers that the hadrons were selected from.
    pub thrown: u64,
}

impl Pool {
    /// Draws hadron `number` of a night: any hadron of the pool, rotated by a random angle about
    /// the camera centre. The field is isotropic, so a rotated hadron is as good as another
    /// shower. Draws are independent, whatever the pool is.
    pub fn draw(&self, night: Stream, number: u64) -> ToyEvent {
        let index = night.bits(2 * number) % self.hadrons.len() as u64;
        let event = self.hadrons[index as usize];
        let turn = std::f64::consts::TAU * night.uniform(2 * number + 1);
        let (sin, cos) = turn.sin_cos();
        let [x, y] = [event.xc, event.yc].map(f64::from);
        ToyEvent {
            xc: (cos * x - sin * y) as f32,
            yc: (sin * x + cos * y) as f32,
            axis: (f64::from(event.axis) + turn.to_degrees()) as f32,
            ..event
        }
    }
}

impl Cuts {
    /// Returns whether an event passes the cuts that do not depend on the source position.
    fn has_shape(self, event: &ToyEvent) -> bool {
        let [size, width, length] = [event.size, event.width, event.length].map(f64::from);
        match self {
            Cuts::Theta2 => {
                size > 120.0
                    && 0.024 < width
                    && width < 0.068 * size.log10() - 0.047
                    && length < 0.145 * size.log10()
            }
            Cuts::Study => size > 100.0 && 0.02 < width && width < 0.8,
        }
    }

    pub fn pool(self, thrown: u64) -> Pool {
        let mut hadrons = events(Class::Hadron, 7_000_007, 0..thrown);
        hadrons.retain(|event| self.has_shape(event));
        Pool { hadrons, thrown }
    }

    /// Returns the event with respect to the source position rotated by `ANGLES[k]` about the
    /// camera centre.
    pub fn project(self, event: &ToyEvent, k: usize) -> Projection {
        let angle = ANGLES[k].to_radians();
        let [sx, sy] = [event.source_x, event.source_y].map(f64::from);
        let source = [angle.cos() * sx - angle.sin() * sy, angle.sin() * sx + angle.cos() * sy];
        let toward = [source[0] - f64::from(event.xc), source[1] - f64::from(event.yc)];
        let dist = toward[0].hypot(toward[1]);
        let axis = f64::from(event.axis).to_radians();
        let across = (toward[1] * axis.cos() - toward[0] * axis.sin()).abs() / dist;
        let alpha = across.min(1.0).asin().to_degrees();
        let [size, width, length] = [event.size, event.width, event.length].map(f64::from);
        let xi = match dist {
            d if d <= 0.9045 => 1.3,
            d if d <= 1.206 => 1.6,
            _ if size < 700.0 => 2.0,
            _ if size < 1000.0 => 1.9,
            _ if size < 1250.0 => 1.75,
            _ if size < 1500.0 => 1.5,
            _ => 1.3,
        };
        let disp = xi * (1.0 - width / length);
        let theta2 = disp * disp + dist * dist - 2.0 * disp * dist * alpha.to_radians().cos();
        let inside = match self {
            Cuts::Theta2 => 0.36 < dist && dist < 1.44 && theta2 < 0.05,
            Cuts::Study => alpha < 20.0 && dist < 3.0,
        } && self.has_shape(event);
        let of = density();
        let mut score = -0.5 * (alpha / of.alpha) * (alpha / of.alpha);
        for (x, [mean, std]) in coordinates(event, dist).into_iter().zip(of.moments) {
            score -= 0.5 * ((x - mean) / std) * ((x - mean) / std);
        }
        Projection { dist, alpha, theta2, score: score as f32, inside }
    }

    /// Returns the event with respect to all positions.
    pub fn project_all(self, event: &ToyEvent) -> [Projection; POSITIONS] {
        std::array::from_fn(|k| self.project(event, k))
    }

    /// Returns the threshold chosen on gammas at the source, from a seed that no night has.
    pub fn threshold(self) -> f32 {
        static THRESHOLDS: [OnceLock<f32>; 2] = [OnceLock::new(), OnceLock::new()];
        *THRESHOLDS[self as usize].get_or_init(|| {
            let inside = |event: &ToyEvent| Some(self.project(event, 0)).filter(|at| at.inside);
            let mut scores: Vec<f32> =
                calibration().iter().filter_map(inside).map(|at| at.score).collect();
            scores.sort_by(f32::total_cmp);
            scores[((1.0 - EFFICIENCY) * scores.len() as f64) as usize]
        })
    }

    /// Returns the positions at which the event passes, as bits.
    pub fn passes(self, projections: &[Projection; POSITIONS]) -> u64 {
        let threshold = self.threshold();
        let pass = |k: &usize| projections[*k].inside && projections[*k].score >= threshold;
        (0..POSITIONS).filter(pass).fold(0, |bits, k| bits | 1 << k)
    }
}

/// Returns gammas of a seed that no night has.
pub fn calibration() -> &'static [ToyEvent] {
    static GAMMAS: OnceLock<Vec<ToyEvent>> = OnceLock::new();
    GAMMAS.get_or_init(|| events(Class::Gamma, CALIBRATION_SEED, 0..CALIBRATION_GAMMAS))
}

/// Returns the events of a class with these numbers.
pub fn events(class: Class, seed: u64, numbers: std::ops::Range<u64>) -> Vec<ToyEvent> {
    let stream = toy::stream(seed, class);
    numbers.filter_map(|i| toy::event(class, stream, i)).collect()
}

/// Draws a Poisson number: steps of a process of unit rate (Knuth's method, without underflow).
pub fn poisson(mean: f64, stream: Stream) -> u64 {
    let (mut time, mut count) = (0.0, 0);
    loop {
        time -= (1.0 - stream.uniform(count)).ln();
        if time > mean {
            return count;
        }
        count += 1;
    }
}
