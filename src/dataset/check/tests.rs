//! Tests of the checks of files.

use super::*;
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use crate::data::table::events;

const ROWS: usize = CHUNK_ROWS + 1000;

/// Returns the six features (features, rows), in the order of [`FEATURES`].
fn features() -> Vec<Vec<f32>> {
    let ramp = |low: f32, high: f32| -> Vec<f32> {
        // A prime step, so that no row repeats another.
        let share = |i: usize| (i * 7919 % ROWS) as f32 / (ROWS - 1) as f32;
        (0..ROWS).map(|i| low + (high - low) * share(i)).collect()
    };
    [(50.0, 5000.0), (0.3, 0.7), (0.0, 0.25), (0.0, 3.0), (0.0, 90.0), (0.1, 1.0)]
        .map(|(low, high)| ramp(low, high))
        .to_vec()
}

/// Writes an event file with these features, keys and alternating classes.
fn write(path: &Path, features: &[Vec<f32>]) {
    let mut specs = vec![
        ColumnSpec::new("run_id", ColumnType::I64, None),
        ColumnSpec::new("event_id", ColumnType::I64, None),
        ColumnSpec::new("class", ColumnType::I8, None),
    ];
    specs.extend(FEATURES.iter().map(|name| ColumnSpec::new(*name, ColumnType::F32, None)));
    let run = vec![7i64; ROWS];
    let event: Vec<i64> = (0..ROWS as i64).collect();
    let class: Vec<i8> = (0..ROWS).map(|i| (i % 2) as i8).collect();
    let mut values =
        vec![ColumnValues::I64(&run), ColumnValues::I64(&event), ColumnValues::I8(&class)];
    values.extend(features.iter().map(|feature| ColumnValues::F32(feature)));
    let mut writer = ColumnWriter::create(path, events::GROUP, &specs, true).unwrap();
    writer.append(&values).unwrap();
    writer.finish(&events::attributes(&[])).unwrap();
}

/// Returns the report on files without roles.
fn run(files: &[PathBuf], schema: Option<&str>) -> Result<CheckReport> {
    let schema = schema.map(str::to_string);
    super::run(&Options { files: files.to_vec(), schema, ..Options::default() })
}

/// Returns the report on one file whose features `spoil` has changed.
fn report(spoil: impl Fn(&mut [Vec<f32>])) -> FileReport {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let mut features = features();
    spoil(&mut features);
    write(&path, &features);
    run(&[path], None).unwrap().files.remove(0)
}

#[test]
fn a_good_file_is_described_and_not_refused() {
    let report = report(|_| ());
    assert!(report.refused.is_empty() && report.warnings.is_empty(), "{report}");
    let contents = report.contents.unwrap();
    assert_eq!((contents.rows, contents.schema.as_str()), (ROWS as u64, "taiga-events"));
    assert_eq!(contents.keys, ["event_id", "run_id"]);
    assert_eq!(contents.shower, ["run_id", "event_id"]);
    let half = ROWS as u64 / 2;
    assert_eq!(contents.classes, Some(Classes { gamma: half, hadron: half, unknown: 0 }));
    let alpha = contents.columns.iter().find(|column| column.name == "alpha").unwrap();
    assert_eq!((alpha.min, alpha.max, alpha.unit.as_str()), (Some(0.0), Some(90.0), "deg"));
    assert!((alpha.mean.unwrap() - 45.0).abs() < 0.1);
}

#[test]
fn a_few_bad_values_are_a_warning_and_counted() {
    let report = report(|features| {
        features[2][3] = f32::NAN;
        features[2][CHUNK_ROWS + 3] = f32::NAN;
        features[5][5] = 0.0;
        features[0][6] = f32::INFINITY;
        features[2][7] = 0.9; // wider than long
    });
    assert!(report.refused.is_empty(), "{report}");
    let text = report.to_string();
    for part in [
        "'width' is NaN in 2 of",
        "'con2' is not 0 to 1 in 1 of",
        "'size' is not above 0 p.e. in 1 of",
        "'width' exceeds 'length' in 1 of",
        "1 impossible",
        "1 infinite",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn wrong_units_and_constants_are_refused() {
    type Damage = fn(&mut [Vec<f32>]);
    let cases: [(&str, Damage); 4] = [
        ("'alpha' is not 0 to 90 deg", |features| features[4].iter_mut().for_each(|a| *a *= 2.0)),
        ("'width' exceeds 'length'", |features| features.swap(1, 2)),
        ("'con2' is the same in every row", |features| features[5].fill(0.5)),
        ("'dist' is NaN in every row", |features| features[3].fill(f32::NAN)),
    ];
    for (part, spoil) in cases {
        let report = report(spoil);
        assert!(report.refused.iter().any(|reason| reason.contains(part)), "{part}\n{report}");
    }
}

#[test]
fn one_bad_file_decides_outcome_others_continue() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad, none] = ["good.h5", "bad.h5", "none.h5"].map(|name| folder.path().join(name));
    write(&good, &features());
    std::fs::write(&bad, "not a file of events").unwrap();
    let report = run(&[bad.clone(), none, good.clone()], None).unwrap();
    assert_eq!(report.files.len(), 3);
    assert!(report.files[0].contents.is_none() && report.files[2].contents.is_some());
    assert_eq!(report.outcome().unwrap_err().exit_code(), 3);
    let text = report.to_string();
    assert!(text.contains("3 files, 2 refused"), "{text}");
    assert!(run(&[good], None).unwrap().outcome().is_ok());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["files"][2]["contents"]["rows"], ROWS as u64);
    assert_eq!(run(&[], None).unwrap_err().exit_code(), 2);
    assert_eq!(run(&[bad], Some("fatc")).unwrap_err().exit_code(), 2);
}

#[test]
fn the_table_is_aligned() {
    let report = report(|_| ());
    let text = report.to_string();
    let rows: Vec<&str> = text.lines().skip(1).take(7).collect();
    let end = rows[0].find("max").unwrap() + 3;
    assert!(rows[1..].iter().all(|row| row.len() == end), "{text}");
}

/// Checks the published files if the folder `TAIGA_FLOW_TEST_DATA` contains them.
#[test]
fn the_fact_files_are_readable_and_usable() {
    let Some(data) = std::env::var_os("TAIGA_FLOW_TEST_DATA") else {
        eprintln!("skipped: TAIGA_FLOW_TEST_DATA is not set");
        return;
    };
    let names = ["fact-gamma.hdf5", "fact-proton.hdf5"];
    let files = names.map(|name| Path::new(&data).join(name));
    let report = run(&files, None).unwrap();
    assert!(report.outcome().is_ok(), "{report}");
    let classes = report.files.iter().map(|file| file.contents.as_ref().unwrap().classes.unwrap());
    let classes: Vec<(u64, u64)> = classes.map(|count| (count.gamma, count.hadron)).collect();
    assert_eq!(classes, [(1000, 0), (0, 1000)]);
}
