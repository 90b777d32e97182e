//! From the charges of camera pixels to Hillas parameters.
//!
//! Pure functions of one image: [`Camera`] knows where the pixels are and who is whose
//! neighbour, [`Cleaner`] chooses those that belong to the image, [`Parameters`] are their
//! moments, and [`ImageAxis::relative_to`] gives what depends on a reference point. Sums are f64 in
//! the order of the pixels, so that the bits depend on nothing but the image; files and
//! threads are left to others.

mod camera;
mod cleaning;
mod parameters;
mod positions;

pub use camera::{BUILT_IN_CAMERAS, Camera, FOCAL_LENGTH_CM, PITCH_CM};
pub use cleaning::{
    Cleaner, Cleaning, CleaningThresholds, ImagePixels, Islands, ThresholdComparison,
};
pub use parameters::{AtPosition, Parameters, STATUS_BITS, status};
pub use positions::{ImageAxis, RelativePosition, Rotation, disp, rotated, theta2};
