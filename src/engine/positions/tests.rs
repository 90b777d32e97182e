use super::*;
use taiga_flow_gpu::random::Stream;

/// Compares with plain f64 code for one event at a time, by angles and the published formulae.
#[test]
fn position_columns_match_plain_computation() {
    let stream = Stream::new(crate::test_seed(), "images", &[]);
    let rows = 2 * ROWS_TOGETHER + 17;
    let column = |c: u64, low: f64, high: f64| -> Vec<f32> {
        let value = |row: usize| low + (high - low) * stream.uniform(8 * row as u64 + c);
        (0..rows).map(|row| value(row) as f32).collect()
    };
    let columns = [
        column(0, -3.0, 3.0),
        column(1, -3.0, 3.0),
        column(2, -90.0, 90.0),
        column(3, 80.0, 2000.0),
        column(4, 0.02, 0.2),
        column(5, 0.2, 0.6),
        column(6, -1.0, 1.0),
    ];
    let [x, y, axis, size, width, length, skewness] = &columns;
    let azimuth = column(7, 0.0, 6.0);
    let on = |f: fn(f64) -> f64| -> Vec<f32> {
        azimuth.iter().map(|a| (1.2 * f(f64::from(*a))) as f32).collect()
    };
    let (source_x, source_y) = (on(libm::cos), on(libm::sin));
    let images = ImageColumns {
        centroid: [x, y],
        axis,
        source: [&source_x, &source_y],
        shape: [size, width, length],
        skewness,
    };
    let given = [
        SourcePositions::Equal(6),
        SourcePositions::Equal(1),
        SourcePositions::Angles(vec![0.0, 51.5, -100.0, 180.0]),
    ];
    for (given, side) in given.iter().flat_map(|g| [(g, Disp::Near), (g, Disp::Head)]) {
        let positions = AssumedPositions::new(given, side, true, true);
        let mut seen = PositionColumns::default();
        positions.compute(&images, &mut seen);
        for (k, angle) in given.angles().iter().enumerate() {
            for row in 0..rows {
                let value = |column: &[f32]| f64::from(column[row]);
                let turn = angle.to_radians();
                let (sx, sy) = (value(&source_x), value(&source_y));
                let px = sx * libm::cos(turn) - sy * libm::sin(turn);
                let py = sx * libm::sin(turn) + sy * libm::cos(turn);
                let dist = libm::hypot(value(x) - px, value(y) - py);
                let psi = value(axis).to_radians();
                let between = psi - libm::atan2(value(y) - py, value(x) - px);
                let cos = libm::cos(between);
                let alpha = libm::acos(cos.abs().min(1.0)).to_degrees();
                let own = psi - libm::atan2(value(y) - sy, value(x) - sx);
                let same_side = (cos < 0.0) == (libm::cos(own) < 0.0);
                let skew = if same_side { value(skewness) } else { -value(skewness) };
                let d = disp(value(size), value(width), value(length), dist);
                let sign = if side == Disp::Head && skew < 0.0 { -1.0 } else { 1.0 };
                let theta2 = d * d + dist * dist - sign * 2.0 * d * dist * cos.abs();
                let at = |which: usize| f64::from(seen.column(which, k)[row]);
                let context = format!("position {k}, row {row}");
                assert!((at(0) - dist).abs() < 1e-6, "{context}");
                // acos is steep near 0 deg, asin near 90 deg.
                assert!((at(1) - alpha).abs() < 1e-4, "{context}: {} {alpha}", at(1));
                // If rounding decides about a step of DISP, a difference is not an error of
                // geometry.
                let steps = [0.9045, 1.206].iter().any(|s| (dist - s).abs() < 1e-6);
                assert!(steps || (at(3) - theta2).abs() < 1e-5 * (1.0 + theta2), "{context}");
                let near_right_angle = cos.abs() < 1e-6;
                assert!(near_right_angle || (at(2) - skew).abs() < 1e-6, "{context}");
            }
        }
    }
}

#[test]
fn only_undefined_values_are_nan() {
    let images = ImageColumns {
        centroid: [&[1.0, 1.0, f32::NAN], &[0.5, 0.5, 0.0]],
        axis: &[f32::NAN, 30.0, 30.0],
        source: [&[1.2, 1.0, 1.0], &[0.0, 0.5, 0.5]],
        shape: [&[100.0; 3], &[0.1; 3], &[0.3; 3]],
        skewness: &[],
    };
    let positions = AssumedPositions::new(&SourcePositions::Equal(2), Disp::Near, true, false);
    let mut seen = PositionColumns::default();
    positions.compute(&images, &mut seen);
    let nan = |values: &[f32]| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
    assert_eq!(nan(&seen.dist), [false, false, true, false, false, true]);
    // The centroid of the second row is at the source: there is no angle.
    assert_eq!(nan(&seen.alpha), [true, true, true, true, false, true]);
    assert_eq!(nan(&seen.theta2), [true, false, true, true, false, true]);
    assert!(seen.skewness.is_empty());
}
