//! Text tables into one event file.
//!
//! A table whose values no telescope can have is refused or warned about (`plausible`).
//! Promises: rows out = rows in, in the order of the inputs; equal inputs give
//! byte-identical files; one bad row refuses the whole conversion and leaves nothing
//! behind; memory is bounded by one chunk of rows. What a row means is `text`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Class;
use crate::data::files::output_kind::OutputKind;
use crate::data::files::protected::ProtectedInputs;
use crate::data::files::stamp::{hash_and_rewind, same_content};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use crate::data::schema::plausible::ValueTally;
use crate::data::schema::unix_time;
use crate::data::schema::{Schema, Text};
use crate::data::table::events;
use crate::data::text::{self, ParsedColumns, Placement, TextRows};
use crate::error::{Fault, Result};

/// A quantity that differs from the file's own in more than this share of the rows was
/// computed from wrong units, a wrong axis or a wrong sign.
const MOST_DIFFERENT: f64 = 0.01;

/// What to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables of one dialect; their rows follow each other in the output.
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Name of the dialect, or path of its schema; found out from the first input where
    /// absent.
    pub dialect: Option<String>,
    /// What the particles are, where the tables do not say.
    pub class: Option<Class>,
    /// Places the source anew.
    pub placement: Option<Placement>,
    pub overwrite: bool,
}

/// What was converted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub dialect: String,
    pub files: usize,
    pub rows: u64,
    pub gammas: u64,
    pub hadrons: u64,
    /// What may be wrong with the inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} rows ({}) from {} file(s) of the dialect {}",
            self.output.display(),
            self.rows,
            match self.gammas + self.hadrons {
                0 => "of unknown class".to_string(),
                _ => format!("{} gammas, {} hadrons", self.gammas, self.hadrons),
            },
            self.files,
            self.dialect
        )
    }
}

/// Converts all inputs into the output, whole or not at all.
pub fn run(options: &Options) -> Result<Summary> {
    OutputKind::Conversion.refuse_existing(&options.output, options.overwrite)?;
    let first = distinct_inputs(options)?;
    let named = options.dialect.as_deref().map(Path::new);
    let inputs = options.inputs.iter().map(PathBuf::as_path).chain(named);
    ProtectedInputs::new(inputs).refuse(&options.output)?;
    let schema = match &options.dialect {
        Some(name) => text::dialect(name)?,
        None => text::detect(first)?,
    };
    let Some(text) = &schema.text else {
        return Err(Fault::new("not a dialect of text tables").found(&schema.name).usage());
    };
    if let (Some(_), Some(own)) = (options.class, &text.class) {
        return Err(Fault::new("the tables tell the class themselves")
            .found(format!("column '{}' of the dialect {}", own.column, schema.name))
            .advice("leave --class out")
            .usage());
    }
    if let Some(placement) = options.placement {
        placement.check(options.class, text.class.is_some())?;
    }
    let mut job = Conversion::start(options, &schema, text, first)?;
    if options.class == Some(Class::Gamma) && is_observed(&schema, text) {
        job.warn(format!(
            "{}: observed events are given as gammas: the dialect {} is of an experiment, and most of its events are hadrons; give --class hadron for background, or no class",
            first.display(),
            schema.name
        ));
    }
    let mut hashes = Vec::with_capacity(options.inputs.len());
    for input in &options.inputs {
        hashes.push(blake3::Hash::from_bytes(job.copy_rows(input)?).to_hex().to_string());
    }
    let summary = job.summary(options.inputs.len());
    let mut origin = vec![("dialect", schema.name.as_str())];
    let hashes = source_text(&hashes);
    origin.push(("source_blake3", &hashes));
    let placed = options.placement.map(|p| format!("{} deg, seed {}", p.offset_deg, p.seed));
    origin.extend(placed.as_deref().map(|text| ("source_placed_at", text)));
    let rows = job.finish(&origin)?;
    Ok(Summary { rows, ..summary })
}

/// Returns whether tables of a dialect are observed: they have a run in their names, or times.
fn is_observed(schema: &Schema, text: &Text) -> bool {
    text.run_of_name || schema.copy.contains_key(unix_time::COLUMN)
}

/// The hashes of the inputs, or the hash of the list where it is too long for a text.
fn source_text(hashes: &[String]) -> String {
    let list = hashes.join(" ");
    if hashes.len() <= 60 {
        return list;
    }
    format!("{} inputs, blake3 of their list {}", hashes.len(), blake3::hash(list.as_bytes()))
}

/// Refuses to read a file twice or to write over one of the inputs; gives the first input.
fn distinct_inputs(options: &Options) -> Result<&Path> {
    let Some(first) = options.inputs.first() else {
        return Err(Fault::new("no table to convert").expected("one or more input files").usage());
    };
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut seen = std::collections::HashSet::from([place(&options.output)]);
    for input in &options.inputs {
        if !seen.insert(place(input)) {
            return Err(Fault::new("this file is given twice, or is the output itself")
                .file(input)
                .advice("its rows would be doubled, or lost")
                .usage());
        }
    }
    Ok(first)
}

/// A conversion on its way.
struct Conversion<'a> {
    options: &'a Options,
    schema: &'a Schema,
    writer: ColumnWriter,
    outputs: Vec<(String, String)>, // names and units
    warnings: Vec<String>,
    given: Option<i8>, // the class of tables that do not say
    has_class: bool,
    has_run: bool, // a key `run`
    gammas: u64,   // of all rows so far
    hadrons: u64,
    known: BTreeMap<[u8; 32], &'a Path>, // tables with rows so far, by the hash of their bytes
}

impl<'a> Conversion<'a> {
    fn start(
        options: &'a Options,
        schema: &'a Schema,
        text: &Text,
        first: &Path,
    ) -> Result<Conversion<'a>> {
        let outputs = TextRows::open(first, schema, [0; 32], options.placement)?.outputs();
        let has_class = text.class.is_some() || options.class.is_some();
        let has_run = text.run_of_name && run_of_name(first).is_some();
        let columns = columns(schema, text, &outputs, has_class, has_run);
        let writer =
            ColumnWriter::create(&options.output, events::GROUP, &columns, options.overwrite)?;
        let given = options.class.map(Class::code);
        Ok(Conversion {
            options,
            schema,
            writer,
            outputs,
            warnings: Vec::new(),
            given,
            has_class,
            has_run,
            gammas: 0,
            hadrons: 0,
            known: BTreeMap::new(),
        })
    }

    fn warn(&mut self, text: String) {
        log::warn!("{text}");
        self.warnings.push(text);
    }

    /// Appends the rows of one table; returns the hash of its bytes. A copy of an earlier table
    /// is refused.
    fn copy_rows(&mut self, input: &'a Path) -> Result<[u8; 32]> {
        let (before, file) = hash_and_rewind(input)?;
        if let Some(other) = self.known.get(&before) {
            return Err(same_content(input, other));
        }
        let placement = self.options.placement;
        let mut rows = TextRows::of_file(input, self.schema, (before, file), placement)?;
        if self.has_run {
            let run = run_of_name(input).ok_or_else(|| {
                Fault::new("the name does not tell the run, as the first table's does")
                    .file(input)
                    .expected("DDMMYY.RR at the beginning of the file's name, or its folder's")
                    .advice("convert tables of known and of unknown runs one by one")
                    .input()
            })?;
            rows = rows.with_run(run);
        }
        let tally = |(name, unit): &(String, String)| {
            ValueTally::new(self.schema.plausible.get(name), name, unit)
        };
        let mut tallies: Vec<ValueTally> = self.outputs.iter().map(tally).collect();
        let mut columns = ParsedColumns::default();
        let mut count = 0u64;
        while rows.read(&mut columns)? {
            count += columns.rows as u64;
            tallies.iter_mut().zip(&columns.values).for_each(|(tally, x)| tally.add(x));
            self.append(&mut columns)?;
        }
        if count == 0 {
            self.warn(format!("{}: the table has no rows", input.display()));
        } else {
            self.known.insert(before, input);
        }
        if *rows.source_hash().as_bytes() != before {
            return Err(Fault::new("the file changed while it was read")
                .file(input)
                .advice("wait until its writer has finished")
                .input());
        }
        refuse_different(input, &rows)?;
        self.check_tallies(input, &tallies)?;
        Ok(before)
    }

    /// Refuses a table with a quantity that is wrong as a whole; warns about what may be wrong.
    fn check_tallies(&mut self, input: &Path, tallies: &[ValueTally]) -> Result<()> {
        let mut texts = Vec::new();
        for ((name, _), tally) in self.outputs.iter().zip(tallies) {
            for finding in tally.findings() {
                if finding.severe {
                    return Err(Fault::new("values that no Cherenkov camera records")
                        .file(input)
                        .column(name)
                        .expected(finding.expected)
                        .found(finding.found)
                        .advice(format!("{}, and give it as --dialect", finding.advice))
                        .input());
                }
                texts.push(format!("{}: {}", input.display(), finding.line(name)));
            }
        }
        texts.into_iter().for_each(|text| self.warn(text));
        Ok(())
    }

    fn append(&mut self, columns: &mut ParsedColumns) -> Result<()> {
        if let Some(class) = self.given {
            columns.class.fill(class);
        }
        let count = |wanted: i8| columns.class.iter().filter(|class| **class == wanted).count();
        self.gammas += count(events::GAMMA) as u64;
        self.hadrons += count(events::HADRON) as u64;
        let mut values: Vec<ColumnValues> =
            columns.keys.iter().map(|key| ColumnValues::I64(key)).collect();
        values.extend(columns.values.iter().map(|feature| ColumnValues::F32(feature)));
        if self.has_class {
            values.push(ColumnValues::I8(&columns.class));
        }
        self.writer.append(&values)
    }

    fn summary(&self, files: usize) -> Summary {
        Summary {
            output: self.options.output.clone(),
            dialect: self.schema.name.clone(),
            files,
            rows: 0,
            gammas: self.gammas,
            hadrons: self.hadrons,
            warnings: self.warnings.clone(),
        }
    }

    fn finish(self, origin: &[(&str, &str)]) -> Result<u64> {
        self.writer.finish(&events::attributes(origin))
    }
}

/// Date and number of the run that the name of a table, or of its folder, begins with:
/// `DDMMYY.RR` gives YYYYMMDDRRR. All telescopes and portions of a run have the same.
pub fn run_of_name(path: &Path) -> Option<i64> {
    let folder = path.parent().and_then(Path::file_name);
    path.file_name().into_iter().chain(folder).find_map(|name| run_of(name.to_str()?))
}

fn run_of(name: &str) -> Option<i64> {
    let (date, rest) = name.split_once('.')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ends = rest.as_bytes().get(digits).is_none_or(|next| !next.is_ascii_alphanumeric());
    if date.len() != 6
        || !date.bytes().all(|b| b.is_ascii_digit())
        || !(1..=3).contains(&digits)
        || !ends
    {
        return None;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let (day, month, year) = (number(&date[..2])?, number(&date[2..4])?, number(&date[4..])?);
    let run = number(&rest[..digits])?;
    let possible = (1..=31).contains(&day) && (1..=12).contains(&month);
    possible.then_some((((2000 + year) * 100 + month) * 100 + day) * 1000 + run)
}

/// Refuses a table whose own values contradict those computed from its other columns.
fn refuse_different(input: &Path, rows: &TextRows) -> Result<()> {
    let (differences, all) = rows.differences();
    for (name, (count, within)) in differences {
        if count as f64 > MOST_DIFFERENT * all as f64 {
            return Err(Fault::new(format!("'{name}' is not what its other columns give"))
                .file(input)
                .expected(format!("differences above {within} in at most 1 % of the rows"))
                .found(format!("{count} of {all} rows"))
                .advice("units, axis or sign are others than the schema says: correct a copy of it, and give that as --dialect")
                .input());
        }
    }
    Ok(())
}

fn columns(
    schema: &Schema,
    text: &Text,
    outputs: &[(String, String)],
    has_class: bool,
    has_run: bool,
) -> Vec<ColumnSpec> {
    let key = |name: &str| ColumnSpec::new(name, ColumnType::I64, None);
    let hash = text.row_hash.then(|| key("row_hash"));
    let run = text.run.is_some().then(|| key("run_id"));
    let named = has_run.then(|| key("run"));
    let copied = schema.copy.keys().map(|name| key(name));
    let features =
        outputs.iter().map(|(name, unit)| ColumnSpec::new(name, ColumnType::F32, Some(unit)));
    let class = has_class.then(|| ColumnSpec::new("class", ColumnType::I8, None));
    hash.into_iter().chain(run).chain(named).chain(copied).chain(features).chain(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::schema::columns::CHUNK_ROWS;

    const ROW: &str =
        "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g";

    fn options(inputs: &[&Path], output: &Path) -> Options {
        let inputs = inputs.iter().map(|path| path.to_path_buf()).collect();
        Options {
            inputs,
            output: output.to_path_buf(),
            dialect: None,
            class: None,
            placement: None,
            overwrite: false,
        }
    }

    fn table(folder: &Path, name: &str, rows: usize) -> PathBuf {
        let path = folder.join(name);
        let lines: String =
            (0..rows).map(|i| ROW.replace("28.7967", &format!("{}", 30 + i % 50)) + "\n").collect();
        std::fs::write(&path, lines).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn run_is_taken_from_table_or_folder_name() {
        let of = |path: &str| run_of_name(Path::new(path));
        assert_eq!(of("IACT01/121223.05_out_hillas_14_7.0fix.csv"), Some(20_231_212_005));
        assert_eq!(of("IACT02/121223.05_out_hillas_14_7.0fix.csv"), Some(20_231_212_005));
        assert_eq!(of("121223.05/portion-3.csv"), Some(20_231_212_005));
        assert_eq!(of("010100.7.csv"), Some(20_000_101_007));
        for name in [
            "run-5.csv",
            "321223.05.csv",
            "121323.05.csv",
            "121223.csv",
            "12122.05.csv",
            "1212234.05.csv",
            "121223.1234.csv",
            "121223.05a.csv",
            "",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn rows_out_are_rows_in_and_the_bytes_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] =
            [table(folder.path(), "a.csv", CHUNK_ROWS + 5), table(folder.path(), "b.csv", 7)];
        let [one, two] = ["one.h5", "two.h5"].map(|name| folder.path().join(name));
        let summary = run(&options(&[&a, &b], &one)).unwrap();
        assert_eq!(
            (summary.rows, summary.gammas),
            (CHUNK_ROWS as u64 + 12, CHUNK_ROWS as u64 + 12)
        );
        run(&options(&[&a, &b], &two)).unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
        let length = hdf5::File::open(&one).unwrap().dataset("events/length").unwrap();
        let length = length.read_raw::<f32>().unwrap();
        assert!((length[CHUNK_ROWS + 5 + 6] - 36.0 * 0.003_37).abs() < 1e-6);
    }

    #[test]
    fn bad_row_refuses_conversion_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let good = table(folder.path(), "good.csv", 3);
        let bad = folder.path().join("bad.csv");
        std::fs::write(&bad, format!("{ROW}\n{}\n", ROW.replace("0.3918", "inf"))).unwrap();
        let error = run(&options(&[&good, &bad], &folder.path().join("out.h5"))).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("bad.csv") && text.contains("column 'fConc', row 2"), "{text}");
        std::fs::write(&bad, "").unwrap();
        let error = run(&options(&[&good, &bad], &folder.path().join("out.h5"))).unwrap_err();
        assert!(error.to_string().contains("no rows"), "{error}");
        assert_eq!(names(folder.path()), ["bad.csv", "good.csv"]);
    }

    #[test]
    fn copy_of_a_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (table(folder.path(), "a.csv", 3), table(folder.path(), "b.csv", 4));
        let copy = folder.path().join("copy.csv");
        std::fs::copy(&a, &copy).unwrap();
        let output = folder.path().join("out.h5");
        let error = run(&options(&[&a, &b, &copy], &output)).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("copy.csv: two files have the same content"), "{text}");
        assert!(text.contains("a copy of") && text.contains("a.csv"), "{text}");
        assert_eq!(names(folder.path()), ["a.csv", "b.csv", "copy.csv"]);
        assert_eq!(run(&options(&[&a, &b], &output)).unwrap().rows, 7);
    }

    #[test]
    fn wrong_options_are_refused_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let a = table(folder.path(), "a.csv", 3);
        let out = folder.path().join("out.h5");
        assert_eq!(run(&options(&[], &out)).unwrap_err().exit_code(), 2);
        assert_eq!(run(&options(&[&a, &a], &out)).unwrap_err().exit_code(), 2);
        let over = Options { overwrite: true, ..options(&[&a], &a) };
        assert_eq!(run(&over).unwrap_err().exit_code(), 2);
        let unknown = Options { dialect: Some("fact".into()), ..options(&[&a], &out) };
        assert_eq!(run(&unknown).unwrap_err().exit_code(), 2);
        let missing = folder.path().join("none.csv");
        assert_eq!(run(&options(&[&missing], &out)).unwrap_err().exit_code(), 3);
        run(&options(&[&a], &out)).unwrap();
        assert_eq!(run(&options(&[&a], &out)).unwrap_err().exit_code(), 2);
        assert_eq!(names(folder.path()), ["a.csv", "out.h5"]);
    }

    /// The published set, where the folder `TAIGA_FLOW_TEST_DATA` holds it.
    #[test]
    fn magic_set_keeps_rows_classes_and_row_keys() {
        let Some(data) = std::env::var_os("TAIGA_FLOW_TEST_DATA") else {
            eprintln!("skipped: TAIGA_FLOW_TEST_DATA is not set");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("magic.h5");
        let input = Path::new(&data).join("magic04-dev.data");
        let summary = run(&options(&[&input], &output)).unwrap();
        assert_eq!((summary.rows, summary.gammas, summary.hadrons), (15_089, 9_802, 5_287));
        let keys = hdf5::File::open(&output).unwrap().dataset("events/row_hash").unwrap();
        let keys = keys.read_raw::<i64>().unwrap();
        let texts = std::fs::read_to_string(&input).unwrap();
        let different: std::collections::HashSet<&str> = texts.lines().collect();
        let distinct: std::collections::HashSet<i64> = keys.iter().copied().collect();
        assert_eq!(distinct.len(), different.len());
        assert!(distinct.len() < keys.len() && keys.iter().all(|key| *key >= 0));
    }
}
