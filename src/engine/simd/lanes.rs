//! Sixteen f32 in memory, one per event, with `exp` and `tanh`.
//!
//! The two functions use plain arithmetic because those of platforms differ between machines. They
//! have no branches, so the compiler vectorises them.

use std::ops::{Index, IndexMut};

/// Number of events in a vector.
pub(crate) const LANES: usize = 16;

/// One f32 for each of 16 events.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub [f32; LANES]);

pub(crate) const ZERO: Lanes = Lanes([0.0; LANES]);

impl Index<usize> for Lanes {
    type Output = f32;
    #[inline(always)]
    fn index(&self, lane: usize) -> &f32 {
        &self.0[lane]
    }
}

impl IndexMut<usize> for Lanes {
    #[inline(always)]
    fn index_mut(&mut self, lane: usize) -> &mut f32 {
        &mut self.0[lane]
    }
}

/// Computes eˣ after Cody and Waite: x = n·ln 2 + r, a polynomial in r, and n added to the exponent
/// in two halves so that subnormal results round once. Outside the range the result is +∞ or 0; NaN
/// stays NaN.
#[inline(always)]
pub(crate) fn exp(x: &mut Lanes) {
    for lane in &mut x.0 {
        *lane = exp_scalar(*lane);
    }
}

#[inline(always)]
fn exp_scalar(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low mantissa bits.
    const SHIFT: f32 = 12_582_912.0;
    // Outside these bounds the result is 0 or +∞; they keep n within ±160.
    let clamped = if x > 100.0 { 100.0 } else { x };
    let clamped = if clamped < -110.0 { -110.0 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let k = shifted.to_bits() as i32 - SHIFT.to_bits() as i32;
    let first = k >> 1;
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    y * power(first) * power(k - first)
}

/// Computes tanh x: an odd polynomial below 0.625 (Cephes), (1 − e)/(1 + e) with e = exp(−2|x|)
/// above.
#[inline(always)]
pub(crate) fn tanh(x: &mut Lanes) {
    for lane in &mut x.0 {
        *lane = tanh_scalar(*lane);
    }
}

#[inline(always)]
fn tanh_scalar(x: f32) -> f32 {
    let a = x.abs();
    let e = exp_scalar(-2.0 * a);
    let large = (1.0 - e) / (1.0 + e);
    let z = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p.mul_add(z, 2.063_909e-2);
    let p = p.mul_add(z, -5.373_971_5e-2);
    let p = p.mul_add(z, 1.333_144_2e-1);
    let p = p.mul_add(z, -3.333_328e-1);
    let small = (p * z).mul_add(a, a);
    let magnitude = if a < 0.625 { small } else { large };
    magnitude.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(value: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if rounded.is_infinite() {
            return if value == rounded { 0.0 } else { f64::INFINITY };
        }
        let spacing =
            f64::from(f32::from_bits(rounded.abs().to_bits() + 1)) - f64::from(rounded.abs());
        (f64::from(value) - exact).abs() / spacing
    }

    #[test]
    fn exp_is_within_2_ulp_in_its_whole_range() {
        let mut worst = 0.0_f64;
        for bits in (0..=u32::MAX).step_by(1009) {
            let x = f32::from_bits(bits);
            if x.is_finite() {
                worst = worst.max(ulps(exp_scalar(x), libm::exp(f64::from(x))));
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert!(exp_scalar(f32::NAN).is_nan());
        assert_eq!(exp_scalar(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_scalar(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn tanh_is_within_2_ulp_in_its_whole_range() {
        let mut worst = 0.0_f64;
        for bits in (0..=u32::MAX).step_by(1009) {
            let x = f32::from_bits(bits);
            if x.is_finite() {
                worst = worst.max(ulps(tanh_scalar(x), libm::tanh(f64::from(x))));
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert!(tanh_scalar(f32::NAN).is_nan());
        assert_eq!(tanh_scalar(f32::NEG_INFINITY), -1.0);
    }
}
