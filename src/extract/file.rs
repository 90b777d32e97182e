//! Extracts one file: reads ahead, computes parameters, writes.

use super::block::{Extractor, ParameterRows};
use super::file_columns::{ColumnPlan, SOURCE, SourceChoice};
use super::manifest::ExtractedFile;
use super::resume::SETTINGS;
use super::{Options, not_of_hadrons};
use crate::comm::{Communicator, StopFlag, Work};
use crate::data::files::stamp::{self, Stamp};
use crate::data::images::{ImageBlock, ImageFile, ImageReader, ImageSet, Sigma, camera_file};
use crate::data::schema::columns::{ColumnValues, ColumnWriter, refuse_equal_names};
use crate::data::table::events;
use crate::error::{Fault, Result};
use crate::hillas::{
    BUILT_IN_CAMERAS, Camera, CleaningThresholds, FOCAL_LENGTH_CM, Islands, STATUS_BITS,
    ThresholdComparison,
};
use crate::storage::FolderIdentity;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Largest number of charges of a block. With [`BLOCK_IMAGES`] it bounds the memory, a few blocks
/// of about 10 MB.
const BLOCK_CHARGES: usize = 4096 * 640;
/// Largest number of images of a block.
const BLOCK_IMAGES: usize = 4096;
/// Blocks that are read in advance.
const BLOCKS_AHEAD: usize = 2;

/// Returns the camera of the option `--camera`, if it is given.
///
/// # Errors
/// `Usage` for an unknown name; `Input` for an invalid camera file.
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

/// Extractor of the files of a rank.
pub struct FileExtractor<'a> {
    pub comm: &'a dyn Communicator,
    pub options: &'a Options,
    /// The output folder when the extraction began.
    pub folder: &'a FolderIdentity,
    pub camera: Option<&'a Camera>,
    /// Hash of the settings.
    pub settings: &'a str,
    pub stop: &'a StopFlag,
}

impl FileExtractor<'_> {
    /// Extracts one file into `output`, which may be overwritten: the caller has checked an existing
    /// file. Also returns size and time of change of the input.
    ///
    /// # Errors
    /// `Input` if the images or the settings for them are not valid; `Environment` if the system
    /// fails; `Stopped` after a stop request.
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
        refuse_equal_names(&plan.specs, input)?;
        let mut writer = ColumnWriter::create(output, events::GROUP, &plan.specs, true)?;
        let mut counts = [0u64; STATUS_BITS.len()];
        for (index, set) in sets.iter().enumerate() {
            let extractor = extractor(set, camera, options, &plan).map_err(|e| e.in_file(input))?;
            let reader = file.reader(index)?;
            self.extract_set(reader, &extractor, &plan, &mut writer, &mut counts)
                .map_err(|error| error.in_file(input))?;
        }
        if stamp != Stamp::of(input) {
            return Err(Fault::new("the file changed while it was read")
                .file(input)
                .advice("wait until its writer has finished")
                .input());
        }
        self.folder.check()?;
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

    /// Extracts all images of a set. The next block is read while one is processed.
    fn extract_set(
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
            let worked = self.extract_blocks(&blocks, &spare, extractor, plan, writer, counts);
            // Closes the channel, so that a reader with a block to send does not wait indefinitely.
            drop(blocks);
            let read = reading
                .join()
                .unwrap_or_else(|_| Err(Fault::new("the reading thread panicked").internal()));
            worked.and(read)
        })
    }

    /// Extracts and writes blocks until the channel closes.
    fn extract_blocks(
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
            // The reader reuses the memory. If it has ended, the block is dropped.
            let _ = spare.try_send(block);
        }
        Ok(())
    }
}

/// Returns the extractor of one set of images, after all checks of its settings.
fn extractor(
    set: &ImageSet,
    camera: Option<&Camera>,
    options: &Options,
    plan: &ColumnPlan,
) -> Result<Extractor> {
    let camera = camera_of(set, camera)?;
    for name in SOURCE {
        let unit = set.columns.iter().find(|(known, _)| known == name).map(|(_, unit)| unit);
        if let Some(unit) = unit.filter(|unit| *unit != "deg") {
            return Err(Fault::new("wrong unit of the source position")
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
        return Err(Fault::new("`--random-source` requires keys")
            .expected("integer columns in the group `events`")
            .advice("give --source X,Y, or add keys to the file")
            .input());
    }
    let mut cleaning = options.cleaning;
    if set.is_cleaned {
        cleaning.thresholds = CleaningThresholds::Given;
    } else if cleaning.thresholds == CleaningThresholds::Given && !set.has_given {
        return Err(Fault::new("the file does not mark the pixels of an image")
            .advice("use --cleaning fixed or sigma")
            .input());
    }
    let sigma = match (&set.sigma, cleaning.needs_sigma()) {
        (_, false) | (Sigma::PerImage, true) => None,
        (Sigma::Camera(sigma), true) => Some(sigma.clone()),
        (Sigma::None, true) => {
            return Err(Fault::new("the file has no pedestal σ")
                .expected("dataset images/pedestal_sigma")
                .advice("use --cleaning fixed")
                .input());
        }
    };
    Ok(Extractor { camera, cleaning, layout: plan.layout.clone(), sigma })
}

/// Returns the given camera, else that of the images, after a check of the number of pixels.
fn camera_of(set: &ImageSet, camera: Option<&Camera>) -> Result<Camera> {
    let camera = match (camera, &set.geometry) {
        (Some(camera), _) => camera.clone(),
        (None, Some(geometry)) => Camera::new(
            geometry.x_cm.clone(),
            geometry.y_cm.clone(),
            geometry.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM),
        )?,
        (None, None) => {
            return Err(Fault::new("the file has no pixel positions")
                .expected("datasets camera/x and camera/y")
                .advice("give --camera, a name or a file with the positions")
                .input());
        }
    };
    if camera.pixels() != set.pixels {
        return Err(Fault::new("camera and images differ in the number of pixels")
            .expected(format!("{} pixels", set.pixels))
            .found(format!("{} pixels", camera.pixels()))
            .advice("change --camera, or omit it if the file has a camera")
            .input());
    }
    Ok(camera)
}

/// Checks that random source positions are inside the camera and that the particles are hadrons.
///
/// The pixels of cleaned images may be only a part of the camera, so its radius is not known.
fn check_random(set: &ImageSet, camera: &Camera, offset: f64, options: &Options) -> Result<()> {
    if !set.has_class && options.class.is_none() {
        return Err(not_of_hadrons("no --class, and no class column in the file"));
    }
    let radius = camera.radius_deg() + camera.pitch_deg();
    if !set.is_cleaned && offset > radius {
        return Err(Fault::new("random source outside the camera")
            .expected(format!("at most {radius:.2} deg"))
            .found(format!("--random-source {offset}"))
            .usage());
    }
    Ok(())
}

/// Reads blocks until the end of the file, an error, or the end of the receiver.
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

/// Appends a block of rows to the output.
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

/// Writes the attributes with the origin of the output and renames it to its final name.
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

/// Returns the cleaning as text, for an attribute.
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
