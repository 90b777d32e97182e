//! Camera geometries: where the pixels are, who is whose neighbour, and which lie at the
//! edge.
//!
//! The cameras of TAIGA-IACT are made from their plan: hexagonal pixels of 3 cm come in
//! groups of seven (one and the six around it), the centres of the groups form a hexagonal
//! lattice of their own, and up to four groups make a cluster of one electronics board. The
//! order of the pixels is that of the boards, as in TAIGA's coordinate files. Positions of
//! other cameras are given. Left to others: reading files.

use crate::error::{Fault, Result, did_you_mean};
use std::collections::HashMap;

/// Distance of neighbouring pixels of TAIGA-IACT [cm].
pub const PITCH_CM: f64 = 3.0;
/// Focal length of TAIGA-IACT [cm]: 0.1206 deg/cm.
pub const FOCAL_LENGTH_CM: f64 = 475.0;
/// Neighbours lie one pitch apart, give or take this share of it: 3.0 ± 0.5 cm.
const TOLERANCE: f64 = 0.5 / 3.0;
/// Pixels of the largest camera; more are a damaged file.
pub const MOST_PIXELS: usize = 1 << 14;
/// Neighbours of a pixel: six in a hexagonal lattice, four in a square one.
const MOST_NEIGHBOURS: usize = 6;
/// A wider field of view is a wrong unit [deg].
const WIDEST_FIELD_DEG: f64 = 30.0;

/// Direction of the nearest neighbours in the camera plane [deg].
const TURN_DEG: f64 = 22.5;
/// The groups of seven of a cluster, relative to its origin, in the order of its pixels.
const GROUPS: [[i32; 2]; 4] = [[-1, 0], [-1, 1], [0, 1], [0, 0]];

/// Names of the cameras that can be made from their plan.
pub const BUILT_IN_CAMERAS: [&str; 2] = ["taiga-560", "taiga-595"];

/// A cluster: its origin in the lattice of groups, a bit for each of [`GROUPS`] that is
/// there, and by how many steps of 60 deg it is turned clockwise.
type Cluster = ([i32; 2], u8, i32);

/// IACT01. The lists follow TAIGA's coordinate and neighbour files as published with its
/// Hillas program (<https://github.com/pvolch/hillas_utility>); of the two groups that
/// these give for cluster 22 only the first is taken, so that there are 560 pixels as
/// everywhere else in TAIGA's papers.
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

/// IACT02 and later.
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
    neighbours: Vec<[u16; MOST_NEIGHBOURS]>, // (pixels), filled up with the pixel itself
    edge: Vec<bool>,                         // (pixels): fewer neighbours than the others
}

impl Camera {
    /// A camera of TAIGA-IACT by name.
    pub fn by_name(name: &str) -> Result<Camera> {
        let clusters = match name {
            "taiga-560" => &IACT01,
            "taiga-595" => &IACT02,
            _ => {
                return Err(Fault::new(format!("unknown camera '{name}'"))
                    .expected("the name of a camera, or a file with its pixels")
                    .advice(did_you_mean(name, &BUILT_IN_CAMERAS))
                    .usage());
            }
        };
        let (x_cm, y_cm) = plan(clusters);
        Camera::new(x_cm, y_cm, FOCAL_LENGTH_CM)
    }

    /// The camera with these pixels; refused if they form no lattice. Lengths in cm.
    pub fn new(x_cm: Vec<f64>, y_cm: Vec<f64>, focal_length_cm: f64) -> Result<Camera> {
        let pixels = x_cm.len();
        if pixels != y_cm.len() || !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(Fault::new("not the pixels of a camera")
                .expected(format!("7 to {MOST_PIXELS} pixels with x and y"))
                .found(format!("{pixels} x and {} y", y_cm.len()))
                .input());
        }
        if let Some(row) = (0..pixels).find(|i| !(x_cm[*i].is_finite() && y_cm[*i].is_finite())) {
            return Err(Fault::new("a pixel without a position")
                .row(row as u64)
                .found(format!("x = {}, y = {}", x_cm[row], y_cm[row]))
                .input());
        }
        if !(focal_length_cm.is_finite() && focal_length_cm > 0.0) {
            return Err(Fault::new("impossible focal length")
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

    pub fn pixels(&self) -> usize {
        self.x_cm.len()
    }

    /// Position of a pixel [deg].
    pub fn position_deg(&self, pixel: usize) -> [f64; 2] {
        [self.x_cm[pixel] * self.deg_per_cm, self.y_cm[pixel] * self.deg_per_cm]
    }

    pub fn x_cm(&self) -> &[f64] {
        &self.x_cm
    }

    pub fn y_cm(&self) -> &[f64] {
        &self.y_cm
    }

    pub fn deg_per_cm(&self) -> f64 {
        self.deg_per_cm
    }

    /// Distance of the farthest pixel from the camera's centre [deg].
    pub fn radius_deg(&self) -> f64 {
        let of = |(x, y): (&f64, &f64)| libm::hypot(*x, *y);
        self.x_cm.iter().zip(&self.y_cm).map(of).fold(0.0, f64::max) * self.deg_per_cm
    }

    /// Distance of neighbouring pixels [deg].
    pub fn pitch_deg(&self) -> f64 {
        self.pitch_cm * self.deg_per_cm
    }

    /// The neighbours of a pixel; a pixel at the edge stands among its own.
    pub fn neighbours(&self, pixel: usize) -> &[u16; MOST_NEIGHBOURS] {
        &self.neighbours[pixel]
    }

    /// Whether a pixel has fewer neighbours than those inside the camera.
    pub fn is_edge(&self, pixel: usize) -> bool {
        self.edge[pixel]
    }
}

/// Pixel positions of a plan [cm].
fn plan(clusters: &[Cluster]) -> (Vec<f64>, Vec<f64>) {
    // Groups lie √7 pitches apart, in a lattice turned against that of the pixels:
    // one group on is two pixels along the first axis and one along the next.
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
            // By 60 deg clockwise the first axis becomes the first less the second, and
            // the second the first.
            let [a, b] = (0..*turns).fold(*group, |[a, b], _| [a + b, -a]);
            let (a, b) = (f64::from(origin[0] + a), f64::from(origin[1] + b));
            let centre = [along(a, b, 0), along(a, b, 1)];
            x.push(centre[0]);
            y.push(centre[1]);
            // Around the centre: at 262.5 deg first, then clockwise.
            for step in 0..6 {
                let [dx, dy] = axis(f64::from(4 - step - turns));
                x.push(centre[0] + dx);
                y.push(centre[1] + dy);
            }
        }
    }
    (x, y)
}

fn check_field(x_cm: &[f64], y_cm: &[f64], deg_per_cm: f64) -> Result<()> {
    let radius = x_cm.iter().zip(y_cm).map(|(x, y)| libm::hypot(*x, *y)).fold(0.0, f64::max);
    let field = 2.0 * radius * deg_per_cm;
    if field <= WIDEST_FIELD_DEG {
        return Ok(());
    }
    Err(Fault::new("the camera is too wide for its focal length")
        .expected(format!("a field of view of at most {WIDEST_FIELD_DEG} deg"))
        .found(format!("{field:.1} deg"))
        .advice("check the units of the pixel positions and of the focal length")
        .input())
}

/// Least distance of neighbours, as a share of the largest coordinate: places are counted in it.
const LEAST_PITCH: f64 = 1e-9;

/// Distance of neighbouring pixels: the median distance to the nearest one.
fn pitch(x_cm: &[f64], y_cm: &[f64]) -> Result<f64> {
    let nearest = |i: usize| {
        (0..x_cm.len())
            .filter(|j| *j != i)
            .map(|j| libm::hypot(x_cm[i] - x_cm[j], y_cm[i] - y_cm[j]))
            .fold(f64::INFINITY, f64::min)
    };
    // Of a very large camera some pixels are enough.
    let step = x_cm.len().div_ceil(2048);
    let mut distances: Vec<f64> = (0..x_cm.len()).step_by(step).map(nearest).collect();
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

/// Neighbours of every pixel, and how many there are; found by sorting pixels into boxes.
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
            return Err(Fault::new("the pixels of the camera form no lattice")
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
mod tests {
    use super::*;

    fn find(camera: &Camera, x: f64, y: f64) -> usize {
        let at = |i: &usize| libm::hypot(camera.x_cm[*i] - x, camera.y_cm[*i] - y) < 0.001;
        (0..camera.pixels()).find(at).unwrap_or_else(|| panic!("no pixel at {x}, {y}"))
    }

    #[test]
    fn cameras_have_pixels_where_taiga_has_them() {
        let first = Camera::by_name("taiga-560").unwrap();
        let second = Camera::by_name("taiga-595").unwrap();
        assert_eq!((first.pixels(), second.pixels()), (560, 595));
        // TAIGA's coordinate file of IACT01: place in the file, x and y [cm].
        for (place, x, y) in [
            (0, -5.935, -5.270),
            (1, -6.326, -8.245),
            (6, -3.555, -7.097),
            (7, -7.532, 2.505),
            (21, 0.0, 0.0),
            (27, 2.380, -1.826),
            (28, 3.194, -15.550),
            (9 * 28, 18.257, -20.559),
            (15 * 28 + 27, 11.056, 24.264),
            (448, -22.143, -28.857),
            (448 + 21 + 20, 2.833, -38.197),
            (448 + 42 + 20, -4.008, 29.274),
            (448 + 63 + 20, -27.747, 8.192),
            (448 + 84 + 20, -21.359, -22.908),
            (553, 19.854, -28.334),
        ] {
            assert_eq!(find(&first, x, y), place);
        }
        // And of IACT02, with the number of neighbours.
        for (place, x, y, neighbours) in [
            (0, -5.935, -5.270, 6),
            (8 * 28 + 10, -1.236, 30.422, 5),
            (8 * 28 + 17, 4.699, 35.692, 3),
            (17 * 28, 17.805, 15.811, 6),
            (17 * 28 + 1, 15.033, 14.663, 6),
            (17 * 28 + 27, 24.945, 10.332, 6),
            (19 * 28 + 20, 24.523, 27.030, 4),
            (594, -12.231, -33.187, 5),
        ] {
            assert_eq!(find(&second, x, y), place);
            let others = second.neighbours(place).iter().filter(|j| **j as usize != place);
            assert_eq!(others.count(), neighbours);
            assert_eq!(second.is_edge(place), neighbours < 6);
        }
    }

    #[test]
    fn neighbours_are_mutual_and_lie_one_pitch_apart() {
        for name in BUILT_IN_CAMERAS {
            let camera = Camera::by_name(name).unwrap();
            assert!((camera.pitch_deg() - 0.3618).abs() < 1e-3);
            for i in 0..camera.pixels() {
                for j in camera.neighbours(i).iter().map(|j| *j as usize).filter(|j| *j != i) {
                    assert!(camera.neighbours(j).contains(&(i as u16)));
                    let [a, b] = [camera.position_deg(i), camera.position_deg(j)];
                    let distance = libm::hypot(a[0] - b[0], a[1] - b[1]);
                    assert!((distance - camera.pitch_deg()).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn what_is_no_camera_is_refused() {
        let line = |n: usize, step: f64| (0..n).map(|i| i as f64 * step).collect::<Vec<_>>();
        let message = |x: Vec<f64>, y: Vec<f64>, focal: f64| {
            let error = Camera::new(x, y, focal).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            error.to_string()
        };
        assert!(message(line(3, 1.0), line(3, 1.0), 475.0).contains("7 to"));
        assert!(message(line(9, 1.0), line(8, 1.0), 475.0).contains("9 x and 8 y"));
        assert!(message(vec![f64::NAN; 9], line(9, 1.0), 475.0).contains("row 0"));
        assert!(message(line(9, 30.0), vec![0.0; 9], 475.0).contains("too wide"));
        assert!(message(vec![1.0; 9], vec![2.0; 9], 475.0).contains("share"));
        let mut far = line(9, 1e-25);
        far[8] = 1.0;
        assert!(message(far, vec![0.0; 9], 475.0).contains("share"), "places beyond counting");
        assert!(message(line(9, 1.0), vec![0.0; 9], f64::NAN).contains("focal"));
        let mut close = line(20, 3.0);
        close[7] = close[6] + 1.0;
        assert!(message(close, vec![0.0; 20], 475.0).contains("too close"));
        let error = Camera::by_name("taiga-559").unwrap_err();
        assert!(error.to_string().contains("did you mean 'taiga-5"), "{error}");
    }

    #[test]
    fn camera_with_one_pixel_missing_is_accepted() {
        let mut camera = Camera::by_name("taiga-560").unwrap();
        camera.x_cm.remove(21);
        camera.y_cm.remove(21);
        let camera = Camera::new(camera.x_cm, camera.y_cm, FOCAL_LENGTH_CM).unwrap();
        assert_eq!(camera.pixels(), 559);
        assert!(camera.is_edge(find(&camera, -0.392, -2.974)));
    }
}
