//! Quantiles of a sample.

/// Returns the empirical quantile: the smallest value with at least a share `fraction` of all
/// values at or below it. This is definition 1 of Hyndman & Fan (1996), the inverse of the
/// empirical distribution function, without interpolation. So at most that share is strictly below
/// it. `ascending` must be sorted; `None` if it is empty or `fraction` is not within 0…1.
pub(crate) fn quantile(ascending: &[f64], fraction: f64) -> Option<f64> {
    ascending.get(quantile_rank(ascending.len(), fraction)?).copied()
}

/// Returns the index of the quantile among n ascending values: ⌈n·fraction⌉ − 1, at least 0. The
/// product is reduced by a few roundings, so that 0.1 of 30 is the third value and not the fourth.
pub(crate) fn quantile_rank(count: usize, fraction: f64) -> Option<usize> {
    if !(0.0..=1.0).contains(&fraction) {
        return None;
    }
    let eased = count as f64 * fraction * (1.0 - 1e-12);
    Some((libm::ceil(eased) as usize).saturating_sub(1))
}
