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
fn rotation_by_degrees_equals_steps() {
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
fn arcsine_agrees_with_libm() {
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
    // Rounding can make the sine exceed 1.
    let across = RelativePosition { dist: 1.0, miss: 1.0 + f64::EPSILON, along: 0.0 };
    assert!((across.alpha() - 90.0).abs() < 1e-12);
}

/// Compares the published law of cosines with the sum of squares that is computed.
#[test]
fn theta2_is_law_of_cosines_of_nearer_point() {
    for i in 0..200 {
        let x = |k: i32| f64::from((i * 37 + k * 101) % 97) / 40.0 - 1.2;
        let axis = ImageAxis::from_degrees([x(1), x(2)], 75.0 * x(3));
        let seen = axis.relative_to([x(4), x(5)]);
        let (size, width, length) = (100.0 + 900.0 * x(6).abs(), 0.1, 0.3 + x(7).abs());
        let disp = disp(size, width, length, seen.dist);
        let cos = libm::cos(seen.alpha().to_radians());
        let cosines =
            |sign: f64| disp * disp + seen.dist * seen.dist - sign * 2.0 * disp * seen.dist * cos;
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
