//! Quantiles of χ² by bisection of the regularised incomplete gamma function.
//!
//! P(a, x) is computed by its series (Abramowitz and Stegun 1964, 6.5.29), which converges for all
//! x. A few hundred terms are enough for the dimensions of flows.

/// Returns the value below which χ² with `degrees` degrees of freedom has probability
/// `probability`.
pub(crate) fn quantile(degrees: usize, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, degrees as f64 + 4.0);
    while distribution(degrees, high) < probability && high < 1e4 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if distribution(degrees, middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// Returns the probability of χ² with `degrees` degrees of freedom below x: P(k/2, x/2).
fn distribution(degrees: usize, x: f64) -> f64 {
    let (a, x) = (0.5 * degrees as f64, 0.5 * x);
    if x <= 0.0 {
        return 0.0;
    }
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    while term > 1e-17 * sum {
        n += 1.0;
        term *= x / n;
        sum += term;
    }
    (sum * libm::exp(a * libm::log(x) - x - libm::lgamma(a))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_published_tables() {
        // 95.45 % within two sigma; NIST/SEMATECH handbook, table 1.3.6.7.4.
        for (degrees, probability, value) in [
            (1, 0.95, 3.841),
            (2, 0.99, 9.210),
            (6, 0.9545, 12.849),
            (10, 0.95, 18.307),
            (32, 0.5, 31.336),
        ] {
            assert!((quantile(degrees, probability) - value).abs() < 2e-3, "{degrees}");
        }
    }
}
