//! Points of the ROC, precision-recall and PRO curves, and the thinning that makes them fit for a plot.
//!
//! An exact curve has a point for every distinct score, which is millions for a set of anomaly maps. Along each curve one
//! quantity never falls (both rates of a ROC curve, recall), so points are dropped while sweeping until that quantity has
//! grown by a fixed step. Metrics are never computed from a thinned curve.

/// A point of a ROC curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    /// What scores this or more is called anomalous; infinite at the first point, where nothing is.
    pub threshold: f32,
    /// The part of the normal items that are called anomalous, in `[0, 1]`.
    pub false_positive_rate: f64,
    /// The part of the anomalous items that are called anomalous, in `[0, 1]`.
    pub true_positive_rate: f64,
}

/// A point of a precision-recall curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecallPoint {
    /// What scores this or more is called anomalous.
    pub threshold: f32,
    /// The part of what is called anomalous that is anomalous, in `[0, 1]`.
    pub precision: f64,
    /// The part of the anomalous items that are called anomalous, in `[0, 1]`.
    pub recall: f64,
}

/// A point of a PRO curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProPoint {
    /// What scores this or more is called anomalous; infinite at the first point, where nothing is.
    pub threshold: f32,
    /// The part of the normal pixels that are called anomalous, in `[0, 1]`.
    pub false_positive_rate: f64,
    /// The part of a defect region that is called anomalous, averaged over the regions, in `[0, 1]`.
    pub overlap: f64,
}

/// Chooses the points of a curve that are kept between its first and its last, which always are.
#[derive(Debug)]
pub(crate) struct Thinning {
    step: f64,
    last: f64,
}

impl Thinning {
    /// At most `max_points` with both ends (never fewer than 2), for a position that grows from 0 to `length`; `None`
    /// keeps every point.
    pub(crate) fn new(length: f64, max_points: Option<usize>) -> Self {
        let step = match max_points {
            None => 0.0,
            Some(points) if points > 2 => length / (points - 2) as f64,
            Some(_) => f64::INFINITY,
        };
        Self { step, last: 0.0 }
    }

    /// Whether a point at this position is kept.
    pub(crate) fn keeps(&mut self, position: f64) -> bool {
        let keeps = position - self.last >= self.step;
        if keeps {
            self.last = position;
        }
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_the_asked_number_of_inner_points_is_kept() {
        for points in 0..50 {
            let mut thinning = Thinning::new(2.0, Some(points));
            let kept = (1..10_000).filter(|i| thinning.keeps(f64::from(*i) * 2e-4)).count();
            assert!(kept <= points.saturating_sub(2), "{points}: {kept}");
            assert!(kept + 4 >= points, "{points}: {kept}");
        }
    }

    #[test]
    fn none_keeps_all() {
        let mut thinning = Thinning::new(1.0, None);
        assert!([0.0, 0.0, 0.1, 0.1, 1.0].into_iter().all(|position| thinning.keeps(position)));
    }
}
