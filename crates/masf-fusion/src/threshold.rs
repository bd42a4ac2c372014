//! Thresholds for a stated false-alarm rate, and scores that are read against them.
//!
//! Split-conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005; Lei et al., 2018): if the next
//! normal image is exchangeable with `n` held-out ones, its score exceeds their `ceil((n + 1)(1 - a))`-th smallest with
//! probability at most `a`. That order statistic exists for `a >= 1 / (n + 1)`; for smaller rates the tail is extrapolated as
//! exponential (the limit of most light-tailed laws: Pickands 1975) and marked so.

use crate::FusionError;

/// An image is anomalous if its score lies above the threshold.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The score above which a verdict is "anomalous".
    pub value: f32,
    /// What a typical normal image scores (the median); the unit of [`normalise`](Self::normalise) is the distance from here. Less where the
    /// threshold is not above the median.
    pub typical: f32,
    /// Where it comes from.
    pub source: ThresholdSource,
}

/// How a threshold was found.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ThresholdSource {
    /// From normal images alone, for a stated false-alarm rate.
    Conformal {
        /// The rate asked for, in `(0, 1)`.
        false_alarm_rate: f64,
        /// The number of normal images.
        images: usize,
        /// Whether the images are too few for the rate, so that the tail was extrapolated.
        extrapolated: bool,
    },
    /// The threshold of the largest F1 score on labelled images.
    F1Max {
        /// The number of labelled images.
        images: usize,
    },
    /// Set by hand.
    Manual,
}

/// A score on a fixed scale: 0.5 at the threshold, 0.1 for the typical normal image, 0.9 as far above the threshold as that
/// one lies below it; always in `[0, 1]` and increasing with the raw score.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct NormalisedScore(pub f32);

impl std::fmt::Display for NormalisedScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The value and where it comes from, for people.
impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4}", self.value)?;
        match self.source {
            ThresholdSource::Conformal { false_alarm_rate, images, extrapolated } => {
                write!(f, " (false-alarm rate {false_alarm_rate}, from {images} good images")?;
                if extrapolated {
                    let needed = (1.0 / false_alarm_rate - 1.0 - 1e-9).ceil();
                    write!(f, "; extrapolated, as this rate takes {needed} images")?;
                }
                f.write_str(")")
            }
            ThresholdSource::F1Max { images } => write!(f, " (largest F1 score on {images} labelled images)"),
            ThresholdSource::Manual => f.write_str(" (set by hand)"),
        }
    }
}

impl Threshold {
    /// Whether a score means "anomalous".
    pub fn is_exceeded_by(&self, score: f32) -> bool {
        score > self.value
    }

    /// The logistic scale through threshold (0.5) and typical normal score (0.1).
    pub fn normalise(&self, score: f32) -> NormalisedScore {
        // In f64, where differences of any scores are finite.
        let unit = (f64::from(self.value) - f64::from(self.typical)).max(f64::from(f32::MIN_POSITIVE));
        let distance = (f64::from(score) - f64::from(self.value)) / unit;
        NormalisedScore((1.0 / (1.0 + 9f64.powf(-distance))) as f32)
    }

    /// The same scale with the threshold moved to `value`, for example one chosen on labelled images. Where that is not above the typical score,
    /// the unit stays what it was.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn moved_to(self, value: f32, source: ThresholdSource) -> Result<Self, FusionError> {
        if !value.is_finite() {
            return Err(FusionError::parameter("threshold", value, "a finite number"));
        }
        let below = (value - (self.value - self.typical)).max(f32::MIN);
        let typical = if self.typical < value { self.typical } else { below };
        Ok(Self { value, typical, source })
    }

    /// Whether the values, which may come from a file, make sense.
    ///
    /// # Errors
    /// Values that are not finite, or a typical normal score above the threshold.
    pub fn check(&self) -> Result<(), FusionError> {
        if self.value.is_finite() && self.typical.is_finite() && self.typical <= self.value {
            return Ok(());
        }
        let value = format!("{} (typical normal score {})", self.value, self.typical);
        Err(FusionError::parameter("threshold", value, "finite and not below the typical normal score"))
    }
}

/// The threshold that a normal image exceeds with probability at most `false_alarm_rate`.
///
/// `scores` are those of normal images by models that did not learn from them; their order does not matter.
///
/// # Errors
/// A rate outside `(0, 1)`, fewer than two scores, or scores that are not finite.
///
/// ```
/// let scores: Vec<f32> = (1..=99).map(|i| i as f32).collect();
/// let threshold = masf_fusion::conformal_threshold(&scores, 0.05)?;
/// assert_eq!(threshold.value, 95.0); // the ceil(100 * 0.95)-th smallest
/// # Ok::<(), masf_fusion::FusionError>(())
/// ```
pub fn conformal_threshold(scores: &[f32], false_alarm_rate: f64) -> Result<Threshold, FusionError> {
    if !(false_alarm_rate > 0.0 && false_alarm_rate < 1.0) {
        return Err(FusionError::parameter("false-alarm rate", false_alarm_rate, "a number between 0 and 1"));
    }
    if scores.len() < 2 {
        return Err(FusionError::TooFewImages { found: scores.len(), needed: 2 });
    }
    if scores.iter().any(|score| !score.is_finite()) {
        return Err(FusionError::NotFinite("the sample of scores".into()));
    }
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let n = sorted.len();
    // Rounding errors of (n + 1)(1 - a) must not skip a rank: 100 * (1 - 0.05) is 95.00000000000001.
    let rank = ((n + 1) as f64 * (1.0 - false_alarm_rate) - 1e-9).ceil().max(1.0) as usize;
    let extrapolated = rank > n;
    let value = if extrapolated { exponential_tail(&sorted, false_alarm_rate) } else { sorted[rank - 1] };
    let median = sorted[(n - 1) / 2];
    let below = (value - (sorted[n - 1] / 2.0 - sorted[0] / 2.0)).max(f32::MIN);
    let typical = if median < value { median } else { below };
    let source = ThresholdSource::Conformal { false_alarm_rate, images: n, extrapolated };
    Ok(Threshold { value, typical, source })
}

/// The `1 - rate` quantile of an exponential law fitted to the excesses of the upper half over the median.
fn exponential_tail(sorted: &[f32], rate: f64) -> f32 {
    let n = sorted.len();
    let middle = (n - 1) / 2;
    let base = f64::from(sorted[middle]);
    let tail = &sorted[middle + 1..];
    let mean_excess = tail.iter().map(|score| f64::from(*score) - base).sum::<f64>() / tail.len().max(1) as f64;
    let share = tail.len() as f64 / n as f64;
    let value = base + mean_excess * (share / rate).ln().max(0.0);
    // Never below what was seen of normal images: the rate asks for a threshold beyond the largest of them.
    (value.min(f64::from(f32::MAX)) as f32).max(sorted[n - 1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_images_are_extrapolated_and_say_so() -> Result<(), FusionError> {
        let scores: Vec<f32> = (1..=10).map(|i| i as f32).collect();
        let threshold = conformal_threshold(&scores, 0.05)?;
        let ThresholdSource::Conformal { extrapolated, images, .. } = threshold.source else { panic!("{threshold:?}") };
        assert!(extrapolated && images == 10);
        // Median 5, mean excess 3, half of the images above it: 5 + 3 ln 10.
        assert!((threshold.value - 11.907_755).abs() < 1e-4, "{threshold:?}");
        assert!(threshold.to_string().ends_with("from 10 good images; extrapolated, as this rate takes 19 images)"));
        // 19 images support 5 % exactly.
        let scores: Vec<f32> = (1..=19).map(|i| i as f32).collect();
        let threshold = conformal_threshold(&scores, 0.05)?;
        assert_eq!(threshold.value, 19.0);
        assert!(matches!(threshold.source, ThresholdSource::Conformal { extrapolated: false, .. }));
        Ok(())
    }

    #[test]
    fn exponential_scores_get_their_quantile() -> Result<(), FusionError> {
        // 201 exact quantiles of the exponential law: 1 in 1000 is exceeded at ln 1000.
        let scores: Vec<f32> = (0..201).map(|i| -(1.0 - (i as f32 + 0.5) / 201.0).ln()).collect();
        let threshold = conformal_threshold(&scores, 0.001)?;
        assert!((threshold.value - 1000f32.ln()).abs() < 0.05, "{threshold:?}");
        Ok(())
    }

    #[test]
    fn bad_input_is_refused() {
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(conformal_threshold(&[1.0, 2.0], rate).is_err());
        }
        assert!(matches!(conformal_threshold(&[1.0], 0.5), Err(FusionError::TooFewImages { found: 1, needed: 2 })));
        let error = conformal_threshold(&[1.0, f32::NAN], 0.5).unwrap_err();
        assert!(matches!(error, FusionError::NotFinite(_)) && !error.to_string().contains("score map"), "{error}");
    }

    #[test]
    fn normalised_scores_have_their_fixed_points() -> Result<(), FusionError> {
        let threshold = Threshold { value: 3.0, typical: 1.0, source: ThresholdSource::Manual };
        for (score, expected) in [(3.0, 0.5), (1.0, 0.1), (5.0, 0.9), (-1e9, 0.0), (1e9, 1.0)] {
            assert!((threshold.normalise(score).0 - expected).abs() < 1e-6);
        }
        let widest = Threshold { value: 3e38, typical: -3e38, source: ThresholdSource::Manual };
        for (score, expected) in [(3e38, 0.5), (0.0, 0.25), (-3e38, 0.1)] {
            assert!((widest.normalise(score).0 - expected).abs() < 1e-6);
        }
        let equal = Threshold { value: 3.0, typical: 3.0, source: ThresholdSource::Manual };
        assert_eq!(equal.normalise(3.0).0, 0.5);
        assert_eq!(threshold.moved_to(1.5, ThresholdSource::Manual)?.typical, 1.0);
        let below = threshold.moved_to(0.5, ThresholdSource::Manual)?;
        assert!((below.normalise(2.5).0 - 0.9).abs() < 1e-6 && (below.normalise(-1.5).0 - 0.1).abs() < 1e-6);
        // A rate of one half puts the threshold at the median.
        let half = conformal_threshold(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.5)?;
        assert_eq!((half.value, half.normalise(3.0).0), (3.0, 0.5));
        assert!(half.normalise(2.0) > half.normalise(1.0) && half.normalise(2.0).0 > 0.1);
        assert!(threshold.moved_to(f32::NAN, ThresholdSource::Manual).is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn at_most_the_stated_share_of_the_scores_exceeds(
            scores in proptest::collection::vec(prop_oneof![-1e3f32..1e3, Just(f32::MAX), Just(f32::MIN)], 2..300),
            rate in 0.001f64..0.999,
        ) {
            let threshold = conformal_threshold(&scores, rate).unwrap();
            let alarms = scores.iter().filter(|score| threshold.is_exceeded_by(**score)).count();
            prop_assert!(alarms as f64 <= rate * (scores.len() + 1) as f64);
            threshold.check().unwrap();
        }

        #[test]
        fn normalisation_keeps_verdict_and_order(a in -1e3f32..1e3, b in -1e3f32..1e3, value in -100f32..100.0, gap in 0.01f32..100.0) {
            let threshold = Threshold { value, typical: value - gap, source: ThresholdSource::Manual };
            let (x, y) = (threshold.normalise(a), threshold.normalise(b));
            prop_assert!(a > b || x <= y);
            // Scores within rounding of the threshold normalise to one half exactly.
            prop_assert!(x.0 == 0.5 || threshold.is_exceeded_by(a) == (x.0 > 0.5));
        }
    }
}
