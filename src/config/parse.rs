//! Parses TOML into settings; errors name the line, the key and the expected kind of value.

use crate::error::{Error, Fault, Result, did_you_mean};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use std::fmt;
use toml::{Table, Value};

/// Longest value that a message repeats, in characters.
const MAX_SHOWN: usize = 60;

/// Kinds of values in the words of serde, and in those of a user.
const KINDS: [(&str, &str); 20] = [
    ("u8", "a whole number"),
    ("u16", "a whole number"),
    ("u32", "a whole number"),
    ("u64", "a whole number"),
    ("usize", "a whole number"),
    ("i8", "a whole number"),
    ("i16", "a whole number"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list"),
    ("a map", "a section or table"),
    ("CutBound", "a number, or an expression in quotes"),
    ("SourcePositions", "a whole number, or a list of angles [deg]"),
    ("OffPositions", "a whole number, a list of angles [deg], or \"random\""),
    ("unit", "nothing"),
];

/// Parses a text of TOML.
///
/// # Errors
/// A usage error with the line, the key, and the expected and found value. For an unknown key the
/// advice names the nearest known one.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T> {
    let deserializer = toml::Deserializer::parse(text).map_err(|e| syntax(&e, text))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let line = line_of(error.inner(), text);
        let table = toml::from_str::<Table>(text).ok();
        let message = error.inner().message();
        describe(message, error.path(), table.as_ref(), line)
    })
}

/// Converts a table whose values do not all come from a file.
///
/// # Errors
/// As [`parse_toml`], without the line.
pub(super) fn parse_table<T: DeserializeOwned>(table: &Table) -> Result<T> {
    let value = Value::Table(table.clone());
    serde_path_to_error::deserialize(value)
        .map_err(|error| describe(error.inner().message(), error.path(), Some(table), None))
}

/// Returns the error of a text that is not TOML.
fn syntax(error: &toml::de::Error, text: &str) -> Error {
    Fault::new(format!("{}{}", place(line_of(error, text)), error.message())).usage()
}

/// Returns the line of an error, counted from 1.
fn line_of(error: &toml::de::Error, text: &str) -> Option<usize> {
    let before = error.span().and_then(|span| text.get(..span.start))?;
    Some(before.matches('\n').count() + 1)
}

fn place(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!("line {line}: "))
}

/// Translates a message of serde. It writes "invalid type: string "five", expected u64" or
/// "unknown field `epoch`, expected one of `seed`, `epochs`, …".
fn describe(message: &str, path: &Path, table: Option<&Table>, line: Option<usize>) -> Error {
    let key = Key(path);
    let place = place(line);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let found = || table.and_then(|table| lookup(table, path)).map(|value| shown(&value));
    let kind = |text: &str| format!("{place}`{key}` must be {}", kind_of(text));
    if let (true, Some((name, known))) =
        (message.starts_with("unknown field"), quoted.split_first())
    {
        let parent = Key(path).parent_of(name);
        let fault = Fault::new(format!("{place}unknown key `{parent}{name}`"));
        return with_advice(fault, name, known).usage();
    }
    if let (true, Some((name, known))) =
        (message.starts_with("unknown variant"), quoted.split_first())
    {
        let known_text = known.iter().map(|known| format!("\"{known}\"")).collect::<Vec<_>>();
        let what = format!("{place}`{key}` must be {}, found \"{name}\"", known_text.join(", "));
        return with_advice(Fault::new(what), name, known).usage();
    }
    if let (true, Some(name)) = (message.starts_with("missing field"), quoted.first()) {
        let parent = Key(path).parent_of(name);
        return Fault::new(format!("{place}the key `{parent}{name}` is missing")).usage();
    }
    let expected = message.split_once(", expected ").map(|(_, expected)| expected);
    let untagged = message.strip_prefix("data did not match any variant of untagged enum ");
    match (expected.or(untagged), found()) {
        (Some(expected), Some(found)) => {
            Fault::new(format!("{}, found {found}", kind(expected))).usage()
        }
        (Some(expected), None) => Fault::new(kind(expected)).found(message).usage(),
        (None, _) if path.iter().next().is_none() => {
            Fault::new(format!("{place}{message}")).usage()
        }
        (None, _) => Fault::new(format!("{place}`{key}`: {message}")).usage(),
    }
}

/// Adds the nearest of the known names, if there are any.
fn with_advice(fault: Fault, name: &str, known: &[&str]) -> Fault {
    if known.is_empty() { fault } else { fault.advice(did_you_mean(name, known)) }
}

/// Returns the kind of value in the words of a user.
fn kind_of(expected: &str) -> String {
    let name = expected.trim_end_matches('.');
    match KINDS.iter().find(|(serde, _)| *serde == name) {
        Some((_, words)) => (*words).to_string(),
        None if name.starts_with("struct ") => "a section or table".to_string(),
        None => name.to_string(),
    }
}

/// Returns the value at a path of a table.
fn lookup(table: &Table, path: &Path) -> Option<Value> {
    let mut value = Value::Table(table.clone());
    for segment in path {
        value = match (segment, value) {
            (Segment::Map { key }, Value::Table(mut table)) => table.remove(key)?,
            (Segment::Seq { index }, Value::Array(mut items)) if *index < items.len() => {
                items.swap_remove(*index)
            }
            (Segment::Enum { .. }, value) => value,
            _ => return None,
        };
    }
    Some(value)
}

/// Formats a value of a message, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain(['…']).collect()
}

/// The path of a key, such as `features.columns[0].name`.
struct Key<'a>(&'a Path);

impl Key<'_> {
    /// Returns the path of the table with this key, with a final dot; empty for the root. The path
    /// of an error may or may not include the key itself.
    fn parent_of(&self, name: &str) -> String {
        let text = self.to_string();
        let parent = text.strip_suffix(name).unwrap_or(&text).trim_end_matches('.');
        if parent.is_empty() { String::new() } else { format!("{parent}.") }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Map { key } if i == 0 => f.write_str(key)?,
                Segment::Map { key } => write!(f, ".{key}")?,
                Segment::Seq { index } => write!(f, "[{index}]")?,
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        Ok(())
    }
}
