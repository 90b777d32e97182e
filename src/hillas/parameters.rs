//! Hillas parameters: charge-weighted moments of a cleaned image (Hillas 1985), and parameters
//! relative to a reference point.
//!
//! With S = Σq, first moments x, y, central second moments sxx, syy, sxy, d = syy − sxx and
//! z = √(d² + 4 sxy²): length² = (sxx + syy + z)/2, width² = (sxx + syy − z)/2. The axis has
//! cos 2ψ = −d/z, sin 2ψ = 2 sxy/z. Degenerate images are common, and each kind has a status bit.

use super::Camera;
use super::positions::ImageAxis;

/// Status bits of an image and their descriptions.
pub const STATUS_BITS: [(u32, &str); 6] = [
    (status::EMPTY, "no pixel survived"),
    (status::SMALL, "three pixels or fewer"),
    (status::LINE, "on a line, width 0"),
    (status::ROUND, "no axis"),
    (status::AT_REFERENCE, "centroid on a reference point"),
    (status::BROKEN, "a charge that cannot be used"),
];

/// Status bits of an image; 0 is an image with all its parameters.
pub mod status {
    /// No pixel survived the cleaning, or the sum of charges is not positive: size is 0 and all
    /// other parameters are NaN.
    pub(crate) const EMPTY: u32 = 1;
    /// At most three pixels: too few for a meaningful shape, but its parameters are computed.
    pub(crate) const SMALL: u32 = 2;
    /// All pixels are on one line: the width is 0, moments across the axis are NaN.
    pub(crate) const LINE: u32 = 4;
    /// No major axis (one pixel, or a round image): `axis`, `alpha` and all parameters that
    /// depend on the axis are NaN.
    pub(crate) const ROUND: u32 = 8;
    /// The centroid is on a reference point: its `alpha` is NaN, its `dist` is 0.
    pub(crate) const AT_REFERENCE: u32 = 16;
    /// A charge is not finite, or a charge of an image cleaned elsewhere is negative.
    pub(crate) const BROKEN: u32 = 32;
}

/// Largest number of pixels without a meaningful shape.
const SMALL_IMAGE: usize = 3;
/// Fraction of the pixel pitch below which a width is attributed to rounding, so that all pixels
/// are on a line. One pixel next to the line with 7 of 10⁶ p.e. already gives twice as much.
const LINE_WIDTH: f64 = 1e-3;
/// Relative difference of the axes below which an image is round.
const ROUND_SHARE: f64 = 1e-9;

/// Moments of one image. Lengths in deg; NaN if a value does not exist.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    pub size: f64, // [p.e.]
    pub x: f64,    // [deg], centroid
    pub y: f64,    // [deg]
    pub length: f64,
    pub width: f64,
    /// Direction (cos ψ, sin ψ) of the major axis, −90 < ψ ≤ 90 deg.
    pub axis: [f64; 2],
    /// Charge fractions of the brightest one, two and three pixels.
    pub con: [f64; 3],
    /// Third and fourth standardised moments along the axis, in its direction.
    pub skewness: f64,
    pub kurtosis: f64,
    /// Third and fourth standardised moments across the axis.
    pub skewness_across: f64,
    pub kurtosis_across: f64,
    /// Charge fraction of pixels at the edge of the camera.
    pub leakage: f64,
    pub pixels: u32,
    pub status: u32,
    moments: [f64; 3], // sxx, syy, sxy [deg²]
}

/// Parameters relative to a reference point. Lengths and angles in deg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AtPosition {
    /// Distance of the centroid from the reference point.
    pub dist: f64,
    /// Angle between the axis and the line to the reference point, 0…90.
    pub alpha: f64,
    /// Distance of the axis from the reference point.
    pub miss: f64,
    /// Width across the line from the reference point to the centroid.
    pub azwidth: f64,
    /// Skewness along the axis, positive if the tail points away from the reference point.
    pub skewness: f64,
}

impl Parameters {
    /// Computes the moments of the pixels `kept` of an image with these charges (pixels) [p.e.].
    pub fn of(camera: &Camera, charge: &[f32], kept: &[u16]) -> Parameters {
        let mut image = Parameters::EMPTY;
        image.pixels = kept.len() as u32;
        let (mut s, mut sx, mut sy, mut edge) = (0.0, 0.0, 0.0, 0.0);
        let mut top = [f64::NEG_INFINITY; 3];
        let mut negative = false;
        for i in kept.iter().map(|i| *i as usize) {
            let q = f64::from(charge[i]);
            let [x, y] = camera.position_deg(i);
            s += q;
            sx += q * x;
            sy += q * y;
            edge += if camera.is_edge(i) { q } else { 0.0 };
            negative |= q < 0.0;
            insert(&mut top, q);
        }
        if negative {
            image.status |= status::BROKEN;
        }
        if kept.is_empty() || s <= 0.0 {
            image.status |= status::EMPTY | status::SMALL;
            return image;
        }
        if kept.len() <= SMALL_IMAGE {
            image.status |= status::SMALL;
        }
        (image.size, image.x, image.y) = (s, sx / s, sy / s);
        image.leakage = edge / s;
        let [one, two, three] = top.map(|q| q.max(0.0));
        image.con = [one / s, (one + two) / s, (one + two + three) / s];
        image.shape(camera, charge, kept);
        image
    }

    const EMPTY: Parameters = Parameters {
        size: 0.0,
        x: f64::NAN,
        y: f64::NAN,
        length: f64::NAN,
        width: f64::NAN,
        axis: [f64::NAN; 2],
        con: [f64::NAN; 3],
        skewness: f64::NAN,
        kurtosis: f64::NAN,
        skewness_across: f64::NAN,
        kurtosis_across: f64::NAN,
        leakage: f64::NAN,
        pixels: 0,
        status: 0,
        moments: [f64::NAN; 3],
    };

    /// Computes second and higher moments about the centroid.
    fn shape(&mut self, camera: &Camera, charge: &[f32], kept: &[u16]) {
        let (mut sxx, mut syy, mut sxy) = (0.0, 0.0, 0.0);
        for i in kept.iter().map(|i| *i as usize) {
            let q = f64::from(charge[i]);
            let [x, y] = camera.position_deg(i);
            let (dx, dy) = (x - self.x, y - self.y);
            sxx += q * dx * dx;
            syy += q * dy * dy;
            sxy += q * dx * dy;
        }
        [sxx, syy, sxy] = [sxx, syy, sxy].map(|m| m / self.size);
        self.moments = [sxx, syy, sxy];
        let d = syy - sxx;
        let z = (d * d + 4.0 * sxy * sxy).sqrt();
        self.length = ((sxx + syy + z) / 2.0).max(0.0).sqrt();
        let width = ((sxx + syy - z) / 2.0).max(0.0).sqrt();
        let on_a_line = width < LINE_WIDTH * camera.pitch_deg();
        self.width = if on_a_line { 0.0 } else { width };
        if on_a_line {
            self.status |= status::LINE;
        }
        if z <= ROUND_SHARE * (sxx + syy) || self.length < LINE_WIDTH * camera.pitch_deg() {
            self.status |= status::ROUND;
            return;
        }
        self.axis = half_angle(-d / z, 2.0 * sxy / z);
        self.along_and_across(camera, charge, kept);
    }

    /// Computes the third and fourth moments along and across the axis.
    fn along_and_across(&mut self, camera: &Camera, charge: &[f32], kept: &[u16]) {
        let [cos, sin] = self.axis;
        let (mut l3, mut l4, mut t3, mut t4) = (0.0, 0.0, 0.0, 0.0);
        for i in kept.iter().map(|i| *i as usize) {
            let q = f64::from(charge[i]);
            let [x, y] = camera.position_deg(i);
            let (dx, dy) = (x - self.x, y - self.y);
            let (along, across) = (dx * cos + dy * sin, dy * cos - dx * sin);
            let (l2, t2) = (along * along, across * across);
            l3 += q * l2 * along;
            l4 += q * l2 * l2;
            t3 += q * t2 * across;
            t4 += q * t2 * t2;
        }
        let (length, width) = (self.length, self.width);
        let s = self.size;
        self.skewness = l3 / (s * length * length * length);
        self.kurtosis = l4 / (s * length * length * length * length);
        if width > 0.0 {
            self.skewness_across = t3 / (s * width * width * width);
            self.kurtosis_across = t4 / (s * width * width * width * width);
        }
    }

    /// Returns the direction of the major axis [deg], −90 < ψ ≤ 90.
    pub fn axis_deg(&self) -> f64 {
        libm::atan2(self.axis[1], self.axis[0]).to_degrees()
    }

    /// Returns whether a pixel of the image is at the edge of the camera.
    pub(crate) fn is_at_edge(&self) -> bool {
        self.leakage > 0.0
    }

    /// Returns the parameters relative to a reference point [deg].
    pub(crate) fn at(&self, reference: [f64; 2]) -> AtPosition {
        let axis = ImageAxis { centroid: [self.x, self.y], direction: self.axis };
        let seen = axis.relative_to(reference);
        let (x, y) = (self.x - reference[0], self.y - reference[1]);
        let [sxx, syy, sxy] = self.moments;
        let across = (sxx * y * y - 2.0 * sxy * x * y + syy * x * x).max(0.0).sqrt();
        AtPosition {
            dist: seen.dist,
            alpha: seen.alpha(),
            miss: seen.miss,
            azwidth: if seen.dist <= 0.0 { f64::NAN } else { across / seen.dist },
            skewness: seen.skewness(self.skewness),
        }
    }
}

/// Returns (cos ψ, sin ψ) from (cos 2ψ, sin 2ψ), with −90 < ψ ≤ 90 deg.
fn half_angle(cos2: f64, sin2: f64) -> [f64; 2] {
    if cos2 >= 0.0 {
        let cos = (0.5 * (1.0 + cos2.min(1.0))).sqrt();
        [cos, sin2 / (2.0 * cos)]
    } else {
        let sin = (0.5 * (1.0 - cos2.max(-1.0))).sqrt();
        let cos = sin2 / (2.0 * sin);
        if cos < 0.0 { [-cos, -sin] } else { [cos.abs(), sin] }
    }
}

/// Inserts a charge into the three largest ones, in descending order.
#[inline(always)]
fn insert(top: &mut [f64; 3], q: f64) {
    if q > top[2] {
        top[2] = q;
        if q > top[1] {
            top.swap(1, 2);
        }
        if q > top[0] {
            top.swap(0, 1);
        }
    }
}

#[cfg(test)]
mod tests;
