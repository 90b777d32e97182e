use super::*;
use crate::data::Schema;

fn findings(name: &str, values: &[f32]) -> Vec<ImplausibleValues> {
    let mut tally = ValueTally::new(None, name, "deg");
    values.chunks(7).for_each(|values| tally.add(values));
    tally.findings()
}

#[test]
fn widths_ten_times_too_large_are_severe() {
    let widths: Vec<f32> = (0..200).map(|i| 0.03 + 0.001 * i as f32).collect();
    assert_eq!(findings("width", &widths), []);
    for factor in [10.0, 17.0, 0.017_453] {
        let wrong: Vec<f32> = widths.iter().map(|width| width * factor).collect();
        let found = findings("width", &wrong);
        assert!(found.len() == 1 && found[0].severe, "{factor}: {found:?}");
    }
    assert_eq!(findings("width", &[0.6; 19]), [], "too few for a median");
}

#[test]
fn zero_widths_do_not_count_as_too_small() {
    let mut widths = vec![0.0; 150];
    widths.extend([0.1; 50]);
    assert_eq!(findings("width", &widths), []);
}

#[test]
fn more_than_one_percent_outside_is_a_finding() {
    let with = |count: usize| {
        let mut lengths = vec![0.3; 1000 - count];
        lengths.extend(vec![3.5; count]);
        findings("length", &lengths)
    };
    assert_eq!(with(10), []);
    let found = with(11);
    assert!(found.len() == 1 && !found[0].severe, "{found:?}");
    assert_eq!(found[0].found, "11 of 1000 values outside");
    assert_eq!(findings("length", &[0.3, 3.5, 3.5]), [], "few enough to be chance");
}

#[test]
fn constant_image_parameter_is_a_finding() {
    let mut widths = vec![0.12_f32; 400];
    widths[7] = f32::NAN;
    let found = constant("width", "deg", &widths).unwrap();
    assert_eq!(found.found, "0.12 deg in all 399 rows examined");
    assert!(!found.severe);
    assert_eq!(constant("tel_el", "deg", &widths), None, "constant within a run");
    assert_eq!(constant("width", "deg", &widths[8..20]), None, "too few");
    widths[8] = 0.13;
    assert_eq!(constant("width", "deg", &widths), None);
}

#[test]
fn directions_in_the_wrong_unit_are_found() {
    let advice = |name: &str, values: &[f32]| -> Option<&'static str> {
        findings(name, values).first().map(|finding| finding.advice)
    };
    assert_eq!(advice("tel_tet", &[0.5, 0.61]), Some(RADIANS));
    assert_eq!(advice("tel_fi", &[3.1]), Some(RADIANS));
    assert_eq!(advice("zenith", &[0.35; 5]), Some(RADIANS));
    assert_eq!(advice("tel_tet", &[2005.4]), Some(DEGREES));
    assert_eq!(advice("tel_az", &[-2005.4, 10.0]), Some(DEGREES));
    for (name, values) in [
        ("tel_tet", [0.0, 0.0]), // not filled
        ("tel_tet", [5.0, 35.0]),
        ("tel_fi", [0.0, 359.0]),
        ("zenith", [6.8, 10.0]),
        ("tel_el", [55.0, 56.0]),
        ("theta", [0.1, 0.2]), // an angle between directions
        ("alpha", [0.1, 0.2]),
        ("width", [0.1, 0.2]),
        ("delta_ra", [0.1, 0.2]),
        ("axis", [0.1, 0.2]), // two rows
    ] {
        assert_eq!(advice(name, &values), None, "{name}");
    }
    let alphas: Vec<f32> = (0..100).map(|i| 0.9 * i as f32).collect();
    assert_eq!(advice("alpha", &alphas), None);
    let radians: Vec<f32> = alphas.iter().map(|alpha| alpha.to_radians()).collect();
    let found = findings("alpha", &radians);
    assert!(found.len() == 1 && found[0].severe && found[0].advice == RADIANS, "{found:?}");
    assert_eq!(advice("alpha", &radians[..99]), None);
    let axes: Vec<f32> = (0..100).map(|i| -1.5 + 0.03 * i as f32).collect();
    assert_eq!(advice("axis", &axes), Some(RADIANS));
}

#[test]
fn log_sizes_and_radian_distances_are_severe() {
    let severe = |name: &str, unit: &str, values: &[f32]| {
        let mut tally = ValueTally::new(None, name, unit);
        tally.add(values);
        tally.findings().iter().any(|finding| finding.severe)
    };
    let sizes: Vec<f32> = (0..40).map(|i| 60.0 * 1.2_f32.powi(i)).collect();
    let logarithms: Vec<f32> = sizes.iter().map(|size| size.log10()).collect();
    assert!(!severe("size", "p.e.", &sizes));
    assert!(severe("size", "p.e.", &logarithms));
    assert!(!severe("size", "1", &logarithms), "a different quantity of this name");
    let distances: Vec<f32> = (0..40).map(|i| 0.04 * i as f32).collect();
    assert!(!severe("dist", "deg", &distances));
    let radians: Vec<f32> = distances.iter().map(|dist| dist.to_radians()).collect();
    assert!(severe("dist", "deg", &radians));
}

#[test]
fn schema_replaces_default_ranges() {
    let text = "name = \"x\"\ngroup = \"e\"\nopen = true\n\
                [plausible]\nwidth = { median = [0, 5] }\ntel_tet = { direction = \"none\" }\n";
    let schema = Schema::parse(text, "own.toml").unwrap();
    let width = Plausible::of(schema.plausible.get("width"), "width", "deg");
    assert_eq!((width.range, width.median), (Some([0.0, 1.5]), Some([0.0, 5.0])));
    let mut tally = ValueTally::new(schema.plausible.get("tel_tet"), "tel_tet", "deg");
    tally.add(&[0.5]);
    assert_eq!(tally.findings(), []);
    let text =
        "name = \"x\"\ngroup = \"e\"\nopen = true\n[plausible]\nwidth = { range = [2, 1] }\n";
    let error = Schema::parse(text, "own.toml").unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
