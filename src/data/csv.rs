//! Text tables: the dialects that are known, and strict reading of their rows.
//!
//! A dialect is a row of [`DIALECTS`]: what the columns are called, what values they
//! may hold, and what quantities come out of them. A row that does not fit is an
//! error with its line and column; nothing is skipped, nothing guessed. Memory is
//! bounded by one line, and a line by [`MAX_LINE_BYTES`]. Left to `convert`: files.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::events::{GAMMA, HADRON};
use crate::error::{Error, Fault, Result, did_you_mean};

/// The outcome of reading one record or field; the fault lacks its file and line.
type Parsed<T> = Result<T, Box<Fault>>;

/// A longer line is no row of numbers: a binary file, or one without line ends.
pub const MAX_LINE_BYTES: usize = 65_536;

/// A text table without header: columns of numbers, then the class.
#[derive(Debug)]
pub struct Dialect {
    pub name: &'static str,
    pub about: &'static str,
    /// The columns of numbers, in the order of the file.
    pub inputs: &'static [Input],
    /// The texts that the last column may hold, and what they mean.
    pub classes: &'static [(&'static str, i8)],
    pub outputs: &'static [Output],
}

/// A column of the text: finite numbers from `low` to `high`. The limits are far
/// outside of what is measured; they catch exchanged columns and lost decimal points.
#[derive(Debug)]
pub struct Input {
    pub name: &'static str,
    pub low: f64,
    pub high: f64,
}

/// A column of the event file, made from column `from` of the text.
#[derive(Debug)]
pub struct Output {
    pub name: &'static str,
    pub unit: &'static str,
    pub from: usize,
    pub change: Change,
}

#[derive(Debug, Clone, Copy)]
pub enum Change {
    Scale(f64),
    PowerOfTen,
}

/// Every dialect the program reads.
pub const DIALECTS: &[Dialect] = &[MAGIC];

/// Plate scale of the MAGIC camera (17 m focal length).
const DEG_PER_MM: f64 = 0.003_37;

/// The MAGIC gamma telescope set (UCI repository, doi 10.24432/C52C8B).
const MAGIC: Dialect = Dialect {
    name: "magic",
    about: "MAGIC gamma telescope set: no header, fLength … fDist [mm, deg, log10 p.e.], class g or h",
    inputs: &[
        input("fLength", 0.0, 2000.0),
        input("fWidth", 0.0, 2000.0),
        input("fSize", 0.0, 9.0),
        input("fConc", 0.0, 1.0),
        input("fConc1", 0.0, 1.0),
        input("fAsym", -2000.0, 2000.0),
        input("fM3Long", -2000.0, 2000.0),
        input("fM3Trans", -2000.0, 2000.0),
        input("fAlpha", 0.0, 90.0),
        input("fDist", 0.0, 2000.0),
    ],
    classes: &[("g", GAMMA), ("h", HADRON)],
    outputs: &[
        output("size", "p.e.", 2, Change::PowerOfTen),
        output("length", "deg", 0, Change::Scale(DEG_PER_MM)),
        output("width", "deg", 1, Change::Scale(DEG_PER_MM)),
        output("dist", "deg", 9, Change::Scale(DEG_PER_MM)),
        output("alpha", "deg", 8, Change::Scale(1.0)),
        output("con2", "1", 3, Change::Scale(1.0)),
        output("con1", "1", 4, Change::Scale(1.0)),
        output("asym", "deg", 5, Change::Scale(DEG_PER_MM)),
        output("m3long", "deg", 6, Change::Scale(DEG_PER_MM)),
        output("m3trans", "deg", 7, Change::Scale(DEG_PER_MM)),
    ],
};

const fn input(name: &'static str, low: f64, high: f64) -> Input {
    Input { name, low, high }
}

const fn output(name: &'static str, unit: &'static str, from: usize, change: Change) -> Output {
    Output { name, unit, from, change }
}

/// The dialect of a name.
pub fn dialect(name: &str) -> Result<&'static Dialect> {
    DIALECTS.iter().find(|dialect| dialect.name == name).ok_or_else(|| {
        let known: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name).collect();
        Fault::new("unknown dialect").found(name).advice(did_you_mean(name, &known)).usage()
    })
}

/// The dialect that the first row of a file fits; a row of the right number of
/// columns with a wrong value is told as such.
pub fn detect(path: &Path) -> Result<&'static Dialect> {
    let mut lines = Lines::open(path)?;
    if !lines.advance()? {
        return Err(no_rows(path));
    }
    let mut complaint = unknown_table(path, &lines.record);
    for dialect in DIALECTS {
        match dialect.parse(&lines.record, &mut Row::default()) {
            Ok(()) => return Ok(dialect),
            Err(fault) if lines.record.len() == dialect.columns() => {
                complaint = lines.place(*fault);
            }
            Err(_) => {}
        }
    }
    Err(complaint)
}

pub fn no_rows(path: &Path) -> Error {
    Fault::new("the table has no rows").file(path).input()
}

fn unknown_table(path: &Path, first: &StringRecord) -> Error {
    let text: String = first.iter().collect::<Vec<_>>().join(",");
    let shown: String = text.chars().take(80).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    let known: Vec<String> = DIALECTS
        .iter()
        .map(|d| format!("{} ({} columns; {})", d.name, d.columns(), d.about))
        .collect();
    Fault::new("this table is of no known dialect")
        .file(path)
        .row(1)
        .found(format!("{} columns: '{shown}{more}'", first.len()))
        .advice(format!("known dialects: {}", known.join("; ")))
        .input()
}

/// What a line says, in the order of the dialect's outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub values: Vec<f32>,
    pub class: i8,
    /// 63 bits of the line's text: equal for byte-identical rows, so that these
    /// share a fold.
    pub hash: i64,
    numbers: Vec<f64>, // as they stand in the text
}

impl Dialect {
    /// Columns of the text.
    pub fn columns(&self) -> usize {
        self.inputs.len() + 1
    }

    /// Reads one record into `row`.
    fn parse(&self, record: &StringRecord, row: &mut Row) -> Parsed<()> {
        if record.len() != self.columns() {
            let fault = Fault::new("wrong number of columns");
            return Err(Box::new(fault.expected(self.columns()).found(record.len())));
        }
        row.numbers.clear();
        for (input, text) in self.inputs.iter().zip(record) {
            row.numbers.push(input.parse(text)?);
        }
        row.values.clear();
        for output in self.outputs {
            row.values.push(output.change.apply(row.numbers[output.from]) as f32);
        }
        row.class = self.class(&record[self.inputs.len()])?;
        row.hash = hash(record);
        Ok(())
    }

    fn class(&self, text: &str) -> Parsed<i8> {
        if let Some((_, code)) = self.classes.iter().find(|(name, _)| *name == text) {
            return Ok(*code);
        }
        let names: Vec<&str> = self.classes.iter().map(|(name, _)| *name).collect();
        let fault = Fault::new("unknown class").column("class");
        Err(Box::new(fault.expected(names.join(" or ")).found(quoted(text))))
    }
}

impl Input {
    fn parse(&self, text: &str) -> Parsed<f64> {
        let number = text.parse::<f64>();
        let what = match number {
            Ok(number) if (self.low..=self.high).contains(&number) => return Ok(number),
            Ok(_) => "value out of range",
            Err(_) => "not a number",
        };
        let expected = format!("a number from {} to {}", self.low, self.high);
        let fault = Fault::new(what).column(self.name);
        Err(Box::new(fault.expected(expected).found(quoted(text))))
    }
}

impl Change {
    fn apply(self, number: f64) -> f64 {
        match self {
            Change::Scale(factor) => number * factor,
            Change::PowerOfTen => libm::exp10(number),
        }
    }
}

fn hash(record: &StringRecord) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for field in record {
        hasher.update(field.as_bytes());
        hasher.update(b",");
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    (u64::from_le_bytes(first) >> 1) as i64
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.chars().take(40).collect::<String>())
}

/// The rows of one file, one after the other.
pub struct Rows {
    lines: Lines,
    dialect: &'static Dialect,
}

impl Rows {
    pub fn open(path: &Path, dialect: &'static Dialect) -> Result<Rows> {
        Ok(Rows { lines: Lines::open(path)?, dialect })
    }

    /// Reads the next row into `row`; false at the end of the file.
    pub fn read(&mut self, row: &mut Row) -> Result<bool> {
        if !self.lines.advance()? {
            return Ok(false);
        }
        self.dialect.parse(&self.lines.record, row).map_err(|fault| self.lines.place(*fault))?;
        Ok(true)
    }

    /// blake3 of the bytes read; of the whole file once `read` has said false.
    pub fn source_hash(&self) -> blake3::Hash {
        self.lines.reader.get_ref().hasher.finalize()
    }
}

/// The lines of a file, split at commas, blanks around the fields removed.
struct Lines {
    path: PathBuf,
    reader: csv::Reader<Guarded>,
    record: StringRecord,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let guarded = Guarded { file, hasher: blake3::Hasher::new(), line_bytes: 0 };
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .trim(csv::Trim::All)
            .from_reader(guarded);
        Ok(Lines { path: path.to_path_buf(), reader, record: StringRecord::new() })
    }

    fn advance(&mut self) -> Result<bool> {
        self.reader.read_record(&mut self.record).map_err(|error| self.told(error))
    }

    fn told(&self, error: csv::Error) -> Error {
        let line = error.position().map(csv::Position::line);
        match error.into_kind() {
            csv::ErrorKind::Io(error) => unreadable(&self.path, &error),
            kind => {
                let mut fault = Fault::new("not a text table").file(&self.path);
                fault.row = line;
                fault.expected("text in UTF-8").found(csv_reason(&kind)).input()
            }
        }
    }

    /// Adds file and line (counted from 1, as editors do) to a fault of the last row.
    fn place(&self, fault: Fault) -> Error {
        let line = self.record.position().map_or(0, csv::Position::line);
        fault.file(&self.path).row(line).input()
    }
}

fn csv_reason(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::Utf8 { err, .. } => err.to_string(),
        other => format!("{other:?}"),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let fault = Fault::new("cannot read this table").file(path).found(error);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::InvalidData => fault.input(),
        _ => fault.environment(),
    }
}

/// A file that is hashed while it is read and whose lines are bounded, so that the
/// reader above it cannot be made to collect a line without end.
struct Guarded {
    file: File,
    hasher: blake3::Hasher,
    line_bytes: usize,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let bytes = &buffer[..count];
        self.hasher.update(bytes);
        self.line_bytes = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => count - end - 1,
            None => self.line_bytes + count,
        };
        if self.line_bytes > MAX_LINE_BYTES {
            let reason = format!("a line of more than {MAX_LINE_BYTES} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str =
        "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g";

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    /// The error that a file with these bytes gives.
    fn refusal(text: &[u8]) -> Error {
        let (_folder, path) = file(text);
        let mut rows = Rows::open(&path, &MAGIC).unwrap();
        let mut row = Row::default();
        loop {
            match rows.read(&mut row) {
                Ok(more) => assert!(more, "accepted"),
                Err(error) => return error,
            }
        }
    }

    #[test]
    fn the_table_of_dialects_is_sound() {
        for dialect in DIALECTS {
            assert!(dialect.inputs.iter().all(|i| i.low < i.high));
            assert!(dialect.outputs.iter().all(|output| output.from < dialect.inputs.len()));
        }
        assert_eq!(dialect("magic").unwrap().columns(), 11);
        let error = dialect("magik").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean 'magic'?"), "{error}");
    }

    #[test]
    fn a_row_becomes_quantities_in_canonical_units() {
        let (_folder, path) =
            file(format!("{ROW}\r\n\r\n {ROW}\n{}", ROW.replace('g', "h")).as_bytes());
        assert_eq!(detect(&path).unwrap().name, "magic");
        let mut rows = Rows::open(&path, &MAGIC).unwrap();
        let mut read = Vec::new();
        let mut row = Row::default();
        while rows.read(&mut row).unwrap() {
            read.push(row.clone());
        }
        let expected =
            [441.469, 0.097_044_9, 0.053_927_1, 0.275_945, 40.092, 0.3918, 0.1982, 0.093_350_3];
        for (value, expected) in read[0].values.iter().zip(expected) {
            assert!((value / expected - 1.0).abs() < 1e-5, "{value} {expected}");
        }
        assert_eq!((read.len(), read[0].class, read[2].class), (3, GAMMA, HADRON));
        assert_eq!(read[0], read[1]);
        assert!(read[0].hash > 0 && read[0].hash != read[2].hash);
        assert_eq!(rows.source_hash(), blake3::hash(&std::fs::read(&path).unwrap()));
    }

    #[test]
    fn a_bad_row_is_told_with_line_column_expectation_and_finding() {
        let cases = [
            (
                ROW.replace("16.0021", "abc"),
                "not a number (column 'fWidth', row 3): expected a number from 0 to 2000, found 'abc'",
            ),
            (ROW.replace("16.0021", "NaN"), "value out of range (column 'fWidth', row 3)"),
            (ROW.replace("16.0021", ""), "not a number (column 'fWidth', row 3)"),
            (
                ROW.replace("40.092", "90.5"),
                "value out of range (column 'fAlpha', row 3): expected a number from 0 to 90, found '90.5'",
            ),
            (
                ROW.replace('g', "x"),
                "unknown class (column 'class', row 3): expected g or h, found 'x'",
            ),
            (ROW.replace(",g", ""), "wrong number of columns (row 3): expected 11, found 10"),
            (format!("{ROW},1"), "wrong number of columns (row 3): expected 11, found 12"),
        ];
        for (bad, message) in cases {
            let error = refusal(format!("{ROW}\n{ROW}\n{bad}\n{ROW}\n").as_bytes());
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_lines_are_refused() {
        let error = refusal(&[ROW.as_bytes(), b"\n\xff\xfe,1\n"].concat());
        assert!(error.to_string().contains("text in UTF-8"), "{error}");
        let error = refusal(&vec![b'1'; 3 * MAX_LINE_BYTES]);
        assert!(error.exit_code() == 3 && error.to_string().contains("a line of more"), "{error}");
    }

    #[test]
    fn a_table_of_no_known_dialect_is_refused_with_what_was_seen() {
        let (_folder, path) = file(b"por,event_numb,time,size\n1,2,3,4\n");
        let error = detect(&path).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("4 columns: 'por,event_numb,time,size'"), "{text}");
        assert!(text.contains("known dialects: magic"), "{text}");
        let (_folder, path) = file(ROW.replace("0.3918", "1.3918").as_bytes());
        assert!(detect(&path).unwrap_err().to_string().contains("column 'fConc', row 1"));
        let (_folder, path) = file(b"\n\n");
        assert!(detect(&path).unwrap_err().to_string().contains("no rows"));
    }
}
