use super::*;
use crate::config::Transform;
use taiga_flow_gpu::random::Stream;

fn selection() -> Selection {
    let feature = |name: &str, transform| Feature {
        name: name.into(),
        transform,
        offset: 0.0,
        exponent: 0.0,
        quantum: 0.0,
    };
    let features = [feature("size", Transform::Log10), feature("con2", Transform::Logit)];
    let cuts: BTreeMap<String, Cut> = [
        ("size".to_string(), Cut { min: Some(CutBound::Number(100.0)), max: None }),
        (
            "width".to_string(),
            Cut { min: None, max: Some(CutBound::Expression("0.068*log10(size)".into())) },
        ),
    ]
    .into();
    Selection::new(&features, &cuts).unwrap()
}

fn status(size: f32, con2: f32, width: f32) -> u32 {
    let mut outcome = SelectionOutcome::default();
    // The row is between rows of different status.
    let columns = [[-1.0, size, f32::NAN], [2.0, con2, 0.5], [9.0, width, 0.1]];
    selection().evaluate(Which::All, &columns.each_ref().map(|c| &c[..]), 1..2, &mut outcome);
    outcome.status[0]
}

#[test]
fn features_come_first_then_columns_of_cuts() {
    assert_eq!(selection().quantities(), ["size", "con2", "width"]);
}

#[test]
fn fixed_and_varying_parts_equal_the_whole() {
    let split = selection().with_varying(&["con2", "size"]);
    let mut columns = [const { Vec::new() }; 3];
    for size in [1000.0_f32, 100.0, -5.0, f32::NAN] {
        for con2 in [0.5_f32, 1.0, f32::INFINITY] {
            for width in [0.1_f32, 0.3, f32::NAN] {
                columns.iter_mut().zip([size, con2, width]).for_each(|(c, x)| c.push(x));
            }
        }
    }
    let all = columns.each_ref().map(Vec::as_slice);
    // The memory of earlier rows must have no effect.
    let evaluate = |selection: &Selection, which| {
        let mut outcome = SelectionOutcome::default();
        selection.evaluate(which, &all, 0..30, &mut outcome);
        selection.evaluate(which, &all, 0..36, &mut outcome);
        outcome
    };
    let whole = evaluate(&selection(), Which::All);
    let (fixed, varying) = (evaluate(&split, Which::Fixed), evaluate(&split, Which::Varying));
    let together = fixed.status.iter().zip(&varying.status).map(|(f, v)| alone(f | v));
    assert_eq!(together.collect::<Vec<_>>(), whole.status);
    let bits = |outcome: &SelectionOutcome, d| {
        outcome.coordinates(d).iter().map(|c| c.to_bits()).collect::<Vec<_>>()
    };
    for d in 0..2 {
        assert_eq!(bits(&varying, d), bits(&whole, d));
    }
    assert!(split.features_of(Which::Fixed).is_empty());
    assert_eq!(whole.status.iter().filter(|s| **s == 0).count(), 1);
    let mut outcome = SelectionOutcome::default();
    let width: [&[f32]; 3] = [&[], &[], &[0.3, f32::NAN]];
    split.evaluate(Which::Fixed, &width, 0..2, &mut outcome);
    assert_eq!(outcome.status, [0, NOT_FINITE], "no fixed quantity has a limit");
}

/// Compares with a direct evaluation of each row.
#[test]
fn block_has_the_status_of_single_rows() {
    let stream = Stream::new(crate::test_seed(), "selection", &[]);
    let rows = 1000;
    let value = |i: u64, scale: f64| match stream.bits(2 * i) % 20 {
        0 => f32::NAN,
        1 => f32::NEG_INFINITY,
        2 => -1.0,
        _ => (scale * stream.uniform(2 * i + 1)) as f32,
    };
    let column = |c: u64, scale: f64| -> Vec<f32> {
        (0..rows).map(|row| value(c * rows + row, scale)).collect()
    };
    let columns = [column(0, 300.0), column(1, 1.2), column(2, 0.25)];
    let mut outcome = SelectionOutcome::default();
    let selection = selection();
    let all = columns.each_ref().map(Vec::as_slice);
    selection.evaluate(Which::All, &all, 0..rows as usize, &mut outcome);
    let mut found = [0; 3];
    for row in 0..rows as usize {
        let [size, con2, width] = columns.each_ref().map(|c| f64::from(c[row]));
        let at = [libm::log10(size), libm::log(con2 / (1.0 - con2))];
        let inside = size > 100.0 && width < 0.068 * libm::log10(size);
        let domain = at.iter().all(|c| c.is_finite());
        let finite = [size, con2, width].iter().all(|x| x.is_finite());
        let both = [(domain, OUT_OF_DOMAIN), (inside, CUT)];
        let bits = both.iter().filter(|(good, _)| !good).map(|(_, bit)| bit);
        let expected = if finite { bits.sum() } else { NOT_FINITE };
        assert_eq!(outcome.status[row], expected, "{size} {con2} {width}");
        for (d, coordinate) in at.iter().enumerate().filter(|_| expected & UNUSABLE == 0) {
            assert_eq!(outcome.coordinates(d)[row].to_bits(), coordinate.to_bits());
        }
        found[0] += usize::from(expected == 0);
        found[1] += usize::from(expected & CUT != 0);
        found[2] += usize::from(expected & OUT_OF_DOMAIN != 0);
    }
    assert!(found.iter().all(|count| *count > 20), "{found:?}");
}

#[test]
fn row_outside_cuts_is_not_counted_as_invalid() {
    let fails = |size: f32, con2: f32, width: f32| {
        let quantities = vec![vec![size], vec![con2], vec![width]];
        let block = Block { rows: 1, quantities, ..Block::default() };
        selection().fails_cut(&block, 0)
    };
    assert!(fails(100.0, f32::NAN, f32::NAN) && fails(100.0, 0.5, 0.1));
    assert!(!fails(f32::NAN, 0.5, 0.1) && !fails(1000.0, f32::NAN, f32::NAN));
    assert!(!fails(f32::INFINITY, 0.5, 0.1) && !fails(1000.0, 0.5, 0.1));
}

#[test]
fn every_reason_has_its_bit() {
    assert_eq!(status(1000.0, 0.5, 0.1), 0);
    assert_eq!(status(100.0, 0.5, 0.1), CUT);
    assert_eq!(status(1000.0, 0.5, 0.21), CUT);
    assert_eq!(status(1000.0, 1.0, 0.1), OUT_OF_DOMAIN);
    assert_eq!(status(-5.0, 0.5, 0.1), OUT_OF_DOMAIN | CUT);
    assert_eq!(status(1000.0, 0.5, f32::NAN), NOT_FINITE);
    assert_eq!(status(f32::INFINITY, 0.5, 0.1), NOT_FINITE);
}
