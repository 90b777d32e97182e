//! Lists the devices of a backend. The runtimes panic without a driver, so list devices before
//! opening one.

#![allow(unsafe_code)] // kernel launches

use super::error::{DeviceError, Result};
use super::tuning::DeviceClass;
use cubecl::cuda::CudaDevice;
use cubecl::wgpu::WgpuDevice;

/// Interface to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Cuda,
    Vulkan,
}

/// A device that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    pub backend: Backend,
    pub class: DeviceClass,
    pub name: String,
    /// Bytes of memory, if the driver reports them.
    pub memory: Option<u64>,
    /// Index among the devices of the same backend and kind.
    pub(super) index: usize,
    kind: DeviceKind,
}

impl DeviceInfo {
    /// Returns whether the device is a GPU with its own memory.
    pub fn is_discrete(&self) -> bool {
        self.kind == DeviceKind::Discrete
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceKind {
    Discrete,
    Integrated,
    Virtual,
    Software,
}

/// Returns the devices of a backend, the fastest kind first.
///
/// # Errors
/// [`DeviceError::Missing`] with the reason if there is no usable device.
pub fn devices(backend: Backend) -> Result<Vec<DeviceInfo>> {
    match backend {
        Backend::Cuda => cuda(),
        Backend::Vulkan => vulkan(),
    }
}

fn missing(device: &'static str, reason: impl Into<String>) -> DeviceError {
    DeviceError::Missing { device, reason: reason.into() }
}

fn cuda() -> Result<Vec<DeviceInfo>> {
    use cudarc::driver::{result as driver, sys};
    const CUDA: &str = "CUDA device";
    let failed = |e: driver::DriverError| missing(CUDA, format!("the driver reports {e:?}"));
    // SAFETY: both calls only try to load a shared library of a fixed name.
    let (has_driver, has_compiler) =
        unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    if !has_driver {
        return Err(missing(CUDA, "no NVIDIA driver (libcuda.so.1)"));
    }
    driver::init().map_err(failed)?;
    let count = driver::device::get_count().map_err(failed)?;
    if count < 1 {
        return Err(missing(CUDA, "the driver lists no device"));
    }
    if !has_compiler {
        return Err(missing(
            CUDA,
            "kernels are compiled by NVRTC: install libnvrtc.so of the CUDA toolkit",
        ));
    }
    let headers = cubecl::cuda::install::cuda_path().map(|path| path.join("include"));
    if !headers.as_ref().is_some_and(|path| path.is_dir()) {
        return Err(missing(
            CUDA,
            "the headers of the CUDA toolkit are missing: set CUDA_PATH or use /usr/local/cuda",
        ));
    }
    (0..count)
        .map(|index| {
            let device = driver::device::get(index).map_err(failed)?;
            // SAFETY: the driver has just returned this device.
            let memory = unsafe { driver::device::total_mem(device) }.map_err(failed)?;
            Ok(DeviceInfo {
                backend: Backend::Cuda,
                class: DeviceClass::Cuda,
                name: driver::device::get_name(device).map_err(failed)?,
                memory: Some(memory as u64),
                index: index as usize,
                kind: DeviceKind::Discrete,
            })
        })
        .collect()
}

fn vulkan() -> Result<Vec<DeviceInfo>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let mut found: Vec<DeviceInfo> = Vec::new();
    for adapter in adapters {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
            wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other => continue,
        };
        let class =
            if kind == DeviceKind::Software { DeviceClass::Software } else { DeviceClass::Vulkan };
        let index = found.iter().filter(|f| f.kind == kind).count();
        found.push(DeviceInfo {
            backend: Backend::Vulkan,
            class,
            name: info.name,
            memory: None,
            index,
            kind,
        });
    }
    if found.is_empty() {
        return Err(missing("Vulkan device", "no Vulkan driver, or the driver lists no device"));
    }
    found.sort_by_key(|f| f.kind as usize);
    Ok(found)
}

/// Returns the device in the type of the CUDA runtime.
pub(super) fn cuda_device(found: &DeviceInfo) -> CudaDevice {
    CudaDevice::new(found.index)
}

/// Returns the device in the type of the wgpu runtime.
pub(super) fn wgpu_device(found: &DeviceInfo) -> WgpuDevice {
    match found.kind {
        DeviceKind::Discrete => WgpuDevice::DiscreteGpu(found.index),
        DeviceKind::Integrated => WgpuDevice::IntegratedGpu(found.index),
        DeviceKind::Virtual => WgpuDevice::VirtualGpu(found.index),
        DeviceKind::Software => WgpuDevice::Cpu,
    }
}
