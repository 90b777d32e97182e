//! Draws toy showers and their photoelectrons in the camera.
//!
//! This is **not a detector simulation**: particles, mirror and digitiser are not simulated. A
//! shower is a line in the air that emits light around its maximum. Each photoelectron is drawn
//! separately: its height of emission, which gives its position along the line to the source, and
//! its distance from the line. Gammas come from the source. Hadrons come from any direction, in
//! sub-showers with their own directions and depths, some with a muon arc. The numbers are chosen
//! so that Hillas parameters resemble published ones.
//!
//! All transcendental functions are those of `libm`, so that the bits do not depend on the
//! platform.

use super::super::toy::{self, GAMMA, HADRON, Primary};
use crate::config::Class;
use crate::hillas::Camera;
use std::f64::consts::TAU;
use taiga_flow_gpu::random::{Draws, Stream};

/// Showers drawn until one has enough images. About one in ten does.
pub(crate) const MAX_ATTEMPTS: u64 = 4096;
/// Core positions of a shower, as in the simulations of TAIGA.
const SCATTERS: u64 = 10;
/// Radius of the disc of core positions around the telescope [km].
const SCATTER_KM: f64 = 0.4;
/// Expected light below which an image is not simulated, because it would not trigger [p.e.].
const FAINTEST: f64 = 60.0;
/// Trigger threshold of two neighbouring pixels [p.e.].
const TRIGGER_PE: f32 = 15.0;
/// Radius of the trigger area in the camera [deg].
const TRIGGER_RADIUS_DEG: f64 = 3.7;
/// Largest number of photoelectrons drawn; above it, each drawn one has a weight.
const MOST_DRAWN: f64 = 20_000.0;
/// Relative resolution of the charge of a single photoelectron.
pub(crate) const SINGLE_PE: f64 = 0.4;
/// Radius of the disc of directions of hadrons [deg].
const HADRON_RADIUS_DEG: f64 = 5.0;

/// A triggered image.
pub(crate) struct TriggeredImage {
    pub charge: Vec<f32>, // (pixels) [p.e.]
    pub energy_tev: f64,
    pub impact_km: f64,
    pub source: [f64; 2], // [deg]
    pub scatter: u64,
}

/// Generator of showers of one class for one camera.
pub(crate) struct Thrower<'a> {
    class: Class,
    seed: u64,
    offset_deg: f64,
    camera: &'a Camera,
    lookup: Lookup,
    sigma: &'a [f32], // (pixels) [p.e.]
    trigger: Vec<bool>,
}

/// A shower, independent of its core position.
struct Shower {
    light: f64,       // inside the Cherenkov disc [p.e.]
    source: [f64; 2], // [deg]
    parts: Vec<SubShower>,
    muon: Option<Muon>,
}

/// A sub-shower.
struct SubShower {
    share: f64,          // of the light
    direction: [f64; 2], // [deg]
    core_km: [f64; 2],   // relative to the core of the shower
    maximum_km: f64,     // from the telescope
    depth_km: f64,       // σ of the height of emission
    spread_deg: f64,     // σ across the line
}

/// Light of a muon that passes next to the mirror: part of a ring.
pub(crate) struct Muon {
    centre: [f64; 2], // [deg]
    radius: f64,      // [deg]
    from: f64,        // [rad]
    arc: f64,         // [rad]
    light: f64,       // [p.e.]
}

impl<'a> Thrower<'a> {
    /// Returns a generator. `sigma` (pixels) is the noise [p.e.].
    pub(crate) fn new(
        class: Class,
        seed: u64,
        offset_deg: f64,
        camera: &'a Camera,
        sigma: &'a [f32],
    ) -> Thrower<'a> {
        let inside = |pixel: usize| {
            let [x, y] = camera.position_deg(pixel);
            libm::hypot(x, y) < TRIGGER_RADIUS_DEG
        };
        let trigger = (0..camera.pixels()).map(inside).collect();
        Thrower { class, seed, offset_deg, camera, lookup: Lookup::new(camera), sigma, trigger }
    }

    /// Returns the first `members` triggered images of shower `number`; `None` if none of
    /// [`MAX_ATTEMPTS`] attempts has as many.
    pub(crate) fn shower(&self, number: u64, members: usize) -> Option<Vec<TriggeredImage>> {
        (0..MAX_ATTEMPTS).find_map(|attempt| self.attempt(number, attempt, members))
    }

    /// Draws a shower and returns its images, if there are enough.
    fn attempt(&self, number: u64, attempt: u64, members: usize) -> Option<Vec<TriggeredImage>> {
        let class = self.class.code() as u64;
        let stream = |words: &[u64]| {
            let words = [&[class, number, attempt], words].concat();
            Draws::new(Stream::new(self.seed, "toy camera", &words))
        };
        let mut draws = stream(&[]);
        let primary = if self.class == Class::Gamma { &GAMMA } else { &HADRON };
        let energy_tev = toy::power_law(primary, draws.uniform());
        let light = light(primary, energy_tev, &mut draws);
        let places: Vec<[f64; 2]> = (0..SCATTERS).map(|_| place(&mut draws)).collect();
        let expected = |place: &[f64; 2]| light * toy::lateral(libm::hypot(place[0], place[1]));
        let bright = places.iter().filter(|place| expected(place) >= FAINTEST).count();
        if bright < members {
            return None;
        }
        let shower = self.develop(energy_tev, light, &mut draws);
        let mut images = Vec::new();
        for (scatter, place) in places.iter().enumerate() {
            if images.len() == members || expected(place) < FAINTEST {
                continue;
            }
            let mut draws = stream(&[1 + scatter as u64]);
            if let Some(charge) = self.image(&shower, *place, &mut draws) {
                images.push(TriggeredImage {
                    charge,
                    energy_tev,
                    impact_km: libm::hypot(place[0], place[1]),
                    source: shower.source,
                    scatter: scatter as u64,
                });
            }
        }
        (images.len() == members).then_some(images)
    }

    /// Draws the parts of a shower.
    fn develop(&self, energy_tev: f64, light: f64, draws: &mut Draws) -> Shower {
        let azimuth = TAU * draws.uniform();
        let source = [self.offset_deg * libm::cos(azimuth), self.offset_deg * libm::sin(azimuth)];
        let maximum_km = toy::distance_of_maximum(energy_tev, draws);
        match self.class {
            Class::Gamma => Shower {
                light,
                source,
                parts: vec![SubShower {
                    share: 1.0,
                    direction: source,
                    core_km: [0.0; 2],
                    maximum_km,
                    depth_km: 1.7,
                    spread_deg: 0.05,
                }],
                muon: None,
            },
            Class::Hadron => {
                let radius = HADRON_RADIUS_DEG * libm::sqrt(draws.uniform());
                let azimuth = TAU * draws.uniform();
                let direction = [radius * libm::cos(azimuth), radius * libm::sin(azimuth)];
                let parts = sub_showers(direction, maximum_km, draws);
                let muon = (draws.uniform() < 0.2).then(|| Muon::passing(direction, draws));
                Shower { light, source, parts, muon }
            }
        }
    }

    /// Returns the charges of a shower with its core at `place` [km], if they trigger.
    fn image(&self, shower: &Shower, place: [f64; 2], draws: &mut Draws) -> Option<Vec<f32>> {
        let mut counts = vec![0.0f64; self.camera.pixels()];
        for part in &shower.parts {
            let core = [place[0] + part.core_km[0], place[1] + part.core_km[1]];
            let mean = shower.light * part.share * toy::lateral(libm::hypot(core[0], core[1]));
            self.shine(mean, draws, &mut counts, |draws| part.photoelectron(core, draws));
        }
        if let Some(muon) = &shower.muon {
            self.shine(muon.light, draws, &mut counts, |draws| muon.photoelectron(draws));
        }
        let charge: Vec<f32> = counts
            .iter()
            .zip(self.sigma)
            .map(|(n, sigma)| {
                let sigma = f64::from(*sigma);
                let width = libm::sqrt(SINGLE_PE * SINGLE_PE * n + sigma * sigma);
                (n + width * draws.normal()) as f32
            })
            .collect();
        self.triggers(&charge).then_some(charge)
    }

    /// Adds a Poisson number of photoelectrons with this mean, at positions drawn by `one`.
    fn shine(
        &self,
        mean: f64,
        draws: &mut Draws,
        counts: &mut [f64],
        one: impl Fn(&mut Draws) -> [f64; 2],
    ) {
        let weight = (mean / MOST_DRAWN).max(1.0);
        for _ in 0..draws.poisson(mean / weight) {
            if let Some(pixel) = self.lookup.pixel(one(draws)) {
                counts[pixel] += weight;
            }
        }
    }

    /// Returns whether two neighbouring pixels of the trigger area are above the threshold.
    fn triggers(&self, charge: &[f32]) -> bool {
        let over = |pixel: usize| self.trigger[pixel] && charge[pixel] > TRIGGER_PE;
        (0..charge.len()).filter(|pixel| over(*pixel)).any(|pixel| {
            let others = self.camera.neighbours(pixel).iter().map(|other| *other as usize);
            others.filter(|other| *other != pixel).any(over)
        })
    }
}

/// Draws the light of a shower inside its Cherenkov disc [p.e.].
fn light(primary: &Primary, energy_tev: f64, draws: &mut Draws) -> f64 {
    primary.light * libm::pow(energy_tev, 1.1) * libm::exp(primary.fluctuation * draws.normal())
}

/// Draws a core position [km], uniform in a disc around the telescope.
fn place(draws: &mut Draws) -> [f64; 2] {
    let radius = SCATTER_KM * libm::sqrt(draws.uniform());
    let azimuth = TAU * draws.uniform();
    [radius * libm::cos(azimuth), radius * libm::sin(azimuth)]
}

/// Draws the sub-showers of a hadronic shower: fractions of the light from a broken stick,
/// directions changed by transverse momentum, and independent depths.
fn sub_showers(direction: [f64; 2], maximum_km: f64, draws: &mut Draws) -> Vec<SubShower> {
    let count = 1 + draws.poisson(2.0);
    let weights: Vec<f64> = (0..count).map(|_| -libm::log(1.0 - draws.uniform())).collect();
    let total: f64 = weights.iter().sum();
    weights
        .iter()
        .map(|weight| SubShower::drawn(weight / total, direction, maximum_km, draws))
        .collect()
}

impl SubShower {
    /// Draws a sub-shower with a fraction of the light of the shower.
    fn drawn(share: f64, direction: [f64; 2], maximum_km: f64, draws: &mut Draws) -> SubShower {
        // Weak parts come from slow particles, whose directions differ more.
        let off = 0.08 + 0.25 * (1.0 - share);
        SubShower {
            share,
            direction: [direction[0] + off * draws.normal(), direction[1] + off * draws.normal()],
            core_km: [0.03 * draws.normal(), 0.03 * draws.normal()],
            maximum_km: (maximum_km - 0.8 + 1.2 * draws.normal()).max(2.0),
            depth_km: 1.8,
            spread_deg: 0.07,
        }
    }

    /// Draws the position of a photoelectron in the camera [deg].
    fn photoelectron(&self, core_km: [f64; 2], draws: &mut Draws) -> [f64; 2] {
        let impact = libm::hypot(core_km[0], core_km[1]);
        let [depth, skew] = pair(draws);
        // The tail of a shower is longer than its head.
        let height = self.maximum_km + self.depth_km * depth - 0.3 * self.depth_km * skew.abs();
        let along = toy::degrees(libm::atan(impact / height.max(1.0)));
        let [x, y] = pair(draws);
        // A tenth of the light is a halo.
        let spread = if draws.uniform() < 0.1 { 3.0 * self.spread_deg } else { self.spread_deg };
        let (cos, sin) =
            if impact > 0.0 { (core_km[0] / impact, core_km[1] / impact) } else { (1.0, 0.0) };
        [self.direction[0] + along * cos + spread * x, self.direction[1] + along * sin + spread * y]
    }
}

impl Muon {
    /// Draws a muon of a shower from `direction`. Rings have radii up to the Cherenkov angle of
    /// about 1.2 deg; muons that pass next to the mirror give an arc.
    pub(crate) fn passing(direction: [f64; 2], draws: &mut Draws) -> Muon {
        Muon {
            centre: [direction[0] + 0.6 * draws.normal(), direction[1] + 0.6 * draws.normal()],
            radius: 0.8 + 0.42 * libm::sqrt(draws.uniform()),
            from: TAU * draws.uniform(),
            arc: TAU * (0.15 + 0.5 * draws.uniform()),
            light: 30.0 + 60.0 * draws.uniform(),
        }
    }

    /// Draws the position of a photoelectron in the camera [deg].
    pub(crate) fn photoelectron(&self, draws: &mut Draws) -> [f64; 2] {
        let azimuth = self.from + self.arc * draws.uniform();
        let [spread, _] = pair(draws);
        let radius = self.radius + 0.05 * spread;
        [self.centre[0] + radius * libm::cos(azimuth), self.centre[1] + radius * libm::sin(azimuth)]
    }
}

/// Draws two independent standard normal numbers (Box and Muller 1958).
pub(crate) fn pair(draws: &mut Draws) -> [f64; 2] {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - draws.uniform()));
    let azimuth = TAU * draws.uniform();
    [radius * libm::cos(azimuth), radius * libm::sin(azimuth)]
}

/// Lookup table from positions to pixels: small squares, each with the pixel nearest to its
/// centre.
pub(crate) struct Lookup {
    pixels: Vec<u16>, // (cells, cells); no pixel: u16::MAX
    side: usize,
    half_deg: f64,
}

impl Lookup {
    /// Squares per deg. A square is 0.02 deg, a fifth of the image of a star.
    const CELLS_PER_DEG: f64 = 50.0;

    /// Returns the table of a camera.
    pub(crate) fn new(camera: &Camera) -> Lookup {
        let positions: Vec<[f64; 2]> =
            (0..camera.pixels()).map(|i| camera.position_deg(i)).collect();
        let pitch = camera.pitch_deg();
        let reach = positions.iter().map(|[x, y]| libm::hypot(*x, *y)).fold(0.0, f64::max);
        let half_deg = reach + pitch;
        let side = libm::ceil(2.0 * half_deg * Lookup::CELLS_PER_DEG) as usize;
        let mut nearest = vec![(f64::INFINITY, u16::MAX); side * side];
        // The corners of a pixel are 1/√3 of the pitch from its centre.
        let corner = pitch / 3f64.sqrt();
        let cell = |x: f64| ((x + half_deg) * Lookup::CELLS_PER_DEG).max(0.0) as usize;
        for (pixel, [x, y]) in positions.iter().enumerate() {
            for row in cell(y - corner)..=cell(y + corner).min(side - 1) {
                for column in cell(x - corner)..=cell(x + corner).min(side - 1) {
                    let at = |i: usize| (i as f64 + 0.5) / Lookup::CELLS_PER_DEG - half_deg;
                    let distance = libm::hypot(at(column) - x, at(row) - y);
                    let slot = &mut nearest[row * side + column];
                    if distance <= corner && distance < slot.0 {
                        *slot = (distance, pixel as u16);
                    }
                }
            }
        }
        Lookup { pixels: nearest.into_iter().map(|(_, pixel)| pixel).collect(), side, half_deg }
    }

    /// Returns the pixel at a position [deg].
    pub(crate) fn pixel(&self, [x, y]: [f64; 2]) -> Option<usize> {
        let cell = |x: f64| {
            let place = (x + self.half_deg) * Lookup::CELLS_PER_DEG;
            (place >= 0.0 && place < self.side as f64).then_some(place as usize)
        };
        let pixel = self.pixels[cell(y)? * self.side + cell(x)?];
        (pixel != u16::MAX).then_some(pixel as usize)
    }
}
