use super::*;
use crate::data::schema::columns::CHUNK_ROWS;

const ROW: &str = "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g";

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
    // Tables with different first letters have no equal rows.
    let own = ROW.replace("81.8828", &format!("{}.8828", name.as_bytes()[0]));
    let lines: String =
        (0..rows).map(|i| own.replace("28.7967", &format!("{}", 30 + i % 50)) + "\n").collect();
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
fn conversion_keeps_rows_and_repeats_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = [table(folder.path(), "a.csv", CHUNK_ROWS + 5), table(folder.path(), "b.csv", 7)];
    let [one, two] = ["one.h5", "two.h5"].map(|name| folder.path().join(name));
    let summary = run(&options(&[&a, &b], &one)).unwrap();
    assert_eq!((summary.rows, summary.gammas), (CHUNK_ROWS as u64 + 12, CHUNK_ROWS as u64 + 12));
    run(&options(&[&a, &b], &two)).unwrap();
    assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
    let length = hdf5::File::open(&one).unwrap().dataset("events/length").unwrap();
    let length = length.read_raw::<f32>().unwrap();
    assert!((length[CHUNK_ROWS + 5 + 6] - 36.0 * 0.003_37).abs() < 1e-6);
}

#[test]
fn invalid_row_leaves_no_output() {
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

/// Uses the published set, if the folder `TAIGA_FLOW_TEST_DATA` contains it.
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
