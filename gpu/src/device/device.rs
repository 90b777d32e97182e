//! An open device with its queue: buffers, launches, and their errors.

#![allow(unsafe_code)] // buffers of a device

use super::error::{DeviceError, Result};
use super::tuning::DeviceClass;
use super::{Backend, DeviceInfo};
use crate::panics;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// An open device of a runtime.
pub(crate) struct Device<R: Runtime> {
    pub(crate) client: ComputeClient<R>,
    pub(crate) class: DeviceClass,
    pub(crate) name: String,
    /// Bytes of memory, where known.
    memory: Option<u64>,
}

/// A buffer of 32-bit numbers on the device.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    handle: Handle,
    len: usize,
}

impl Buffer {
    /// Returns the buffer as an argument of a kernel.
    pub(crate) fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: the handle was created with space for `len` numbers of 32 bits.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<R: Runtime> Device<R> {
    /// Opens the device that `found` describes.
    pub(crate) fn open(device: &R::Device, found: &DeviceInfo) -> Result<Device<R>> {
        let client = guarded(|| Ok(R::client(device)))?;
        let backend = match found.backend {
            Backend::Cuda => "cuda",
            Backend::Vulkan => "vulkan",
        };
        let name = format!("{backend}, {}", found.name);
        Ok(Device { client, class: found.class, name, memory: found.memory })
    }

    /// Returns an error if more bytes are needed than the device has.
    pub(crate) fn expect_memory(&self, needed: u64) -> Result<()> {
        match self.memory {
            Some(available) if needed > available => {
                Err(DeviceError::TooLittle { what: "memory (bytes)", needed, available })
            }
            _ => Ok(()),
        }
    }

    /// Returns the largest size of one buffer, in bytes.
    pub(crate) fn largest_buffer(&self) -> u64 {
        let page = self.client.properties().memory.max_page_size;
        // Kernels count in 32 bits.
        page.min(1 << 33)
    }

    /// Returns the bytes of memory for stored events: half of all, the rest is for batches.
    pub(crate) fn memory_left(&self) -> u64 {
        self.memory.map_or(u64::MAX, |bytes| bytes / 2)
    }

    /// Returns the bytes of shared memory per cube.
    pub(crate) fn shared_memory(&self) -> usize {
        self.client.properties().hardware.max_shared_memory_size
    }

    /// Returns the number of multiprocessors, or 32 if it is unknown.
    pub(crate) fn processors(&self) -> usize {
        self.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(32) as usize
    }

    /// Copies values into a new buffer.
    pub(crate) fn upload<T: CubeElement>(&self, values: &[T]) -> Buffer {
        let bytes = T::as_bytes(values);
        Buffer { handle: self.client.create_from_slice(bytes), len: values.len() }
    }

    /// Allocates a buffer of `len` numbers of 32 bits with undefined content.
    pub(crate) fn empty(&self, len: usize) -> Result<Buffer> {
        // Some devices do not support buffers of length 0.
        let bytes = 4 * len.max(1) as u64;
        if bytes > self.largest_buffer() {
            return Err(DeviceError::TooLittle {
                what: "memory for one buffer",
                needed: bytes,
                available: self.largest_buffer(),
            });
        }
        Ok(Buffer { handle: self.client.empty(bytes as usize), len: len.max(1) })
    }

    /// Waits for all launches and returns an error if one failed. Without this call a read could
    /// return stale data.
    pub(crate) fn finish(&self) -> Result<()> {
        cubecl::future::block_on(self.client.sync()).map_err(failed)
    }

    /// Reads all numbers of several buffers, as words.
    pub(crate) fn read_all<'a>(
        &self,
        buffers: impl Iterator<Item = &'a Buffer>,
    ) -> Result<Vec<Vec<u32>>> {
        self.finish()?;
        buffers
            .map(|buffer| {
                let bytes = self.client.read_one(buffer.handle.clone()).map_err(failed)?;
                Ok(u32::from_bytes(&bytes)[..].to_vec())
            })
            .collect()
    }

    /// Reads the first numbers of a buffer.
    pub(crate) fn read<T: CubeElement + Copy>(
        &self,
        buffer: &Buffer,
        into: &mut [T],
    ) -> Result<()> {
        self.finish()?;
        let bytes = self.client.read_one(buffer.handle.clone()).map_err(failed)?;
        let values = T::from_bytes(&bytes);
        if values.len() < into.len() {
            return Err(DeviceError::Argument {
                what: "numbers read back",
                expected: into.len(),
                found: values.len(),
            });
        }
        into.copy_from_slice(&values[..into.len()]);
        Ok(())
    }
}

/// Returns a grid of at least `count` cubes, over two axes because each axis has a limit.
pub(crate) fn cubes(count: usize) -> CubeCount {
    const AXIS: usize = 65_535;
    if count <= AXIS {
        return CubeCount::Static(count.max(1) as u32, 1, 1);
    }
    let rows = count.div_ceil(AXIS);
    CubeCount::Static(count.div_ceil(rows) as u32, rows as u32, 1)
}

/// Runs a function that calls the runtime, and converts a panic of the runtime into an error.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    panics::guard(run).unwrap_or_else(|reason| Err(failed(reason)))
}

fn failed(error: impl std::fmt::Display) -> DeviceError {
    // Keep the cause, drop the backtrace.
    let text = error.to_string();
    let reason = text.split("Backtrace").next().unwrap_or_default().trim().replace('\n', " ");
    DeviceError::Failed { reason }
}
