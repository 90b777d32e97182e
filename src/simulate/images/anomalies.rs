//! Images that stand for hadrons, made of gamma images and shower physics alone.
//!
//! Hadronic showers come from anywhere, break into sub-showers, throw islands of light far from
//! the rest, and send muons through the mirror. So an anomaly is a gamma's image with light added
//! (another gamma's, moved and turned; islands; the arc of a muon) or left as it is, and its
//! source is put at a random azimuth. The noise is that of the first image: of a second one only
//! what survives the cleaning is added. Every draw is named by (seed, row, keys), so that the
//! bytes depend on files and options alone. Left to others: cleaning and parameters of what is
//! made (`extract`), which are those of any image.

use super::shower::{Lookup, Muon, SINGLE_PE, pair};
use crate::comm::Solo;
use crate::data::files::output_kind::OutputKind;
use crate::data::images::{ImageBlock, ImageFile, ImageSet, ImageWriter, Images, Sigma};
use crate::data::schema::columns::{ColumnSpec, Kind, Values};
use crate::dataset::assignment::Assignment;
use crate::error::{Fault, Result};
use crate::hillas::{Camera, Cleaner, Cleaning, FOCAL_LENGTH_CM, Parameters, Pixels, Thresholds};
use crate::storage;
use rayon::prelude::*;
use serde::Serialize;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use taiga_flow_gpu::random::{Draws, Stream};

/// Stands as the attribute `simulation` in every file written.
pub const NOTICE: &str = "anomalies made of gamma images, not a simulation of hadrons";
/// Changes with every change of the generated numbers (attribute `generator`).
const GENERATOR: &str = "image-anomalies 1";
/// Key column that tells how an image was made: the number of its [`Making`].
pub const KEY: &str = "anomaly";
/// Images that others are looked for among.
const BLOCK_IMAGES: usize = 2048;
/// Other images that are tried before an image is left without a second one.
const PARTNERS: u64 = 16;

/// Weakest sub-shower that is added, as a share of the first one's light: weaker ones drown.
const LEAST_SHARE: f64 = 0.2;
/// Direction of a sub-shower about that of the other [deg]: transverse momenta of some 0.4 GeV/c
/// in particles of some 100 GeV, as for the toy hadrons.
const SUB_SHOWER_DEG: f64 = 0.25;
/// Images of sub-showers of one shower point to the same source, about so well [deg].
const SUB_SHOWER_TURN_DEG: f64 = 10.0;
/// Islands come from particles that left the shower's core: so far from its image [deg] ...
const ISLAND_DEG: [f64; 2] = [0.8, 2.0];
/// ... with this share of its light ...
const ISLAND_SHARE: [f64; 2] = [0.1, 0.4];
/// ... but at least so many times the high threshold, so that they survive the cleaning.
const ISLAND_LEAST: f64 = 7.0;
const ISLAND_SPREAD_DEG: f64 = 0.2;
/// High threshold where images were cleaned elsewhere [p.e.].
const USUAL_HIGH_PE: f64 = 14.0;
/// Light of a muon's arc [p.e.]: a part of the some 10³ p.e. of a whole ring.
const MUON_PE: [f64; 2] = [100.0, 500.0];

/// How an image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Making {
    /// As it is, seen from another source.
    Turned = 0,
    /// With the image of another gamma as a sub-shower.
    Merged = 1,
    /// With one to three islands.
    Islands = 2,
    /// With the arc of a muon.
    Muon = 3,
}

impl Making {
    pub const ALL: [Making; 4] = [Making::Turned, Making::Merged, Making::Islands, Making::Muon];

    pub fn name(self) -> &'static str {
        match self {
            Making::Turned => "turned",
            Making::Merged => "merged",
            Making::Islands => "islands",
            Making::Muon => "muon",
        }
    }
}

/// What to make of what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Image files of gammas, or folders of them.
    pub inputs: Vec<PathBuf>,
    /// Folder for one image file per input.
    pub output: PathBuf,
    /// A camera of TAIGA by name; the file's own where absent.
    pub camera: Option<String>,
    /// Weight of each way, in the order of [`Making::ALL`].
    pub weights: [f64; 4],
    pub seed: u64,
    /// What of a second image is its light.
    pub cleaning: Cleaning,
    pub overwrite: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub files: Vec<PathBuf>,
    pub images: u64,
    /// Images of each way, in the order of [`Making::ALL`].
    pub made: [u64; 4],
    /// Images of hadrons, which nothing is made of.
    pub left_out: u64,
    pub simulation: &'static str,
}

/// Makes an image of every gamma's image; files are written whole or not at all.
pub fn run(options: &Options) -> Result<Summary> {
    check(options)?;
    let assignment = Assignment::new(&Solo, &options.inputs, &options.output, None)?;
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

fn check(options: &Options) -> Result<()> {
    options.cleaning.check()?;
    let usable = options.weights.iter().all(|w| w.is_finite() && *w >= 0.0);
    if !usable || options.weights.iter().sum::<f64>() <= 0.0 {
        return Err(Fault::new("weights of anomalies that cannot be used")
            .expected("numbers of 0 or more, one of them above 0")
            .found(format!("{:?}", options.weights))
            .usage());
    }
    Ok(())
}

fn file(input: &Path, output: &Path, options: &Options, summary: &mut Summary) -> Result<()> {
    let named = options.camera.as_deref().map(Camera::by_name).transpose()?;
    let pixels = named.as_ref().map(|camera| (camera.x_cm(), camera.y_cm()));
    let file = ImageFile::open(input, pixels)?;
    let [set] = file.sets() else {
        return Err(Fault::new("images of one camera are needed")
            .expected("one set of images")
            .found(file.sets().len())
            .advice("extract one telescope into a file of its own")
            .input());
    };
    let (camera, focal_length_cm) = camera_of(set, named)?;
    let mut cleaning = options.cleaning;
    if set.is_cleaned {
        cleaning.thresholds = Thresholds::Given;
    }
    let sigma = sigma_of(set, &camera, &cleaning)?;
    let images = Images {
        x_cm: camera.x_cm(),
        y_cm: camera.y_cm(),
        focal_length_cm,
        pedestal_sigma: &sigma,
    };
    let mut writer = ImageWriter::create(output, &images, &columns(set)?, options.overwrite)?;
    let maker = Maker::new(&camera, &sigma, set, cleaning, options);
    let mut reader = file.reader(0)?;
    let (mut block, mut first) = (ImageBlock::default(), 0);
    while reader.next(BLOCK_IMAGES, &mut block)? {
        let made = maker.block(&block, first);
        first += block.rows as u64;
        for one in &made {
            summary.made[one.making as usize] += 1;
        }
        summary.left_out += (block.rows - made.len()) as u64;
        summary.images += made.len() as u64;
        append(&mut writer, set, &block, &made)?;
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

/// The camera of the images, and its focal length [cm].
fn camera_of(set: &ImageSet, named: Option<Camera>) -> Result<(Camera, f64)> {
    let (camera, focal) = match (named, &set.geometry) {
        (Some(camera), _) => (camera, FOCAL_LENGTH_CM),
        (None, Some(own)) => {
            let focal = own.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM);
            (Camera::new(own.x_cm.clone(), own.y_cm.clone(), focal)?, focal)
        }
        (None, None) => {
            return Err(Fault::new("the file does not say where its pixels are")
                .advice("give --camera")
                .input());
        }
    };
    if camera.pixels() != set.pixels {
        return Err(Fault::new("the camera is not that of the images")
            .expected(format!("{} pixels", set.pixels))
            .found(camera.pixels())
            .input());
    }
    Ok((camera, focal))
}

/// Pedestal σ of the pixels, as it is written again.
fn sigma_of(set: &ImageSet, camera: &Camera, cleaning: &Cleaning) -> Result<Vec<f32>> {
    match &set.sigma {
        Sigma::Camera(sigma) => Ok(sigma.clone()),
        Sigma::None if !cleaning.needs_sigma() => Ok(vec![0.0; camera.pixels()]),
        Sigma::None => Err(Fault::new("the file has no pedestal σ")
            .expected("dataset images/pedestal_sigma")
            .advice("choose --cleaning fixed")
            .input()),
        Sigma::PerImage => Err(Fault::new("pedestal σ that differs between images")
            .expected("one σ per pixel for the whole file")
            .advice("divide the file by what the σ is")
            .input()),
    }
}

/// Columns of a made file: keys, how it was made, quantities, class.
fn columns(set: &ImageSet) -> Result<Vec<ColumnSpec>> {
    if set.keys.iter().any(|key| key == KEY) {
        return Err(Fault::new("images that are made already").column(KEY).input());
    }
    let keys = set.keys.iter().map(String::as_str).chain([KEY]);
    let keys = keys.map(|name| ColumnSpec::new(name, Kind::I64, None));
    let quantity = |(name, unit): &(String, String)| ColumnSpec::new(name, Kind::F32, Some(unit));
    let class = ColumnSpec::new("class", Kind::I8, None);
    Ok(keys.chain(set.columns.iter().map(quantity)).chain([class]).collect())
}

fn append(
    writer: &mut ImageWriter,
    set: &ImageSet,
    block: &ImageBlock,
    made: &[Made],
) -> Result<()> {
    let charge: Vec<f32> = made.iter().flat_map(|one| one.charge.iter().copied()).collect();
    let mut keys: Vec<Vec<i64>> =
        block.keys.iter().map(|key| made.iter().map(|one| key[one.row]).collect()).collect();
    keys.push(made.iter().map(|one| one.making as i64).collect());
    let quantity = |c: usize| -> Vec<f32> {
        let place = SOURCE.iter().position(|name| *name == set.columns[c].0);
        let value = |one: &Made| match (place, one.source) {
            (Some(axis), Some(source)) => source[axis] as f32,
            _ => block.columns[c][one.row],
        };
        made.iter().map(value).collect()
    };
    let quantities: Vec<Vec<f32>> = (0..set.columns.len()).map(quantity).collect();
    // What they are not is known, what they are is not.
    let class = vec![-1; made.len()];
    let mut values: Vec<Values> = keys.iter().map(|key| Values::I64(key)).collect();
    values.extend(quantities.iter().map(|quantity| Values::F32(quantity)));
    values.push(Values::I8(&class));
    writer.append(&charge, &values)
}

const SOURCE: [&str; 2] = ["source_x", "source_y"];

/// An image that was made.
struct Made {
    row: usize, // of the block
    making: Making,
    charge: Vec<f32>,         // (pixels) [p.e.]
    source: Option<[f64; 2]>, // [deg]
}

/// The light of an image: what survives the cleaning.
struct Light {
    pixels: Vec<([f64; 2], f64)>, // where [deg], charge [p.e.]
    parameters: Parameters,
}

impl Light {
    /// Whether there is an image to speak of.
    fn is_there(&self) -> bool {
        self.pixels.len() > 3 && self.parameters.size > 0.0 && self.parameters.length > 0.0
    }

    fn centroid(&self) -> [f64; 2] {
        [self.parameters.x, self.parameters.y]
    }

    /// Where the image's tail points [rad]: away from the source, where there is one.
    fn direction(&self, source: Option<[f64; 2]>) -> f64 {
        let [cos, sin] = self.parameters.axis;
        let [x, y] = self.centroid();
        let away = source.map_or(1.0, |[sx, sy]| (x - sx) * cos + (y - sy) * sin);
        if away < 0.0 { libm::atan2(-sin, -cos) } else { libm::atan2(sin, cos) }
    }
}

struct Maker<'a> {
    camera: &'a Camera,
    lookup: Lookup,
    sigma: &'a [f32],
    cleaning: Cleaning,
    cumulative: [f64; 4],
    seed: u64,
    source: Option<[usize; 2]>, // columns
    threshold_pe: f64,
}

impl<'a> Maker<'a> {
    fn new(
        camera: &'a Camera,
        sigma: &'a [f32],
        set: &ImageSet,
        cleaning: Cleaning,
        options: &Options,
    ) -> Maker<'a> {
        let place = |name: &str| set.columns.iter().position(|(known, _)| known == name);
        let mean = sigma.iter().map(|s| f64::from(*s)).sum::<f64>() / sigma.len().max(1) as f64;
        let threshold_pe = match cleaning.thresholds {
            Thresholds::Fixed { high, .. } => high,
            Thresholds::Sigma { high, .. } => high * mean,
            Thresholds::Given => USUAL_HIGH_PE,
        };
        let total: f64 = options.weights.iter().sum();
        let mut cumulative = [0.0; 4];
        let mut sum = 0.0;
        for (edge, weight) in cumulative.iter_mut().zip(options.weights) {
            sum += weight / total;
            *edge = sum;
        }
        Maker {
            camera,
            lookup: Lookup::new(camera),
            sigma,
            cleaning,
            cumulative,
            seed: options.seed,
            source: place(SOURCE[0]).zip(place(SOURCE[1])).map(|(x, y)| [x, y]),
            threshold_pe,
        }
    }

    /// An image of each gamma of a block, in order; `first` is the number of its first row.
    fn block(&self, block: &ImageBlock, first: u64) -> Vec<Made> {
        let pixels = self.camera.pixels();
        let is_gamma = |row: usize| block.class.as_ref().is_none_or(|class| class[row] != 0);
        let rows: Vec<usize> = (0..block.rows).filter(|row| is_gamma(*row)).collect();
        let worker = || {
            let mut cleaner = Cleaner::new(self.cleaning, pixels);
            if self.cleaning.needs_sigma() {
                cleaner.set_sigma(self.sigma);
            }
            (cleaner, Pixels::default(), Vec::new())
        };
        let lights: Vec<Light> = rows
            .par_iter()
            .map_init(worker, |(cleaner, found, buffer), row| {
                let charge = block.charge.image(*row, pixels, buffer);
                let range = row * pixels..(row + 1) * pixels;
                let given = if block.given.is_empty() { &[] } else { &block.given[range] };
                cleaner.clean(self.camera, charge, given, found);
                let light = |pixel: &u16| {
                    let pixel = usize::from(*pixel);
                    (self.camera.position_deg(pixel), f64::from(charge[pixel]))
                };
                Light {
                    pixels: found.kept.iter().map(light).collect(),
                    parameters: Parameters::of(self.camera, charge, &found.kept),
                }
            })
            .collect();
        (0..rows.len())
            .into_par_iter()
            .map_init(Vec::new, |buffer, i| {
                let keys = block.keys.iter().map(|key| key[rows[i]] as u64);
                let words: Vec<u64> = [first + rows[i] as u64].into_iter().chain(keys).collect();
                let mut draws = Draws::new(Stream::new(self.seed, "image anomaly", &words));
                let charge = block.charge.image(rows[i], pixels, buffer).to_vec();
                self.make(block, &rows, &lights, i, charge, &mut draws)
            })
            .collect()
    }

    fn make(
        &self,
        block: &ImageBlock,
        rows: &[usize],
        lights: &[Light],
        i: usize,
        mut charge: Vec<f32>,
        draws: &mut Draws,
    ) -> Made {
        let source_of = |i: usize| -> Option<[f64; 2]> {
            let source = self.source?.map(|c| f64::from(block.columns[c][rows[i]]));
            source.iter().all(|x| x.is_finite()).then_some(source)
        };
        let azimuth = TAU * draws.uniform();
        let choice = draws.uniform();
        let wanted = self.cumulative.iter().position(|edge| choice < *edge);
        let wanted = Making::ALL[wanted.unwrap_or(Making::ALL.len() - 1)];
        let light = &lights[i];
        // Nothing is added to what is no image.
        let mut making = if light.is_there() { wanted } else { Making::Turned };
        match making {
            Making::Turned => {}
            Making::Merged => {
                let other = (0..PARTNERS)
                    .map(|_| {
                        ((draws.uniform() * lights.len() as f64) as usize).min(lights.len() - 1)
                    })
                    .find(|other| *other != i && lights[*other].is_there());
                match other {
                    Some(other) => {
                        let sources = [source_of(i), source_of(other)];
                        self.merge(light, &lights[other], sources, draws, &mut charge);
                    }
                    None => making = Making::Turned,
                }
            }
            Making::Islands => self.add_islands(light, draws, &mut charge),
            Making::Muon => self.add_muon(light, source_of(i), draws, &mut charge),
        }
        let source = source_of(i).map(|[x, y]| {
            let offset = libm::hypot(x, y);
            [offset * libm::cos(azimuth), offset * libm::sin(azimuth)]
        });
        Made { row: rows[i], making, charge, source }
    }

    /// Adds another image as a sub-shower: weaker than or as strong as the first, along its axis
    /// and displaced.
    fn merge(
        &self,
        light: &Light,
        other: &Light,
        [source, of_other]: [Option<[f64; 2]>; 2],
        draws: &mut Draws,
        charge: &mut [f32],
    ) {
        let share = LEAST_SHARE + (1.0 - LEAST_SHARE) * draws.uniform();
        let scale = share * light.parameters.size / other.parameters.size;
        let off = [0, 1].map(|_| SUB_SHOWER_DEG * draws.normal());
        let turn = light.direction(source) - other.direction(of_other)
            + SUB_SHOWER_TURN_DEG.to_radians() * draws.normal();
        let (sin, cos) = libm::sincos(turn);
        let ([x0, y0], [x1, y1]) = (other.centroid(), light.centroid());
        for ([x, y], q) in &other.pixels {
            // A pixel as its centre and six points half way to its edges: pixels that fall between
            // others share their light.
            for point in 0..7 {
                let [dx, dy] = self.within_pixel(point);
                let (x, y) = (x + dx - x0, y + dy - y0);
                let place = [x1 + off[0] + cos * x - sin * y, y1 + off[1] + sin * x + cos * y];
                if let Some(pixel) = self.lookup.pixel(place) {
                    charge[pixel] += (scale * q / 7.0) as f32;
                }
            }
        }
    }

    fn within_pixel(&self, point: u32) -> [f64; 2] {
        if point == 0 {
            return [0.0; 2];
        }
        let azimuth = TAU * f64::from(point) / 6.0;
        let radius = self.camera.pitch_deg() / 4.0;
        [radius * libm::cos(azimuth), radius * libm::sin(azimuth)]
    }

    fn add_islands(&self, light: &Light, draws: &mut Draws, charge: &mut [f32]) {
        let islands = 1 + draws.poisson(0.5).min(2);
        for _ in 0..islands {
            let azimuth = TAU * draws.uniform();
            let far = between(ISLAND_DEG, draws.uniform());
            let [x, y] = light.centroid();
            let place = [x + far * libm::cos(azimuth), y + far * libm::sin(azimuth)];
            let share = between(ISLAND_SHARE, draws.uniform());
            let mean = (share * light.parameters.size).max(ISLAND_LEAST * self.threshold_pe);
            self.shine(mean, draws, charge, |draws| {
                let [x, y] = pair(draws);
                [place[0] + ISLAND_SPREAD_DEG * x, place[1] + ISLAND_SPREAD_DEG * y]
            });
        }
    }

    /// Adds the arc of a muon that moves about as the shower does.
    fn add_muon(
        &self,
        light: &Light,
        source: Option<[f64; 2]>,
        draws: &mut Draws,
        charge: &mut [f32],
    ) {
        let muon = Muon::passing(source.unwrap_or(light.centroid()), draws);
        let [least, most] = MUON_PE;
        let mean = least * libm::pow(most / least, draws.uniform());
        self.shine(mean, draws, charge, |draws| muon.photoelectron(draws));
    }

    /// Adds about `mean` photoelectrons at the places that `one` draws.
    fn shine(
        &self,
        mean: f64,
        draws: &mut Draws,
        charge: &mut [f32],
        one: impl Fn(&mut Draws) -> [f64; 2],
    ) {
        for _ in 0..draws.poisson(mean) {
            let place = one(draws);
            let q = (1.0 + SINGLE_PE * draws.normal()).max(0.0);
            if let Some(pixel) = self.lookup.pixel(place) {
                charge[pixel] += q as f32;
            }
        }
    }
}

fn between([low, high]: [f64; 2], u: f64) -> f64 {
    low + (high - low) * u
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} images in {} file(s) ({NOTICE})", self.images, self.files.len())?;
        for (making, images) in Making::ALL.iter().zip(self.made) {
            writeln!(f, "  {images} {}", making.name())?;
        }
        if self.left_out > 0 {
            writeln!(f, "  {} images of hadrons left out", self.left_out)?;
        }
        Ok(())
    }
}
