//! Measures the time to read columns of a table through its schema, or to convert a text table.
//!
//! `cargo bench --bench reading -- FILE size width …` prints one JSON object; with `--convert` the
//! file is a text table. `bench/compare_reading.py` alternates it with h5py and h5dump.

use clap::Parser;
use std::path::PathBuf;
use std::time::Instant;
use taiga_flow::data::Schema;
use taiga_flow::data::schema::columns::CHUNK_ROWS;
use taiga_flow::data::table::{Block, Request, Table};
use taiga_flow::data::text::convert;
use taiga_flow::error::Result;

#[derive(Parser)]
struct Options {
    /// Table to read
    file: PathBuf,
    /// Quantities to read
    quantities: Vec<String>,
    /// Convert a text table instead of reading
    #[arg(long)]
    convert: bool,
    /// Added by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (rows, seconds) = if options.convert { convert(&options)? } else { read(&options)? };
    println!("{}", serde_json::json!({ "rows": rows, "seconds": seconds }));
    Ok(())
}

fn read(options: &Options) -> Result<(u64, f64)> {
    let schema = Schema::detect(&options.file)?;
    let started = Instant::now();
    let table = Table::open(&options.file, &schema)?;
    let quantities = options.quantities.clone();
    let mut reader = table.reader(&Request { quantities, ..Request::default() })?;
    let mut block = Block::default();
    let mut sum = 0.0;
    for first in (0..table.rows()).step_by(CHUNK_ROWS) {
        reader.read(first..table.rows().min(first + CHUNK_ROWS as u64), &mut block)?;
        sum += block.quantities.iter().map(|values| values[0]).sum::<f32>();
    }
    std::hint::black_box(sum);
    Ok((table.rows(), started.elapsed().as_secs_f64()))
}

fn convert(options: &Options) -> Result<(u64, f64)> {
    let started = Instant::now();
    let summary = convert::run(&convert::Options {
        inputs: vec![options.file.clone()],
        output: options.file.with_extension("converted.h5"),
        dialect: None,
        class: None,
        placement: None,
        overwrite: true,
    })?;
    Ok((summary.rows, started.elapsed().as_secs_f64()))
}
