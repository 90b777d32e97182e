//! Interface of the kernels for each kind of network.

use super::device::{Buffer, Device};
use super::error::Result;
use cubecl::prelude::*;

/// Threads per cube of the kernels that only copy or add numbers.
pub(crate) const LINE: usize = 256;
/// Largest number of events in one launch.
pub(crate) const LAUNCH_EVENTS: usize = 1 << 20;

/// Events of one launch on the device.
pub(crate) struct EventLaunch {
    pub(crate) n: usize,
    /// (n, features)
    pub(crate) rows: Buffer,
    /// (n)
    pub(crate) loss_weights: Buffer,
    /// (n)
    pub(crate) log_prob: Buffer,
    /// First event and number of events of each tile.
    pub(crate) tiles: Buffer,
    pub(crate) bounds: Buffer,
    /// First tile of each range, and the number of tiles.
    pub(crate) ranges: Buffer,
    pub(crate) chunks: usize,
    /// Set for each tile with a component that cannot be added.
    pub(crate) flags: Buffer,
    /// Loss of each tile.
    pub(super) losses: Buffer,
}

/// Buffers for the sums of a gradient; they grow with the largest batch.
#[derive(Clone)]
pub(crate) struct GradientSums {
    pub(super) events: usize,
    pub(super) tiles: usize,
    /// (events)
    pub(super) log_prob: Buffer,
    /// Loss weights of 1 (events)
    pub(super) ones: Buffer,
    /// (rows, tiles)
    pub(super) by_row: Buffer,
    /// (ranges, stride) of two words
    pub(crate) partials: Buffer,
}

/// The kernels for one kind of network.
pub(crate) trait Kernels<R: Runtime> {
    /// Returns the number of network outputs per event whose sums over events are bias gradients.
    fn rows(&self) -> usize;
    /// Returns the number of gradients in a partial sum.
    fn stride(&self) -> usize;
    /// Returns for each parameter its position in a partial, or `stride` plus its row.
    fn gradient_map(&self) -> Vec<u32>;
    /// Returns the largest number of events of a launch, without and with gradient.
    fn launch_events(&self, device: &Device<R>) -> [usize; 2];
    /// Returns the bytes per event that a gradient needs.
    fn event_bytes(&self) -> usize;
    /// Returns the number of cubes of the gradient for one range of tiles.
    fn cubes(&self) -> usize;
    /// Returns the number of cubes that the gradient should have.
    fn target_cubes(&self) -> usize;
    /// Sets the parameters (flat, see `layout`).
    fn set_params(&mut self, device: &Device<R>, params: Buffer);
    /// Computes log p of `rows` (n, features) into `out` (n).
    fn log_prob(&self, device: &Device<R>, rows: &Buffer, out: &Buffer, n: usize) -> Result<()>;
    /// Computes `rows` (n, features) from `latent` of the same shape.
    fn inverse(&self, device: &Device<R>, latent: &Buffer, rows: &Buffer, n: usize) -> Result<()>;
    /// Computes log p and the partial gradients of a launch; returns the buffer of `rows` (rows,
    /// n).
    fn gradient(
        &self,
        device: &Device<R>,
        launch: &EventLaunch,
        sums: &GradientSums,
    ) -> Result<Buffer>;
}
