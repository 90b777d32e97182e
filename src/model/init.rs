//! Initial parameters of a flow, as a function of the seed and the layout.
//!
//! Hidden layers are uniform within ±1/√inputs, as is usual for rectified units. The last layer of
//! each network is zero, so the flow starts as the identity.

use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::spec::FlowSpec;

/// Draws the initial parameters (parameters).
pub fn initial_params(spec: &FlowSpec, seed: u64) -> Vec<f32> {
    let layout = Layout::new(spec);
    let stream = Stream::new(seed, "initial parameters", &[]);
    let mut params = vec![0.0; layout.len()];
    for dense in layout.layers().iter().filter(|d| d.layer < spec.hidden.len()) {
        let limit = 1.0 / libm::sqrt(dense.inputs as f64);
        for i in dense.weight.start..dense.bias.end {
            params[i] = (limit * (2.0 * stream.uniform(i as u64) - 1.0)) as f32;
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::reference::ReferenceFlow;

    #[test]
    fn new_flow_is_the_identity() {
        let spec = FlowSpec::reference_study(6);
        let flow: ReferenceFlow = ReferenceFlow::new(&spec, &initial_params(&spec, 5));
        let x = [0.3, -1.0, 2.0, 0.1, 0.0, -0.7];
        let (z, log_det) = flow.forward(&x);
        assert_eq!(z, x);
        assert_eq!(log_det, 0.0);
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let spec = FlowSpec::reference_study(4);
        assert_eq!(initial_params(&spec, 1), initial_params(&spec, 1));
        assert_ne!(initial_params(&spec, 1), initial_params(&spec, 2));
    }
}
