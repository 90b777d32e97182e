//! Reference points in the camera, and `alpha`, `dist` and θ² relative to them.

/// Names of centroid x and y, axis, source x and y [deg] in schemas. The first name that a file
/// has is used.
pub const GEOMETRY: [&[&str]; 5] =
    [&["xc", "cog_x"], &["yc", "cog_y"], &["axis", "delta"], &["source_x"], &["source_y"]];
/// Largest difference [deg] between a recomputed `dist` or `alpha` and that of a file. A larger
/// one is due to wrong units, a wrong axis or a wrong sign.
pub const WITHIN_DEG: f64 = 0.06;
/// Fraction of rows that may differ by more.
pub const MOST_DIFFERENT: f64 = 0.01;
/// Smallest distance of a source from the camera centre [deg] at which it can be rotated. With a
/// smaller one, ON and OFF would be the same events.
pub const LEAST_OFFSET_DEG: f64 = 0.4;

/// Rotation about the camera centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    cos: f64,
    sin: f64,
}

impl Rotation {
    /// Returns the rotation by `k` of `count` equal steps. TAIGA estimates its background at
    /// such positions: 1 ON and `count` − 1 OFF.
    pub(crate) fn step(k: usize, count: usize) -> Rotation {
        // Multiples of a right angle are exact; half a turn gives the anti-source.
        match 4 * k % (4 * count) {
            0 => Rotation { cos: 1.0, sin: 0.0 },
            quarters if quarters == count => Rotation { cos: 0.0, sin: 1.0 },
            quarters if quarters == 2 * count => Rotation { cos: -1.0, sin: 0.0 },
            quarters if quarters == 3 * count => Rotation { cos: 0.0, sin: -1.0 },
            _ => Rotation::radians(std::f64::consts::TAU * k as f64 / count as f64),
        }
    }

    /// Returns the rotation by an angle [deg].
    pub(crate) fn degrees(angle: f64) -> Rotation {
        let quarters = angle / 90.0;
        if quarters.fract() == 0.0 {
            return Rotation::step(quarters.rem_euclid(4.0) as usize, 4);
        }
        Rotation::radians(angle.to_radians())
    }

    /// Returns the rotation by an angle [rad].
    fn radians(angle: f64) -> Rotation {
        Rotation { cos: libm::cos(angle), sin: libm::sin(angle) }
    }

    /// Returns the rotated point.
    #[inline(always)]
    pub(crate) fn of(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.cos * x - self.sin * y, self.sin * x + self.cos * y]
    }
}

/// Returns the source position rotated by `k` of `count` equal steps.
pub fn rotated(source: [f64; 2], k: usize, count: usize) -> [f64; 2] {
    Rotation::step(k, count).of(source)
}

/// Centroid and direction of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageAxis {
    pub centroid: [f64; 2], // [deg]
    /// (cos ψ, sin ψ) of the major axis; NaN if there is none.
    pub direction: [f64; 2],
}

/// Position of an image relative to a reference point. Lengths in deg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelativePosition {
    /// Distance of the centroid from the reference point.
    pub dist: f64,
    /// Distance of the axis from the reference point.
    pub miss: f64,
    /// Distance of the centroid from the projection of the reference point on the axis, with
    /// the sign of the direction of the axis: |along| = dist · cos α.
    pub along: f64,
}

impl ImageAxis {
    /// Returns the axis with an angle [deg].
    pub fn from_degrees(centroid: [f64; 2], angle: f64) -> ImageAxis {
        let angle = angle.to_radians();
        ImageAxis { centroid, direction: [libm::cos(angle), libm::sin(angle)] }
    }

    /// Returns the position relative to a reference point [deg].
    ///
    /// miss² = ½(U X² + V Y²) − 2 sxy X Y/z, with U = 1 + d/z, V = 2 − U and X, Y relative to
    /// the reference, equals (X sin ψ − Y cos ψ)². The second form has no cancellation.
    #[inline(always)]
    pub fn relative_to(&self, reference: [f64; 2]) -> RelativePosition {
        let (x, y) = (self.centroid[0] - reference[0], self.centroid[1] - reference[1]);
        let [cos, sin] = self.direction;
        RelativePosition {
            dist: (x * x + y * y).sqrt(),
            miss: (x * sin - y * cos).abs(),
            along: x * cos + y * sin,
        }
    }
}

impl RelativePosition {
    /// Returns the angle between the axis and the line to the reference point, 0…90 deg; NaN if
    /// the centroid is on the reference point or there is no axis.
    #[inline(always)]
    pub fn alpha(&self) -> f64 {
        // 0/0 on the reference point gives NaN. `min` would replace a NaN, the comparison keeps it.
        let sine = self.miss / self.dist;
        arcsine(if sine > 1.0 { 1.0 } else { sine }).to_degrees()
    }

    /// Returns the skewness along the axis, positive if the tail points away from the reference
    /// point. `along_axis` is the skewness in the direction of the axis.
    #[inline(always)]
    pub(crate) fn skewness(&self, along_axis: f64) -> f64 {
        if self.along < 0.0 { -along_axis } else { along_axis }
    }
}

/// Returns asin x for 0 ≤ x ≤ 1 with a relative error below 2⁻⁵¹; NaN for NaN.
///
/// It has no branch, so that loops are vectorised, and uses only operations with the same
/// rounding on every machine.
/// asin x = x + x R(x²) up to ½, and π/2 − 2 asin √((1 − x)/2) above; R is the rational
/// function of fdlibm (Sun Microsystems 1993).
#[inline(always)]
fn arcsine(x: f64) -> f64 {
    const P: [f64; 6] = [
        1.666_666_666_666_666_6e-1,
        -3.255_658_186_224_009e-1,
        2.012_125_321_348_629_3e-1,
        -4.005_553_450_067_941e-2,
        7.915_349_942_898_145e-4,
        3.479_331_075_960_212e-5,
    ];
    const Q: [f64; 5] = [
        1.0,
        -2.403_394_911_734_414,
        2.020_945_760_233_505_7,
        -6.882_839_716_054_533e-1,
        7.703_815_055_590_194e-2,
    ];
    let sum = |coefficients: &[f64], t: f64| coefficients.iter().rev().fold(0.0, |s, c| s * t + c);
    let small = x < 0.5;
    let t = if small { x * x } else { (1.0 - x) * 0.5 };
    let a = if small { x } else { t.sqrt() };
    let asin = a + a * (t * sum(&P, t) / sum(&Q, t));
    if small { asin } else { std::f64::consts::FRAC_PI_2 - 2.0 * asin }
}

/// Returns DISP of one telescope [deg]: the distance between the centroid and the shower
/// direction on the axis, ξ(1 − width/length). ξ increases with dist, and decreases with size
/// beyond 1.206 deg.
#[inline(always)]
pub fn disp(size: f64, width: f64, length: f64, dist: f64) -> f64 {
    let xi = if dist <= 0.9045 {
        1.3
    } else if dist <= 1.206 {
        1.6
    } else if size < 700.0 {
        2.0
    } else if size < 1000.0 {
        1.9
    } else if size < 1250.0 {
        1.75
    } else if size < 1500.0 {
        1.5
    } else {
        1.3
    };
    xi * (1.0 - width / length)
}

/// Returns θ² [deg²], the squared distance of the reference point from the point of the axis at
/// the distance `disp` from the centroid: θ² = disp² + dist² − 2·disp·dist·cos α.
///
/// Of the two points, it uses the one on the same side of the centroid as the reference point.
/// With a negative `skewness` (the tail points to the reference point) it uses the other one.
#[inline(always)]
pub fn theta2(seen: &RelativePosition, disp: f64, skewness: Option<f64>) -> f64 {
    let toward = if skewness.is_some_and(|s| s < 0.0) { -disp } else { disp };
    // (|along| − disp)² + miss², which cannot be negative.
    let rest = seen.along.abs() - toward;
    let theta2 = rest * rest + seen.miss * seen.miss;
    if skewness.is_some_and(f64::is_nan) { f64::NAN } else { theta2 }
}

#[cfg(test)]
mod tests;
