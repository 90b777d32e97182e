//! Computes Hillas parameters from the charges of camera pixels.
//!
//! All functions are pure functions of one image. [`Camera`] has positions and neighbours of the
//! pixels, [`Cleaner`] selects the pixels of the image, [`Parameters`] are their moments, and
//! [`ImageAxis::relative_to`] gives the values relative to a reference point. Sums are f64 in
//! the order of the pixels, so that the bits depend on the image alone.

mod camera;
mod cleaning;
mod parameters;
mod positions;

pub use camera::{BUILT_IN_CAMERAS, Camera, FOCAL_LENGTH_CM, MOST_PIXELS, PITCH_CM};
pub use cleaning::{
    Cleaner, Cleaning, CleaningThresholds, ImagePixels, Islands, ThresholdComparison,
};
pub use parameters::{AtPosition, Parameters, STATUS_BITS, status};
pub use positions::{
    GEOMETRY, ImageAxis, LEAST_OFFSET_DEG, MOST_DIFFERENT, RelativePosition, Rotation, WITHIN_DEG,
    disp, rotated, theta2,
};
