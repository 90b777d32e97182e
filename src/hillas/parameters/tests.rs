//! Compares the moments with the formulae, and checks degenerate images.

use super::*;
use crate::hillas::rotated;
use taiga_flow_gpu::random::Stream;

fn camera() -> Camera {
    Camera::by_name("taiga-595").unwrap()
}

/// Returns random pixels around a random position, with random charges.
fn image(camera: &Camera, number: u64) -> (Vec<f32>, Vec<u16>) {
    let seed = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    println!("seed {seed}");
    let stream = Stream::new(seed, "moments", &[number]);
    let centre = (stream.bits(0) % 595) as usize;
    let [cx, cy] = camera.position_deg(centre);
    let mut charge = vec![f32::NAN; 595];
    let mut kept = Vec::new();
    for i in 0..595 {
        let [x, y] = camera.position_deg(i);
        if (x - cx).hypot(y - cy) < 1.3 && stream.uniform(1 + i as u64) < 0.6 {
            charge[i] = (7.0 + 500.0 * stream.uniform(1000 + i as u64)) as f32;
            kept.push(i as u16);
        }
    }
    (charge, kept)
}

fn close(found: f64, expected: f64, name: &str) {
    let scale = expected.abs().max(1e-3);
    assert!((found - expected).abs() <= 1e-8 * scale, "{name}: {found}, expected {expected}");
}

#[test]
fn moments_agree_with_the_formulae() {
    let camera = camera();
    for number in 0..200 {
        let (charge, kept) = image(&camera, number);
        if kept.len() < 5 {
            continue;
        }
        let found = Parameters::of(&camera, &charge, &kept);
        let q = |i: &u16| f64::from(charge[*i as usize]);
        let at = |i: &u16| camera.position_deg(*i as usize);
        let sum = |f: &dyn Fn(&u16) -> f64| kept.iter().map(|i| q(i) * f(i)).sum::<f64>();
        let size = sum(&|_| 1.0);
        let (x, y) = (sum(&|i| at(i)[0]) / size, sum(&|i| at(i)[1]) / size);
        // Raw moments, as in the program of TAIGA, give the same values.
        let sxx = sum(&|i| at(i)[0].powi(2)) / size - x * x;
        let syy = sum(&|i| at(i)[1].powi(2)) / size - y * y;
        let sxy = sum(&|i| at(i)[0] * at(i)[1]) / size - x * y;
        let d = syy - sxx;
        let z = (d * d + 4.0 * sxy * sxy).sqrt();
        if z < 0.05 * (sxx + syy) {
            continue; // the axis of a nearly round image amplifies rounding
        }
        close(found.size, size, "size");
        close(found.x, x, "x");
        close(found.length, ((sxx + syy + z) / 2.0).sqrt(), "length");
        close(found.width, ((sxx + syy - z) / 2.0).sqrt(), "width");
        let slope = (d + z) / (2.0 * sxy);
        close(found.axis_deg(), slope.atan().to_degrees(), "axis");
        let mut charges: Vec<f64> = kept.iter().map(q).collect();
        charges.sort_by(|a, b| b.total_cmp(a));
        close(found.con[1], (charges[0] + charges[1]) / size, "con2");
        close(found.con[2] - found.con[1], charges[2] / size, "con3");
        let (sin, cos) = slope.atan().sin_cos();
        let along = |i: &u16| (at(i)[0] - x) * cos + (at(i)[1] - y) * sin;
        let across = |i: &u16| (at(i)[1] - y) * cos - (at(i)[0] - x) * sin;
        let (length, width) = (found.length, found.width);
        close(found.skewness, sum(&|i| along(i).powi(3)) / size / length.powi(3), "skewness");
        close(found.kurtosis, sum(&|i| along(i).powi(4)) / size / length.powi(4), "kurtosis");
        close(found.skewness_across, sum(&|i| across(i).powi(3)) / size / width.powi(3), "across");
        close(found.kurtosis_across, sum(&|i| across(i).powi(4)) / size / width.powi(4), "across");
        for k in 0..6 {
            let source = rotated([0.9, -0.7], k, 6);
            let (rx, ry) = (x - source[0], y - source[1]);
            let dist = rx.hypot(ry);
            let u = 1.0 + d / z;
            let miss = 0.5 * (u * rx * rx + (2.0 - u) * ry * ry) - 2.0 * sxy * rx * ry / z;
            let position = found.at(source);
            close(position.dist, dist, "dist");
            // The formula has cancellation if the axis meets the reference point.
            assert!(
                (position.miss.powi(2) - miss).abs() < 1e-10 * (1.0 + miss),
                "miss {}",
                position.miss
            );
            let alpha = (position.miss / dist).min(1.0).asin().to_degrees();
            assert!((position.alpha - alpha).abs() < 1e-9, "alpha {}", position.alpha);
            // TAIGA's azwidth, from raw moments about the reference point.
            let about = |a: usize, b: usize| {
                let r = |i: &u16| [at(i)[0] - source[0], at(i)[1] - source[1]];
                sum(&|i| r(i)[a] * r(i)[b]) / size
            };
            let azwidth2 = (rx * rx * about(1, 1) - 2.0 * rx * ry * about(0, 1)
                + about(0, 0) * ry * ry)
                / (dist * dist);
            assert!((position.azwidth.powi(2) - azwidth2).abs() < 1e-9);
        }
        assert_eq!(found.status, 0);
    }
}

#[test]
fn tail_away_from_source_has_positive_skewness() {
    let camera = camera();
    let mut charge = vec![0.0f32; 595];
    // A row of pixels that fades toward positive x, seen from either side.
    let row: Vec<u16> = (0..595u16)
        .filter(|i| {
            let [x, y] = camera.position_deg(*i as usize);
            (y - 0.4142 * x).abs() < 0.05 && x.abs() < 1.2
        })
        .collect();
    assert!(row.len() > 4);
    for i in &row {
        let x = camera.position_deg(*i as usize)[0];
        charge[*i as usize] = (200.0 * (-(x + 1.2) / 0.4).exp() + 8.0) as f32;
    }
    let found = Parameters::of(&camera, &charge, &row);
    assert!(found.at([-3.0, -1.2]).skewness > 0.3);
    assert!(found.at([3.0, 1.2]).skewness < -0.3);
    assert_eq!((found.width, found.status), (0.0, status::LINE));
    assert!(found.skewness_across.is_nan());
}

#[test]
fn degenerate_images_have_bits_not_wrong_values() {
    let camera = camera();
    let mut charge = vec![30.0f32; 595];
    let of = |charge: &[f32], kept: &[u16]| Parameters::of(&camera, charge, kept);
    let empty = of(&charge, &[]);
    assert_eq!((empty.size, empty.pixels), (0.0, 0));
    assert_eq!(empty.status, status::EMPTY | status::SMALL);
    assert!(empty.x.is_nan() && empty.width.is_nan() && empty.con[0].is_nan());
    assert!(empty.at([1.0, 0.0]).alpha.is_nan() && empty.at([1.0, 0.0]).dist.is_nan());
    let single = of(&charge, &[21]);
    assert_eq!((single.length, single.width, single.con), (0.0, 0.0, [1.0; 3]));
    assert_eq!(single.status, status::SMALL | status::LINE | status::ROUND);
    assert!(single.axis_deg().is_nan() && single.at([1.0, 0.0]).alpha.is_nan());
    assert!((single.at([1.0, 0.0]).dist - 1.0).abs() < 1e-12);
    let pair = of(&charge, &[21, 22]);
    assert_eq!(pair.status, status::SMALL | status::LINE);
    assert!(pair.length > 0.0 && pair.axis_deg().is_finite());
    // A pixel and the six around it: round.
    let flower: Vec<u16> = (21..28).collect();
    let round = of(&charge, &flower);
    assert_eq!(round.status, status::ROUND);
    assert!((round.length - round.width).abs() < 1e-9 && round.width > 0.1);
    assert!(round.axis_deg().is_nan());
    let on_it = round.at([round.x, round.y]);
    assert!(on_it.dist == 0.0 && on_it.alpha.is_nan() && on_it.azwidth.is_nan());
    // Charges that were cleaned elsewhere.
    charge[22] = -5.0;
    assert_eq!(of(&charge, &flower).status & status::BROKEN, status::BROKEN);
    charge[22] = -500.0;
    let hopeless = of(&charge, &flower);
    assert_eq!(hopeless.status & status::EMPTY, status::EMPTY);
    assert!(hopeless.size == 0.0 && hopeless.width.is_nan());
}

#[test]
fn images_on_a_line_have_width_zero() {
    let camera = camera();
    let mut lines = 0;
    for start in 0..595 {
        for (step, next) in camera.neighbours(start).iter().enumerate() {
            let mut kept = vec![start as u16];
            let [x0, y0] = camera.position_deg(start);
            let [x1, y1] = camera.position_deg(*next as usize);
            let on = |k: f64, i: usize| {
                let [x, y] = camera.position_deg(i);
                (x - x0 - k * (x1 - x0)).hypot(y - y0 - k * (y1 - y0)) < 1e-6
            };
            for k in 1..5 {
                kept.extend((0..595).find(|i| on(f64::from(k), *i)).map(|i| i as u16));
            }
            kept.sort_unstable();
            kept.dedup();
            if kept.len() < 5 {
                continue;
            }
            let charge: Vec<f32> = (0..595).map(|i| 8.0 + (i * 7 % 90 + step) as f32).collect();
            let found = Parameters::of(&camera, &charge, &kept);
            assert_eq!((found.width, found.status), (0.0, status::LINE));
            lines += 1;
        }
    }
    assert!(lines > 1000);
}

#[test]
fn one_faint_pixel_off_the_line_gives_width() {
    let camera = camera();
    let mut charge = vec![0.0f32; 595];
    let centre = 21;
    let opposite = |j: usize| {
        let [x, y] = camera.position_deg(j);
        (0..595).find(|i| {
            let [a, b] = camera.position_deg(*i);
            (a + x).hypot(b + y) < 1e-6
        })
    };
    let first = camera.neighbours(centre)[0] as usize;
    let line = [first, centre, opposite(first).unwrap()];
    line.iter().for_each(|i| charge[*i] = 3e5);
    let adjacent = camera.neighbours(centre)[1] as usize;
    charge[adjacent] = 7.1;
    let kept: Vec<u16> = line.iter().chain([&adjacent]).map(|i| *i as u16).collect();
    let found = Parameters::of(&camera, &charge, &kept);
    assert!(found.width > 0.0 && found.status == 0, "{}", found.width);
}
