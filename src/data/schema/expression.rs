//! Parses and evaluates arithmetic expressions: derived columns of a schema, bounds of a cut.
//!
//! - Precedence is the usual one: `-x^2` is −(x²), `2^3^2` is 2⁹.
//! - Results have the same bits on every machine: functions are those of the crate `libm`, not
//!   of the platform.
//! - NaN as input gives NaN, also through `min` and `max`.
//! - Invalid text is an error with its position.
//! - Limits are 4 096 bytes of text and 64 levels of parentheses.

use crate::error::{Error, Fault, Result, did_you_mean};
use std::collections::BTreeMap;

const LONGEST_TEXT: usize = 4096;
const DEEPEST_NESTING: usize = 64;
/// Largest stack of operands during evaluation.
const STACK: usize = 64;
/// Stack for usual expressions, so that a single evaluation initialises less memory.
const SHALLOW: usize = 8;
/// Rows that are evaluated together.
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

/// A parsed expression.
#[derive(Clone)]
pub struct Expression {
    text: String,
    variables: Vec<String>,  // in order of first appearance
    steps: Vec<Instruction>, // operands before operators
    depth: usize,            // stack of operands
}

/// Shows the text, which is the same in every process, unlike the addresses of functions.
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
    /// Parses text such as `0.068*log10(size) - 0.047`.
    ///
    /// # Errors
    /// `Usage` with the position of the fault.
    pub fn parse(text: &str) -> Result<Expression> {
        let mut parser = Parser { text, at: 0, depth: 0, variables: Vec::new(), steps: Vec::new() };
        if text.len() > LONGEST_TEXT {
            return Err(parser.fault(&format!("at most {LONGEST_TEXT} bytes"), "more"));
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

    /// Returns the text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the names of the variables, in the order of the values of [`Expression::evaluate`].
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Replaces variables by numbers.
    #[must_use]
    pub(crate) fn with_constants(mut self, constants: &BTreeMap<String, f64>) -> Expression {
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

    /// Returns the value for one value per variable; NaN if a value is missing.
    pub fn evaluate(&self, values: &[f64]) -> f64 {
        let load = |index: usize| [values.get(index).copied().unwrap_or(f64::NAN)];
        if self.depth <= SHALLOW {
            return self.run(load, &mut [[f64::NAN]; SHALLOW])[0];
        }
        self.run(load, &mut [[f64::NAN]; STACK])[0]
    }

    /// Passes the value of each row to `take`, for one column per variable; NaN where a column
    /// is missing or too short. The bits are those of [`Expression::evaluate`], but it is faster.
    pub(crate) fn evaluate_rows(&self, columns: &[&[f64]], rows: usize, mut take: impl FnMut(f64)) {
        let mut stack = vec![[f64::NAN; LANES]; self.depth];
        for first in (0..rows).step_by(LANES) {
            let values = self.run(|index| lanes(columns.get(index), first), &mut stack);
            values[..LANES.min(rows - first)].iter().for_each(|value| take(*value));
        }
    }

    /// Returns the values of N rows; `load` returns those of a variable.
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
        let mut top = 0; // `checked_depth` ensures that it stays within the stack
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

    /// Returns the stack of operands that the steps need.
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

/// Returns [`LANES`] values of a column from row `first`; NaN where there is none.
#[inline]
fn lanes(column: Option<&&[f64]>, first: usize) -> [f64; LANES] {
    let mut lanes = [f64::NAN; LANES];
    let rest = column.and_then(|column| column.get(first..));
    for (lane, value) in lanes.iter_mut().zip(rest.unwrap_or_default()) {
        *lane = *value;
    }
    lanes
}

/// Returns the smaller number; NaN if one is NaN.
fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Returns the larger number; NaN if one is NaN.
fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Recursive descent parser. It emits steps in the order of evaluation.
struct Parser<'a> {
    text: &'a str,
    at: usize, // byte
    depth: usize,
    variables: Vec<String>,
    steps: Vec<Instruction>,
}

impl<'a> Parser<'a> {
    /// Parses sum = term { ('+' | '-') term }.
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

    /// Parses term = signed { ('*' | '/') signed }.
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

    /// Parses signed = { '-' | '+' } power.
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

    /// Parses power = atom [ '^' signed ], so that `2^3^2` groups to the right.
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

    /// Parses atom = number | name | name '(' sum [ ',' sum ] ')' | '(' sum ')'.
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

    /// Parses a decimal number.
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

    /// Parses a variable, `pi` or a function call.
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

    /// Parses the arguments of the function `name`, which begins at byte `start`.
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

    /// Takes a name. It may end in an index, as `dist[1]` in TAIGA tables.
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

    /// Skips spaces and returns the next character.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    /// Takes the next character if it is one of `allowed`.
    fn accept(&mut self, allowed: &[char]) -> Option<char> {
        let letter = self.peek().filter(|letter| allowed.contains(letter))?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    /// Takes the character `required`.
    fn expect(&mut self, required: char) -> Result<()> {
        match self.accept(&[required]) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(&format!("'{required}'"))),
        }
    }

    /// Returns the error of an unexpected character.
    fn unexpected(&mut self, expected: &str) -> Error {
        let found = self.peek().map_or("the end".to_string(), |letter| format!("'{letter}'"));
        self.fault(expected, &found)
    }

    /// Returns an error at the current position.
    fn fault(&self, expected: &str, found: &str) -> Error {
        Fault::new(self.place()).expected(expected).found(found).usage()
    }

    /// Returns the expression and the current position, for messages.
    fn place(&self) -> String {
        let position = self.text[..self.at].chars().count() + 1;
        let shown: String = self.text.chars().take(200).collect();
        format!("cannot read the expression '{shown}' at character {position}")
    }
}

/// Returns whether a name may start with a character.
fn is_name_start(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

/// Returns the names of all functions.
fn function_names() -> impl Iterator<Item = &'static str> {
    UNARY.iter().map(|(name, _)| *name).chain(BINARY.iter().map(|(name, _)| *name))
}

/// Returns whether a name is that of a function.
fn is_function(name: &str) -> bool {
    function_names().any(|known| known == name)
}

#[cfg(test)]
mod tests;
