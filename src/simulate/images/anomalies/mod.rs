//! Generates images that represent hadrons, from gamma images and shower physics alone.
//!
//! Hadronic showers come from any direction, consist of sub-showers, and have distant islands and
//! muons. An anomaly is therefore a gamma image with added light, or unchanged: a second gamma
//! image, moved and rotated; islands; the arc of a muon. Its source is moved to a random azimuth.
//! The noise is that of the first image, because only pixels of the second one that survive the
//! cleaning are added. Every random draw is named by (seed, row, keys), so that the bytes depend
//! on files and options alone. `extract` cleans and parametrises these images like any others.

mod generator;

use crate::comm::SingleRank;
use crate::data::files::output_kind::OutputKind;
use crate::data::images::{ImageBlock, ImageFile, ImageSet, ImageSettings, ImageWriter, Sigma};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues};
use crate::dataset::assignment::Assignment;
use crate::error::{Fault, Result};
use crate::hillas::{Camera, Cleaning, CleaningThresholds, FOCAL_LENGTH_CM};
use crate::storage;
use generator::{AnomalyGenerator, AnomalyImage, SOURCE};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Notice in the attribute `simulation` of every file.
pub(crate) const NOTICE: &str = "anomalies made of gamma images, not a simulation of hadrons";
/// Version of the generated numbers (attribute `generator`); it changes whenever they do.
const GENERATOR: &str = "image-anomalies 1";
/// Key column with the number of the [`AnomalyKind`].
pub(crate) const KEY: &str = "anomaly";
/// Images per block; second images come from the same block.
const BLOCK_IMAGES: usize = 2048;

/// Kind of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AnomalyKind {
    /// The unchanged image with a different source.
    Turned = 0,
    /// A second gamma image is added as a sub-shower.
    Merged = 1,
    /// One to three islands are added.
    Islands = 2,
    /// The arc of a muon is added.
    Muon = 3,
}

impl AnomalyKind {
    pub(crate) const ALL: [AnomalyKind; 4] =
        [AnomalyKind::Turned, AnomalyKind::Merged, AnomalyKind::Islands, AnomalyKind::Muon];

    /// Returns the name in options and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            AnomalyKind::Turned => "turned",
            AnomalyKind::Merged => "merged",
            AnomalyKind::Islands => "islands",
            AnomalyKind::Muon => "muon",
        }
    }
}

/// Options of the generation.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Image files of gammas, or folders of them.
    pub inputs: Vec<PathBuf>,
    /// Folder for one image file per input.
    pub output: PathBuf,
    /// Name of a TAIGA camera; absent for the camera in the file.
    pub camera: Option<String>,
    /// Weight of each kind, in the order of [`AnomalyKind::ALL`].
    pub weights: [f64; 4],
    pub seed: u64,
    /// Selects the pixels of a second image that are added.
    pub cleaning: Cleaning,
    pub overwrite: bool,
}

/// Result of the generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub files: Vec<PathBuf>,
    pub images: u64,
    /// Images of each kind, in the order of [`AnomalyKind::ALL`].
    pub made: [u64; 4],
    /// Hadron images of the inputs, which are not used.
    pub left_out: u64,
    pub simulation: &'static str,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} images in {} file(s) ({NOTICE})", self.images, self.files.len())?;
        for (kind, images) in AnomalyKind::ALL.iter().zip(self.made) {
            writeln!(f, "  {images} {}", kind.name())?;
        }
        if self.left_out > 0 {
            writeln!(f, "  {} images of hadrons left out", self.left_out)?;
        }
        Ok(())
    }
}

/// Generates one anomaly per gamma image; a file gets its name when it is complete.
///
/// # Errors
/// `Usage` for invalid options or existing outputs; `Input` for files without images of one
/// camera.
pub(crate) fn run(options: &Options) -> Result<Summary> {
    check(options)?;
    let assignment = Assignment::new(&SingleRank, &options.inputs, &options.output, None)?;
    if let Some(failure) = assignment.unusable.first() {
        return Err(failure.to_error());
    }
    let inputs = assignment.protected(options.camera.as_deref().map(Path::new));
    for job in &assignment.jobs {
        inputs.refuse(&job.output)?;
        OutputKind::Anomalies.refuse_existing(&job.output, options.overwrite)?;
    }
    assignment.remove_dead_parts()?;
    let mut summary =
        Summary { files: Vec::new(), images: 0, made: [0; 4], left_out: 0, simulation: NOTICE };
    for job in &assignment.jobs {
        if let Some(folder) = job.output.parent() {
            storage::create_folder(folder)?;
        }
        file(&job.input, &job.output, options, &mut summary)
            .map_err(|error| error.in_file(&job.input))?;
        summary.files.push(job.output.clone());
    }
    Ok(summary)
}

/// Checks cleaning and weights.
fn check(options: &Options) -> Result<()> {
    options.cleaning.check()?;
    let usable = options.weights.iter().all(|w| w.is_finite() && *w >= 0.0);
    if !usable || options.weights.iter().sum::<f64>() <= 0.0 {
        return Err(Fault::new("invalid weights of anomalies")
            .expected("numbers of 0 or more, at least one of them above 0")
            .found(format!("{:?}", options.weights))
            .usage());
    }
    Ok(())
}

/// Generates the anomalies of one file and adds their numbers to the summary.
fn file(input: &Path, output: &Path, options: &Options, summary: &mut Summary) -> Result<()> {
    let named = options.camera.as_deref().map(Camera::by_name).transpose()?;
    let pixels = named.as_ref().map(|camera| (camera.x_cm(), camera.y_cm()));
    let file = ImageFile::open(input, pixels)?;
    let [set] = file.sets() else {
        return Err(Fault::new("images are not those of one camera")
            .expected("one set of images")
            .found(file.sets().len())
            .advice("write each telescope to a separate file")
            .input());
    };
    let (camera, focal_length_cm) = camera_of(set, named)?;
    let mut cleaning = options.cleaning;
    if set.is_cleaned {
        cleaning.thresholds = CleaningThresholds::Given;
    }
    let sigma = sigma_of(set, &camera, &cleaning)?;
    let images = ImageSettings {
        x_cm: camera.x_cm(),
        y_cm: camera.y_cm(),
        focal_length_cm,
        pedestal_sigma: &sigma,
    };
    let mut writer = ImageWriter::create(output, &images, &columns(set)?, options.overwrite)?;
    let generator = AnomalyGenerator::new(&camera, &sigma, set, cleaning, options);
    let mut reader = file.reader(0)?;
    let (mut block, mut first) = (ImageBlock::default(), 0);
    while reader.next(BLOCK_IMAGES, &mut block)? {
        let anomalies = generator.block(&block, first);
        first += block.rows as u64;
        for image in &anomalies {
            summary.made[image.kind as usize] += 1;
        }
        summary.left_out += (block.rows - anomalies.len()) as u64;
        summary.images += anomalies.len() as u64;
        append(&mut writer, set, &block, &anomalies)?;
    }
    let seed = options.seed.to_string();
    let weights: Vec<String> = options.weights.iter().map(ToString::to_string).collect();
    writer.finish(&[
        ("simulation", NOTICE),
        ("generator", GENERATOR),
        ("seed", &seed),
        ("weights", &weights.join(" ")),
    ])?;
    Ok(())
}

/// Returns the camera of the images and its focal length [cm].
fn camera_of(set: &ImageSet, named: Option<Camera>) -> Result<(Camera, f64)> {
    let (camera, focal) = match (named, &set.geometry) {
        (Some(camera), _) => (camera, FOCAL_LENGTH_CM),
        (None, Some(own)) => {
            let focal = own.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM);
            (Camera::new(own.x_cm.clone(), own.y_cm.clone(), focal)?, focal)
        }
        (None, None) => {
            return Err(Fault::new("the file has no pixel positions")
                .advice("give --camera")
                .input());
        }
    };
    if camera.pixels() != set.pixels {
        return Err(Fault::new("the camera does not match the images")
            .expected(format!("{} pixels", set.pixels))
            .found(camera.pixels())
            .input());
    }
    Ok((camera, focal))
}

/// Returns the pedestal σ of the pixels (pixels) [p.e.], for the output.
fn sigma_of(set: &ImageSet, camera: &Camera, cleaning: &Cleaning) -> Result<Vec<f32>> {
    match &set.sigma {
        Sigma::Camera(sigma) => Ok(sigma.clone()),
        Sigma::None if !cleaning.needs_sigma() => Ok(vec![0.0; camera.pixels()]),
        Sigma::None => Err(Fault::new("the file has no pedestal σ")
            .expected("dataset images/pedestal_sigma")
            .advice("use --cleaning fixed")
            .input()),
        Sigma::PerImage => Err(Fault::new("pedestal σ differs between images")
            .expected("one σ per pixel for the whole file")
            .advice("split the file into files with equal σ")
            .input()),
    }
}

/// Returns the columns of an output: keys, kind of anomaly, quantities, class.
fn columns(set: &ImageSet) -> Result<Vec<ColumnSpec>> {
    if set.keys.iter().any(|key| key == KEY) {
        return Err(Fault::new("images are already anomalies").column(KEY).input());
    }
    let keys = set.keys.iter().map(String::as_str).chain([KEY]);
    let keys = keys.map(|name| ColumnSpec::new(name, ColumnType::I64, None));
    let quantity =
        |(name, unit): &(String, String)| ColumnSpec::new(name, ColumnType::F32, Some(unit));
    let class = ColumnSpec::new("class", ColumnType::I8, None);
    Ok(keys.chain(set.columns.iter().map(quantity)).chain([class]).collect())
}

/// Appends anomalies to the output, with keys and quantities of their first images.
fn append(
    writer: &mut ImageWriter,
    set: &ImageSet,
    block: &ImageBlock,
    anomalies: &[AnomalyImage],
) -> Result<()> {
    let charge: Vec<f32> =
        anomalies.iter().flat_map(|image| image.charge.iter().copied()).collect();
    let mut keys: Vec<Vec<i64>> = block
        .keys
        .iter()
        .map(|key| anomalies.iter().map(|image| key[image.row]).collect())
        .collect();
    keys.push(anomalies.iter().map(|image| image.kind as i64).collect());
    let quantities: Vec<Vec<f32>> =
        (0..set.columns.len()).map(|c| quantity(set, block, anomalies, c)).collect();
    // Anomalies are not gammas, but their class is not known.
    let class = vec![-1; anomalies.len()];
    let mut values: Vec<ColumnValues> = keys.iter().map(|key| ColumnValues::I64(key)).collect();
    values.extend(quantities.iter().map(|quantity| ColumnValues::F32(quantity)));
    values.push(ColumnValues::I8(&class));
    writer.append(&charge, &values)
}

/// Returns the values of column `c`; the source position is that of the anomaly.
fn quantity(set: &ImageSet, block: &ImageBlock, anomalies: &[AnomalyImage], c: usize) -> Vec<f32> {
    let axis = SOURCE.iter().position(|name| *name == set.columns[c].0);
    let value = |image: &AnomalyImage| match (axis, image.source) {
        (Some(axis), Some(source)) => source[axis] as f32,
        _ => block.columns[c][image.row],
    };
    anomalies.iter().map(value).collect()
}
