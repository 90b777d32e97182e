//! Reads and changes event files, and writes them with any defect.

use std::path::Path;
use taiga_flow::data::schema::canonical_unit;
use taiga_flow::data::{Attribute, ColumnSpec, ColumnType, ColumnValues, ColumnWriter};

/// All columns of an event file.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    pub keys: Vec<(String, Vec<i64>)>,
    pub features: Vec<(String, Vec<f32>)>,
    pub class: Vec<i8>,
}

impl Events {
    pub fn read(path: &Path) -> Events {
        let file = hdf5::File::open(path).expect("an event file");
        let group = file.group("events").expect("the group");
        let mut events = Events { keys: Vec::new(), features: Vec::new(), class: Vec::new() };
        for name in group.member_names().expect("names") {
            let dataset = group.dataset(&name).expect("a dataset");
            match name.as_str() {
                "class" => events.class = dataset.read_raw().expect("classes"),
                "run_id" | "event_id" => {
                    events.keys.push((name, dataset.read_raw().expect("keys")));
                }
                _ => events.features.push((name, dataset.read_raw().expect("features"))),
            }
        }
        events
    }

    pub fn rows(&self) -> usize {
        self.class.len()
    }

    pub fn feature(&mut self, name: &str) -> &mut Vec<f32> {
        let found = self.features.iter_mut().find(|(known, _)| known == name);
        &mut found.unwrap_or_else(|| panic!("no feature {name}")).1
    }

    pub fn key(&self, name: &str) -> &[i64] {
        let found = self.keys.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no key {name}")).1
    }

    /// Returns the rows with the given numbers, in their order.
    pub fn chosen(&self, rows: &[usize]) -> Events {
        fn take<T: Copy>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|row| values[*row]).collect()
        }
        Events {
            keys: self.keys.iter().map(|(name, v)| (name.clone(), take(v, rows))).collect(),
            features: self.features.iter().map(|(name, v)| (name.clone(), take(v, rows))).collect(),
            class: take(&self.class, rows),
        }
    }

    pub fn write(&self, path: &Path) {
        let keys = self.keys.iter().map(|(name, _)| ColumnSpec::new(name, ColumnType::I64, None));
        let features = self
            .features
            .iter()
            .map(|(name, _)| ColumnSpec::new(name, ColumnType::F32, canonical_unit(name)));
        let class = ColumnSpec::new("class", ColumnType::I8, None);
        let specs: Vec<ColumnSpec> = keys.chain(features).chain([class]).collect();
        let mut writer = ColumnWriter::create(path, "events", &specs, false).expect("a file");
        let keys = self.keys.iter().map(|(_, values)| ColumnValues::I64(values));
        let features = self.features.iter().map(|(_, values)| ColumnValues::F32(values));
        let values: Vec<ColumnValues> =
            keys.chain(features).chain([ColumnValues::I8(&self.class)]).collect();
        writer.append(&values).expect("rows");
        let format = Attribute::Text("taiga-flow-events".to_string());
        let attributes =
            [("format".to_string(), format), ("version".to_string(), Attribute::Integer(1))];
        writer.finish(&attributes).expect("a whole file");
    }
}

/// A defect of a column.
#[derive(Debug, Clone)]
pub enum Defect {
    Text,
    Shorter,
    Table,
    Renamed(&'static str),
    Unit(&'static str),
    Empty,
}

/// Writes events as another program would, with a defect in one column (or in all, for
/// [`Defect::Empty`]).
pub fn write_with_defect(events: &Events, path: &Path, column: &str, odd: &Defect) {
    let file = hdf5::File::create(path).expect("a file");
    let format: hdf5::types::VarLenUnicode = "taiga-flow-events".parse().expect("a text");
    let attribute = file.new_attr::<hdf5::types::VarLenUnicode>().create("format").expect("one");
    attribute.write_scalar(&format).expect("the format");
    let attribute = file.new_attr::<i64>().create("version").expect("one");
    attribute.write_scalar(&1).expect("the version");
    let group = file.create_group("events").expect("a group");
    let write = |name: &str, values: &[f32]| {
        group.new_dataset_builder().with_data(values).create(name).expect("a dataset")
    };
    for (name, values) in &events.features {
        if matches!(odd, Defect::Empty) {
            write(name, &[]);
            continue;
        }
        if name != column {
            write(name, values);
            continue;
        }
        match odd {
            Defect::Text => {
                let word: hdf5::types::FixedAscii<8> =
                    hdf5::types::FixedAscii::from_ascii(b"narrow").expect("a word");
                let words = vec![word; values.len()];
                group.new_dataset_builder().with_data(&words).create(column).expect("words");
            }
            Defect::Shorter => {
                write(name, &values[1..]);
            }
            Defect::Table => {
                let shape = (values.len() / 2, 2);
                let table = group.new_dataset::<f32>().shape(shape).create(column);
                table.expect("a table").write_raw(&values[..2 * shape.0]).expect("values");
            }
            Defect::Renamed(other) => {
                write(other, values);
            }
            Defect::Unit(unit) => {
                let dataset = write(name, values);
                let text: hdf5::types::VarLenUnicode = unit.parse().expect("a text");
                let attribute =
                    dataset.new_attr::<hdf5::types::VarLenUnicode>().create("units").expect("one");
                attribute.write_scalar(&text).expect("a unit");
            }
            Defect::Empty => {}
        }
    }
}
