//! A common scale for score maps of different origin.

use candle_core::DType;
use masf_core::{CalibratedMap, ScoreMap};

use crate::FusionError;

/// At most so many scores of normal images are kept per map to estimate quantiles from.
const MAX_VALUES: usize = 1 << 22;

/// The robust affine map of one score map: `(score - median) / (upper - median)`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The score map it belongs to.
    name: String,
    /// Median of the scores of all positions of normal images; becomes 0.
    median: f64,
    /// Upper quantile of the same scores, above `median`; becomes 1.
    upper: f64,
}

impl Calibration {
    /// Estimates median and upper quantile from the score maps of held-out normal images.
    ///
    /// All `maps` carry the same name; every image counts alike. Where normal scores do not vary at all, the scale is 1.
    ///
    /// # Errors
    /// No maps, or scores that are not finite.
    pub fn fit(maps: &[&ScoreMap], upper_quantile: f64) -> Result<Self, FusionError> {
        let Some(first) = maps.first() else {
            return Err(FusionError::TooFewImages { found: 0, needed: 1 });
        };
        let total: usize = maps.iter().map(|map| map.values.elem_count()).sum();
        // An odd step, so that it does not fall on the same column of every row.
        let step = total.div_ceil(MAX_VALUES) | 1;
        let mut values = Vec::with_capacity(total / step + maps.len());
        for map in maps {
            values.extend(finite_values(map)?.into_iter().step_by(step));
        }
        values.sort_unstable_by(f32::total_cmp);
        let (median, upper) = (quantile(&values, 0.5), quantile(&values, upper_quantile));
        let upper = if upper > median { upper } else { median + 1.0 };
        Ok(Self { name: first.name.clone(), median, upper })
    }

    /// The name of the score map.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Brings a score map to the common scale; the variance is zero.
    ///
    /// # Errors
    /// Scores that are not finite.
    pub fn apply(&self, map: &ScoreMap) -> Result<CalibratedMap, FusionError> {
        finite_values(map)?;
        let scale = 1.0 / (self.upper - self.median);
        let mean = map.values.affine(scale, -self.median * scale)?;
        let variance = mean.zeros_like()?;
        Ok(CalibratedMap { name: self.name.clone(), mean, variance })
    }

    /// Whether the values, which may come from a file, make sense.
    pub(crate) fn check(&self) -> Result<(), FusionError> {
        if self.median.is_finite() && self.upper.is_finite() && self.upper > self.median {
            return Ok(());
        }
        let value = format!("{} to {}", self.median, self.upper);
        Err(FusionError::Parameter { name: "calibration", value, expected: "finite quantiles in ascending order" })
    }
}

fn finite_values(map: &ScoreMap) -> Result<Vec<f32>, FusionError> {
    let values = map.values.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(FusionError::NotFinite(map.name.clone()))
    }
}

/// The quantile of sorted values by linear interpolation (NumPy's default).
fn quantile(sorted: &[f32], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = q * last as f64;
    let below = position.floor() as usize;
    let (a, b) = (f64::from(sorted[below.min(last)]), f64::from(sorted[(below + 1).min(last)]));
    a + (b - a) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn map(values: &[f32]) -> ScoreMap {
        let values = Tensor::from_slice(values, (1, 1, values.len()), &Device::Cpu).unwrap();
        ScoreMap { name: "memory".into(), values }
    }

    #[test]
    fn quantiles_match_numpy() {
        // numpy.quantile([1, 2, 4, 8, 16], [0.0, 0.3, 0.5, 0.9, 1.0])
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        for (q, expected) in [(0.0, 1.0), (0.3, 2.4), (0.5, 4.0), (0.9, 12.8), (1.0, 16.0)] {
            assert!((quantile(&values, q) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn median_becomes_zero_and_upper_quantile_one() -> Result<(), FusionError> {
        let first = map(&[1.0, 2.0, 4.0]);
        let second = map(&[8.0, 16.0]);
        let calibration = Calibration::fit(&[&first, &second], 1.0)?;
        let calibrated = calibration.apply(&map(&[4.0, 16.0, 28.0]))?.mean.flatten_all()?.to_vec1::<f32>()?;
        for (found, expected) in calibrated.iter().zip([0.0, 1.0, 2.0]) {
            assert!((found - expected).abs() < 1e-6, "{calibrated:?}");
        }
        Ok(())
    }

    #[test]
    fn constant_scores_have_scale_one() -> Result<(), FusionError> {
        let calibration = Calibration::fit(&[&map(&[3.0, 3.0])], 0.995)?;
        let calibrated = calibration.apply(&map(&[5.0]))?.mean.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(calibrated, [2.0]);
        Ok(())
    }

    #[test]
    fn scores_that_are_not_finite_are_refused() {
        let error = Calibration::fit(&[&map(&[1.0, f32::NAN])], 0.995).unwrap_err();
        assert!(matches!(error, FusionError::NotFinite(_)), "{error}");
        assert!(Calibration::fit(&[], 0.995).is_err());
    }
}
