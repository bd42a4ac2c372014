//! Learned precision of branches: how well each tells synthetic defects from normal images.
//!
//! Every score map `b` has a log variance `s_b`, bounded to [-6, 6], that minimises `1/2 exp(-s_b) e_b + 1/2 s_b` (A. Kendall,
//! Y. Gal, R. Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018); the minimum lies at `s_b = ln e_b`. On normal images alone `e_b`
//! could only say how predictable a branch is. Here it says how badly it separates: with the area `A` under the ROC curve of
//! synthetic defects against normal images and the rank correlation `r = 2 A - 1`, `e_b = 1 - r^2`, the share of the verdict that
//! the branch leaves unexplained; the worse of image scores and of pixels counts. A branch that does not separate has `e_b = 1`.
//!
//! The weight of a branch is its precision in excess of such a branch's, `exp(-s_b) - 1 = r^2 / (1 - r^2)`: signal to noise. So a
//! branch that fails has no weight at all. If all fail, all weigh alike. Maps of one branch (scales, say) see much the same, so a branch does
//! not gain from having more of them: each counts for one over their number.

/// Bounds of the log variance.
pub const LOG_VARIANCE_BOUND: f64 = 6.0;

/// What was learned about one score map.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MapPrecision {
    /// The score map.
    pub name: String,
    /// Area under the ROC curve of image scores from this map alone, synthetic defects against normal images.
    pub image_auroc: f64,
    /// The same of pixels: inside the defects' masks against normal images.
    pub pixel_auroc: f64,
    /// The log variance `s`, in [-6, 0].
    pub log_variance: f64,
    /// The weight in the fusion, in [0, 1]; the weights of all maps add up to 1.
    pub weight: f64,
}

/// The log variance that minimises `1/2 exp(-s) error + 1/2 s` within [-6, 6]: `ln error`, clamped.
///
/// `error` is not negative.
///
/// ```
/// assert_eq!(masf_fusion::log_variance(1.0), 0.0);
/// assert_eq!(masf_fusion::log_variance(0.0), -6.0);
/// ```
pub fn log_variance(error: f64) -> f64 {
    error.ln().clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
}

/// The share of the verdict that a separation leaves unexplained: 1 for an area of one half or less.
///
/// `defects` images cannot show an area of 1: half a defect is counted as missed.
pub(crate) fn unexplained(auroc: f64, defects: usize) -> f64 {
    let counted = (auroc * defects as f64 + 0.5) / (defects as f64 + 1.0);
    let correlation = (2.0 * counted - 1.0).clamp(0.0, 1.0);
    1.0 - correlation * correlation
}

/// Weights that add up to 1, from the log variance of each map and the number of maps of its branch; if no map separates, all
/// branches weigh alike.
pub(crate) fn weights(log_variances: &[f64], maps_of_branch: &[usize]) -> Vec<f64> {
    let share = |excess: fn(f64) -> f64| -> Vec<f64> {
        log_variances.iter().zip(maps_of_branch).map(|(s, count)| excess(*s) / *count as f64).collect()
    };
    let mut shares = share(|s| ((-s).exp() - 1.0).max(0.0));
    if shares.iter().all(|share| *share == 0.0) {
        shares = share(|_| 1.0);
    }
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / sum).collect()
}

/// Area under the ROC curve, ties counting one half; 0.5 if a class is empty.
pub(crate) fn auroc(positive: &[f32], negative: &[f32]) -> f64 {
    if positive.is_empty() || negative.is_empty() {
        return 0.5;
    }
    let mut sorted = negative.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let wins: f64 = positive
        .iter()
        .map(|score| {
            let below = sorted.partition_point(|other| other < score);
            let not_above = sorted.partition_point(|other| other <= score);
            (below + not_above) as f64 / 2.0
        })
        .sum();
    wins / (positive.len() as f64 * negative.len() as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn areas_match_scikit_learn() {
        // sklearn.metrics.roc_auc_score([0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.4, 0.4]) = 0.6666666666666667
        assert!((auroc(&[0.35, 0.8, 0.4], &[0.1, 0.4, 0.4]) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(auroc(&[], &[1.0]), 0.5);
        assert_eq!(auroc(&[2.0, 3.0], &[1.0, 1.0]), 1.0);
    }

    #[test]
    fn a_branch_that_fails_has_no_weight() {
        let error = |auroc| unexplained(auroc, 100);
        let s = [error(0.99), error(0.9), error(0.5), error(0.3)].map(log_variance);
        let weights = weights(&s, &[1; 4]);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(weights[0] > 3.0 * weights[1] && weights[1] > 0.01, "{weights:?}");
        assert_eq!(weights[2..], [0.0, 0.0]);
        // All fail: no reason to prefer one.
        assert_eq!(super::weights(&[0.0, 0.0], &[1, 1]), [0.5, 0.5]);
        // Two maps of one branch do not outweigh a third one that is as good.
        assert_eq!(super::weights(&[-1.0, -1.0, -1.0], &[2, 2, 1]), [0.25, 0.25, 0.5]);
    }

    #[test]
    fn few_defects_cannot_prove_much() {
        assert!(unexplained(1.0, 8) > 3.0 * unexplained(1.0, 100));
        assert!(log_variance(unexplained(1.0, usize::MAX / 2)) >= -LOG_VARIANCE_BOUND);
    }

    proptest! {
        #[test]
        fn the_log_variance_minimises_the_objective(error in 0.0f64..500.0) {
            let objective = |s: f64| 0.5 * (-s).exp() * error + 0.5 * s;
            let best = objective(log_variance(error));
            for step in -600..=600 {
                prop_assert!(best <= objective(f64::from(step) / 100.0) + 1e-9);
            }
        }

        #[test]
        fn the_area_is_the_share_of_pairs_in_order(
            a in proptest::collection::vec(0i8..8, 1..20), b in proptest::collection::vec(0i8..8, 1..20),
        ) {
            let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
            let slow: f64 = pairs.map(|(a, b)| if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 }).sum();
            let floats = |values: &[i8]| values.iter().map(|value| f32::from(*value)).collect::<Vec<_>>();
            let found = auroc(&floats(&a), &floats(&b));
            prop_assert!((found - slow / (a.len() * b.len()) as f64).abs() < 1e-12);
        }
    }
}
