use super::*;
use std::time::Duration;

fn specs() -> Vec<ColumnSpec> {
    vec![
        ColumnSpec::new("width", ColumnType::F32, Some("deg")),
        ColumnSpec::new("energy", ColumnType::F64, Some("TeV")),
        ColumnSpec::new("event_id", ColumnType::I64, None),
        ColumnSpec::new("class", ColumnType::I8, None),
        ColumnSpec::new("status", ColumnType::U32, None),
    ]
}

/// Writes `rows` rows in pieces of `piece` rows.
fn write(path: &Path, rows: usize, piece: usize, overwrite: bool) -> Result<u64> {
    let width: Vec<f32> = (0..rows).map(|i| i as f32 * 0.5).collect();
    let energy: Vec<f64> = (0..rows).map(|i| i as f64 * 0.1).collect();
    let event_id: Vec<i64> = (0..rows).map(|i| i as i64 - 7).collect();
    let class: Vec<i8> = (0..rows).map(|i| (i % 3) as i8 - 1).collect();
    let status: Vec<u32> = (0..rows).map(|i| i as u32).collect();
    let mut writer = ColumnWriter::create(path, "events", &specs(), overwrite)?;
    for first in (0..rows).step_by(piece) {
        let range = first..(first + piece).min(rows);
        writer.append(&[
            ColumnValues::F32(&width[range.clone()]),
            ColumnValues::F64(&energy[range.clone()]),
            ColumnValues::I64(&event_id[range.clone()]),
            ColumnValues::I8(&class[range.clone()]),
            ColumnValues::U32(&status[range]),
        ])?;
    }
    writer.finish(&[
        ("format".to_string(), Attribute::Text("taiga-flow-events".to_string())),
        ("version".to_string(), Attribute::Integer(1)),
        ("fraction".to_string(), Attribute::Number(0.25)),
    ])
}

#[test]
fn bytes_do_not_depend_on_appended_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
    let rows = CHUNK_ROWS + 1234;
    assert_eq!(write(&a, rows, 1000, false).unwrap(), rows as u64);
    std::thread::sleep(Duration::from_millis(1100)); // a stored time would differ
    write(&b, rows, rows, false).unwrap();
    write(&c, rows, 70_001, false).unwrap();
    let bytes = std::fs::read(&a).unwrap();
    assert!(bytes == std::fs::read(&b).unwrap());
    assert!(bytes == std::fs::read(&c).unwrap());
}

#[test]
fn values_units_and_attributes_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let rows = 2 * CHUNK_ROWS;
    write(&path, rows, 50_000, false).unwrap();
    let file = File::open(&path).unwrap();
    let width = file.dataset("events/width").unwrap();
    assert_eq!(width.shape(), [rows]);
    assert_eq!(width.chunk(), Some(vec![CHUNK_ROWS]));
    assert_eq!(width.filters().len(), 3);
    let last = width.read_raw::<f32>().unwrap()[rows - 1];
    assert!((last - (rows - 1) as f32 * 0.5).abs() < 1e-6);
    let text = |place: &Location, name: &str| {
        place.attr(name).unwrap().read_scalar::<FixedUnicode<64>>().unwrap().to_string()
    };
    assert_eq!(text(&width, "units"), "deg");
    assert_eq!(text(&file, "format"), "taiga-flow-events");
    let status = file.dataset("events/status").unwrap().read_raw::<u32>().unwrap();
    assert_eq!(status[CHUNK_ROWS + 1], CHUNK_ROWS as u32 + 1);
    assert_eq!(file.attr("rows").unwrap().read_scalar::<i64>().unwrap(), rows as i64);
    let fraction = file.attr("fraction").unwrap().read_scalar::<f64>().unwrap();
    assert!((fraction - 0.25).abs() < 1e-15);
}

#[test]
fn two_dimensional_columns_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, positions) = (CHUNK_ROWS + 77, 3);
    let mut files = Vec::new();
    for (name, piece) in [("a.h5", 40_000), ("b.h5", rows)] {
        let path = folder.path().join(name);
        let specs = [
            ColumnSpec::new("score", ColumnType::F32, Some("nat")).at_positions(Some(positions)),
            ColumnSpec::new("pass", ColumnType::U8, None).at_positions(Some(positions)),
            ColumnSpec::new("event_id", ColumnType::I64, None),
        ];
        let mut writer = ColumnWriter::create(&path, "scores", &specs, false).unwrap();
        for first in (0..rows).step_by(piece) {
            let next = (first + piece).min(rows);
            let all = |k: usize| (first..next).map(move |row| 10 * row + k);
            let score: Vec<f32> = (0..positions).flat_map(all).map(|v| v as f32).collect();
            let pass: Vec<u8> = (0..positions).flat_map(all).map(|v| v as u8).collect();
            let event_id: Vec<i64> = (first..next).map(|row| row as i64).collect();
            let values =
                [ColumnValues::F32(&score), ColumnValues::U8(&pass), ColumnValues::I64(&event_id)];
            writer.append(&values).unwrap();
        }
        let angles = Attribute::Numbers(vec![0.0, 120.0, 240.0]);
        writer.group_attribute("positions", &angles).unwrap();
        assert_eq!(writer.finish(&[]).unwrap(), rows as u64);
        files.push(std::fs::read(&path).unwrap());
        let file = File::open(&path).unwrap();
        let score = file.dataset("scores/score").unwrap();
        assert_eq!((score.shape(), score.chunk()), (vec![rows, 3], Some(vec![CHUNK_ROWS, 1])));
        let values = score.read_2d::<f32>().unwrap();
        let pass = file.dataset("scores/pass").unwrap().read_2d::<u8>().unwrap();
        for row in 0..rows {
            for k in 0..positions {
                assert_eq!(values[[row, k]].to_bits(), ((10 * row + k) as f32).to_bits());
                assert_eq!(pass[[row, k]], (10 * row + k) as u8);
            }
        }
        let angles = file.group("scores").unwrap().attr("positions").unwrap();
        assert_eq!(angles.read_raw::<f64>().unwrap(), [0.0, 120.0, 240.0]);
    }
    assert!(files[0] == files[1]);
}

#[test]
fn dropped_writer_removes_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let mut writer = ColumnWriter::create(&path, "events", &specs()[..1], false).unwrap();
    writer.append(&[ColumnValues::F32(&vec![1.0; CHUNK_ROWS + 5])]).unwrap();
    assert_eq!(writer.rows(), CHUNK_ROWS as u64 + 5);
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn values_unlike_the_specs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let mut writer = ColumnWriter::create(&path, "events", &specs()[..2], false).unwrap();
    assert!(writer.append(&[ColumnValues::F32(&[1.0])]).is_err());
    assert!(writer.append(&[ColumnValues::F32(&[1.0]), ColumnValues::F32(&[1.0])]).is_err());
    let error = writer.append(&[ColumnValues::F32(&[1.0]), ColumnValues::F64(&[])]).unwrap_err();
    assert!(error.to_string().contains("energy"), "{error}");
    assert_eq!(writer.finish(&[]).unwrap(), 0);
}

#[test]
fn existing_output_is_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write(&path, 10, 10, false).unwrap();
    assert_eq!(write(&path, 20, 10, false).unwrap_err().exit_code(), 2);
    assert_eq!(write(&path, 20, 10, true).unwrap(), 20);
}
