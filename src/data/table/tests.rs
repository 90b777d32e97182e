//! Tests of reading, on written files and on the public FACT files.

use super::*;
use crate::data::{Attribute, ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use ::hdf5::Group;
use ::hdf5::types::VarLenUnicode;

fn own() -> Schema {
    Schema::by_name_or_path("taiga-events").unwrap()
}

fn request(quantities: &[&str]) -> Request {
    Request {
        quantities: quantities.iter().map(ToString::to_string).collect(),
        ..Request::default()
    }
}

/// Writes an event file of the project with `rows` rows.
fn write_events(path: &Path, rows: usize, version: i64) {
    let specs = [
        ColumnSpec::new("size", ColumnType::F32, Some("p.e.")),
        ColumnSpec::new("width", ColumnType::F32, Some("deg")),
        ColumnSpec::new("energy", ColumnType::F64, Some("TeV")),
        ColumnSpec::new("run_id", ColumnType::I64, None),
        ColumnSpec::new("event_id", ColumnType::I64, None),
        ColumnSpec::new("class", ColumnType::I8, None),
    ];
    let mut writer = ColumnWriter::create(path, "events", &specs, false).unwrap();
    let size: Vec<f32> = (0..rows).map(|row| row as f32 + 0.5).collect();
    let width: Vec<f32> = (0..rows).map(|row| row as f32 * 1e-6).collect();
    let energy: Vec<f64> = (0..rows).map(|row| row as f64 * 0.1).collect();
    let event: Vec<i64> = (0..rows).map(|row| (1 << 60) + row as i64).collect();
    let class: Vec<i8> = (0..rows).map(|row| (row % 3) as i8 - 1).collect();
    let values = [
        ColumnValues::F32(&size),
        ColumnValues::F32(&width),
        ColumnValues::F64(&energy),
        ColumnValues::I64(&vec![7; rows]),
        ColumnValues::I64(&event),
        ColumnValues::I8(&class),
    ];
    writer.append(&values).unwrap();
    let format = ("format".to_string(), Attribute::Text("taiga-flow-events".to_string()));
    writer.finish(&[format, ("version".to_string(), Attribute::Integer(version))]).unwrap();
}

/// Writes a plain file with the group `events`, which `fill` fills.
fn plain(path: &Path, fill: impl FnOnce(&Group)) {
    let file = File::create(path).unwrap();
    fill(&file.create_group("events").unwrap());
    file.close().unwrap();
}

fn add(group: &Group, name: &str, values: &[f32]) {
    group.new_dataset_builder().with_data(values).create(name).unwrap();
}

/// Returns the message of an input error.
fn refusal<T>(outcome: Result<T>) -> String {
    let error = outcome.err().expect("a refusal");
    assert_eq!(error.exit_code(), 3, "{error}");
    error.to_string()
}

fn read_all(table: &Table, request: &Request) -> Block {
    let mut block = Block::default();
    table.reader(request).unwrap().read(0..table.rows(), &mut block).unwrap();
    block
}

#[test]
fn reading_across_edges_equals_reading_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let rows = 2 * 65_536 + 4321;
    write_events(&path, rows, 1);
    let table = Table::open(&path, &Schema::detect(&path).unwrap()).unwrap();
    assert_eq!(table.rows(), rows as u64);
    assert_eq!(table.quantities(), ["energy", "size", "width"]);
    assert_eq!(table.key_names(), ["event_id", "run_id"]);
    assert_eq!(table.shower_columns(), ["run_id", "event_id"]);
    assert_eq!(table.unit("energy"), Some("TeV"));
    let request = Request {
        quantities: ["width", "energy", "size"].map(str::to_string).to_vec(),
        keys: vec!["event_id".to_string()],
        shower: true,
        class: true,
    };
    let whole = read_all(&table, &request);
    assert!((whole.quantities[1][65_537] - 6_553.7).abs() < 1e-3);
    assert_eq!(whole.keys[0][rows - 1], (1 << 60) + rows as i64 - 1);
    assert_eq!(whole.shower[0], vec![7; rows]);
    assert_eq!(whole.class.as_ref().unwrap()[..4], [-1, 0, 1, -1]);
    let mut reader = table.reader(&request).unwrap();
    let mut block = Block::default();
    for piece in [10_007, 65_536, 100_000] {
        let mut first = 0;
        while first < rows {
            let last = (first + piece).min(rows);
            reader.read(first as u64..last as u64, &mut block).unwrap();
            assert_eq!(block.rows, last - first);
            for (part, all) in block.quantities.iter().zip(&whole.quantities) {
                assert!(part[..] == all[first..last]);
            }
            assert!(block.keys[0][..] == whole.keys[0][first..last]);
            assert!(
                block.class.as_ref().unwrap()[..] == whole.class.as_ref().unwrap()[first..last]
            );
            first = last;
        }
    }
    assert_eq!(reader.read(0..rows as u64 + 1, &mut block).unwrap_err().exit_code(), 1);
}

#[test]
fn misspelt_quantity_or_column_names_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write_events(&path, 10, 1);
    let table = Table::open(&path, &own()).unwrap();
    let text = refusal(table.reader(&request(&["widht"])));
    assert!(text.contains("did you mean 'width'?"), "{text}");
    let keys = Request { keys: vec!["evnet_id".to_string()], ..Request::default() };
    let text = refusal(table.reader(&keys));
    assert!(text.contains("did you mean 'event_id'?"), "{text}");

    let other = folder.path().join("b.h5");
    plain(&other, |group| {
        add(group, "size", &[1.0]);
        add(group, "widht", &[1.0]);
    });
    let fact = Schema::by_name_or_path("fact").unwrap();
    let table = Table::open(&other, &fact).unwrap();
    let text = refusal(table.reader(&request(&["width"])));
    assert!(text.contains("events/width") && text.contains("did you mean 'widht'?"), "{text}");
}

#[test]
fn unfit_columns_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    plain(&path, |group| {
        add(group, "size", &[1.0, 2.0, 3.0]);
        add(group, "width", &[1.0, 2.0]);
        let names: Vec<VarLenUnicode> =
            ["a", "b", "c"].iter().map(|s| s.parse().unwrap()).collect();
        group.new_dataset_builder().with_data(&names).create("length").unwrap();
        group.new_dataset::<f32>().shape((3, 2)).create("dist").unwrap();
    });
    let table = Table::open(&path, &own()).unwrap();
    let text = refusal(table.reader(&request(&["size", "width"])));
    assert!(text.contains("events/width") && text.contains("expected 3 rows"), "{text}");
    let text = refusal(table.reader(&request(&["length"])));
    assert!(text.contains("events/length") && text.contains("found text"), "{text}");
    let text = refusal(table.reader(&request(&["dist"])));
    assert!(text.contains("one dimension"), "{text}");
}

#[test]
fn integers_become_numbers_and_keys_stay_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    plain(&path, |group| {
        add(group, "size", &[1.5, 2.5]);
        group.new_dataset_builder().with_data(&[true, false]).create("good").unwrap();
        group.new_dataset_builder().with_data(&[3u16, 65_535]).create("pixels").unwrap();
        group.new_dataset_builder().with_data(&[i64::MIN, i64::MAX]).create("row_hash").unwrap();
    });
    let table = Table::open(&path, &own()).unwrap();
    assert_eq!(table.shower_columns(), ["row_hash"]);
    assert!(!table.has_class());
    let request = Request {
        quantities: ["good", "pixels", "size"].map(str::to_string).to_vec(),
        keys: vec!["row_hash".to_string()],
        shower: true,
        class: true,
    };
    let block = read_all(&table, &request);
    assert_eq!(block.quantities, [vec![1.0, 0.0], vec![3.0, 65_535.0], vec![1.5, 2.5]]);
    assert_eq!(block.keys, [vec![i64::MIN, i64::MAX]]);
    assert_eq!(block.shower, block.keys);
    assert_eq!(block.class, None);
}

#[test]
fn unit_contradicting_the_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let specs = [ColumnSpec::new("width", ColumnType::F32, Some("mm"))];
    let mut writer = ColumnWriter::create(&path, "events", &specs, false).unwrap();
    writer.append(&[ColumnValues::F32(&[1.0])]).unwrap();
    writer.finish(&[]).unwrap();
    let table = Table::open(&path, &own()).unwrap();
    let text = refusal(table.reader(&request(&["width"])));
    assert!(text.contains("'width'") && text.contains("expected deg, found mm"), "{text}");
}

#[test]
fn different_version_or_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write_events(&path, 3, 2);
    for text in [refusal(Table::open(&path, &own())), refusal(Schema::detect(&path))] {
        assert!(text.contains("expected version 1, found version 2"), "{text}");
    }
    let scores = folder.path().join("b.h5");
    let specs = [ColumnSpec::new("score", ColumnType::F32, None)];
    let mut writer = ColumnWriter::create(&scores, "scores", &specs, false).unwrap();
    writer.append(&[ColumnValues::F32(&[1.0])]).unwrap();
    let format = ("format".to_string(), Attribute::Text("taiga-flow-scores".to_string()));
    writer.finish(&[format]).unwrap();
    let text = refusal(Schema::detect(&scores));
    assert!(text.contains("'taiga-flow-scores'"), "{text}");
}

#[test]
fn file_without_schema_is_refused_with_findings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    plain(&path, |group| add(group, "energy", &[1.0]));
    let text = refusal(Schema::detect(&path));
    assert!(text.contains("group 'events' with 1 members") && text.contains("width"), "{text}");
    let text = refusal(Table::open(&path, &Schema { place: Some("evnets".to_string()), ..own() }));
    assert!(text.contains("did you mean 'events'?"), "{text}");
}

#[test]
fn unreadable_files_have_distinct_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_events(&path("good.h5"), 70_000, 1);
    let bytes = std::fs::read(path("good.h5")).unwrap();
    std::fs::write(path("empty.h5"), b"").unwrap();
    std::fs::write(path("text.h5"), "por,event_numb,time\n1,2,3\n").unwrap();
    std::fs::write(path("short.h5"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(path("zeros.h5"), vec![0u8; 5000]).unwrap();
    plain(&path("nothing.h5"), |_| {});
    for (name, part) in [
        ("missing.h5", "file not found"),
        ("", "a folder, not a file"),
        ("empty.h5", "the file is empty"),
        ("text.h5", "taiga-flow convert"),
        ("short.h5", "truncated"),
        ("zeros.h5", "not an HDF5 file"),
        ("nothing.h5", "nothing in group 'events'"),
    ] {
        let text = refusal(Table::open(&path(name), &own()));
        assert!(text.contains(part), "{name}: {text}");
    }
}

#[test]
fn table_without_rows_opens_and_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no_rows.h5");
    plain(&path, |group| {
        group.new_dataset::<f32>().shape((0..,)).chunk((16,)).create("size").unwrap();
        group.new_dataset::<f32>().shape((0,)).create("width").unwrap();
        group.new_dataset::<i64>().shape((0,)).create("run_id").unwrap();
    });
    let table = Table::open(&path, &own()).unwrap();
    assert_eq!((table.rows(), table.key_names()), (0, vec!["run_id"]));
    let mut reader = table.reader(&request(&["size", "width"])).unwrap();
    let mut block = Block::default();
    reader.read(0..0, &mut block).unwrap();
    assert_eq!((block.rows, block.quantities), (0, vec![Vec::new(), Vec::new()]));
    assert!(refusal(table.refuse_empty()).contains("found 0 rows"));
}

#[test]
fn wrong_checksum_is_an_error_not_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write_events(&path, 70_000, 1);
    let offset = {
        let file = File::open(&path).unwrap();
        file.dataset("events/width").unwrap().chunk_info(1).unwrap().addr as usize
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset + 100] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let table = Table::open(&path, &own()).unwrap();
    let mut reader = table.reader(&request(&["width"])).unwrap();
    let mut block = Block::default();
    reader.read(0..65_536, &mut block).unwrap();
    let text = refusal(reader.read(65_536..70_000, &mut block));
    assert!(text.contains("events/width") && text.contains("row 65536"), "{text}");
    assert!(text.contains("damaged"), "{text}");
}

/// Replaces a number in the file by another, wherever its eight bytes stand.
fn patch(path: &Path, from: u64, to: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let (from, to) = (from.to_le_bytes(), to.to_le_bytes());
    let places: Vec<usize> = (0..bytes.len() - 8).filter(|i| bytes[*i..*i + 8] == from).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + 8].copy_from_slice(&to);
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn impossible_shape_is_refused_before_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    for rows in [1u64 << 20, 1 << 45, 1 << 62, u64::MAX - 1] {
        plain(&path, |group| add(group, "size", &vec![1.0; 12_345]));
        patch(&path, 12_345, rows);
        let outcome =
            Table::open(&path, &own()).and_then(|table| table.reader(&request(&["size"])));
        refusal(outcome);
        let _ = std::fs::remove_file(&path);
        plain(&path, |group| {
            let dataset = group.new_dataset::<f32>().shape((12_345..,)).chunk((1000,));
            dataset.create("size").unwrap().write(&vec![1.0f32; 12_345]).unwrap();
        });
        patch(&path, 12_345, rows);
        let outcome =
            Table::open(&path, &own()).and_then(|table| table.reader(&request(&["size"])));
        refusal(outcome);
    }
}

#[test]
fn unwritten_rows_are_not_read_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    plain(&path, |group| {
        add(group, "size", &[1.0; 10]);
        group.new_dataset::<f32>().shape((10,)).create("length").unwrap();
        let width = group.new_dataset::<f32>().shape((10,)).chunk((4,)).create("width").unwrap();
        width.write_slice(&[1.0f32; 4], 0..4).unwrap();
    });
    let table = Table::open(&path, &own()).unwrap();
    for name in ["length", "width"] {
        let text = refusal(table.reader(&request(&[name])));
        assert!(text.contains("never written"), "{text}");
    }
}

#[test]
fn invalid_class_or_key_is_refused_with_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    plain(&path, |group| {
        add(group, "size", &[1.0, 1.0]);
        group.new_dataset_builder().with_data(&[1i8, 5]).create("class").unwrap();
        group.new_dataset_builder().with_data(&[1.0f64, 2.5]).create("run_id").unwrap();
        group.new_dataset_builder().with_data(&[1i64, 2]).create("event_id").unwrap();
    });
    let table = Table::open(&path, &own()).unwrap();
    let class = Request { class: true, ..Request::default() };
    let mut block = Block::default();
    let text = refusal(table.reader(&class).unwrap().read(0..2, &mut block));
    assert!(text.contains("row 1") && text.contains("found 5"), "{text}");
    let shower = Request { shower: true, ..Request::default() };
    let text = refusal(table.reader(&shower).unwrap().read(0..2, &mut block));
    assert!(text.contains("events/run_id") && text.contains("row 1"), "{text}");
}

/// Returns a public test file; `None` if the folder is absent and not named by the environment.
fn public(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TAIGA_FLOW_TEST_DATA").map(PathBuf::from);
    let asked = folder.is_some();
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = folder.unwrap_or_else(default).join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(!asked, "{} is not there, but TAIGA_FLOW_TEST_DATA is set", path.display());
    eprintln!("skipped: {} is not there", path.display());
    None
}

#[test]
fn fact_files_read_as_computed_by_hand() {
    // size [p.e.], width, length, dist [deg], alpha [deg], con2, run, event, shower key;
    // computed with NumPy from the raw columns of rows 0 and 999.
    let gamma: [([f64; 6], [i64; 4]); 2] = [
        (
            [
                103.813_000_623_918_21,
                0.082_953_422_568_309_84,
                0.169_210_922_835_224_9,
                0.585_452_516_828_086,
                6.985_470_668_881_391,
                0.208_473_317_537_221,
            ],
            [14_779, 154, 14_779, 911],
        ),
        (
            [
                112.651_625_619_571_36,
                0.067_171_059_939_433_83,
                0.213_467_340_269_884_5,
                1.212_894_268_962_437,
                3.662_317_368_822_14,
                0.214_359_041_209_731,
            ],
            [13_001, 469, 13_001, 2_848],
        ),
    ];
    let Some(path) = public("fact-gamma.hdf5") else { return };
    let schema = Schema::detect(&path).unwrap();
    assert_eq!(schema.name, "fact");
    let table = Table::open(&path, &schema).unwrap();
    let request = Request {
        quantities: ["size", "width", "length", "dist", "alpha", "con2"]
            .map(str::to_string)
            .to_vec(),
        keys: ["run_id", "event_id"].map(str::to_string).to_vec(),
        shower: true,
        class: true,
    };
    let block = read_all(&table, &request);
    assert_eq!(block.rows, 1000);
    for (row, (numbers, keys)) in [0, 999].into_iter().zip(gamma) {
        for (values, expected) in block.quantities.iter().zip(numbers) {
            let found = f64::from(values[row]);
            assert!((found / expected - 1.0).abs() < 2e-7, "row {row}: {found}, {expected}");
        }
        let found: Vec<i64> = block.keys.iter().chain(&block.shower).map(|key| key[row]).collect();
        assert_eq!(found, keys);
    }
    assert_eq!(block.class, Some(vec![1; 1000]));
    // Gammas point at the source, protons do not.
    let near = |block: &Block| block.quantities[4].iter().filter(|alpha| **alpha < 20.0).count();
    assert_eq!(near(&block), 901);
    let Some(path) = public("fact-proton.hdf5") else { return };
    let block = read_all(&Table::open(&path, &schema).unwrap(), &request);
    assert_eq!(near(&block), 213);
    assert_eq!(block.class, Some(vec![0; 1000]));
}

#[test]
fn every_quantity_of_the_fact_files_can_be_read() {
    let Some(path) = public("fact-gamma.hdf5") else { return };
    let fact = Schema::by_name_or_path("fact").unwrap();
    let table = Table::open(&path, &fact).unwrap();
    assert_eq!(table.quantities().len(), fact.quantities.len());
    let block = read_all(&table, &request(&table.quantities()));
    for (name, values) in table.quantities().iter().zip(&block.quantities) {
        assert!(values.iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn damaged_byte_never_gives_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write_events(&path, 1000, 1);
    let request = Request {
        quantities: ["width", "energy", "size"].map(str::to_string).to_vec(),
        keys: vec!["event_id".to_string()],
        shower: true,
        class: true,
    };
    let good = read_all(&Table::open(&path, &own()).unwrap(), &request);
    let bytes = std::fs::read(&path).unwrap();
    let mut state = 1u64;
    let (mut refused, flips) = (0, 600);
    for _ in 0..flips {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut damaged = bytes.clone();
        damaged[(state >> 33) as usize % bytes.len()] ^= 1 << (state >> 30 & 7);
        std::fs::write(&path, damaged).unwrap();
        let mut block = Block::default();
        let outcome = Schema::detect(&path).and_then(|schema| {
            let table = Table::open(&path, &schema)?;
            table.reader(&request)?.read(0..table.rows(), &mut block)
        });
        if let Err(error) = outcome {
            assert_eq!(error.exit_code(), 3, "{error}");
            refused += 1;
            continue;
        }
        // A flip in the name of the class column, say, leaves that column out.
        assert!(block.quantities == good.quantities && block.keys == good.keys);
        assert!(block.class.is_none() || block.class == good.class);
        assert!(block.shower.is_empty() || block.shower == good.shower);
    }
    assert!(refused > flips / 10, "{refused}");
}
