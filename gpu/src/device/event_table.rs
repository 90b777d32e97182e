//! Events that are stored on a device, for batches to refer to by index.

#![allow(unsafe_code)] // buffers of a device

use super::device::{Buffer, Device, cubes};
use super::error::{DeviceError, Result, expect_len};
use super::kernels::training::{gather, place};
use super::network_kernels::LINE;
use cubecl::prelude::*;

/// Stored events (events, features).
pub(crate) struct EventTable {
    rows: Buffer,
    count: usize,
    features: usize,
}

impl EventTable {
    /// Uploads events in pieces (events, features).
    pub(crate) fn upload<R: Runtime>(
        device: &Device<R>,
        count: usize,
        features: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<EventTable> {
        let numbers = count * features;
        let rows = device.empty(numbers)?;
        let mut first = 0;
        for piece in pieces {
            let end = first + piece.len();
            expect_len("numbers of the events", numbers.max(end), numbers)?;
            if piece.is_empty() {
                continue;
            }
            // SAFETY: the piece ends within the table.
            unsafe {
                place::launch_unchecked::<R>(
                    &device.client,
                    cubes(piece.len().div_ceil(LINE)),
                    CubeDim::new_1d(LINE as u32),
                    device.upload(piece).arg(),
                    rows.arg(),
                    first as u32,
                    piece.len() as u32,
                );
            }
            first = end;
        }
        expect_len("numbers of the events", numbers, first)?;
        Ok(EventTable { rows, count, features })
    }

    /// Returns the rows (events, features), and their number.
    pub(crate) fn rows(&self) -> (&Buffer, usize) {
        (&self.rows, self.count)
    }

    /// Copies events by index; feature d of an event changes its sign if bit d of its flips is
    /// set.
    pub(crate) fn gather<R: Runtime>(
        &self,
        device: &Device<R>,
        numbers: &[u32],
        flips: Option<&[u32]>,
    ) -> Result<Buffer> {
        let largest = numbers.iter().copied().max().unwrap_or(0) as usize;
        if largest >= self.count {
            return Err(DeviceError::Argument {
                what: "index of a stored event",
                expected: self.count,
                found: largest,
            });
        }
        let rows = device.empty(numbers.len() * self.features)?;
        let flips_buffer = device.upload(flips.unwrap_or(&[0]));
        // SAFETY: all indices are below the number of stored events; there are as many flips, or
        // the kernel does not read them.
        unsafe {
            gather::launch_unchecked::<R>(
                &device.client,
                cubes(numbers.len().div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                self.rows.arg(),
                device.upload(numbers).arg(),
                flips_buffer.arg(),
                rows.arg(),
                numbers.len() as u32,
                flips.is_some(),
                self.features,
            );
        }
        Ok(rows)
    }
}

/// Returns the error for a device without stored events.
pub(crate) fn no_events() -> DeviceError {
    DeviceError::Argument { what: "stored events", expected: 1, found: 0 }
}
