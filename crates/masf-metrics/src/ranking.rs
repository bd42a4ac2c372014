//! Threshold-free metrics of scored items of two classes: AUROC, average precision, F1-max, and their curves.
//!
//! AUROC is the Mann-Whitney statistic with mid-ranks (Hanley and McNeil, Radiology 143, 1982; Fawcett, Pattern
//! Recognition Letters 27, 2006). Average precision is the step-wise sum of scikit-learn's `average_precision_score`,
//! without interpolation, which is too optimistic (Davis and Goadrich, ICML 2006).

use crate::curve::{PrecisionRecallPoint, RocPoint, Thinning};
use crate::error::{Class, Error, Result};
use crate::sweep::{Sorted, key_of, pack};

/// Items of both classes in the order of their scores: sorted once, then each metric is one linear pass.
///
/// Take [`PixelEvaluator`](crate::PixelEvaluator) for the pixels of anomaly maps.
///
/// ```
/// # use masf_metrics::Ranking;
/// let ranking = Ranking::new(&[0.2, 0.9, 0.4, 0.9], &[false, true, false, false])?;
/// assert_eq!(ranking.auroc(), 5.0 / 6.0); // it beats two normal items and ties with the third
/// assert_eq!(ranking.average_precision(), 0.5);
/// # Ok::<(), masf_metrics::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ranking {
    sorted: Sorted,
}

/// The largest F1 over all thresholds, and where it is attained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct F1Max {
    /// `2 * precision * recall / (precision + recall)`, in `(0, 1]`.
    pub f1: f64,
    /// What scores this or more is called anomalous. It is one of the scores; of several that attain the same F1, the
    /// highest, which raises the fewest alarms.
    pub threshold: f32,
    /// The precision at the threshold.
    pub precision: f64,
    /// The recall at the threshold.
    pub recall: f64,
}

impl Ranking {
    /// Ranks `scores`, higher being more anomalous; `anomalous` says of each item whether it is.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`], [`Error::Empty`], [`Error::NonFiniteScore`], and [`Error::OneClass`] where all items
    /// are of one class.
    pub fn new(scores: &[f32], anomalous: &[bool]) -> Result<Self> {
        if scores.len() != anomalous.len() {
            return Err(Error::LengthMismatch { scores: scores.len(), labels: anomalous.len() });
        }
        if let Some((index, &value)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(Error::NonFiniteScore { index, value });
        }
        let positives = anomalous.iter().filter(|&&anomalous| anomalous).count();
        let mut normal_keys = Vec::with_capacity(scores.len() - positives);
        let mut anomalous_keys = Vec::with_capacity(positives);
        for (&score, &anomalous) in scores.iter().zip(anomalous) {
            match anomalous {
                true => anomalous_keys.push(pack(key_of(score), 0)),
                false => normal_keys.push(key_of(score)),
            }
        }
        Self::from_keys(normal_keys, anomalous_keys, "scores")
    }

    /// Sorts keys of both classes; `items` is what they are called in errors.
    pub(crate) fn from_keys(normal: Vec<u32>, anomalous: Vec<u64>, items: &'static str) -> Result<Self> {
        match (normal.len(), anomalous.len()) {
            (0, 0) => Err(Error::Empty { items }),
            (count, 0) => Err(Error::OneClass { count, items, class: Class::Normal }),
            (0, count) => Err(Error::OneClass { count, items, class: Class::Anomalous }),
            _ => Ok(Self { sorted: Sorted::new(normal, anomalous) }),
        }
    }

    pub(crate) fn sorted(&self) -> &Sorted {
        &self.sorted
    }

    /// The number of normal items, at least 1.
    pub fn normal(&self) -> usize {
        self.sorted.normal()
    }

    /// The number of anomalous items, at least 1.
    pub fn anomalous(&self) -> usize {
        self.sorted.anomalous()
    }

    /// Area under the ROC curve, in `[0, 1]`: the probability that an anomalous item scores higher than a normal one,
    /// a tie counting one half. Counted in integers, so exact up to the last division.
    pub fn auroc(&self) -> f64 {
        let normals = self.normal() as u128;
        let twice_wins: u128 = self
            .sorted
            .sweep()
            .map(|step| {
                let below = normals - step.false_positives as u128;
                step.anomalous.len() as u128 * (2 * below + step.normal as u128)
            })
            .sum();
        twice_wins as f64 / (2 * normals * self.anomalous() as u128) as f64
    }

    /// Average precision, in `(0, 1]`: the sum over the thresholds of precision times the recall gained there.
    pub fn average_precision(&self) -> f64 {
        let sum: f64 = self
            .sorted
            .sweep()
            .filter(|step| !step.anomalous.is_empty())
            .map(|step| {
                let alarms = step.true_positives + step.false_positives;
                step.anomalous.len() as f64 * (step.true_positives as f64 / alarms as f64)
            })
            .sum();
        sum / self.anomalous() as f64
    }

    /// The largest F1 over all thresholds, with the highest threshold that attains it.
    ///
    /// The threshold is chosen on the labels that it is judged by, so F1-max is an upper bound of what a threshold fixed
    /// in advance reaches.
    pub fn f1_max(&self) -> F1Max {
        let positives = self.anomalous();
        // F1 = 2 TP / (TP + FP + P); fractions are compared as integers, so that ties are ties.
        let (mut best, mut best_sum, mut found) = (0u128, 1u128, (f32::INFINITY, 0, 1));
        for step in self.sorted.sweep() {
            let alarms = step.true_positives + step.false_positives;
            let (hits, sum) = (step.true_positives as u128, (alarms + positives) as u128);
            if hits * best_sum > best * sum {
                (best, best_sum, found) = (hits, sum, (step.threshold, step.true_positives, alarms));
            }
        }
        let (threshold, hits, alarms) = found;
        F1Max {
            f1: 2.0 * best as f64 / best_sum as f64,
            threshold,
            precision: hits as f64 / alarms as f64,
            recall: hits as f64 / positives as f64,
        }
    }

    /// The ROC curve from (0, 0) to (1, 1), highest threshold first, a point for each distinct score.
    ///
    /// With `max_points` (at least 2 are returned), points are left out for a plot: each one left out is within
    /// `2 / (max_points - 2)` of a kept one in the sum of both rates.
    pub fn roc_curve(&self, max_points: Option<usize>) -> Vec<RocPoint> {
        let (normals, positives) = (self.normal(), self.anomalous());
        let mut thinning = Thinning::new(2.0, max_points);
        let mut points = vec![RocPoint { threshold: f32::INFINITY, false_positive_rate: 0.0, true_positive_rate: 0.0 }];
        for step in self.sorted.sweep() {
            let false_positive_rate = step.false_positives as f64 / normals as f64;
            let true_positive_rate = step.true_positives as f64 / positives as f64;
            let last = step.false_positives == normals && step.true_positives == positives;
            if last || thinning.keeps(false_positive_rate + true_positive_rate) {
                points.push(RocPoint { threshold: step.threshold, false_positive_rate, true_positive_rate });
            }
        }
        points
    }

    /// The precision-recall curve, highest threshold first, a point for each distinct score down to the first that
    /// reaches full recall: lower thresholds only add false alarms.
    ///
    /// With `max_points` (at least 2 are returned if there are 2), points are left out for a plot: each one left out is
    /// within a recall of `1 / (max_points - 2)` of a kept one.
    pub fn precision_recall_curve(&self, max_points: Option<usize>) -> Vec<PrecisionRecallPoint> {
        let positives = self.anomalous();
        let mut thinning = Thinning::new(1.0, max_points);
        let mut points = Vec::new();
        for step in self.sorted.sweep() {
            let recall = step.true_positives as f64 / positives as f64;
            let last = step.true_positives == positives;
            if points.is_empty() || last || thinning.keeps(recall) {
                let precision = step.true_positives as f64 / (step.true_positives + step.false_positives) as f64;
                points.push(PrecisionRecallPoint { threshold: step.threshold, precision, recall });
            }
            if last {
                break;
            }
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfect_and_inverted_rankings() {
        let labels = [false, false, true, true];
        let perfect = Ranking::new(&[0.1, 0.2, 0.3, 0.4], &labels).unwrap();
        assert_eq!((perfect.auroc(), perfect.average_precision()), (1.0, 1.0));
        assert_eq!(perfect.f1_max(), F1Max { f1: 1.0, threshold: 0.3, precision: 1.0, recall: 1.0 });
        let inverted = Ranking::new(&[-0.1, -0.2, -0.3, -0.4], &labels).unwrap();
        assert_eq!(inverted.auroc(), 0.0);
        assert_eq!(inverted.average_precision(), (1.0 / 3.0 + 2.0 / 4.0) / 2.0);
    }

    #[test]
    fn all_scores_equal() {
        let ranking = Ranking::new(&[3.0; 5], &[true, false, false, true, false]).unwrap();
        assert_eq!((ranking.auroc(), ranking.average_precision()), (0.5, 0.4));
        assert_eq!(ranking.f1_max().threshold, 3.0);
        assert_eq!(ranking.roc_curve(None).len(), 2);
        assert_eq!(
            ranking.precision_recall_curve(None),
            [PrecisionRecallPoint { threshold: 3.0, precision: 0.4, recall: 1.0 }]
        );
    }

    #[test]
    fn f1_max_takes_the_highest_of_tied_thresholds() {
        // F1 is 2/3 at the threshold 0.9 (1 of 2 found, no false alarm) and again at 0.1 (both found, 2 false alarms).
        let ranking = Ranking::new(&[0.9, 0.5, 0.4, 0.1], &[true, false, false, true]).unwrap();
        let best = ranking.f1_max();
        assert_eq!((best.f1, best.threshold), (2.0 / 3.0, 0.9));
        assert_eq!((best.precision, best.recall), (1.0, 0.5));
    }

    #[test]
    fn signed_zeros_tie() {
        assert_eq!(Ranking::new(&[0.0, -0.0], &[true, false]).unwrap().auroc(), 0.5);
    }

    #[test]
    fn bad_input_is_named() {
        let error = |scores: &[f32], labels: &[bool]| Ranking::new(scores, labels).unwrap_err();
        assert_eq!(error(&[1.0], &[]), Error::LengthMismatch { scores: 1, labels: 0 });
        assert_eq!(error(&[], &[]), Error::Empty { items: "scores" });
        assert_eq!(
            error(&[1.0, 2.0], &[false, false]),
            Error::OneClass { count: 2, items: "scores", class: Class::Normal }
        );
        assert_eq!(error(&[1.0], &[true]), Error::OneClass { count: 1, items: "scores", class: Class::Anomalous });
        assert!(matches!(
            error(&[1.0, f32::NAN], &[false, true]),
            Error::NonFiniteScore { index: 1, value } if value.is_nan()
        ));
        assert_eq!(error(&[f32::NEG_INFINITY], &[true]), Error::NonFiniteScore { index: 0, value: f32::NEG_INFINITY });
    }
}
