use super::*;
use std::f64::consts::PI;

fn value(text: &str) -> f64 {
    Expression::parse(text).unwrap().evaluate(&[])
}

fn assert_value(text: &str, expected: f64) {
    let found = value(text);
    assert!((found - expected).abs() < 1e-14, "{text} = {found}, expected {expected}");
}

#[test]
fn evaluate_rows_equals_evaluate_bit_for_bit() {
    let text = "max(a, -b)^2*sin(a - 1) + min(b/(a - a), 3*(1 - (2 - (3 - (4 - (5 - (6 - (7 - \
                (8 - b)))))))))";
    for text in [text, "a", "-b/7", "a^b - log10(a)*atan2(a, b)"] {
        let expression = Expression::parse(text).unwrap();
        let rows = 2 * LANES + 5;
        let all: Vec<Vec<f64>> = (0..2)
            .map(|k| (0..rows).map(|i| f64::from(i as u32 * (k + 3)).sin()).collect())
            .collect();
        let named = |name: &String| all[usize::from(name == "b")].as_slice();
        let columns: Vec<&[f64]> = expression.variables().iter().map(named).collect();
        let mut found = Vec::new();
        expression.evaluate_rows(&columns, rows, |value| found.push(value));
        assert_eq!(found.len(), rows);
        for (row, found) in found.iter().enumerate() {
            let values: Vec<f64> = columns.iter().map(|column| column[row]).collect();
            let expected = expression.evaluate(&values);
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
        }
    }
    let mut found = Vec::new();
    Expression::parse("a + b").unwrap().evaluate_rows(&[&[1.0]], 2, |v| found.push(v));
    assert!(found.len() == 2 && found.iter().all(|value| value.is_nan()));
}

#[test]
fn operators_have_usual_precedence() {
    assert_value("-2^2", -4.0);
    assert_value("2^3^2", 512.0);
    assert_value("2^-1", 0.5);
    assert_value("1 - 2 + 3", 2.0);
    assert_value("8/4*2", 4.0);
    assert_value("2*-3 + +1", -5.0);
    assert_value("(1 + 2)*3 - -1", 10.0);
    assert_value("1e-3 + 2.5E2 + .5", 250.501);
}

#[test]
fn every_function_returns_its_value() {
    for (text, expected) in [
        ("sqrt(9)", 3.0),
        ("abs(-2)", 2.0),
        ("exp(0)", 1.0),
        ("ln(exp(2))", 2.0),
        ("log(exp(3))", 3.0),
        ("log10(1000)", 3.0),
        ("sin(pi/2)", 1.0),
        ("cos(pi)", -1.0),
        ("tan(pi/4)", 1.0),
        ("asin(1)", PI / 2.0),
        ("acos(-1)", PI),
        ("atan(1)", PI / 4.0),
        ("atan2(1, -1)", 0.75 * PI),
        ("min(3, 2)", 2.0),
        ("max(3, 2)", 3.0),
        ("floor(-1.5)", -2.0),
        ("tanh(0)", 0.0),
    ] {
        assert_value(text, expected);
    }
}

#[test]
fn variables_are_listed_once_in_order() {
    let bound = Expression::parse("0.068*log10(size) - dist[1]*size + x").unwrap();
    assert_eq!(bound.variables(), ["size", "dist[1]", "x"]);
    let found = bound.evaluate(&[100.0, 2.0, 1.0]);
    assert!((found - (0.136 - 200.0 + 1.0)).abs() < 1e-12, "{found}");
    assert!(bound.evaluate(&[100.0]).is_nan());
    assert!(Expression::parse("min(x, 1)").unwrap().evaluate(&[f64::NAN]).is_nan());
}

#[test]
fn constants_are_not_variables() {
    let constants = BTreeMap::from([("scale".to_string(), 3.0)]);
    let expression = Expression::parse("x*scale + y").unwrap().with_constants(&constants);
    assert_eq!(expression.variables(), ["x", "y"]);
    assert!((expression.evaluate(&[2.0, 1.0]) - 7.0).abs() < 1e-14);
}

#[test]
fn invalid_expression_is_refused_with_position() {
    for (text, part) in [
        ("", "a number, a name or '('"),
        ("1 +", "found the end"),
        ("(1", "expected ')'"),
        ("1 2", "at character 3"),
        ("log10 size", "'(' after the function 'log10'"),
        ("lgo10(size)", "did you mean 'log10'?"),
        ("atan2(1)", "expected ','"),
        ("a § b", "found '§'"),
        ("1.2.3", "at character 4"),
        (".", "expected a number"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn deep_nesting_is_refused_without_overflow() {
    for text in ["(".repeat(4000), "2^".repeat(2000), "1+(".repeat(1000), "x".repeat(5000)] {
        assert!(Expression::parse(&text).is_err());
    }
    assert_value(
        &"-".repeat(4000).replace("--", "-+").chars().chain("1".chars()).collect::<String>(),
        1.0,
    );
    let wide = (0..60).fold("1".to_string(), |inner, _| format!("1+({inner})"));
    assert_value(&wide, 61.0);
}
