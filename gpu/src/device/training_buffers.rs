//! Weights in training on a device.

#![allow(unsafe_code)] // buffers of a device

use super::device::{Buffer, Device, cubes};
use super::error::{DeviceError, Result};
use super::kernels::training::{adam as adam_kernel, squares};
use super::network_kernels::LINE;
use crate::training::{Adam, Weights};
use cubecl::prelude::*;

/// Parts of the gradient's norm; part of the order of its summation.
const PARTS: usize = 64;

/// Weights in training with their running mean and moments, each (parameters).
pub(crate) struct TrainingBuffers {
    params: Buffer,
    ema: Buffer,
    first_moment: Buffer,
    second_moment: Buffer,
    /// Parts of the squared norm of the gradient, and the norm.
    parts: Buffer,
    norm: Buffer,
    updated: bool,
}

impl TrainingBuffers {
    /// Uploads weights.
    pub(crate) fn new<R: Runtime>(
        device: &Device<R>,
        weights: &Weights,
    ) -> Result<TrainingBuffers> {
        let [params, ema, first_moment, second_moment] =
            weights.all().map(|values| device.upload(values));
        Ok(TrainingBuffers {
            params,
            ema,
            first_moment,
            second_moment,
            parts: device.empty(PARTS)?,
            norm: device.empty(1)?,
            updated: false,
        })
    }

    /// Returns the parameters.
    pub(crate) fn params(&self) -> Buffer {
        self.params.clone()
    }

    /// Launches one update from gradient sums (parameters, two words each), unless `tally` counts
    /// unusable tiles.
    pub(crate) fn launch_update<R: Runtime>(
        &mut self,
        device: &Device<R>,
        sums: &Buffer,
        tally: &Buffer,
        adam: &Adam,
    ) {
        self.updated = true;
        let parameters = self.params.len();
        let to_mean = (1.0 / adam.divisor) as f32;
        // SAFETY: all buffers have one number per parameter, or two words; the kernels check their
        // index against that length.
        unsafe {
            squares::launch_unchecked::<R>(
                &device.client,
                CubeCount::Static(PARTS as u32, 1, 1),
                CubeDim::new_1d(LINE as u32),
                sums.arg(),
                self.parts.arg(),
                parameters as u32,
                to_mean,
                LINE,
            );
            adam_kernel::launch_unchecked::<R>(
                &device.client,
                cubes(parameters.div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                sums.arg(),
                self.parts.arg(),
                tally.arg(),
                self.params.arg(),
                self.ema.arg(),
                self.first_moment.arg(),
                self.second_moment.arg(),
                self.norm.arg(),
                parameters as u32,
                to_mean,
                adam.clip_norm as f32,
                adam.beta1,
                adam.beta2,
                adam.step,
                adam.epsilon,
                adam.keep,
                PARTS,
            );
        }
    }

    /// Returns the norm of the mean gradient of the last update; `None` before the first one.
    pub(crate) fn gradient_norm<R: Runtime>(&self, device: &Device<R>) -> Result<Option<f64>> {
        if !self.updated {
            return Ok(None);
        }
        let mut norm = [0.0_f32];
        device.read(&self.norm, &mut norm)?;
        Ok(Some(f64::from(norm[0])))
    }

    /// Copies the weights into vectors of their length.
    pub(crate) fn download<R: Runtime>(
        &self,
        device: &Device<R>,
        weights: &mut Weights,
    ) -> Result<()> {
        device.read(&self.params, &mut weights.params)?;
        device.read(&self.ema, &mut weights.ema)?;
        device.read(&self.first_moment, &mut weights.first_moment)?;
        device.read(&self.second_moment, &mut weights.second_moment)
    }
}

/// Returns the error for a flow without weights in training.
pub(crate) fn not_training() -> DeviceError {
    DeviceError::Argument { what: "weights in training", expected: 1, found: 0 }
}
