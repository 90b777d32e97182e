//! The extraction of one file: read ahead, work, write.

use super::block::{Extractor, ParameterRows};
use super::columns::ColumnLayout;
use super::manifest::ExtractedFile;
use super::resume::SETTINGS;
use super::{Options, not_of_hadrons};
use crate::comm::{Communicator, StopFlag, Work};
use crate::data::files::stamp::{self, Stamp};
use crate::data::images::{ImageBlock, ImageFile, ImageReader, ImageSet, Sigma, camera_file};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use crate::data::table::events;
use crate::error::{Fault, Result};
use crate::hillas::{
    BUILT_IN_CAMERAS, Camera, CleaningThresholds, FOCAL_LENGTH_CM, Islands, STATUS_BITS,
    ThresholdComparison,
};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use taiga_flow_gpu::random::Stream;

/// Charges and images read at a time: bounds the memory, a few blocks of about 10 MB.
const BLOCK_CHARGES: usize = 4096 * 640;
const BLOCK_IMAGES: usize = 4096;
/// Blocks that wait to be worked on.
const BLOCKS_AHEAD: usize = 2;

/// The camera that was asked for, if one was.
pub fn requested_camera(options: &Options) -> Result<Option<Camera>> {
    let Some(text) = &options.camera else { return Ok(None) };
    let path = Path::new(text);
    let is_name = !path.is_file() && path.extension().is_none() && path.components().count() < 2;
    if is_name || BUILT_IN_CAMERAS.contains(&text.as_str()) {
        return Camera::by_name(text).map(Some);
    }
    let geometry = camera_file(path)?;
    let focal = geometry.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM);
    Camera::new(geometry.x_cm, geometry.y_cm, focal).map(Some).map_err(|error| error.in_file(path))
}

/// What all files of a rank are extracted with.
pub struct FileExtractor<'a> {
    pub comm: &'a dyn Communicator,
    pub options: &'a Options,
    pub camera: Option<&'a Camera>,
    /// Hash of the settings.
    pub settings: &'a str,
    pub stop: &'a StopFlag,
}

impl FileExtractor<'_> {
    /// Extracts one file into another; also returns size and time of change of the input. What stood
    /// under the name of the output was looked at before.
    pub fn extract(&self, input: &Path, output: &Path) -> Result<(ExtractedFile, Option<String>)> {
        let FileExtractor { comm, options, camera, settings, .. } = *self;
        let pixels = camera.map(|camera| (camera.x_cm(), camera.y_cm()));
        let stamp = Stamp::of(input);
        let hash_of = |path: &Path| {
            let hash = stamp::hash_file_with_progress(path, || comm.progress(Work::Hashing, 0))?;
            Ok(stamp::hash_text(&hash))
        };
        comm.progress(Work::Extracting, 0);
        let file = ImageFile::open(input, pixels)?;
        let input_blake3 = hash_of(input)?;
        let sets = file.sets();
        let Some(first) = sets.first() else {
            return Err(Fault::new("no images in the file").file(input).input());
        };
        let plan = ColumnPlan::new(first, options);
        let mut writer = ColumnWriter::create(output, events::GROUP, &plan.specs, true)?;
        let mut counts = [0u64; STATUS_BITS.len()];
        for (index, set) in sets.iter().enumerate() {
            let extractor = extractor(set, camera, options, &plan).map_err(|e| e.in_file(input))?;
            let reader = file.reader(index)?;
            self.go_through(reader, &extractor, &plan, &mut writer, &mut counts)
                .map_err(|error| error.in_file(input))?;
        }
        if stamp != Stamp::of(input) {
            return Err(Fault::new("the file changed while it was read")
                .file(input)
                .advice("wait until its writer has finished")
                .input());
        }
        let images = finish(writer, &file, [&input_blake3, settings], options)?;
        let status = STATUS_BITS.iter().zip(counts).map(|((_, name), n)| ((*name).to_string(), n));
        let file = ExtractedFile {
            output: String::new(),
            images,
            input_blake3,
            output_blake3: hash_of(output)?,
            status: status.collect(),
        };
        Ok((file, stamp.map(|stamp| stamp.portable())))
    }

    /// All images of a reader, a block read while another is worked on.
    fn go_through(
        &self,
        reader: Box<dyn ImageReader>,
        extractor: &Extractor,
        plan: &ColumnPlan,
        writer: &mut ColumnWriter,
        counts: &mut [u64],
    ) -> Result<()> {
        let images = (BLOCK_CHARGES / extractor.camera.pixels()).clamp(1, BLOCK_IMAGES);
        let (full, blocks) = sync_channel(BLOCKS_AHEAD);
        let (spare, empty) = sync_channel(BLOCKS_AHEAD + 2);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || read_ahead(reader, images, &full, &empty));
            let worked = self.work(&blocks, &spare, extractor, plan, writer, counts);
            // A reader that waits to hand over a block must not wait for ever.
            drop(blocks);
            let read = reading
                .join()
                .unwrap_or_else(|_| Err(Fault::new("the reading thread died").internal()));
            worked.and(read)
        })
    }

    fn work(
        &self,
        blocks: &Receiver<ImageBlock>,
        spare: &SyncSender<ImageBlock>,
        extractor: &Extractor,
        plan: &ColumnPlan,
        writer: &mut ColumnWriter,
        counts: &mut [u64],
    ) -> Result<()> {
        let mut rows = ParameterRows::default();
        let mut columns: Vec<Vec<f32>> = vec![Vec::new(); extractor.layout.width()];
        let mut images = 0;
        for block in blocks {
            self.stop.refuse_if_requested()?;
            self.comm.progress(Work::Extracting, images);
            images += block.rows as u64;
            let class = block.class.as_deref().unwrap_or_default();
            if matches!(plan.source, SourceChoice::Random(_))
                && class.iter().any(|class| *class != events::HADRON)
            {
                return Err(not_of_hadrons("rows of the class column that are not hadrons"));
            }
            let sources = plan.sources(&block);
            let [x, y] = &sources;
            let source = |row: usize| Some([f64::from(*x.get(row)?), f64::from(*y.get(row)?)]);
            extractor.extract(&block, &source, &mut rows)?;
            for (count, (bit, _)) in counts.iter_mut().zip(STATUS_BITS) {
                *count += rows.status.iter().filter(|status| *status & bit != 0).count() as u64;
            }
            for (c, column) in columns.iter_mut().enumerate() {
                column.clear();
                column.extend(rows.cells.chunks_exact(extractor.layout.width()).map(|row| row[c]));
            }
            append(&block, &columns, &sources, &rows, plan, writer)?;
            // Its memory is used again; there is no harm if nobody waits for it.
            let _ = spare.try_send(block);
        }
        Ok(())
    }
}

/// Where the source position of an image comes from.
#[derive(Debug, Clone, Copy)]
enum SourceChoice {
    None,
    /// Columns of the input [deg].
    Columns([usize; 2]),
    Fixed([f64; 2]),
    /// At this distance from the camera's centre [deg], the azimuth seeded by the keys.
    Random(f64),
}

/// Which columns go where.
struct ColumnPlan {
    specs: Vec<ColumnSpec>,
    layout: ColumnLayout,
    /// Columns of the input that are copied.
    copied: Vec<usize>,
    source: SourceChoice,
    fixed_class: Option<i8>,
}

impl ColumnPlan {
    fn new(set: &ImageSet, options: &Options) -> ColumnPlan {
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

    /// Source positions x and y of the rows of a block as they are written [deg]; empty
    /// without.
    fn sources(&self, block: &ImageBlock) -> [Vec<f32>; 2] {
        match self.source {
            SourceChoice::None => [Vec::new(), Vec::new()],
            SourceChoice::Columns(columns) => columns.map(|c| block.columns[c].clone()),
            SourceChoice::Fixed(position) => position.map(|x| vec![x as f32; block.rows]),
            SourceChoice::Random(offset) => {
                let position = |row: usize| {
                    let words: Vec<u64> = block.keys.iter().map(|key| key[row] as u64).collect();
                    let stream = Stream::new(0, "random source position", &words);
                    let azimuth = std::f64::consts::TAU * stream.uniform(0);
                    ((offset * libm::cos(azimuth)) as f32, (offset * libm::sin(azimuth)) as f32)
                };
                let (x, y) = (0..block.rows).map(position).unzip();
                [x, y]
            }
        }
    }
}

const SOURCE: [&str; 2] = ["source_x", "source_y"];

/// The extraction of one set of images, with everything checked that can be.
fn extractor(
    set: &ImageSet,
    camera: Option<&Camera>,
    options: &Options,
    plan: &ColumnPlan,
) -> Result<Extractor> {
    let camera = match (camera, &set.geometry) {
        (Some(camera), _) => camera.clone(),
        (None, Some(geometry)) => Camera::new(
            geometry.x_cm.clone(),
            geometry.y_cm.clone(),
            geometry.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM),
        )?,
        (None, None) => {
            return Err(Fault::new("the file does not say where the pixels are")
                .expected("datasets camera/x and camera/y")
                .advice("give --camera, a name or a file with the positions")
                .input());
        }
    };
    if camera.pixels() != set.pixels {
        return Err(Fault::new("the camera does not have the pixels of the images")
            .expected(format!("{} pixels", set.pixels))
            .found(format!("{} pixels", camera.pixels()))
            .advice("give another --camera, or none if the file has its own")
            .input());
    }
    for name in SOURCE {
        let unit = set.columns.iter().find(|(known, _)| known == name).map(|(_, unit)| unit);
        if let Some(unit) = unit.filter(|unit| *unit != "deg") {
            return Err(Fault::new("the source position is in another unit")
                .column(name)
                .expected("deg")
                .found(unit)
                .input());
        }
    }
    if let SourceChoice::Random(offset) = plan.source {
        check_random(set, &camera, offset, options)?;
    }
    if matches!(plan.source, SourceChoice::Random(_)) && set.keys.is_empty() {
        return Err(Fault::new("random source positions need keys")
            .expected("integer columns in the group `events`")
            .advice("give --source X,Y, or add keys to the file")
            .input());
    }
    let mut cleaning = options.cleaning;
    if set.is_cleaned {
        cleaning.thresholds = CleaningThresholds::Given;
    } else if cleaning.thresholds == CleaningThresholds::Given && !set.has_given {
        return Err(Fault::new("the file does not say which pixels belong to an image")
            .advice("choose --cleaning fixed or sigma")
            .input());
    }
    let sigma = match (&set.sigma, cleaning.needs_sigma()) {
        (_, false) | (Sigma::PerImage, true) => None,
        (Sigma::Camera(sigma), true) => Some(sigma.clone()),
        (Sigma::None, true) => {
            return Err(Fault::new("the file has no pedestal σ")
                .expected("dataset images/pedestal_sigma")
                .advice("choose --cleaning fixed")
                .input());
        }
    };
    Ok(Extractor { camera, cleaning, layout: plan.layout.clone(), sigma })
}

/// Refuses random source positions outside the camera, and of particles that nothing says are
/// hadrons. The pixels of cleaned images are those of the images, not of the camera.
fn check_random(set: &ImageSet, camera: &Camera, offset: f64, options: &Options) -> Result<()> {
    if !set.has_class && options.class.is_none() {
        return Err(not_of_hadrons("no --class, and no class column in the file"));
    }
    let radius = camera.radius_deg() + camera.pitch_deg();
    if !set.is_cleaned && offset > radius {
        return Err(Fault::new("a random source outside the camera")
            .expected(format!("at most {radius:.2} deg"))
            .found(format!("--random-source {offset}"))
            .usage());
    }
    Ok(())
}

/// Reads until the end, an error, or nobody wants more.
fn read_ahead(
    mut reader: Box<dyn ImageReader>,
    images: usize,
    full: &SyncSender<ImageBlock>,
    empty: &Receiver<ImageBlock>,
) -> Result<()> {
    loop {
        let mut block = empty.try_recv().unwrap_or_default();
        if !reader.next(images, &mut block)? || full.send(block).is_err() {
            return Ok(());
        }
    }
}

fn append(
    block: &ImageBlock,
    columns: &[Vec<f32>],
    sources: &[Vec<f32>; 2],
    rows: &ParameterRows,
    plan: &ColumnPlan,
    writer: &mut ColumnWriter,
) -> Result<()> {
    let mut values: Vec<ColumnValues> =
        block.keys.iter().map(|keys| ColumnValues::I64(keys)).collect();
    values.extend(columns.iter().map(|column| ColumnValues::F32(column)));
    values.extend(plan.copied.iter().map(|i| ColumnValues::F32(&block.columns[*i])));
    if !matches!(plan.source, SourceChoice::None) {
        values.extend(sources.iter().map(|column| ColumnValues::F32(column)));
    }
    values.push(ColumnValues::U32(&rows.status));
    let class = plan.fixed_class.map(|class| vec![class; block.rows]);
    if let Some(class) = block.class.as_ref().or(class.as_ref()) {
        values.push(ColumnValues::I8(class));
    }
    writer.append(&values)
}

/// Gives the output its name and says what it was made of, and how.
fn finish(
    writer: ColumnWriter,
    file: &ImageFile,
    [input_blake3, settings]: [&str; 2],
    options: &Options,
) -> Result<u64> {
    let bits: Vec<String> =
        STATUS_BITS.iter().map(|(bit, name)| format!("{bit}: {name}")).collect();
    let mut origin = file.origin();
    let mut add = |name: &str, text: String| origin.push((name.to_string(), text));
    add("extracted_from", file.kind().to_string());
    add("source_blake3", input_blake3.to_string());
    add(SETTINGS, settings.to_string());
    add("cleaning", describe(options, file));
    add("status_bits", bits.join("; "));
    let texts: Vec<(&str, &str)> =
        origin.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    writer.finish(&events::attributes(&texts))
}

fn describe(options: &Options, file: &ImageFile) -> String {
    let cleaning = options.cleaning;
    if file.sets().iter().all(|set| set.is_cleaned) {
        return "as given".to_string();
    }
    let comparison = match cleaning.comparison {
        ThresholdComparison::Above => ">",
        ThresholdComparison::AtLeast => "≥",
    };
    let levels = match cleaning.thresholds {
        CleaningThresholds::Fixed { high, low } => format!("{comparison} {high} / {low} p.e."),
        CleaningThresholds::Sigma { high, low } => {
            format!("{comparison} {high} / {low} pedestal σ")
        }
        CleaningThresholds::Given => return "as given".to_string(),
    };
    match cleaning.islands {
        Islands::All => format!("{levels}, all islands"),
        Islands::Largest => format!("{levels}, largest island"),
    }
}
