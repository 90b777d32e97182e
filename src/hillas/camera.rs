//! Camera geometries: positions, neighbours and edge of the pixels.
//!
//! The cameras of TAIGA-IACT are computed from their plan. Hexagonal pixels of 3 cm form groups
//! of seven (a centre and the six pixels around it). The centres of the groups form a second
//! hexagonal lattice, and up to four groups form a cluster with one electronics board. The order
//! of the pixels is that of the boards, as in the coordinate files of TAIGA. Other cameras are
//! given by the positions of their pixels.

use crate::error::{Fault, Result, did_you_mean};
use std::collections::HashMap;

/// Distance of neighbouring pixels of TAIGA-IACT [cm].
pub const PITCH_CM: f64 = 3.0;
/// Focal length of TAIGA-IACT [cm]: 0.1206 deg/cm.
pub const FOCAL_LENGTH_CM: f64 = 475.0;
/// Relative tolerance of the distance of neighbours: 3.0 ± 0.5 cm.
const TOLERANCE: f64 = 0.5 / 3.0;
/// Largest number of pixels; a file with more is damaged.
pub const MOST_PIXELS: usize = 1 << 14;
/// Neighbours of a pixel: six in a hexagonal lattice, four in a square one.
const MOST_NEIGHBOURS: usize = 6;
/// Largest field of view [deg]; a larger one is due to a wrong unit.
const WIDEST_FIELD_DEG: f64 = 30.0;

/// Direction of the nearest neighbours in the camera plane [deg].
const TURN_DEG: f64 = 22.5;
/// Groups of seven of a cluster, relative to its origin, in the order of its pixels.
const GROUPS: [[i32; 2]; 4] = [[-1, 0], [-1, 1], [0, 1], [0, 0]];

/// Names of the cameras that are computed from their plan.
pub const BUILT_IN_CAMERAS: [&str; 2] = ["taiga-560", "taiga-595"];

/// A cluster: its origin in the lattice of groups, a bit for each of [`GROUPS`] that exists, and
/// its clockwise rotation in steps of 60 deg.
type Cluster = ([i32; 2], u8, i32);

/// Clusters of IACT01. The lists follow the coordinate and neighbour files published with the
/// Hillas program of TAIGA (<https://github.com/pvolch/hillas_utility>). These files give two
/// groups for cluster 22; only the first is used, so that there are 560 pixels, as in the papers
/// of TAIGA.
const IACT01: [Cluster; 22] = [
    ([0, 0], 15, 0),
    ([1, -2], 15, 0),
    ([2, 0], 15, 0),
    ([3, -2], 15, 0),
    ([-2, 0], 15, 0),
    ([-1, -2], 15, 0),
    ([-2, 2], 15, 0),
    ([0, 2], 15, 0),
    ([-4, 2], 15, 0),
    ([3, -4], 15, 0),
    ([1, -4], 15, 0),
    ([5, -4], 15, 0),
    ([5, -2], 15, 0),
    ([4, 0], 15, 0),
    ([-2, 4], 15, 0),
    ([2, 2], 15, 0),
    ([-3, -2], 14, 0),
    ([-1, -4], 14, 0),
    ([0, 4], 11, 0),
    ([-4, 4], 13, 0),
    ([-4, 0], 14, 0),
    ([3, -6], 2, 0),
];

/// Clusters of IACT02 and later telescopes.
const IACT02: [Cluster; 22] = [
    ([0, 0], 15, 0),
    ([2, 0], 15, 0),
    ([3, -2], 15, 0),
    ([1, -2], 15, 0),
    ([-1, -2], 15, 0),
    ([-2, 0], 15, 0),
    ([-2, 2], 15, 0),
    ([0, 2], 15, 0),
    ([2, 2], 15, 0),
    ([5, -3], 15, 0),
    ([5, -5], 15, 0),
    ([3, -4], 15, 0),
    ([1, -4], 15, 0),
    ([-4, 0], 15, 0),
    ([-4, 2], 15, 0),
    ([-4, 4], 15, 0),
    ([-2, 4], 15, 0),
    ([4, -1], 15, 1),
    ([0, 4], 15, 0),
    ([4, 1], 11, 0),
    ([-1, -4], 14, 0),
    ([-3, -2], 14, 0),
];

/// Positions and neighbours of the pixels of one camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    x_cm: Vec<f64>, // (pixels)
    y_cm: Vec<f64>, // (pixels)
    deg_per_cm: f64,
    pitch_cm: f64,
    neighbours: Vec<[u16; MOST_NEIGHBOURS]>, // (pixels), padded with the pixel itself
    edge: Vec<bool>,                         // (pixels): fewer neighbours than inner pixels
}

impl Camera {
    /// Returns a camera of TAIGA-IACT by name.
    ///
    /// # Errors
    /// `Usage` for an unknown name.
    pub fn by_name(name: &str) -> Result<Camera> {
        let clusters = match name {
            "taiga-560" => &IACT01,
            "taiga-595" => &IACT02,
            _ => {
                return Err(Fault::new(format!("unknown camera '{name}'"))
                    .expected("the name of a camera, or the path of a file with its pixels")
                    .advice(did_you_mean(name, &BUILT_IN_CAMERAS))
                    .usage());
            }
        };
        let (x_cm, y_cm) = plan(clusters);
        Camera::new(x_cm, y_cm, FOCAL_LENGTH_CM)
    }

    /// Returns the camera with pixels at these positions. Lengths in cm.
    ///
    /// # Errors
    /// `Input` if the pixels do not form a lattice, or the field of view is not plausible.
    pub fn new(x_cm: Vec<f64>, y_cm: Vec<f64>, focal_length_cm: f64) -> Result<Camera> {
        let pixels = x_cm.len();
        if pixels != y_cm.len() || !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(Fault::new("wrong number of pixels for a camera")
                .expected(format!("7 to {MOST_PIXELS} pixels with x and y"))
                .found(format!("{pixels} x and {} y", y_cm.len()))
                .input());
        }
        if let Some(row) = (0..pixels).find(|i| !(x_cm[*i].is_finite() && y_cm[*i].is_finite())) {
            return Err(Fault::new("pixel without a position")
                .row(row as u64)
                .found(format!("x = {}, y = {}", x_cm[row], y_cm[row]))
                .input());
        }
        if !(focal_length_cm.is_finite() && focal_length_cm > 0.0) {
            return Err(Fault::new("invalid focal length")
                .expected("a positive number of cm")
                .found(focal_length_cm)
                .input());
        }
        let deg_per_cm = (1.0 / focal_length_cm).to_degrees();
        check_field(&x_cm, &y_cm, deg_per_cm)?;
        let pitch_cm = pitch(&x_cm, &y_cm)?;
        let (neighbours, counts) = neighbours(&x_cm, &y_cm, pitch_cm)?;
        let full = counts.iter().copied().max().unwrap_or(0);
        let edge = counts.into_iter().map(|count| count < full).collect();
        Ok(Camera { x_cm, y_cm, deg_per_cm, pitch_cm, neighbours, edge })
    }

    /// Returns the number of pixels.
    pub(crate) fn pixels(&self) -> usize {
        self.x_cm.len()
    }

    /// Returns the position of a pixel [deg].
    pub fn position_deg(&self, pixel: usize) -> [f64; 2] {
        [self.x_cm[pixel] * self.deg_per_cm, self.y_cm[pixel] * self.deg_per_cm]
    }

    /// Returns the x coordinates (pixels) [cm].
    pub fn x_cm(&self) -> &[f64] {
        &self.x_cm
    }

    /// Returns the y coordinates (pixels) [cm].
    pub fn y_cm(&self) -> &[f64] {
        &self.y_cm
    }

    /// Returns the distance of the farthest pixel from the camera centre [deg].
    pub(crate) fn radius_deg(&self) -> f64 {
        let of = |(x, y): (&f64, &f64)| libm::hypot(*x, *y);
        self.x_cm.iter().zip(&self.y_cm).map(of).fold(0.0, f64::max) * self.deg_per_cm
    }

    /// Returns the distance of neighbouring pixels [deg].
    pub(crate) fn pitch_deg(&self) -> f64 {
        self.pitch_cm * self.deg_per_cm
    }

    /// Returns the neighbours of a pixel. Missing neighbours are the pixel itself.
    pub fn neighbours(&self, pixel: usize) -> &[u16; MOST_NEIGHBOURS] {
        &self.neighbours[pixel]
    }

    /// Returns whether a pixel has fewer neighbours than inner pixels.
    pub(crate) fn is_edge(&self, pixel: usize) -> bool {
        self.edge[pixel]
    }
}

/// Returns the pixel positions of a plan [cm].
fn plan(clusters: &[Cluster]) -> (Vec<f64>, Vec<f64>) {
    // Neighbouring groups are √7 pitches apart, in a lattice that is rotated relative to that of
    // the pixels: a step between groups is two pixels along the first axis and one along the next.
    let axis = |steps: f64| {
        let angle = (TURN_DEG + 60.0 * steps).to_radians();
        [PITCH_CM * libm::cos(angle), PITCH_CM * libm::sin(angle)]
    };
    let (p, q) = (axis(0.0), axis(1.0));
    let r = axis(2.0);
    let along = |a: f64, b: f64, i: usize| a * (2.0 * p[i] + q[i]) + b * (2.0 * q[i] + r[i]);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (origin, groups, turns) in clusters {
        for (bit, group) in GROUPS.iter().enumerate() {
            if groups & (1 << bit) == 0 {
                continue;
            }
            // A clockwise rotation by 60 deg maps the first axis to the first minus the second,
            // and the second axis to the first.
            let [a, b] = (0..*turns).fold(*group, |[a, b], _| [a + b, -a]);
            let (a, b) = (f64::from(origin[0] + a), f64::from(origin[1] + b));
            let centre = [along(a, b, 0), along(a, b, 1)];
            x.push(centre[0]);
            y.push(centre[1]);
            // The six outer pixels, from 262.5 deg clockwise.
            for step in 0..6 {
                let [dx, dy] = axis(f64::from(4 - step - turns));
                x.push(centre[0] + dx);
                y.push(centre[1] + dy);
            }
        }
    }
    (x, y)
}

/// Checks that the field of view is plausible.
fn check_field(x_cm: &[f64], y_cm: &[f64], deg_per_cm: f64) -> Result<()> {
    let radius = x_cm.iter().zip(y_cm).map(|(x, y)| libm::hypot(*x, *y)).fold(0.0, f64::max);
    let field = 2.0 * radius * deg_per_cm;
    if field <= WIDEST_FIELD_DEG {
        return Ok(());
    }
    Err(Fault::new("camera is too wide for its focal length")
        .expected(format!("a field of view of at most {WIDEST_FIELD_DEG} deg"))
        .found(format!("{field:.1} deg"))
        .advice("check the units of the pixel positions and of the focal length")
        .input())
}

/// Smallest distance of neighbours as a fraction of the largest coordinate, because positions are
/// converted to integers in units of this distance.
const LEAST_PITCH: f64 = 1e-9;

/// Returns the distance of neighbouring pixels: the median distance to the nearest pixel.
fn pitch(x_cm: &[f64], y_cm: &[f64]) -> Result<f64> {
    // A sample of pixels is enough for a very large camera.
    let step = x_cm.len().div_ceil(2048);
    let mut distances: Vec<f64> =
        (0..x_cm.len()).step_by(step).map(|i| nearest_distance(x_cm, y_cm, i)).collect();
    distances.sort_by(f64::total_cmp);
    let pitch = distances[distances.len() / 2];
    let farthest = x_cm.iter().chain(y_cm).fold(0.0, |most: f64, x| most.max(x.abs()));
    if pitch > farthest * LEAST_PITCH {
        return Ok(pitch);
    }
    Err(Fault::new("pixels of the camera share their positions")
        .expected(format!("a distance of neighbours above {:.3e} cm", farthest * LEAST_PITCH))
        .found(format!("{pitch:.3e} cm"))
        .input())
}

/// Returns the distance from pixel `i` to the nearest pixel.
fn nearest_distance(x_cm: &[f64], y_cm: &[f64], i: usize) -> f64 {
    (0..x_cm.len())
        .filter(|j| *j != i)
        .map(|j| libm::hypot(x_cm[i] - x_cm[j], y_cm[i] - y_cm[j]))
        .fold(f64::INFINITY, f64::min)
}

/// Returns the neighbours of every pixel and their number.
///
/// Pixels are sorted into square boxes, so that only adjacent boxes are searched.
fn neighbours(
    x_cm: &[f64],
    y_cm: &[f64],
    pitch: f64,
) -> Result<(Vec<[u16; MOST_NEIGHBOURS]>, Vec<usize>)> {
    let reach = pitch * (1.0 + TOLERANCE);
    let place =
        |i: usize| [libm::floor(x_cm[i] / reach) as i64, libm::floor(y_cm[i] / reach) as i64];
    let mut boxes: HashMap<[i64; 2], Vec<usize>> = HashMap::new();
    for i in 0..x_cm.len() {
        boxes.entry(place(i)).or_default().push(i);
    }
    let mut lists = Vec::with_capacity(x_cm.len());
    let mut counts = Vec::with_capacity(x_cm.len());
    for i in 0..x_cm.len() {
        let [column, row] = place(i);
        let around = (-1..=1).flat_map(|a| (-1..=1).map(move |b| [column + a, row + b]));
        let mut near: Vec<usize> = Vec::new();
        for j in around.filter_map(|key| boxes.get(&key)).flatten().copied().filter(|j| *j != i) {
            let distance = libm::hypot(x_cm[i] - x_cm[j], y_cm[i] - y_cm[j]);
            if distance < pitch * (1.0 - TOLERANCE) {
                return Err(Fault::new("two pixels of the camera are too close")
                    .row(i as u64)
                    .expected(format!("about {pitch:.4} cm"))
                    .found(format!("{distance:.4} cm to pixel {j}"))
                    .input());
            }
            if distance < reach {
                near.push(j);
            }
        }
        near.sort_unstable();
        if near.len() > MOST_NEIGHBOURS {
            return Err(Fault::new("pixels of the camera do not form a lattice")
                .row(i as u64)
                .expected(format!("at most {MOST_NEIGHBOURS} neighbours"))
                .found(near.len())
                .input());
        }
        let mut list = [i as u16; MOST_NEIGHBOURS];
        list.iter_mut().zip(&near).for_each(|(slot, j)| *slot = *j as u16);
        lists.push(list);
        counts.push(near.len());
    }
    Ok((lists, counts))
}

#[cfg(test)]
mod tests;
