//! The kernel for networks with one hidden layer: fused, so that the layer is never
//! stored, at a padding P of at least half of the features.

use super::backward::{self, Scratch};
use super::dispatch::Isa;
use super::forward::{self, Tile};
use super::pass::Pass;
use super::tiles::TileKernel;
use super::weights::Packed;
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;

pub struct Fused<const P: usize> {
    spec: FlowSpec,
    layout: Layout,
    flow: Packed<P>,
}

impl<const P: usize> Fused<P> {
    /// A flow of `spec` with all parameters zero.
    pub fn new(spec: &FlowSpec) -> Fused<P> {
        let layout = Layout::new(spec);
        let flow = Packed::new(spec, &layout, &vec![0.0; layout.len()]);
        Fused { spec: spec.clone(), layout, flow }
    }
}

impl<const P: usize> TileKernel for Fused<P> {
    type Work = ();
    type Scratch = Scratch<P>;
    const SCORE_TILE: usize = 1024;

    fn set_params(&mut self, params: &[f32]) {
        self.flow = Packed::new(&self.spec, &self.layout, params);
    }

    fn log_prob(&self, isa: Isa, tile: &mut Tile, (): &mut (), out: &mut [f32]) {
        forward::log_prob::<P>(isa, &self.flow, tile, out);
    }

    fn inverse(&self, isa: Isa, tile: &mut Tile, (): &mut ()) {
        forward::inverse::<P>(isa, &self.flow, tile);
    }

    fn scratch(&self) -> Scratch<P> {
        Scratch::new(&self.flow)
    }

    fn pass(scratch: &mut Scratch<P>) -> &mut Pass {
        &mut scratch.pass
    }

    fn clear(scratch: &mut Scratch<P>) {
        scratch.clear();
    }

    fn gradient(&self, isa: Isa, scratch: &mut Scratch<P>) {
        backward::gradient::<P>(isa, &self.flow, scratch);
    }

    fn collect(&self, scratch: &Scratch<P>, flat: &mut [i64]) {
        let networks = self.spec.networks().len();
        for (b, block) in scratch.sums.iter().enumerate() {
            if let Some(scale) = &block.scale {
                scale.add_to(self.layout.network(b, 0), P, flat);
            }
            block.shift.add_to(self.layout.network(b, networks - 1), P, flat);
        }
    }
}
