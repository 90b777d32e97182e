//! Compares the cleaning with a direct implementation of the rule, on random images of odd sizes
//! with invalid charges.

use super::*;
use taiga_flow_gpu::random::Stream;

/// Applies the rule pixel by pixel.
fn clean_directly(
    camera: &Camera,
    charge: &[f32],
    high: f64,
    low: f64,
    comparison: ThresholdComparison,
) -> Vec<u16> {
    let passes = |i: usize, level: f64| {
        let q = f64::from(charge[i]);
        let over = match comparison {
            ThresholdComparison::Above => q > level,
            ThresholdComparison::AtLeast => q >= level,
        };
        over && q.is_finite()
    };
    let survives = |i: &usize| {
        let neighbours = camera.neighbours(*i).iter().map(|j| *j as usize).filter(|j| j != i);
        let mut levels = neighbours.map(|j| (passes(j, low), passes(j, high)));
        if passes(*i, high) {
            levels.any(|(low, _)| low)
        } else {
            passes(*i, low) && levels.any(|(_, high)| high)
        }
    };
    (0..charge.len()).filter(survives).map(|i| i as u16).collect()
}

/// Returns a camera of the first pixels of IACT02.
fn camera(pixels: usize) -> Camera {
    let whole = Camera::by_name("taiga-595").unwrap();
    Camera::new(whole.x_cm()[..pixels].to_vec(), whole.y_cm()[..pixels].to_vec(), 475.0).unwrap()
}

/// Returns noise with some bright pixels, charges equal to a threshold, and invalid charges.
fn image(pixels: usize, number: u64) -> Vec<f32> {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    println!("seed {seed}");
    let stream = Stream::new(u64::from(seed), "image", &[number]);
    (0..pixels as u64)
        .map(|i| match stream.bits(1000 + i) % 40 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => -f32::INFINITY,
            3 => 14.0,
            4 => 7.0,
            5 => 14.0f32.next_up(),
            6 => 7.0f32.next_down(),
            7 => 40.0,
            8 => -40.0,
            _ => 5.0 * stream.normal(i) as f32,
        })
        .collect()
}

#[test]
fn cleaning_agrees_with_the_direct_rule() {
    for (number, pixels) in [7, 63, 64, 65, 129, 559, 595].into_iter().enumerate() {
        let camera = camera(pixels);
        for comparison in [ThresholdComparison::Above, ThresholdComparison::AtLeast] {
            let thresholds = CleaningThresholds::Fixed { high: 14.0, low: 7.0 };
            let cleaning = Cleaning { thresholds, comparison, ..Cleaning::default() };
            let mut cleaner = Cleaner::new(cleaning, pixels);
            let mut found =
                ImagePixels { kept: vec![9999; 5], broken: false, ..ImagePixels::default() };
            for repeat in 0..20 {
                let charge = image(pixels, (number * 100 + repeat) as u64);
                cleaner.clean(&camera, &charge, &[], &mut found);
                assert_eq!(found.kept, clean_directly(&camera, &charge, 14.0, 7.0, comparison));
                assert_eq!(found.broken, charge.iter().any(|q| !q.is_finite()));
            }
        }
    }
}

#[test]
fn sigma_thresholds_are_per_pixel_without_dead() {
    let camera = camera(595);
    let mut sigma: Vec<f32> = (0..595).map(|i| 1.0 + (i % 7) as f32 / 3.0).collect();
    (sigma[5], sigma[70], sigma[200]) = (0.0, f32::NAN, -1.0);
    let thresholds = CleaningThresholds::Sigma { high: 6.0, low: 3.0 };
    let mut cleaner = Cleaner::new(Cleaning { thresholds, ..Cleaning::default() }, 595);
    cleaner.set_sigma(&sigma);
    let mut found = ImagePixels::default();
    for number in 0..20 {
        let charge = image(595, number);
        // In units of σ the thresholds are the same everywhere.
        let relative: Vec<f32> = (0..595)
            .map(|i| if sigma[i] > 0.0 { charge[i] / sigma[i] } else { f32::NAN })
            .collect();
        cleaner.clean(&camera, &charge, &[], &mut found);
        let on_the_edge = |i: &u16| {
            let q = relative[*i as usize];
            (q - 6.0).abs() < 1e-5 || (q - 3.0).abs() < 1e-5
        };
        if !(0..595).any(|i| on_the_edge(&i)) {
            assert_eq!(
                found.kept,
                clean_directly(&camera, &relative, 6.0, 3.0, ThresholdComparison::Above)
            );
        }
        assert!(!found.kept.iter().any(|i| [5, 70, 200].contains(i)));
    }
}

#[test]
fn every_threshold_is_exact() {
    for level in [7.0, 7.3, 14.0, 0.1, 1e-3, 6.0 * f64::from(3.7f32)] {
        let nearest = level as f32;
        for q in [nearest.next_down(), nearest, nearest.next_up()] {
            assert_eq!(q > ThresholdComparison::Above.exclusive(level), f64::from(q) > level);
            assert_eq!(q > ThresholdComparison::AtLeast.exclusive(level), f64::from(q) >= level);
        }
    }
}

#[test]
fn islands_are_counted_and_brightest_is_kept() {
    let camera = camera(595);
    let mut charge = vec![0.0f32; 595];
    // Two groups of seven, far from each other, and an isolated pair.
    for i in 0..7 {
        charge[i] = 20.0;
        charge[300 + i / 7 * 7 + i] = 0.0;
    }
    let far: Vec<usize> = {
        let centre = 9 * 28;
        let all = camera.neighbours(centre).iter().map(|j| *j as usize);
        [centre].into_iter().chain(all).collect()
    };
    far.iter().for_each(|i| charge[*i] = 30.0);
    let mut all = ImagePixels::default();
    Cleaner::new(Cleaning::default(), 595).clean(&camera, &charge, &[], &mut all);
    assert_eq!((all.islands, all.kept.len()), (2, 14));
    assert!((all.largest_share - 0.6).abs() < 1e-12);
    let largest = Cleaning { islands: Islands::Largest, ..Cleaning::default() };
    let mut one = ImagePixels::default();
    Cleaner::new(largest, 595).clean(&camera, &charge, &[], &mut one);
    let mut expected: Vec<u16> = far.iter().map(|i| *i as u16).collect();
    expected.sort_unstable();
    assert_eq!((one.islands, &one.kept), (2, &expected));
    assert!((one.largest_share - 0.6).abs() < 1e-12);
}

#[test]
fn only_given_pixels_are_kept() {
    let camera = camera(65);
    let mut given = vec![0u8; 65];
    (given[3], given[64], given[9]) = (1, 255, 1);
    let mut charge = vec![-1.0; 65];
    charge[9] = f32::NAN;
    let cleaning = Cleaning { thresholds: CleaningThresholds::Given, ..Cleaning::default() };
    let mut found = ImagePixels::default();
    Cleaner::new(cleaning, 65).clean(&camera, &charge, &given, &mut found);
    assert_eq!((found.kept, found.broken), (vec![3, 64], true));
}

#[test]
fn invalid_thresholds_are_refused() {
    for (high, low) in [(7.0, 14.0), (7.0, 0.0), (7.0, -1.0), (f64::NAN, 7.0), (f64::INFINITY, 7.0)]
    {
        for thresholds in
            [CleaningThresholds::Fixed { high, low }, CleaningThresholds::Sigma { high, low }]
        {
            let cleaning = Cleaning { thresholds, ..Cleaning::default() };
            assert_eq!(cleaning.check().unwrap_err().exit_code(), 2, "{high} {low}");
        }
    }
    Cleaning::default().check().unwrap();
}
