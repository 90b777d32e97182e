//! Starts the configured engine.

use super::cpu::CpuEngine;
#[cfg(feature = "gpu")]
use super::cube;
use super::interface::Engine;
use super::resources::RankResources;
use super::simd::Isa;
use crate::config::EngineChoice;
#[cfg(not(feature = "gpu"))]
use crate::error::Fault;
use crate::error::Result;
use taiga_flow_gpu::spec::FlowSpec;

/// Starts the configured engine for a flow of `spec`.
///
/// # Errors
/// Environment error if the engine or its device is not available.
pub fn start(place: &RankResources, spec: &FlowSpec) -> Result<Box<dyn Engine>> {
    let cpu = || CpuEngine::new(spec, place.threads, Isa::detect()).map(Box::new);
    match place.hardware.engine {
        EngineChoice::Cpu => Ok(cpu()?),
        #[cfg(feature = "gpu")]
        choice => match cube::start(choice, place, spec)? {
            cube::DeviceChoice::Device(engine) => Ok(engine),
            cube::DeviceChoice::Cpu { reason } => {
                if place.is_reporting {
                    log::info!("computing on the CPU: {reason}");
                }
                Ok(cpu()?)
            }
        },
        #[cfg(not(feature = "gpu"))]
        EngineChoice::Auto => Ok(cpu()?),
        #[cfg(not(feature = "gpu"))]
        choice => Err(Fault::new("this program was built without GPU engines")
            .expected("--engine auto or cpu")
            .found(format!("{choice:?}").to_lowercase())
            .advice("build with the feature `gpu`")
            .environment()),
    }
}
