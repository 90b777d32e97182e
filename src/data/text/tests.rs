//! Tests of parsing: a line becomes a row exactly, or is refused with its position.

use super::lines::BUFFER;
use super::*;
use crate::data::table::events::{GAMMA, HADRON};
use std::path::PathBuf;

const ROW: &str = "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g";

fn magic() -> Schema {
    dialect("magic").unwrap()
}

fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Result<TextRows> {
    TextRows::open(path, &magic(), [0; 32], None)
}

/// Returns the error of a file with these bytes.
fn refusal(text: &[u8]) -> Error {
    let (_folder, path) = file(text);
    let mut rows = match open(&path) {
        Ok(rows) => rows,
        Err(error) => return error,
    };
    let mut columns = ParsedColumns::default();
    loop {
        match rows.read(&mut columns) {
            Ok(more) => assert!(more, "accepted"),
            Err(error) => return error,
        }
    }
}

#[test]
fn only_text_schemas_are_available_by_name() {
    for schema in text_schemas().unwrap() {
        assert_eq!(dialect(&schema.name).unwrap().name, schema.name);
        assert!(!schema.text_columns().is_empty());
    }
    let error = dialect("magik").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("did you mean 'magic'?"), "{error}");
    assert_eq!(dialect("fact").unwrap_err().exit_code(), 2);
}

#[test]
fn row_becomes_quantities_in_canonical_units() {
    let (_folder, path) =
        file(format!("{ROW}\r\n\r\n {ROW}\n{}", ROW.replace('g', "h")).as_bytes());
    assert_eq!(detect(&path).unwrap().name, "magic");
    let mut rows = open(&path).unwrap();
    let mut read = ParsedColumns::default();
    assert!(rows.read(&mut read).unwrap());
    let values = |row: usize| read.values.iter().map(|v| v[row]).collect::<Vec<f32>>();
    let expected =
        [441.469, 0.097_044_9, 0.053_927_1, 0.275_945, 40.092, 0.3918, 0.1982, 0.093_350_3];
    for (value, expected) in values(0).iter().zip(expected) {
        assert!((value / expected - 1.0).abs() < 1e-5, "{value} {expected}");
    }
    assert_eq!((read.rows, read.class.as_slice()), (3, &[GAMMA, GAMMA, HADRON][..]));
    assert_eq!(values(0), values(1));
    let keys = &read.keys[0];
    assert!(keys[0] > 0 && keys[0] == keys[1] && keys[0] != keys[2]);
    assert!(!rows.read(&mut ParsedColumns::default()).unwrap());
    assert_eq!(rows.source_hash(), blake3::hash(&std::fs::read(&path).unwrap()));
}

#[test]
fn bad_row_is_reported_with_line_and_column() {
    let cases = [
        (
            ROW.replace("16.0021", "abc"),
            "not a number (column 'fWidth', row 3): expected a number from 0 to 2000, found 'abc'",
        ),
        (
            ROW.replace("16.0021", "NaN"),
            "value out of range (column 'fWidth', row 3): expected a number from 0 to 2000, found 'NaN'",
        ),
        (ROW.replace("16.0021", ""), "not a number (column 'fWidth', row 3)"),
        (
            ROW.replace("40.092", "90.5"),
            "value out of range (column 'fAlpha', row 3): expected a number from 0 to 90, found '90.5', and such values in 1 of 4 rows\n  advice: check the unit",
        ),
        (
            format!("{}\n{ROW}\n{}", ROW.replace("40.092", "90.5"), ROW.replace("40.092", "170")),
            "row 3): expected a number from 0 to 90, found '90.5', and such values in 2 of 6 rows",
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
fn binary_files_and_endless_lines_are_refused() {
    let error = refusal(&[ROW.as_bytes(), b"\n\xff\xfe,1\n"].concat());
    assert!(error.to_string().contains("text in UTF-8"), "{error}");
    let error = refusal(&vec![b'1'; 3 * lines::MAX_LINE_BYTES + BUFFER]);
    assert!(error.exit_code() == 3 && error.to_string().contains("a line of more"), "{error}");
}

#[test]
fn lines_across_buffer_ends_are_complete() {
    let lines = 3 * BUFFER / ROW.len();
    let text =
        (0..lines).map(|i| ROW.replace("28.7967", &format!("{}.5", i % 999))).collect::<Vec<_>>();
    let (_folder, path) = file(text.join("\n").as_bytes());
    let mut rows = open(&path).unwrap();
    let (mut columns, mut read) = (ParsedColumns::default(), Vec::new());
    while rows.read(&mut columns).unwrap() {
        read.extend_from_slice(&columns.values[1]);
    }
    assert_eq!(read.len(), lines);
    for (i, length) in read.iter().enumerate() {
        let length = f64::from(*length) / 0.003_37;
        assert!((length - (i % 999) as f64 - 0.5).abs() < 1e-3, "line {i}: {length}");
    }
}

#[test]
fn unknown_dialect_is_refused_with_findings() {
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
    let (_folder, path) = file(b"1 17 0 5 12.5 0.1\n1 1 0.5 -2.5 17.25\n");
    assert!(detect(&path).unwrap_err().to_string().contains("taiga-flow extract"));
    let header = "clean_number,event_number,axis_scatter,size\n";
    let (_folder, path) = file(header.as_bytes());
    assert_eq!(detect(&path).unwrap_err().exit_code(), 3);
}
