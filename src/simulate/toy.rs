//! Draws the Hillas parameters of one toy image from formulae.
//!
//! This is **not a detector simulation**: shower, mirror, camera and cleaning are not simulated.
//! The formulae resemble the shapes of published distributions, which is enough for tests of the
//! program. Physics results must not rely on them.
//!
//! An event is a pure function of (seed, class, index). All transcendental functions are those of
//! `libm`, so that its bits do not depend on the platform.

use crate::config::Class;
use std::f64::consts::TAU;

use taiga_flow_gpu::random::{Draws, Stream};

/// One image. `dist` and `alpha` are computed from the stored centroid, axis and source position.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ToyEvent {
    pub size: f32,       // [p.e.]
    pub length: f32,     // [deg]
    pub width: f32,      // [deg], 0 for an image on one line
    pub dist: f32,       // [deg], centroid to source
    pub alpha: f32,      // [deg], 0…90
    pub con2: f32,       // two brightest pixels / size, 0…1
    pub skewness: f32,   // along the axis, > 0: tail away from the source
    pub xc: f32,         // [deg], centroid
    pub yc: f32,         // [deg]
    pub axis: f32,       // [deg], direction of the major axis, −90…90
    pub source_x: f32,   // [deg]
    pub source_y: f32,   // [deg]
    pub energy_tev: f32, // [TeV]
}

/// Largest distance of a centroid from the camera centre [deg]. A TAIGA-IACT camera is 9.6 deg
/// across, and images closer to its edge are truncated.
pub(crate) const FIELD_DEG: f64 = 4.3;
/// Distance of the source from the camera centre, as in the wobble mode of TAIGA [deg].
pub(crate) const SOURCE_OFFSET_DEG: f64 = 1.2;
/// Showers drawn until one triggers. About one in five does, so 1024 failures in a row have a
/// probability below 10⁻⁸⁰.
pub(crate) const MAX_ATTEMPTS: u64 = 1024;
/// Pairs of words of the stream that are reserved for one attempt.
const PAIRS_PER_ATTEMPT: u64 = 32;

/// Parameters of a class of showers.
pub(super) struct Primary {
    energy_tev: [f64; 2],
    /// Spectral index, dN/dE ∝ E^−index.
    index: f64,
    /// Light inside the Cherenkov disc [p.e. per TeV^1.1].
    pub(super) light: f64,
    /// Standard deviation of ln(light) between showers.
    pub(super) fluctuation: f64,
}

/// Gammas. The spectrum of the Crab nebula has the index 2.62 (HEGRA, Aharonian et al. 2004,
/// Astrophysical Journal 614, 897).
pub(super) const GAMMA: Primary =
    Primary { energy_tev: [2.0, 200.0], index: 2.6, light: 50.0, fluctuation: 0.25 };

/// Hadrons. Cosmic rays below the knee have the index 2.7. A hadronic shower of the same energy
/// gives two to three times less Cherenkov light and fluctuates more.
pub(super) const HADRON: Primary =
    Primary { energy_tev: [4.0, 400.0], index: 2.7, light: 20.0, fluctuation: 0.5 };

/// Returns the random stream of all events of one class and seed.
pub fn stream(seed: u64, class: Class) -> Stream {
    Stream::new(seed, "toy simulation", &[class.code() as u64])
}

/// Returns event `index` of a class; `None` if none of [`MAX_ATTEMPTS`] showers triggered.
pub fn event(class: Class, stream: Stream, index: u64) -> Option<ToyEvent> {
    (0..MAX_ATTEMPTS).find_map(|attempt| {
        let first = (index * MAX_ATTEMPTS + attempt) * PAIRS_PER_ATTEMPT;
        let mut draws = Draws { stream, next: first };
        let event = match class {
            Class::Gamma => gamma(&mut draws),
            Class::Hadron => hadron(&mut draws),
        };
        debug_assert!(draws.next <= first + PAIRS_PER_ATTEMPT, "attempts would share words");
        event
    })
}

/// Returns one gamma shower from the source, if it triggers inside the field.
fn gamma(draws: &mut Draws) -> Option<ToyEvent> {
    let shower = TriggeredShower::thrown(&GAMMA, draws)?;
    let source = source_position(draws);
    let distance_km = distance_of_maximum(shower.energy_tev, draws);
    let dist = degrees(libm::atan(shower.impact_km / distance_km));
    let toward = TAU * draws.uniform();
    let centroid = [source[0] + dist * libm::cos(toward), source[1] + dist * libm::sin(toward)];
    if libm::hypot(centroid[0], centroid[1]) > FIELD_DEG {
        return None;
    }
    // With these medians, the mono shape cuts of TAIGA, width < 0.068 log10(size) − 0.047 and
    // length < 0.145 log10(size), keep about a third of these images. Images far from the source
    // come from distant showers and are longer.
    let far = dist - 1.5;
    let length = (0.125 * shower.log_size + 0.04 * far) * lognormal(0.22, draws);
    let width = (0.052 * shower.log_size - 0.010 + 0.008 * far) * lognormal(0.30, draws);
    let (length, width) = image_shape(length, width, shower.size, draws);
    let con2 = concentration(&shower, length, width, 0.30 * draws.normal());
    let error = axis_error(&shower, dist, width / length) * lognormal(0.35, draws);
    let axis = degrees(toward) + error * draws.normal();
    let skewness = 0.30 + 0.35 * draws.normal();
    Some(assemble(&shower, source, centroid, axis, [length, width, con2, skewness]))
}

/// Returns one hadron shower from any direction in the field, if it triggers.
///
/// Its source position has the same distribution as that of gammas, so that a model cannot learn
/// the classes from it.
fn hadron(draws: &mut Draws) -> Option<ToyEvent> {
    let shower = TriggeredShower::thrown(&HADRON, draws)?;
    let source = source_position(draws);
    // Density of directions, decreasing toward the edge: ∝ 1 − (r / field)².
    let radius = FIELD_DEG * libm::sqrt(1.0 - libm::sqrt(1.0 - draws.uniform()));
    let azimuth = TAU * draws.uniform();
    let centroid = [radius * libm::cos(azimuth), radius * libm::sin(azimuth)];
    // Transverse momentum and sub-showers make images wider and longer, with irregular tails.
    let length = (0.140 * shower.log_size + 0.01) * lognormal(0.33, draws) * ragged(0.12, draws);
    let width = (0.062 * shower.log_size - 0.012) * lognormal(0.42, draws) * ragged(0.20, draws);
    let (length, width) = image_shape(length, width, shower.size, draws);
    let con2 = concentration(&shower, length, width, -0.1 + 0.50 * draws.normal());
    let axis = 180.0 * draws.uniform();
    let skewness = 0.6 * draws.normal();
    Some(assemble(&shower, source, centroid, axis, [length, width, con2, skewness]))
}

/// Energy, impact and light of a shower that triggered the camera.
struct TriggeredShower {
    energy_tev: f64,
    impact_km: f64,
    size: f64, // [p.e.]
    log_size: f64,
}

impl TriggeredShower {
    /// Draws a shower; `None` if it does not trigger.
    fn thrown(primary: &Primary, draws: &mut Draws) -> Option<TriggeredShower> {
        let energy_tev = power_law(primary, draws.uniform());
        let impact_km = 0.7 * libm::sqrt(draws.uniform());
        let fluctuation = libm::exp(primary.fluctuation * draws.normal());
        let size = primary.light * libm::pow(energy_tev, 1.1) * lateral(impact_km) * fluctuation;
        (draws.uniform() < trigger(size)).then(|| TriggeredShower {
            energy_tev,
            impact_km,
            size,
            log_size: libm::log10(size),
        })
    }
}

/// Returns the energy [TeV] at which the cumulative spectrum is `u`.
pub(super) fn power_law(primary: &Primary, u: f64) -> f64 {
    let k = 1.0 - primary.index;
    let [low, high] = primary.energy_tev.map(|energy| libm::pow(energy, k));
    libm::pow(low + u * (high - low), 1.0 / k)
}

/// Returns the relative density of Cherenkov light at an impact distance: constant inside a disc
/// of about 120 m, with an exponential decrease outside.
pub(super) fn lateral(impact_km: f64) -> f64 {
    libm::exp(-(impact_km - 0.12).max(0.0) / 0.17)
}

/// Returns the trigger probability, a soft threshold at 80 p.e.
fn trigger(size: f64) -> f64 {
    let ratio = 80.0 / size;
    let cube = ratio * ratio * ratio;
    1.0 / (1.0 + cube * cube)
}

/// Returns the distance from the telescope to the shower maximum [km]: 8.5 km at 10 `TeV`, and
/// 0.74 km less per e-fold of energy. Per e-fold, the maximum moves down by a radiation length of
/// 37 g/cm², in air with a scale height of 8 km at about 400 g/cm².
pub(super) fn distance_of_maximum(energy_tev: f64, draws: &mut Draws) -> f64 {
    (8.5 - 0.74 * libm::log(energy_tev / 10.0) + 0.8 * draws.normal()).max(4.0)
}

/// Draws the source position. During a night the source rotates about the camera centre.
fn source_position(draws: &mut Draws) -> [f64; 2] {
    let azimuth = TAU * draws.uniform();
    [SOURCE_OFFSET_DEG * libm::cos(azimuth), SOURCE_OFFSET_DEG * libm::sin(azimuth)]
}

/// Returns length and width, with width ≤ length. About 1 % of the images, mostly faint ones, have
/// all pixels on one line and width 0.
fn image_shape(length: f64, width: f64, size: f64, draws: &mut Draws) -> (f64, f64) {
    let on_a_line = draws.uniform() < 0.035 * libm::exp(-size / 150.0);
    let (long, short) = (length.max(width), length.min(width));
    (long.max(0.02), if on_a_line { 0.0 } else { short.max(0.002) })
}

/// Returns the charge fraction of the two brightest pixels. It decreases with size and with the
/// area of the image, because more pixels survive the cleaning.
fn concentration(shower: &TriggeredShower, length: f64, width: f64, scatter: f64) -> f64 {
    let log_odds = 0.45
        - 1.6 * (shower.log_size - 2.0)
        - 0.6 * libm::log((width + 0.05) / 0.15)
        - 0.5 * libm::log(length / 0.3)
        + scatter;
    1.0 / (1.0 + libm::exp(-log_odds))
}

/// Returns the error of the axis of a gamma image [deg]: small for bright and elongated images,
/// large for round images and for images at the source position.
fn axis_error(shower: &TriggeredShower, dist: f64, roundness: f64) -> f64 {
    let near = 0.5 / dist.max(0.05);
    let noise =
        15.0 * (roundness / 0.4 + 0.3) * libm::sqrt(150.0 / shower.size * (1.0 + near * near));
    libm::hypot(2.5, noise)
}

/// Rounds to the stored precision and computes `dist` and `alpha` from the rounded values.
fn assemble(
    shower: &TriggeredShower,
    source: [f64; 2],
    centroid: [f64; 2],
    axis_deg: f64,
    shape: [f64; 4],
) -> ToyEvent {
    let [xc, yc, source_x, source_y] =
        [centroid[0], centroid[1], source[0], source[1]].map(|v| v as f32);
    let axis = (axis_deg - 180.0 * libm::floor((axis_deg + 90.0) / 180.0)) as f32;
    let (dist, alpha) = dist_and_alpha([xc, yc], axis, [source_x, source_y]);
    let [length, width, con2, skewness] = shape.map(|v| v as f32);
    ToyEvent {
        size: shower.size as f32,
        length,
        width,
        dist: dist as f32,
        alpha: alpha as f32,
        con2,
        skewness,
        xc,
        yc,
        axis,
        source_x,
        source_y,
        energy_tev: shower.energy_tev as f32,
    }
}

/// Returns `dist` = |centroid − source| and `alpha`, the angle between the axis and the line to
/// the source, 0…90 deg.
fn dist_and_alpha(centroid: [f32; 2], axis_deg: f32, source: [f32; 2]) -> (f64, f64) {
    let x = f64::from(centroid[0]) - f64::from(source[0]);
    let y = f64::from(centroid[1]) - f64::from(source[1]);
    let between = f64::from(axis_deg).to_radians() - libm::atan2(y, x);
    (libm::hypot(x, y), degrees(libm::asin(libm::fabs(libm::sin(between)).min(1.0))).min(90.0))
}

/// Draws a log-normal factor with median 1.
fn lognormal(sigma: f64, draws: &mut Draws) -> f64 {
    libm::exp(sigma * draws.normal())
}

/// Draws a factor with median near 1 and a power-law tail: exp(s · max(0, exponential − 1)).
fn ragged(strength: f64, draws: &mut Draws) -> f64 {
    let exponential = -libm::log(1.0 - draws.uniform());
    libm::exp(strength * (exponential - 1.0).max(0.0))
}

/// Converts an angle from rad to deg.
pub(super) fn degrees(radians: f64) -> f64 {
    radians * (360.0 / TAU)
}
