//! Reference points in the camera that `alpha` and `dist` refer to.

/// The source position turned about the camera's centre by `k` of `count` equal steps: how
/// TAIGA counts its background (1 ON and `count` − 1 OFF positions).
pub fn rotated(source: [f64; 2], k: usize, count: usize) -> [f64; 2] {
    if k == 0 {
        return source;
    }
    // Half a turn is exact: the anti-source.
    if 2 * k == count {
        return [-source[0], -source[1]];
    }
    let angle = std::f64::consts::TAU * k as f64 / count as f64;
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    [cos * source[0] - sin * source[1], sin * source[0] + cos * source[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_positions_lie_sixty_degrees_apart_at_equal_offsets() {
        let source = [0.7, -0.98];
        let all: Vec<[f64; 2]> = (0..6).map(|k| rotated(source, k, 6)).collect();
        assert_eq!((all[0], all[3]), (source, [-0.7, 0.98]));
        let offset = libm::hypot(source[0], source[1]);
        for k in 0..6 {
            let [a, b] = [all[k], all[(k + 1) % 6]];
            assert!((libm::hypot(a[0], a[1]) - offset).abs() < 1e-12);
            assert!((libm::hypot(a[0] - b[0], a[1] - b[1]) - offset).abs() < 1e-12, "{k}");
        }
    }
}
