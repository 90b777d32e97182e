//! Tests of internals: exact rounding, and errors of launches.

#![allow(unsafe_code)] // kernel launches

use super::device::{Buffer, Device};
use super::error::{DeviceError, Result};
use super::kernels::fixed::{add_wide, from_fixed, is_usable, to_fixed};
use super::kernels::math::{exp, tanh};
use super::{Backend, DeviceBatch, Events, devices, open, probe};
use crate::random::Stream;
use crate::spec::FlowSpec;
use cubecl::prelude::*;
use cubecl::wgpu::WgpuRuntime;

fn vulkan() -> Device<WgpuRuntime> {
    let found = &devices(Backend::Vulkan).unwrap()[0];
    Device::open(&probe::wgpu_device(found), found).unwrap()
}

#[cube(launch_unchecked)]
fn round_all(values: &Array<f32>, words: &mut Array<u32>, back: &mut Array<f32>, bound: f32) {
    let i = ABSOLUTE_POS;
    if i < values.len() {
        let (low, high) = to_fixed(values[i]);
        words[4 * i] = low;
        words[4 * i + 1] = high;
        let (low, high) = add_wide(low, high, 0xffff_ff00u32, 0x0fff_ffffu32);
        words[4 * i + 2] = low;
        words[4 * i + 3] = high;
        back[i] = from_fixed(words[4 * i], words[4 * i + 1]);
        if is_usable(values[i], bound) {
            back[i] = -back[i];
        }
    }
}

#[test]
fn integer_rounding_is_exact_with_ties_to_even() {
    let stream = Stream::new(12, "fixed", &[]);
    // Random bits below 2³⁰, and values close to every exponent and tie.
    let mut values: Vec<f32> = (0..20_000)
        .map(|i| f32::from_bits(stream.bits(i) as u32))
        .filter(|x| x.abs() < 1_073_741_824.0)
        .collect();
    for e in -40..30 {
        for near in [1.0, 1.5, 1.25, 1.000_000_1, 1.999_999_9] {
            values.extend([near, -near].map(|x: f32| x * libm::exp2f(e as f32)));
        }
    }
    values.extend([0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45]);
    let device = vulkan();
    let n = values.len();
    let input = device.upload(&values);
    let (words, back) = (device.upload(&vec![7_u32; 4 * n]), device.upload(&vec![7.0_f32; n]));
    // SAFETY: one thread per value; all buffers have space for its results.
    unsafe {
        round_all::launch_unchecked::<WgpuRuntime>(
            &device.client,
            super::device::cubes(n.div_ceil(64)),
            CubeDim::new_1d(64),
            input.arg(),
            words.arg(),
            back.arg(),
            1.0,
        );
    }
    let (mut got, mut approximate) = (vec![0_u32; 4 * n], vec![0.0_f32; n]);
    device.read(&words, &mut got).unwrap();
    device.read(&back, &mut approximate).unwrap();
    for ((value, words), back) in values.iter().zip(got.as_chunks::<4>().0).zip(approximate) {
        let wide = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).cast_signed();
        let exact = (f64::from(*value) * 4_294_967_296.0).round_ties_even() as i64;
        assert_eq!(wide(words[0], words[1]), exact, "{value:e}");
        let sum = exact.wrapping_add(0x0fff_ffff_ffff_ff00);
        assert_eq!(wide(words[2], words[3]), sum, "{value:e}");
        let expected = exact as f64 / 4_294_967_296.0;
        let expected = if value.abs() < 1.0 { -expected } else { expected };
        assert!((f64::from(back) - expected).abs() <= 2e-7 * expected.abs(), "{value:e}: {back:e}");
    }
}

#[cube(launch_unchecked)]
fn functions(values: &Array<f32>, out: &mut Array<f32>) {
    let i = ABSOLUTE_POS;
    if i < values.len() {
        out[2 * i] = exp(values[i]);
        out[2 * i + 1] = tanh(values[i]);
    }
}

#[test]
fn exp_and_tanh_are_accurate_on_device() {
    let device = vulkan();
    let values: Vec<f32> = (-9000..8800)
        .map(|i| i as f32 * 0.01)
        .chain((-999..999).map(|i| i as f32 * 1e-3))
        .collect();
    let n = values.len();
    let (input, out) = (device.upload(&values), device.upload(&vec![7.0_f32; 2 * n]));
    // SAFETY: one thread per value; all buffers have space for its results.
    unsafe {
        functions::launch_unchecked::<WgpuRuntime>(
            &device.client,
            super::device::cubes(n.div_ceil(64)),
            CubeDim::new_1d(64),
            input.arg(),
            out.arg(),
        );
    }
    let mut got = vec![0.0_f32; 2 * n];
    device.read(&out, &mut got).unwrap();
    for (x, [e, t]) in values.iter().zip(got.as_chunks::<2>().0) {
        for (got, exact) in [(*e, libm::exp(f64::from(*x))), (*t, libm::tanh(f64::from(*x)))] {
            // Devices may flush subnormal numbers to zero. Some compilers merge the two parts of
            // n·ln 2, which costs |x| half ulps: little within the clamp.
            let error = (f64::from(got) - exact).abs();
            let bar = 5e-7 + 6e-8 * f64::from(x.abs());
            assert!(error <= bar * exact.abs() + 1.2e-38, "{x}: {got:e} for {exact:e}");
        }
    }
}

#[cube(launch_unchecked)]
fn greedy(out: &mut Array<f32>, #[comptime] room: usize) {
    let mut shared = SharedMemory::<f32>::new(room);
    shared[UNIT_POS as usize] = 1.0f32;
    sync_cube();
    out[UNIT_POS as usize] = shared[UNIT_POS as usize];
}

fn ask_for(device: &Device<WgpuRuntime>, room: usize, out: &Buffer) -> Result<[f32; 32]> {
    // SAFETY: 32 threads write 32 numbers.
    unsafe {
        greedy::launch_unchecked::<WgpuRuntime>(
            &device.client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(32),
            out.arg(),
            room,
        );
    }
    let mut got = [0.0; 32];
    device.read(out, &mut got)?;
    Ok(got)
}

#[test]
fn oversized_launch_is_an_error_not_stale_data() {
    let device = vulkan();
    let out = device.upload(&[7.0_f32; 32]);
    assert_eq!(ask_for(&device, 1024, &out).unwrap(), [1.0; 32]);
    let room = device.shared_memory() / 4 + 1024;
    let out = device.upload(&[7.0_f32; 32]);
    let refused = super::guarded(|| ask_for(&device, room, &out));
    assert!(matches!(refused, Err(DeviceError::Failed { .. })), "{refused:?}");
}

#[test]
fn oversized_buffer_is_refused_with_size() {
    let device = vulkan();
    let most = device.largest_buffer() / 4;
    let refused = device.empty(most as usize + 1).unwrap_err();
    assert!(matches!(refused, DeviceError::TooLittle { needed, .. } if needed == 4 * most + 4));
}

#[test]
fn oversized_batch_is_refused_with_size() {
    let mut found = devices(Backend::Vulkan).unwrap().remove(0);
    found.memory = Some(1 << 20);
    let spec = FlowSpec { hidden: vec![8], blocks: 2, ..FlowSpec::reference_study(4) };
    let events = vec![0.5; 40_000 * 4];
    let offsets = [0, 40_000];
    let batch =
        DeviceBatch { events: Events::Rows(&events), weights: None, offsets: &offsets, shards: 1 };
    let refused = open(&found, &spec).unwrap().gradient(&batch).unwrap_err();
    assert!(
        matches!(refused, DeviceError::TooLittle { needed, available: 1_048_576, .. } if needed > 40_000 * 80),
        "{refused}"
    );
}
