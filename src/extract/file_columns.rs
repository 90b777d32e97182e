//! Columns of the output of one set of images, and the source position of each image.

use super::Options;
use super::columns::ColumnLayout;
use crate::data::images::{ImageBlock, ImageSet};
use crate::data::schema::columns::{ColumnSpec, ColumnType};
use taiga_flow_gpu::random::Stream;

/// Columns of the source position.
pub(super) const SOURCE: [&str; 2] = ["source_x", "source_y"];

/// Origin of the source position of an image.
#[derive(Debug, Clone, Copy)]
pub(super) enum SourceChoice {
    None,
    /// Columns of the input [deg].
    Columns([usize; 2]),
    Fixed([f64; 2]),
    /// Distance from the camera centre [deg]; the azimuth is seeded by the keys.
    Random(f64),
}

/// Columns of the output and their origin.
pub(super) struct ColumnPlan {
    pub specs: Vec<ColumnSpec>,
    pub layout: ColumnLayout,
    /// Columns of the input that are copied.
    pub copied: Vec<usize>,
    pub source: SourceChoice,
    pub fixed_class: Option<i8>,
}

impl ColumnPlan {
    /// Returns the columns: keys, parameters, copied columns, source position, status, class.
    pub fn new(set: &ImageSet, options: &Options) -> ColumnPlan {
        let find = |name: &str| set.columns.iter().position(|(known, _)| known == name);
        let columns = find("source_x").zip(find("source_y")).map(|(x, y)| [x, y]);
        let source = match (options.random_source, columns, options.source) {
            (Some(offset), _, _) => SourceChoice::Random(offset),
            (None, Some(columns), _) => SourceChoice::Columns(columns),
            (None, None, Some(position)) => SourceChoice::Fixed(position),
            (None, None, None) => SourceChoice::None,
        };
        let at_source = !matches!(source, SourceChoice::None);
        let layout = ColumnLayout::new(options, at_source);
        let is_own = |name: &str| layout.has(name) || SOURCE.contains(&name);
        let copied: Vec<usize> =
            (0..set.columns.len()).filter(|i| !is_own(&set.columns[*i].0)).collect();
        let fixed_class = options.class.filter(|_| !set.has_class);
        let keys = set.keys.iter().map(|name| ColumnSpec::new(name.clone(), ColumnType::I64, None));
        let mut specs: Vec<ColumnSpec> = keys.collect();
        specs.extend(layout.specs());
        specs.extend(copied.iter().map(|i| {
            let (name, unit) = &set.columns[*i];
            ColumnSpec::new(name.clone(), ColumnType::F32, Some(unit))
        }));
        if at_source {
            specs.extend(SOURCE.map(|name| ColumnSpec::new(name, ColumnType::F32, Some("deg"))));
        }
        specs.push(ColumnSpec::new("status", ColumnType::U32, None));
        if set.has_class || fixed_class.is_some() {
            specs.push(ColumnSpec::new("class", ColumnType::I8, None));
        }
        ColumnPlan { specs, layout, copied, source, fixed_class }
    }

    /// Returns the source positions x and y (rows) of a block for the output [deg]; empty
    /// without a source.
    pub fn sources(&self, block: &ImageBlock) -> [Vec<f32>; 2] {
        match self.source {
            SourceChoice::None => [Vec::new(), Vec::new()],
            SourceChoice::Columns(columns) => columns.map(|c| block.columns[c].clone()),
            SourceChoice::Fixed(position) => position.map(|x| vec![x as f32; block.rows]),
            SourceChoice::Random(offset) => {
                let rows = 0..block.rows;
                let (x, y) = rows.map(|row| random_position(offset, block, row)).unzip();
                [x, y]
            }
        }
    }
}

/// Returns a position at a distance from the camera centre, with an azimuth from the keys of a
/// row.
fn random_position(offset: f64, block: &ImageBlock, row: usize) -> (f32, f32) {
    let words: Vec<u64> = block.keys.iter().map(|key| key[row] as u64).collect();
    let stream = Stream::new(0, "random source position", &words);
    let azimuth = std::f64::consts::TAU * stream.uniform(0);
    ((offset * libm::cos(azimuth)) as f32, (offset * libm::sin(azimuth)) as f32)
}
