//! Measures images per second from charges to Hillas parameters, in memory and from file to file.
//!
//! `cargo bench --bench extract` prints one JSON object per line. Reading and extracting alternate,
//! for several rounds, with the file in the page cache; medians are printed with the lowest and
//! highest ratio.

use clap::Parser;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use taiga_flow::comm::{SingleRank, StopFlag};
use taiga_flow::config::Class;
use taiga_flow::data::images::{Charge, ImageBlock, ImageFile};
use taiga_flow::error::Result;
use taiga_flow::extract::{self, ColumnLayout, Extractor, Options, ParameterRows};
use taiga_flow::hillas::{Camera, Cleaning};
use taiga_flow::simulate;
use taiga_flow_gpu::random::Stream;

/// Options of the benchmark.
#[derive(Parser)]
struct Arguments {
    /// Number of images of the files
    #[arg(long, default_value_t = 60_000)]
    images: u64,
    /// Number of rounds; medians over them are printed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Added by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

const PIXELS: usize = 595;
/// Shortest measurement in a round.
const SLICE: Duration = Duration::from_millis(500);

/// Returns noise of 3 p.e. and a spot of 20 pixels that pass the cleaning.
fn block(camera: &Camera, images: usize) -> ImageBlock {
    let stream = Stream::new(1, "benchmark images", &[]);
    let mut charge = vec![0.0f32; images * PIXELS];
    for (row, image) in charge.chunks_exact_mut(PIXELS).enumerate() {
        let words = (row * PIXELS) as u64;
        for (i, q) in image.iter_mut().enumerate() {
            *q = (2.0 * stream.normal(words + i as u64)) as f32;
        }
        let centre = (stream.bits(1 << 40 | row as u64) % PIXELS as u64) as usize;
        let [x, y] = camera.position_deg(centre);
        let mut near: Vec<(f64, usize)> = (0..PIXELS)
            .map(|i| {
                let [a, b] = camera.position_deg(i);
                ((a - x).hypot(0.6 * (b - y)), i)
            })
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (rank, (_, i)) in near.iter().take(20).enumerate() {
            image[*i] = 200.0 / (1.0 + rank as f32) + 16.0;
        }
    }
    ImageBlock { rows: images, charge: Charge::F32(charge), ..ImageBlock::default() }
}

fn in_memory(threads: usize, rounds: u16) -> Result<()> {
    let camera = Camera::by_name("taiga-595")?;
    let images = 8192;
    let block = block(&camera, images);
    let options = Options::default();
    let extractor = Extractor {
        camera,
        cleaning: Cleaning::default(),
        layout: ColumnLayout::new(&options, true),
        sigma: None,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let Ok(pool) = pool else { return Ok(()) };
    let mut rows = ParameterRows::default();
    let source = |_: usize| Some([1.2, 0.0]);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let (start, mut done) = (Instant::now(), 0usize);
        while start.elapsed() < SLICE {
            pool.install(|| extractor.extract(&block, &source, &mut rows))?;
            done += images;
        }
        rates.push(done as f64 / start.elapsed().as_secs_f64());
    }
    let width = extractor.layout.width();
    let pixels: f32 = rows.cells.chunks_exact(width).map(|row| row[13]).sum();
    println!(
        "{}",
        json!({
            "case": "in memory",
            "pixels": PIXELS,
            "surviving": f64::from(pixels) / images as f64,
            "columns": width,
            "threads": threads,
            "images_per_s": median(&rates).round(),
        })
    );
    Ok(())
}

/// Reads all images and ignores them; returns their number and the seconds.
fn read_alone(path: &Path) -> Result<(u64, f64)> {
    let start = Instant::now();
    let mut reader = ImageFile::open(path, None)?.reader(0)?;
    let (mut block, mut images) = (ImageBlock::default(), 0);
    while reader.next(4096, &mut block)? {
        images += block.rows as u64;
    }
    Ok((images, start.elapsed().as_secs_f64()))
}

fn end_to_end(name: &str, path: &Path, folder: &Path, rounds: u16) -> Result<()> {
    let options = Options {
        inputs: vec![path.to_path_buf()],
        output: folder.join("out"),
        overwrite: true,
        ..Options::default()
    };
    let (mut reading, mut extracting, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (images, seconds) = read_alone(path)?;
        let start = Instant::now();
        extract::run(&SingleRank, &options, &StopFlag::default())?;
        let whole = start.elapsed().as_secs_f64();
        reading.push(images as f64 / seconds);
        extracting.push(images as f64 / whole);
        ratios.push(seconds / whole);
    }
    ratios.sort_by(f64::total_cmp);
    let bytes = std::fs::metadata(path).map_or(0, |data| data.len());
    println!(
        "{}",
        json!({
            "case": format!("end to end, {name}"),
            "file_mb": bytes as f64 / 1e6,
            "read_images_per_s": median(&reading).round(),
            "extract_images_per_s": median(&extracting).round(),
            "ratio": median(&ratios),
            "lowest": ratios.first(),
            "highest": ratios.last(),
        })
    );
    Ok(())
}

/// Writes the images of a file as f32, contiguous or compressed by gzip.
fn write_as(path: &Path, from: &Path, gzip: bool) -> hdf5::Result<()> {
    let input = hdf5::File::open(from)?;
    let charge = input.dataset("images/charge")?.read_2d::<f32>()?.mapv(|v| v * 0.1 - 200.0);
    let file = hdf5::File::create(path)?;
    let group = file.create_group("images")?;
    let builder = group.new_dataset_builder().with_data(&charge);
    if gzip {
        builder.chunk((256, PIXELS)).shuffle().deflate(4).create("charge")?;
    } else {
        builder.create("charge")?;
    }
    let camera = file.create_group("camera")?;
    for axis in ["x", "y"] {
        let values = input.dataset(&format!("camera/{axis}"))?.read_1d::<f64>()?;
        camera.new_dataset_builder().with_data(&values).create(axis)?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        in_memory(threads, arguments.rounds)?;
    }
    let Ok(folder) = tempfile::tempdir() else { return Ok(()) };
    let at = |name: &str| folder.path().join(name);
    let start = Instant::now();
    simulate::images::run(&simulate::images::Options {
        output: at("own.h5"),
        class: Class::Gamma,
        events: arguments.images,
        seed: 1,
        camera: "taiga-595".to_string(),
        noise_pe: 4.0,
        offset_deg: 1.2,
        overwrite: false,
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "case": "simulate images",
            "threads": cores,
            "images_per_minute": (60.0 * arguments.images as f64 / seconds).round(),
        })
    );
    end_to_end("u16, shuffle, lzf, checksum", &at("own.h5"), folder.path(), arguments.rounds)?;
    for (name, file, gzip) in
        [("f32, gzip", "gzip.h5", true), ("f32, contiguous", "plain.h5", false)]
    {
        if let Err(error) = write_as(&at(file), &at("own.h5"), gzip) {
            eprintln!("{name} is skipped: {error}");
            continue;
        }
        end_to_end(name, &at(file), folder.path(), arguments.rounds)?;
    }
    Ok(())
}
