//! exp and tanh in plain arithmetic.
//!
//! All runtimes then agree except in the last few bits. The built-in functions of some runtimes
//! have a lower precision.

use cubecl::prelude::*;

/// Computes eˣ after Cody and Waite: x = n·ln 2 + r, a polynomial in r, and 2ⁿ from the exponent
/// bits in two halves. Outside the range the result is about 0, or +∞.
#[cube]
pub(crate) fn exp(x: f32) -> f32 {
    // Outside these bounds the result is 0 or +∞; they keep n within ±160.
    let clamped = max(min(x, 100.0f32), -110.0f32);
    let n = f32::floor(fma(clamped, 1.442_695f32, 0.5f32));
    let r = fma(n, -1.428_606_8e-6f32, fma(n, -0.693_145_75f32, clamped));
    let p = fma(1.987_569_1e-4f32, r, 1.398_2e-3f32);
    let p = fma(p, r, 8.333_452e-3f32);
    let p = fma(p, r, 4.166_579_6e-2f32);
    let p = fma(p, r, 1.666_666_5e-1f32);
    let p = fma(p, r, 0.5f32);
    let y = fma(p, r * r, r) + 1.0f32;
    let k = i32::cast_from(n);
    let first = k >> 1;
    y * power_of_two(first) * power_of_two(k - first)
}

/// Returns 2ᵉ for −126 ≤ e ≤ 127.
#[cube]
fn power_of_two(e: i32) -> f32 {
    f32::reinterpret(u32::cast_from(e + 127) << 23u32)
}

/// Computes tanh x: an odd polynomial below 0.625 (Cephes), (1 − e)/(1 + e) with e = exp(−2|x|)
/// above.
#[cube]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = f32::abs(x);
    let e = exp(-2.0f32 * a);
    let large = (1.0f32 - e) / (1.0f32 + e);
    let z = x * x;
    let p = fma(-5.704_988_7e-3f32, z, 2.063_909e-2f32);
    let p = fma(p, z, -5.373_971_5e-2f32);
    let p = fma(p, z, 1.333_144_2e-1f32);
    let p = fma(p, z, -3.333_328e-1f32);
    let small = fma(p * z, a, a);
    let magnitude = select(a < 0.625f32, small, large);
    select(x < 0.0f32, -magnitude, magnitude)
}
