//! Reference points in the camera that `alpha`, `dist` and θ² refer to.

/// A turn about the camera's centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    cos: f64,
    sin: f64,
}

impl Rotation {
    /// `k` of `count` equal steps: how TAIGA counts its background (1 ON and `count` − 1 OFF
    /// positions).
    pub fn step(k: usize, count: usize) -> Rotation {
        // Quarters of a turn are exact: half a turn is the anti-source.
        match 4 * k % (4 * count) {
            0 => Rotation { cos: 1.0, sin: 0.0 },
            quarters if quarters == count => Rotation { cos: 0.0, sin: 1.0 },
            quarters if quarters == 2 * count => Rotation { cos: -1.0, sin: 0.0 },
            quarters if quarters == 3 * count => Rotation { cos: 0.0, sin: -1.0 },
            _ => Rotation::radians(std::f64::consts::TAU * k as f64 / count as f64),
        }
    }

    /// An angle [deg].
    pub fn degrees(angle: f64) -> Rotation {
        let quarters = angle / 90.0;
        if quarters.fract() == 0.0 {
            return Rotation::step(quarters.rem_euclid(4.0) as usize, 4);
        }
        Rotation::radians(angle.to_radians())
    }

    fn radians(angle: f64) -> Rotation {
        Rotation { cos: libm::cos(angle), sin: libm::sin(angle) }
    }

    /// The point turned.
    #[inline(always)]
    pub fn of(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.cos * x - self.sin * y, self.sin * x + self.cos * y]
    }
}

/// The source position turned by `k` of `count` equal steps.
pub fn rotated(source: [f64; 2], k: usize, count: usize) -> [f64; 2] {
    Rotation::step(k, count).of(source)
}

/// Centroid and direction of an image: all that its place relative to a reference point
/// depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageAxis {
    pub centroid: [f64; 2], // [deg]
    /// (cos ψ, sin ψ) of the major axis; NaN without one.
    pub direction: [f64; 2],
}

/// How an image lies to a reference point. Lengths in deg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelativePosition {
    /// From the reference point to the centroid.
    pub dist: f64,
    /// From the reference point to the axis.
    pub miss: f64,
    /// From the foot of the perpendicular of the reference point on the axis to the
    /// centroid, in the direction of the axis: |along| = dist · cos α.
    pub along: f64,
}

impl ImageAxis {
    /// From an angle of the axis [deg].
    pub fn from_degrees(centroid: [f64; 2], angle: f64) -> ImageAxis {
        let angle = angle.to_radians();
        ImageAxis { centroid, direction: [libm::cos(angle), libm::sin(angle)] }
    }

    /// miss² = ½(U X² + V Y²) − 2 sxy X Y/z with U = 1 + d/z, V = 2 − U and X, Y relative to
    /// the reference is the square of X sin ψ − Y cos ψ, which is summed without
    /// cancellation.
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
    /// Angle between the axis and the line to the reference point, 0…90 deg; NaN on the
    /// reference point and without an axis.
    #[inline(always)]
    pub fn alpha(&self) -> f64 {
        // 0/0 on the reference point. A comparison, since `min` would drop a NaN.
        let sine = self.miss / self.dist;
        arcsine(if sine > 1.0 { 1.0 } else { sine }).to_degrees()
    }

    /// Skewness along the axis as seen from here, positive where the tail points away; from
    /// the one in the direction of the axis.
    #[inline(always)]
    pub fn skewness(&self, along_axis: f64) -> f64 {
        if self.along < 0.0 { -along_axis } else { along_axis }
    }
}

/// asin x for 0 ≤ x ≤ 1, within 2⁻⁵¹ of its value; NaN for NaN. Without a branch, so that a
/// loop of it is turned into vectors, and of operations that every machine rounds alike.
///
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

/// DISP of one telescope: how far from the centroid on its axis the shower came from [deg],
/// ξ(1 − width/length). ξ rises with dist, and beyond 1.206 deg falls with size.
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

/// θ² [deg²]: squared distance of the reference point from the point of the axis that lies
/// `disp` from the centroid, θ² = disp² + dist² − 2·disp·dist·cos α. It is the one on the
/// reference's side of the centroid, or with a tail that points toward the reference (a
/// negative `skewness`) the one beyond it.
#[inline(always)]
pub fn theta2(seen: &RelativePosition, disp: f64, skewness: Option<f64>) -> f64 {
    let toward = if skewness.is_some_and(|s| s < 0.0) { -disp } else { disp };
    // (|along| − disp)² + miss², which cannot be negative.
    let rest = seen.along.abs() - toward;
    let theta2 = rest * rest + seen.miss * seen.miss;
    if skewness.is_some_and(f64::is_nan) { f64::NAN } else { theta2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_positions_are_sixty_degrees_apart() {
        let source = [0.7, -0.98];
        let all: Vec<[f64; 2]> = (0..6).map(|k| rotated(source, k, 6)).collect();
        assert_eq!((all[0], all[3]), (source, [-0.7, 0.98]));
        let offset = libm::hypot(source[0], source[1]);
        for k in 0..6 {
            let [a, b] = [all[k], all[(k + 1) % 6]];
            assert!((libm::hypot(a[0], a[1]) - offset).abs() < 1e-12);
            assert!((libm::hypot(a[0] - b[0], a[1] - b[1]) - offset).abs() < 1e-12, "{k}");
        }
    }

    #[test]
    fn angles_are_the_steps_they_name() {
        let point = [0.3, 1.1];
        for k in 0..8 {
            let [a, b] = [Rotation::degrees(45.0 * k as f64), Rotation::step(k, 8)];
            for (a, b) in a.of(point).into_iter().zip(b.of(point)) {
                assert!((a - b).abs() < 1e-15, "{k}");
            }
        }
        assert_eq!(Rotation::degrees(-90.0).of(point), [1.1, -0.3]);
        assert_eq!(Rotation::degrees(450.0).of(point), [-1.1, 0.3]);
    }

    #[test]
    fn arcsines_are_those_of_the_library() {
        let check = |x: f64| {
            let (found, expected) = (arcsine(x), libm::asin(x));
            let bound = expected * f64::EPSILON * 2.0;
            assert!((found - expected).abs() <= bound, "{x}: {found:e} {expected:e}");
        };
        (0..=100_000).for_each(|i| check(f64::from(i) / 100_000.0));
        (1..1000).for_each(|i| check(0.5 + f64::EPSILON * f64::from(i - 500)));
        (1..60).for_each(|i| check(0.9 * libm::exp2(-f64::from(i))));
        (1..50).for_each(|i| check(1.0 - libm::exp2(-f64::from(i))));
        assert!(arcsine(f64::NAN).is_nan());
    }

    #[test]
    fn alpha_is_undefined_on_source_or_without_axis() {
        let at = |direction: f64| ImageAxis::from_degrees([0.5, -0.25], direction);
        assert!(at(30.0).relative_to([0.5, -0.25]).alpha().is_nan());
        assert!(at(f64::NAN).relative_to([0.0, 0.0]).alpha().is_nan());
        // A sine that rounding carries above 1.
        let across = RelativePosition { dist: 1.0, miss: 1.0 + f64::EPSILON, along: 0.0 };
        assert!((across.alpha() - 90.0).abs() < 1e-12);
    }

    /// The law of cosines, as it is published, against the sum of squares that is computed.
    #[test]
    fn theta2_is_law_of_cosines_of_nearer_point() {
        for i in 0..200 {
            let x = |k: i32| f64::from((i * 37 + k * 101) % 97) / 40.0 - 1.2;
            let axis = ImageAxis::from_degrees([x(1), x(2)], 75.0 * x(3));
            let seen = axis.relative_to([x(4), x(5)]);
            let (size, width, length) = (100.0 + 900.0 * x(6).abs(), 0.1, 0.3 + x(7).abs());
            let disp = disp(size, width, length, seen.dist);
            let cos = libm::cos(seen.alpha().to_radians());
            let cosines = |sign: f64| {
                disp * disp + seen.dist * seen.dist - sign * 2.0 * disp * seen.dist * cos
            };
            assert!((theta2(&seen, disp, None) - cosines(1.0)).abs() < 1e-7, "{i}");
            assert!((theta2(&seen, disp, Some(0.2)) - cosines(1.0)).abs() < 1e-7, "{i}");
            assert!((theta2(&seen, disp, Some(-0.2)) - cosines(-1.0)).abs() < 1e-7, "{i}");
            assert!(theta2(&seen, disp, None) <= theta2(&seen, disp, Some(-1.0)));
            assert!(theta2(&seen, disp, Some(f64::NAN)).is_nan());
        }
    }

    #[test]
    fn disp_has_the_steps_of_its_definition() {
        let xi = |size: f64, dist: f64| disp(size, 0.0, 1.0, dist);
        let steps = [(1e4, 0.9045, 1.3), (1e4, 1.206, 1.6), (699.0, 1.3, 2.0), (700.0, 1.3, 1.9)];
        let more = [(1000.0, 1.3, 1.75), (1250.0, 1.3, 1.5), (1500.0, 1.3, 1.3)];
        for (size, dist, expected) in steps.into_iter().chain(more) {
            assert!((xi(size, dist) - expected).abs() < 1e-15, "{size} {dist}");
        }
        assert!((disp(500.0, 0.1, 0.4, 0.5) - 1.3 * 0.75).abs() < 1e-15);
    }
}
