//! Whether scores still look like those of the calibration: the two-sample Kolmogorov-Smirnov test.
//!
//! The statistic is the largest distance between the two empirical distribution functions. Its probability for samples of one
//! law is exact for small samples, by counting the lattice paths that stay inside (J. L. Hodges, "The significance probability of
//! the Smirnov two-sample test", 1957), and the asymptotic series with M. A. Stephens' correction (1970) for large ones. With ties the
//! probability is conservative.

use crate::FusionError;

/// Products of sample sizes up to which the probability is computed exactly.
const EXACT: usize = 1_000_000;

/// The result of a two-sample Kolmogorov-Smirnov test.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct KolmogorovSmirnov {
    /// The largest distance of the distribution functions, in `[0, 1]`.
    pub statistic: f64,
    /// The probability of a distance at least as large for samples of one law.
    pub p_value: f64,
}

/// Compares two samples, in any order.
///
/// # Errors
/// A sample that is empty or has values that are not finite.
///
/// ```
/// let a: Vec<f32> = (0..50).map(|i| i as f32).collect();
/// let b: Vec<f32> = (0..50).map(|i| i as f32 + 30.0).collect();
/// let test = masf_fusion::kolmogorov_smirnov(&a, &b)?;
/// assert!((test.statistic - 0.6).abs() < 1e-12);
/// assert!(test.p_value < 1e-7);
/// # Ok::<(), masf_fusion::FusionError>(())
/// ```
pub fn kolmogorov_smirnov(first: &[f32], second: &[f32]) -> Result<KolmogorovSmirnov, FusionError> {
    for sample in [first, second] {
        if sample.is_empty() {
            return Err(FusionError::EmptySample);
        }
        if sample.iter().any(|score| !score.is_finite()) {
            return Err(FusionError::NotFinite("the sample of scores".into()));
        }
    }
    let sorted = |sample: &[f32]| {
        let mut sorted = sample.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        sorted
    };
    let (a, b) = (sorted(first), sorted(second));
    let statistic = largest_distance(&a, &b);
    let (n, m) = (a.len(), b.len());
    let p_value = if n.saturating_mul(m) <= EXACT { exact(statistic, n, m) } else { asymptotic(statistic, n, m) };
    Ok(KolmogorovSmirnov { statistic, p_value: p_value.clamp(0.0, 1.0) })
}

/// The largest distance of the empirical distribution functions of sorted samples.
fn largest_distance(a: &[f32], b: &[f32]) -> f64 {
    let (mut i, mut j, mut largest) = (0, 0, 0f64);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let value = x.min(*y);
        // Past all equal values on both sides before the distance is taken.
        while a.get(i).is_some_and(|x| *x <= value) {
            i += 1;
        }
        while b.get(j).is_some_and(|y| *y <= value) {
            j += 1;
        }
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

/// The share of lattice paths from (0, 0) to (n, m) that leave the band `|i / n - j / m| < statistic`.
fn exact(statistic: f64, n: usize, m: usize) -> f64 {
    let (md, nd) = (m as f64, n as f64);
    // Distances are multiples of 1 / (n m): half a step below the statistic separates "less" from "at least".
    let limit = ((statistic * md * nd - 1e-7).floor() + 0.5) / (md * nd);
    let outside = |i: usize, j: usize| (i as f64 / nd - j as f64 / md).abs() > limit;
    // Row by row: the probability that a random path reaches (i, j) without having left the band.
    let mut row: Vec<f64> = (0..=m).map(|j| if outside(0, j) { 0.0 } else { 1.0 }).collect();
    for i in 1..=n {
        let weight = i as f64 / (i + m) as f64;
        row[0] = if outside(i, 0) { 0.0 } else { weight * row[0] };
        for j in 1..=m {
            row[j] = if outside(i, j) { 0.0 } else { weight * row[j] + row[j - 1] };
        }
    }
    1.0 - row[m]
}

/// Kolmogorov's series `2 sum (-1)^(k-1) exp(-2 k^2 x^2)`.
fn asymptotic(statistic: f64, n: usize, m: usize) -> f64 {
    let root = ((n as f64 * m as f64) / (n + m) as f64).sqrt();
    let x = (root + 0.12 + 0.11 / root) * statistic;
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=100).map(|k| {
        let term = 2.0 * (-2.0 * (f64::from(k) * x).powi(2)).exp();
        if k % 2 == 1 { term } else { -term }
    });
    terms.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_scipy() -> Result<(), FusionError> {
        // scipy.stats.ks_2samp(a, b, method="exact"), tests/reference/ks.py
        let line = |count: usize, step: f32, start: f32| (0..count).map(move |i| start + step * i as f32).collect();
        let cases: [(Vec<f32>, Vec<f32>, f64, f64); 4] =
            SCIPY.map(|(a, b, statistic, p)| (line(a.0, a.1, a.2), line(b.0, b.1, b.2), statistic, p));
        for (a, b, statistic, p) in cases {
            let found = kolmogorov_smirnov(&a, &b)?;
            assert!((found.statistic - statistic).abs() < 1e-9, "{found:?}, expected {statistic}");
            assert!((found.p_value - p).abs() < 1e-6 * p.max(1e-3), "{found:?}, expected {p}");
        }
        Ok(())
    }

    type Line = (usize, f32, f32);
    const SCIPY: [(Line, Line, f64, f64); 4] = [
        ((7, 1.0, 0.0), (5, 1.0, 1.5), 0.2857142857142857, 0.9090909090909092),
        ((40, 0.5, 0.25), (30, 0.5, 5.0), 0.25, 0.20375478523422919),
        ((200, 0.01, 0.005), (90, 0.02, 0.3), 0.15, 0.10903678581166185),
        ((12, 1.0, 0.5), (12, 1.0, 0.75), 0.08333333333333333, 1.0),
    ];

    #[test]
    fn large_samples_agree_with_small_ones() {
        // Where both can be computed they agree in the tail that matters.
        for (n, m, statistic) in [(300, 200, 0.12), (500, 400, 0.11), (900, 100, 0.17)] {
            let (exact, asymptotic) = (exact(statistic, n, m), asymptotic(statistic, n, m));
            assert!((exact / asymptotic).ln().abs() < 0.15, "{exact} and {asymptotic}");
        }
    }

    #[test]
    fn samples_of_one_law_are_rarely_told_apart() {
        // Of 400 pairs of samples of one law, about 5 % have a p-value below 0.05, and never many more.
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut rejected = 0;
        for _ in 0..400 {
            let a: Vec<f32> = (0..60).map(|_| uniform()).collect();
            let b: Vec<f32> = (0..25).map(|_| uniform()).collect();
            rejected += usize::from(kolmogorov_smirnov(&a, &b).unwrap().p_value < 0.05);
        }
        assert!((4..=32).contains(&rejected), "{rejected} of 400");
    }

    #[test]
    fn bad_samples_are_refused() {
        for result in [kolmogorov_smirnov(&[], &[1.0]), kolmogorov_smirnov(&[1.0], &[])] {
            assert!(matches!(result, Err(FusionError::EmptySample)), "{result:?}");
        }
        assert!(kolmogorov_smirnov(&[1.0], &[f32::NAN]).is_err());
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_does_not_mind_the_scale(
            a in proptest::collection::vec(-100f32..100.0, 1..40),
            b in proptest::collection::vec(-100f32..100.0, 1..40),
        ) {
            let (ab, ba) = (kolmogorov_smirnov(&a, &b).unwrap(), kolmogorov_smirnov(&b, &a).unwrap());
            prop_assert!((ab.statistic - ba.statistic).abs() < 1e-12 && (ab.p_value - ba.p_value).abs() < 1e-9);
            let scaled = |sample: &[f32]| sample.iter().map(|score| 4.0 * score).collect::<Vec<_>>();
            prop_assert_eq!(kolmogorov_smirnov(&scaled(&a), &scaled(&b)).unwrap().statistic, ab.statistic);
            prop_assert!(kolmogorov_smirnov(&a, &a).unwrap().p_value > 0.999_999);
        }
    }
}
