//! Kernel for networks with one hidden layer, which is never stored; the padding P is at least half
//! of the features.

use super::backward::{self, FusedScratch};
use super::forward::{self, LaneTile};
use super::pass::Pass;
use super::tiles::TileKernel;
use super::weights::Packed;
use crate::engine::simd::Isa;
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;

/// A flow with one hidden layer.
pub(crate) struct FusedKernel<const P: usize> {
    spec: FlowSpec,
    layout: Layout,
    flow: Packed<P>,
}

impl<const P: usize> FusedKernel<P> {
    /// Creates a flow of `spec` with all parameters zero.
    pub(crate) fn new(spec: &FlowSpec) -> FusedKernel<P> {
        let layout = Layout::new(spec);
        let flow = Packed::new(spec, &layout, &vec![0.0; layout.len()]);
        FusedKernel { spec: spec.clone(), layout, flow }
    }
}

impl<const P: usize> TileKernel for FusedKernel<P> {
    type Work = ();
    type Scratch = FusedScratch<P>;
    const SCORE_TILE: usize = 1024;

    fn set_params(&mut self, params: &[f32]) {
        self.flow = Packed::new(&self.spec, &self.layout, params);
    }

    fn log_prob(&self, isa: Isa, tile: &mut LaneTile, (): &mut (), out: &mut [f32]) {
        forward::log_prob::<P>(isa, &self.flow, tile, out);
    }

    fn inverse(&self, isa: Isa, tile: &mut LaneTile, (): &mut ()) {
        forward::inverse::<P>(isa, &self.flow, tile);
    }

    fn scratch(&self) -> FusedScratch<P> {
        FusedScratch::new(&self.flow)
    }

    fn pass(scratch: &mut FusedScratch<P>) -> &mut Pass {
        &mut scratch.pass
    }

    fn clear(scratch: &mut FusedScratch<P>) {
        scratch.clear();
    }

    fn gradient(&self, isa: Isa, scratch: &mut FusedScratch<P>) {
        backward::gradient::<P>(isa, &self.flow, scratch);
    }

    fn collect(&self, scratch: &FusedScratch<P>, flat: &mut [i64]) {
        let networks = self.spec.networks().len();
        for (b, block) in scratch.sums.iter().enumerate() {
            if let Some(scale) = &block.scale {
                scale.add_to(self.layout.network(b, 0), P, flat);
            }
            block.shift.add_to(self.layout.network(b, networks - 1), P, flat);
        }
    }
}
