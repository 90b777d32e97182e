//! Arithmetic over named numbers: derived columns of a schema, bounds of a cut.
//!
//! Promises: usual precedence (`-x^2` is −(x²), `2^3^2` is 2⁹); the same bits on every
//! machine (functions are those of `libm`, never the platform's); NaN in, NaN out, also
//! through `min` and `max`; a text that cannot be read is refused with the place.
//! Bounded: 4 096 letters, 64 levels of parentheses. Left to others: what the names
//! stand for.

use crate::error::{Error, Fault, Result, did_you_mean};
use std::collections::BTreeMap;

const LONGEST_TEXT: usize = 4096;
const DEEPEST_NESTING: usize = 64;
/// Operands that wait at once while an expression is evaluated.
const STACK: usize = 64;
/// Enough for what people write.
const SHALLOW: usize = 8;
/// Rows that are evaluated at once.
const LANES: usize = 64;

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

const UNARY: [(&str, Unary); 15] = [
    ("sqrt", libm::sqrt),
    ("abs", libm::fabs),
    ("exp", libm::exp),
    ("exp10", libm::exp10),
    ("ln", libm::log),
    ("log", libm::log),
    ("log10", libm::log10),
    ("sin", libm::sin),
    ("cos", libm::cos),
    ("tan", libm::tan),
    ("asin", libm::asin),
    ("acos", libm::acos),
    ("atan", libm::atan),
    ("floor", libm::floor),
    ("tanh", libm::tanh),
];
const BINARY: [(&str, Binary); 3] = [("atan2", libm::atan2), ("min", minimum), ("max", maximum)];
const PI: &str = "pi";

/// A parsed expression, ready to be evaluated.
#[derive(Clone)]
pub struct Expression {
    text: String,
    variables: Vec<String>,  // in order of first appearance
    steps: Vec<Instruction>, // operands before operators
    depth: usize,            // operands that wait at once
}

/// Its text: the same in every process, unlike the addresses of functions.
impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

#[derive(Debug, Clone, Copy)]
enum Instruction {
    Number(f64),
    Variable(usize),
    Unary(Unary),
    Binary(Binary),
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
}

impl Expression {
    /// Reads text such as `0.068*log10(size) - 0.047`.
    pub fn parse(text: &str) -> Result<Expression> {
        let mut parser = Parser { text, at: 0, depth: 0, variables: Vec::new(), steps: Vec::new() };
        if text.len() > LONGEST_TEXT {
            return Err(parser.fault(&format!("at most {LONGEST_TEXT} letters"), "more"));
        }
        parser.sum()?;
        if parser.peek().is_some() {
            return Err(parser.unexpected("an operator or the end"));
        }
        let Parser { variables, steps, .. } = parser;
        let mut expression = Expression { text: text.to_string(), variables, steps, depth: 0 };
        expression.depth = expression.checked_depth()?;
        Ok(expression)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names to give values for, in the order of [`Expression::evaluate`].
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Replaces names by numbers; they are variables no longer.
    #[must_use]
    pub fn with_constants(mut self, constants: &BTreeMap<String, f64>) -> Expression {
        let old = std::mem::take(&mut self.variables);
        let values: Vec<Option<f64>> =
            old.iter().map(|name| constants.get(name).copied()).collect();
        let new_index: Vec<usize> = values
            .iter()
            .scan(0, |next, value| {
                let index = *next;
                *next += usize::from(value.is_none());
                Some(index)
            })
            .collect();
        for step in &mut self.steps {
            if let Instruction::Variable(index) = *step {
                *step = values[index]
                    .map_or(Instruction::Variable(new_index[index]), Instruction::Number);
            }
        }
        self.variables =
            old.into_iter().zip(values).filter(|(_, v)| v.is_none()).map(|(n, _)| n).collect();
        self
    }

    /// Refuses a name that is not among the known ones.
    pub fn check_variables(&self, known: &[&str]) -> Result<()> {
        for name in &self.variables {
            if !known.contains(&name.as_str()) {
                return Err(Fault::new(format!(
                    "unknown name '{name}' in expression '{}'",
                    self.text
                ))
                .advice(did_you_mean(name, known))
                .usage());
            }
        }
        Ok(())
    }

    /// The value for one value per variable; NaN if a value is missing.
    pub fn evaluate(&self, values: &[f64]) -> f64 {
        let load = |index: usize| [values.get(index).copied().unwrap_or(f64::NAN)];
        if self.depth <= SHALLOW {
            return self.run(load, &mut [[f64::NAN]; SHALLOW])[0];
        }
        self.run(load, &mut [[f64::NAN]; STACK])[0]
    }

    /// Gives the values of rows one after the other, for one column per variable; NaN where
    /// a column is missing or too short. The same bits as [`Expression::evaluate`], in less
    /// time.
    pub fn evaluate_rows(&self, columns: &[&[f64]], rows: usize, mut take: impl FnMut(f64)) {
        let mut stack = vec![[f64::NAN; LANES]; self.depth];
        for first in (0..rows).step_by(LANES) {
            let load = |index: usize| {
                let mut lanes = [f64::NAN; LANES];
                let there = columns.get(index).and_then(|column| column.get(first..));
                for (lane, value) in lanes.iter_mut().zip(there.unwrap_or_default()) {
                    *lane = *value;
                }
                lanes
            };
            let values = self.run(load, &mut stack);
            values[..LANES.min(rows - first)].iter().for_each(|value| take(*value));
        }
    }

    /// Values of N rows at once, with those of a variable given by `load`.
    fn run<const N: usize>(
        &self,
        load: impl Fn(usize) -> [f64; N],
        stack: &mut [[f64; N]],
    ) -> [f64; N] {
        fn binary<const N: usize>(
            stack: &mut [[f64; N]],
            top: &mut usize,
            of: impl Fn(f64, f64) -> f64,
        ) {
            let (left, right) = stack.split_at_mut(*top - 1);
            for (a, b) in left[*top - 2].iter_mut().zip(right[0]) {
                *a = of(*a, b);
            }
            *top -= 1;
        }
        let mut top = 0; // `checked_depth` has shown that it stays within the stack
        for step in &self.steps {
            match *step {
                Instruction::Number(value) => {
                    stack[top] = [value; N];
                    top += 1;
                }
                Instruction::Variable(index) => {
                    stack[top] = load(index);
                    top += 1;
                }
                Instruction::Unary(function) => {
                    stack[top - 1].iter_mut().for_each(|a| *a = function(*a));
                }
                Instruction::Negate => stack[top - 1].iter_mut().for_each(|a| *a = -*a),
                Instruction::Binary(function) => binary(stack, &mut top, function),
                Instruction::Add => binary(stack, &mut top, |a, b| a + b),
                Instruction::Subtract => binary(stack, &mut top, |a, b| a - b),
                Instruction::Multiply => binary(stack, &mut top, |a, b| a * b),
                Instruction::Divide => binary(stack, &mut top, |a, b| a / b),
            }
        }
        stack[0]
    }

    /// Operands that wait at once.
    fn checked_depth(&self) -> Result<usize> {
        let (mut top, mut highest) = (0, 0);
        for step in &self.steps {
            match step {
                Instruction::Number(_) | Instruction::Variable(_) => top += 1,
                Instruction::Unary(_) | Instruction::Negate => {}
                _ => top -= 1,
            }
            highest = highest.max(top);
        }
        if highest > STACK {
            return Err(Fault::new(format!("expression '{}' is too deeply nested", self.text))
                .advice("split it into several quantities")
                .usage());
        }
        Ok(highest)
    }
}

fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Recursive descent; emits steps in the order of evaluation.
struct Parser<'a> {
    text: &'a str,
    at: usize, // byte
    depth: usize,
    variables: Vec<String>,
    steps: Vec<Instruction>,
}

impl<'a> Parser<'a> {
    /// sum = term { ('+' | '-') term }
    fn sum(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST_NESTING {
            return Err(self.fault(&format!("at most {DEEPEST_NESTING} levels"), "more"));
        }
        self.term()?;
        while let Some(operator) = self.accept(&['+', '-']) {
            self.term()?;
            self.steps.push(if operator == '+' { Instruction::Add } else { Instruction::Subtract });
        }
        self.depth -= 1;
        Ok(())
    }

    /// term = signed { ('*' | '/') signed }
    fn term(&mut self) -> Result<()> {
        self.signed()?;
        while let Some(operator) = self.accept(&['*', '/']) {
            self.signed()?;
            self.steps.push(if operator == '*' {
                Instruction::Multiply
            } else {
                Instruction::Divide
            });
        }
        Ok(())
    }

    /// signed = { '-' | '+' } power
    fn signed(&mut self) -> Result<()> {
        let mut negative = false;
        while let Some(sign) = self.accept(&['-', '+']) {
            negative ^= sign == '-';
        }
        self.power()?;
        if negative {
            self.steps.push(Instruction::Negate);
        }
        Ok(())
    }

    /// power = atom [ '^' signed ], so that `2^3^2` groups to the right
    fn power(&mut self) -> Result<()> {
        self.atom()?;
        if self.accept(&['^']).is_some() {
            self.depth += 1;
            if self.depth > DEEPEST_NESTING {
                return Err(self.fault(&format!("at most {DEEPEST_NESTING} levels"), "more"));
            }
            self.signed()?;
            self.depth -= 1;
            self.steps.push(Instruction::Binary(libm::pow));
        }
        Ok(())
    }

    /// atom = number | name | name '(' sum [ ',' sum ] ')' | '(' sum ')'
    fn atom(&mut self) -> Result<()> {
        match self.peek() {
            Some('(') => {
                self.accept(&['(']);
                self.sum()?;
                self.expect(')')
            }
            Some(letter) if letter.is_ascii_digit() || letter == '.' => self.number(),
            Some(letter) if is_name_start(letter) => self.name(),
            _ => Err(self.unexpected("a number, a name or '('")),
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| {
            rest[from.min(rest.len())..].iter().take_while(|b| b.is_ascii_digit()).count()
        };
        let mut length = digits(0);
        if rest.get(length) == Some(&b'.') {
            length += 1 + digits(length + 1);
        }
        if matches!(rest.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            if exponent > 0 {
                length += 1 + sign + exponent;
            }
        }
        let text = &self.text[self.at..self.at + length];
        let value: f64 = text.parse().map_err(|_| self.unexpected("a number"))?;
        self.at += length;
        self.steps.push(Instruction::Number(value));
        Ok(())
    }

    fn name(&mut self) -> Result<()> {
        let start = self.at;
        let name = self.take_name();
        if self.peek() == Some('(') {
            return self.call(name, start);
        }
        if name == PI {
            self.steps.push(Instruction::Number(std::f64::consts::PI));
        } else if is_function(name) {
            return Err(self.unexpected(&format!("'(' after the function '{name}'")));
        } else {
            let index = self.variables.iter().position(|known| known == name);
            let index = index.unwrap_or_else(|| {
                self.variables.push(name.to_string());
                self.variables.len() - 1
            });
            self.steps.push(Instruction::Variable(index));
        }
        Ok(())
    }

    fn call(&mut self, name: &str, start: usize) -> Result<()> {
        self.expect('(')?;
        self.sum()?;
        if let Some((_, function)) = UNARY.iter().find(|(known, _)| *known == name) {
            self.expect(')')?;
            self.steps.push(Instruction::Unary(*function));
        } else if let Some((_, function)) = BINARY.iter().find(|(known, _)| *known == name) {
            self.expect(',')?;
            self.sum()?;
            self.expect(')')?;
            self.steps.push(Instruction::Binary(*function));
        } else {
            self.at = start;
            let known: Vec<&str> = function_names().collect();
            let fault = Fault::new(self.place()).expected("a function").found(format!("'{name}'"));
            return Err(fault.advice(did_you_mean(name, &known)).usage());
        }
        Ok(())
    }

    /// A name may end in an index, as in the tables' own `dist[1]`.
    fn take_name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if let Some(index) = rest[length..].strip_prefix('[') {
            let digits = index.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 && index[digits..].starts_with(']') {
                length += digits + 2;
            }
        }
        self.at += length;
        &rest[..length]
    }

    /// The next letter that is not a space; moves to it.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn accept(&mut self, wanted: &[char]) -> Option<char> {
        let letter = self.peek().filter(|letter| wanted.contains(letter))?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        match self.accept(&[wanted]) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(&format!("'{wanted}'"))),
        }
    }

    fn unexpected(&mut self, expected: &str) -> Error {
        let found = self.peek().map_or("the end".to_string(), |letter| format!("'{letter}'"));
        self.fault(expected, &found)
    }

    fn fault(&self, expected: &str, found: &str) -> Error {
        Fault::new(self.place()).expected(expected).found(found).usage()
    }

    fn place(&self) -> String {
        let letter = self.text[..self.at].chars().count() + 1;
        let shown: String = self.text.chars().take(200).collect();
        format!("cannot read the expression '{shown}' at letter {letter}")
    }
}

fn is_name_start(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

fn function_names() -> impl Iterator<Item = &'static str> {
    UNARY.iter().map(|(name, _)| *name).chain(BINARY.iter().map(|(name, _)| *name))
}

fn is_function(name: &str) -> bool {
    function_names().any(|known| known == name)
}

#[cfg(test)]
mod tests {
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
    fn rows_at_once_have_the_bits_of_rows_one_by_one() {
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
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
                );
            }
        }
        let mut found = Vec::new();
        Expression::parse("a + b").unwrap().evaluate_rows(&[&[1.0]], 2, |v| found.push(v));
        assert!(found.len() == 2 && found.iter().all(|value| value.is_nan()));
    }

    #[test]
    fn precedence_is_that_of_a_physicist() {
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
    fn every_function_is_bound_to_its_meaning() {
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
    fn variables_are_named_once_and_in_order() {
        let bound = Expression::parse("0.068*log10(size) - dist[1]*size + x").unwrap();
        assert_eq!(bound.variables(), ["size", "dist[1]", "x"]);
        let found = bound.evaluate(&[100.0, 2.0, 1.0]);
        assert!((found - (0.136 - 200.0 + 1.0)).abs() < 1e-12, "{found}");
        assert!(bound.evaluate(&[100.0]).is_nan());
        assert!(Expression::parse("min(x, 1)").unwrap().evaluate(&[f64::NAN]).is_nan());
    }

    #[test]
    fn constants_are_variables_no_longer() {
        let constants = BTreeMap::from([("scale".to_string(), 3.0)]);
        let expression = Expression::parse("x*scale + y").unwrap().with_constants(&constants);
        assert_eq!(expression.variables(), ["x", "y"]);
        assert!((expression.evaluate(&[2.0, 1.0]) - 7.0).abs() < 1e-14);
    }

    #[test]
    fn unreadable_expression_is_refused_with_place() {
        for (text, part) in [
            ("", "a number, a name or '('"),
            ("1 +", "found the end"),
            ("(1", "expected ')'"),
            ("1 2", "at letter 3"),
            ("log10 size", "'(' after the function 'log10'"),
            ("lgo10(size)", "did you mean 'log10'?"),
            ("atan2(1)", "expected ','"),
            ("a § b", "found '§'"),
            ("1.2.3", "at letter 4"),
            (".", "expected a number"),
        ] {
            let error = Expression::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        let unknown = Expression::parse("widht + 1").unwrap();
        let text = unknown.check_variables(&["width", "size"]).unwrap_err().to_string();
        assert!(text.contains("did you mean 'width'?"), "{text}");
    }

    #[test]
    fn absurd_nesting_is_refused_and_never_overflows() {
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
}
