//! 64-bit integers as two 32-bit words, and exact rounding of f32 to units of 2⁻³².
//!
//! Some devices have no 64-bit integers. The code uses integer operations only: a compiler may not
//! reorder those, but it may break the usual tricks with large floating-point constants.

use cubecl::prelude::*;

/// Converts `value` · 2³² to two words (low, high) in two's complement, ties to even. The result is
/// defined for magnitudes below 2³⁰ only.
#[cube]
pub(crate) fn to_fixed(value: f32) -> (u32, u32) {
    let bits = u32::reinterpret(value);
    let exponent = (bits >> 23u32) & 0xffu32;
    let fraction = bits & 0x7f_ffffu32;
    let normal = exponent > 0u32;
    let mantissa = select(normal, fraction | 0x80_0000u32, fraction);
    // value = mantissa · 2^(exponent − 150), so the integer is mantissa · 2^(exponent − 118)
    let up = min(max(exponent, 118u32) - 118u32, 63u32);
    let down = min(118u32 - min(exponent, 118u32), 31u32);
    // Shift to the left: at most 38 places.
    let within = min(up, 31u32);
    let low_left = select(up < 32u32, mantissa << within, 0u32);
    // Two shifts, because a shift by 32 is not defined.
    let across = (mantissa >> (31u32 - within)) >> 1u32;
    let beyond = mantissa << (max(up, 32u32) - 32u32);
    let high_left = select(up < 32u32, across, beyond);
    // Shift to the right, rounded to nearest, ties to even: a mantissa has 24 bits.
    let kept = mantissa >> down;
    let rest = mantissa - (kept << down);
    let half = (1u32 << down) >> 1u32;
    let odd = (kept & 1u32) == 1u32;
    let tie_up = select(odd, rest == half, false);
    let up_one = select(down > 0u32, (rest > half) || tie_up, false);
    let right = kept + u32::cast_from(up_one);
    let low = select(down > 0u32, right, low_left);
    let high = select(down > 0u32, 0u32, high_left);
    let negative = (bits >> 31u32) == 1u32;
    let low_negated = (!low) + 1u32;
    let high_negated = (!high) + u32::cast_from(low == 0u32);
    (select(negative, low_negated, low), select(negative, high_negated, high))
}

/// Adds two 64-bit integers modulo 2⁶⁴.
#[cube]
pub(crate) fn add_wide(low: u32, high: u32, more_low: u32, more_high: u32) -> (u32, u32) {
    let sum = low + more_low;
    let carry = u32::cast_from(sum < more_low);
    (sum, high + more_high + carry)
}

/// Returns whether |value| < bound; false for NaN and infinities.
#[cube]
pub(crate) fn is_usable(value: f32, bound: f32) -> bool {
    // Compare bits: comparisons of NaN differ between devices.
    (u32::reinterpret(value) & 0x7fff_ffffu32) < u32::reinterpret(bound)
}

/// Converts a 64-bit integer in units of 2⁻³² to f32.
#[cube]
pub(crate) fn from_fixed(low: u32, high: u32) -> f32 {
    let negative = (high >> 31u32) == 1u32;
    let low_negated = (!low) + 1u32;
    let high_negated = (!high) + u32::cast_from(low == 0u32);
    let l = select(negative, low_negated, low);
    let h = select(negative, high_negated, high);
    // Take the magnitude first: with a negative high word the two parts would cancel.
    let magnitude = fma(f32::cast_from(l), 2.328_306_4e-10f32, f32::cast_from(h));
    select(negative, -magnitude, magnitude)
}
