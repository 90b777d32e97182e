//! Text tables into one event file.
//!
//! Promises: rows out = rows in, in the order of the inputs; equal inputs give
//! byte-identical files; one bad row refuses the whole conversion and leaves nothing
//! behind; memory is bounded by one block of rows. What a row means is `csv`'s.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::columns::{CHUNK_ROWS, ColumnSpec, ColumnWriter, Kind, Values};
use super::csv::{self, Dialect, Row, Rows};
use super::durable::refuse_existing;
use super::events;
use crate::error::{Fault, Result};

/// What to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables of one dialect; their rows follow each other in the output.
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Name of the dialect; found out from the first input where absent.
    pub dialect: Option<String>,
    pub overwrite: bool,
}

/// What was converted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub dialect: &'static str,
    pub files: usize,
    pub rows: u64,
    pub gammas: u64,
    pub hadrons: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} rows ({} gammas, {} hadrons) from {} file(s) of the dialect {}",
            self.output.display(),
            self.rows,
            self.gammas,
            self.hadrons,
            self.files,
            self.dialect
        )
    }
}

/// Converts all inputs into the output, whole or not at all.
pub fn run(options: &Options) -> Result<Summary> {
    refuse_existing(&options.output, options.overwrite)?;
    let first = distinct_inputs(options)?;
    let dialect = match &options.dialect {
        Some(name) => csv::dialect(name)?,
        None => csv::detect(first)?,
    };
    let columns = columns(dialect);
    let mut writer =
        ColumnWriter::create(&options.output, events::GROUP, &columns, options.overwrite)?;
    let mut block = Block::new(dialect);
    let mut hashes = Vec::with_capacity(options.inputs.len());
    for input in &options.inputs {
        hashes.push(copy_rows(input, dialect, &mut block, &mut writer)?);
    }
    block.append_to(&mut writer)?;
    let [gammas, hadrons] = [block.gammas, block.hadrons];
    let rows = writer.finish(&events::attributes(&[
        ("dialect", dialect.name),
        ("source_blake3", &hashes.join(" ")),
    ]))?;
    let output = options.output.clone();
    Ok(Summary {
        output,
        dialect: dialect.name,
        files: options.inputs.len(),
        rows,
        gammas,
        hadrons,
    })
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

/// Appends the rows of one table; gives the hash of its bytes.
fn copy_rows(
    input: &Path,
    dialect: &'static Dialect,
    block: &mut Block,
    writer: &mut ColumnWriter,
) -> Result<String> {
    let mut rows = Rows::open(input, dialect)?;
    let mut row = Row::default();
    let mut count = 0u64;
    while rows.read(&mut row)? {
        count += 1;
        block.push(&row);
        if block.class.len() == CHUNK_ROWS {
            block.append_to(writer)?;
        }
    }
    if count == 0 {
        return Err(csv::no_rows(input));
    }
    Ok(rows.source_hash().to_hex().to_string())
}

fn columns(dialect: &Dialect) -> Vec<ColumnSpec> {
    let key = ColumnSpec::new("row_hash", Kind::I64, None);
    let features = dialect
        .outputs
        .iter()
        .map(|output| ColumnSpec::new(output.name, Kind::F32, Some(output.unit)));
    let class = ColumnSpec::new("class", Kind::I8, None);
    [key].into_iter().chain(features).chain([class]).collect()
}

/// Rows on their way to the writer, by column.
struct Block {
    hashes: Vec<i64>,
    features: Vec<Vec<f32>>, // (outputs, rows)
    class: Vec<i8>,
    gammas: u64, // of all rows so far
    hadrons: u64,
}

impl Block {
    fn new(dialect: &Dialect) -> Block {
        let features = vec![Vec::new(); dialect.outputs.len()];
        Block { hashes: Vec::new(), features, class: Vec::new(), gammas: 0, hadrons: 0 }
    }

    fn push(&mut self, row: &Row) {
        self.hashes.push(row.hash);
        for (feature, value) in self.features.iter_mut().zip(&row.values) {
            feature.push(*value);
        }
        self.class.push(row.class);
        self.gammas += u64::from(row.class == events::GAMMA);
        self.hadrons += u64::from(row.class == events::HADRON);
    }

    /// Hands the rows to the writer and empties the block.
    fn append_to(&mut self, writer: &mut ColumnWriter) -> Result<()> {
        let mut values = vec![Values::I64(&self.hashes)];
        values.extend(self.features.iter().map(|feature| Values::F32(feature)));
        values.push(Values::I8(&self.class));
        writer.append(&values)?;
        self.hashes.clear();
        self.features.iter_mut().for_each(Vec::clear);
        self.class.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str =
        "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g";

    fn options(inputs: &[&Path], output: &Path) -> Options {
        let inputs = inputs.iter().map(|path| path.to_path_buf()).collect();
        Options { inputs, output: output.to_path_buf(), dialect: None, overwrite: false }
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
    fn a_bad_row_in_any_file_refuses_the_conversion_and_leaves_nothing() {
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
    fn the_magic_set_keeps_its_rows_and_classes_and_equal_rows_share_a_key() {
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
