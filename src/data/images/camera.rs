//! Reads pixel positions from a camera file.

use super::{Geometry, MOST_PIXELS, own};
use crate::data::hdf5;
use crate::error::{Error, Fault, Result};
use std::io::Read;
use std::path::Path;

/// Largest text file that is read [bytes].
const MOST_BYTES: u64 = 16 << 20;

/// Reads pixel positions from an HDF5 file (`camera/x`, `camera/y`) or a text file with one pixel
/// per line.
///
/// A line contains x and y [cm], or the columns of TAIGA coordinate files (cluster, pixel, number,
/// x, y, …). Columns are separated by blanks, tabs or commas; `#` begins a comment.
///
/// # Errors
/// `Input` if the file cannot be read, or contains no valid positions.
pub fn camera_file(path: &Path) -> Result<Geometry> {
    let bytes = hdf5::file_length(path)?;
    if hdf5::is_hdf5(path) {
        let file = hdf5::open(path)?;
        return own::geometry_of(path, &file)?.ok_or_else(|| {
            Fault::new("no camera in the file")
                .file(path)
                .expected("datasets camera/x and camera/y")
                .input()
        });
    }
    let unreadable = |found: &dyn std::fmt::Display| {
        Fault::new("cannot read the file").file(path).found(found).input()
    };
    if bytes > MOST_BYTES {
        return Err(Fault::new("file is too large for a list of pixels")
            .file(path)
            .expected(format!("at most {MOST_BYTES} bytes"))
            .found(format!("{bytes} bytes"))
            .input());
    }
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    opened.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    parse(&text).map_err(|error| error.in_file(path))
}

/// Parses a text with one pixel per line.
fn parse(text: &str) -> Result<Geometry> {
    let (mut x_cm, mut y_cm) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let fields: Vec<&str> = line
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|field| !field.is_empty())
            .collect();
        if fields.is_empty() {
            continue;
        }
        let position = match fields[..] {
            [x, y] => [x, y],
            [_, _, _, x, y, ..] if fields.len() == 8 => [x, y],
            _ => return Err(wrong(number, line, "x and y, or the 8 columns of TAIGA")),
        };
        let [Ok(x), Ok(y)] = position.map(str::parse::<f64>) else {
            return Err(wrong(number, line, "numbers"));
        };
        x_cm.push(x);
        y_cm.push(y);
        if x_cm.len() > MOST_PIXELS {
            return Err(wrong(number, line, &format!("at most {MOST_PIXELS} pixels")));
        }
    }
    Ok(Geometry { x_cm, y_cm, focal_length_cm: None })
}

/// Returns the error of an invalid line.
fn wrong(number: usize, line: &str, expected: &str) -> Error {
    let shown: String = line.chars().take(60).collect();
    Fault::new("line is not a pixel")
        .row(number as u64 + 1)
        .expected(expected)
        .found(format!("'{shown}'"))
        .input()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_from_two_or_eight_columns() {
        let two = parse("# camera\n1.5 -2\n\n3,4.25 # last\n").unwrap();
        assert_eq!((two.x_cm, two.y_cm), (vec![1.5, 3.0], vec![-2.0, 4.25]));
        let eight =
            parse("   1      1     253     -5.935     -5.270      4      5      2\n").unwrap();
        assert_eq!((eight.x_cm, eight.y_cm), (vec![-5.935], vec![-5.27]));
        for text in ["1 2 3\n", "a b\n", "1\n", "1 1 253 x -5.2 4 5 2\n"] {
            assert!(parse(text).unwrap_err().to_string().contains("row 1"), "{text}");
        }
    }
}
