//! A common scale for score maps of different origin.

use candle_core::Tensor;
use masf_core::{CalibratedMap, ScoreMap, all_finite, values};

use crate::params::check_upper_quantile;
use crate::position::{LEAST_IMAGES, PositionScales, positions_matter};
use crate::{FusionError, PositionAware};

/// At most so many scores of normal images are kept per map to estimate quantiles from.
const MAX_VALUES: usize = 1 << 22;

/// The robust affine map of one score map: `(score - median) / (upper - median)`, after centre and scale of each position if it
/// depends on them.
///
/// What serde keeps is without the scales of positions: they are tensors of the model file of a
/// [`CalibratedFusion`](crate::CalibratedFusion). [`apply`](Self::apply) refuses to go on without them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The score map it belongs to.
    name: String,
    /// Median of the scores of all positions of normal images; becomes 0.
    median: f64,
    /// Upper quantile of the same scores, above `median`; becomes 1.
    upper: f64,
    /// Whether there are `positions`, which are kept as tensors.
    #[serde(default)]
    positional: bool,
    /// Centre and scale of every position, taken first.
    #[serde(skip)]
    positions: Option<PositionScales>,
}

impl Calibration {
    /// Estimates median and upper quantile from the score maps of held-out normal images.
    ///
    /// All `maps` carry the same name; every image counts alike. Where normal scores do not vary, or by less than `f32` can scale, the scale is 1
    /// (a millionth of a median above a million).
    ///
    /// # Errors
    /// No maps, scores that are not finite, or a quantile that is not above 0.5 and at most 1.
    pub fn fit(maps: &[&ScoreMap], upper_quantile: f64) -> Result<Self, FusionError> {
        check_upper_quantile(upper_quantile)?;
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
        let upper = if is_scale(median, upper) { upper } else { median + 1f64.max(1e-6 * median.abs()) };
        Ok(Self { name: first.name.clone(), median, upper, positional: false, positions: None })
    }

    /// As [`fit`](Self::fit), position by position where the rule says so.
    ///
    /// # Errors
    /// As [`fit`](Self::fit); and, if every position is to be calibrated, fewer than 20 images or maps of different sizes.
    pub fn fit_at_positions(maps: &[&ScoreMap], upper_quantile: f64, rule: PositionAware) -> Result<Self, FusionError> {
        let (Some(first), true) = (maps.first(), rule != PositionAware::Never) else {
            return Self::fit(maps, upper_quantile);
        };
        let (_, height, width) = first.values.dims3()?;
        let size = (height, width);
        let values = maps.iter().map(|map| finite_values(map)).collect::<Result<Vec<_>, _>>()?;
        let other = maps.iter().find(|map| map.values.dims().get(1..) != Some(&[height, width][..]));
        if let (Some(other), PositionAware::Always) = (other, rule) {
            let (name, found) = (other.name.clone(), other.values.dims().to_vec());
            return Err(FusionError::MapSize { name, found, expected: size });
        }
        // An image is a part of its batch.
        let images: Vec<&[f32]> = values.iter().flat_map(|batch| batch.chunks_exact((height * width).max(1))).collect();
        if rule == PositionAware::Always && images.len() < LEAST_IMAGES {
            return Err(FusionError::TooFewImages { found: images.len(), needed: LEAST_IMAGES });
        }
        if rule == PositionAware::Auto && !(other.is_none() && positions_matter(&images, size)?) {
            return Self::fit(maps, upper_quantile);
        }
        let positions = PositionScales::fit(&images, size)?;
        let relative = images
            .iter()
            .map(|image| {
                let values = Tensor::from_vec(positions.apply(image), (1, height, width), first.values.device())?;
                Ok(ScoreMap { name: first.name.clone(), values })
            })
            .collect::<Result<Vec<_>, FusionError>>()?;
        let relative: Vec<&ScoreMap> = relative.iter().collect();
        Ok(Self { positional: true, positions: Some(positions), ..Self::fit(&relative, upper_quantile)? })
    }

    /// Centre and scale of the positions, if it depends on them.
    pub(crate) fn positions(&self) -> Option<&PositionScales> {
        self.positions.as_ref()
    }

    /// Whether there are, or should be, scales of positions.
    pub(crate) fn is_positional(&self) -> bool {
        self.positional
    }

    pub(crate) fn set_positions(&mut self, positions: PositionScales) {
        self.positions = Some(positions);
    }

    /// The name of the score map.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Brings a score map to the common scale; the variance is zero.
    ///
    /// # Errors
    /// Scores that are not finite; where it depends on the position, maps of another size than the calibration's, and scales of
    /// positions that serde did not keep.
    pub fn apply(&self, map: &ScoreMap) -> Result<CalibratedMap, FusionError> {
        let values = finite_values(map)?;
        let scale = 1.0 / (self.upper - self.median);
        let relative = match &self.positions {
            None if self.positional => return Err(FusionError::NoPositions(self.name.clone())),
            None => None,
            Some(positions) if map.values.dims().get(1..) == Some(&[positions.size.0, positions.size.1][..]) => {
                let images = values.chunks_exact(positions.size.0 * positions.size.1);
                let relative = images.flat_map(|image| positions.apply(image)).collect();
                Some(Tensor::from_vec(relative, map.values.shape(), map.values.device())?)
            }
            Some(positions) => {
                let (name, found, expected) = (self.name.clone(), map.values.dims().to_vec(), positions.size);
                return Err(FusionError::MapSize { name, found, expected });
            }
        };
        let mean = relative.as_ref().unwrap_or(&map.values).affine(scale, -self.median * scale)?;
        // Where normal scores hardly vary, others may be too far away for a number.
        let mean = mean.clamp(f32::MIN, f32::MAX)?;
        let variance = mean.zeros_like()?;
        Ok(CalibratedMap { name: self.name.clone(), mean, variance })
    }

    /// Whether the values, which may come from a file, make sense.
    pub(crate) fn check(&self) -> Result<(), FusionError> {
        let sound = match &self.positions {
            Some(positions) => positions.is_sound(),
            None => !self.positional,
        };
        if !sound {
            let value = format!("unsound for score map `{}`", self.name);
            let expected = "a finite centre and a factor of 0.5 to 2 at every position";
            return Err(FusionError::parameter("calibration by position", value, expected));
        }
        if self.median.is_finite() && self.upper.is_finite() && is_scale(self.median, self.upper) {
            return Ok(());
        }
        let value = format!("{} to {}", self.median, self.upper);
        Err(FusionError::parameter("calibration", value, "finite quantiles in ascending order"))
    }
}

/// Whether quantiles lie so far apart that `f32` can bring them to a distance of 1.
fn is_scale(median: f64, upper: f64) -> bool {
    upper > median && ((1.0 / (upper - median)) as f32).is_finite()
}

fn finite_values(map: &ScoreMap) -> Result<Vec<f32>, FusionError> {
    let values = values(&map.values)?;
    if all_finite(&values) { Ok(values) } else { Err(FusionError::NotFinite(format!("score map `{}`", map.name))) }
}

/// The quantile of sorted values by linear interpolation (NumPy's default).
pub(crate) fn quantile(sorted: &[f32], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = q * last as f64;
    let below = position.floor() as usize;
    let (a, b) = (f64::from(sorted[below.min(last)]), f64::from(sorted[(below + 1).min(last)]));
    a + (b - a) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

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
    fn scores_that_hardly_vary_stay_finite() -> Result<(), FusionError> {
        let mut underflow = [0.0; 10];
        underflow[9] = 1e-42;
        for scores in [&underflow[..], &[1e20; 2], &[f32::MAX; 2]] {
            let calibration = Calibration::fit(&[&map(scores)], 0.995)?;
            calibration.check()?;
            let calibrated = calibration.apply(&map(scores))?.mean.flatten_all()?.to_vec1::<f32>()?;
            assert!(all_finite(&calibrated), "{calibration:?}: {calibrated:?}");
        }
        // Far beyond them.
        let calibration = Calibration::fit(&[&map(&[0.0, 0.0, 1e-38])], 1.0)?;
        let far = calibration.apply(&map(&[5.0, -5.0]))?.mean.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(far, [f32::MAX, f32::MIN]);
        Ok(())
    }

    /// Aligned images: the right half scores higher than the left one.
    fn aligned(count: usize) -> Vec<ScoreMap> {
        let image = |image: usize| {
            let values: Vec<f32> = (0..64)
                .map(|place| {
                    let noise = ((image * 7919 + place * 104_729) % 1009) as f32 / 1009.0;
                    if place % 8 >= 4 { 5.0 + noise } else { 1.0 + noise }
                })
                .collect();
            let values = Tensor::from_vec(values, (1, 8, 8), &Device::Cpu).unwrap();
            ScoreMap { name: "memory".into(), values }
        };
        (0..count).map(image).collect()
    }

    #[test]
    fn positions_are_used_where_the_rule_says_so() -> Result<(), FusionError> {
        let maps = aligned(30);
        let maps: Vec<&ScoreMap> = maps.iter().collect();
        let never = Calibration::fit_at_positions(&maps, 0.995, PositionAware::Never)?;
        assert_eq!(never, Calibration::fit(&maps, 0.995)?);
        let auto = Calibration::fit_at_positions(&maps, 0.995, PositionAware::Auto)?;
        assert!(auto.positions().is_some());
        assert_eq!(auto, Calibration::fit_at_positions(&maps, 0.995, PositionAware::Always)?);
        // A score of 3 is nothing on the right and much on the left.
        let odd = ScoreMap { name: "memory".into(), values: Tensor::full(3f32, (2, 8, 8), &Device::Cpu)? };
        let calibrated = auto.apply(&odd)?.mean.to_vec3::<f32>()?;
        assert!(calibrated[0][4][0] > 1.0 && calibrated[0][4][7] < 0.0, "{calibrated:?}");
        assert_eq!(calibrated[0], calibrated[1]);
        let other = ScoreMap { name: "memory".into(), values: Tensor::full(3f32, (1, 8, 9), &Device::Cpu)? };
        assert!(auto.apply(&other).unwrap_err().to_string().contains("[1, 8, 9]"));
        // As serde leaves it.
        let lost = Calibration { positions: None, ..auto };
        assert!(matches!(lost.apply(&odd), Err(FusionError::NoPositions(name)) if name == "memory"));
        Ok(())
    }

    #[test]
    fn too_few_images_have_no_positions() -> Result<(), FusionError> {
        let maps = aligned(10);
        let maps: Vec<&ScoreMap> = maps.iter().collect();
        assert!(Calibration::fit_at_positions(&maps, 0.995, PositionAware::Auto)?.positions().is_none());
        let error = Calibration::fit_at_positions(&maps, 0.995, PositionAware::Always).unwrap_err();
        assert!(matches!(error, FusionError::TooFewImages { found: 10, needed: 20 }));
        // Nor have maps of several sizes.
        let (mut maps, other) = (aligned(30), aligned(1).remove(0).values.narrow(1, 0, 4)?);
        maps.push(ScoreMap { name: "memory".into(), values: other });
        let maps: Vec<&ScoreMap> = maps.iter().collect();
        assert!(Calibration::fit_at_positions(&maps, 0.995, PositionAware::Auto)?.positions().is_none());
        let error = Calibration::fit_at_positions(&maps, 0.995, PositionAware::Always).unwrap_err();
        assert!(matches!(&error, FusionError::MapSize { found, .. } if found == &[1, 4, 8]), "{error}");
        Ok(())
    }

    #[test]
    fn scores_that_are_not_finite_are_refused() {
        let error = Calibration::fit(&[&map(&[1.0, f32::NAN])], 0.995).unwrap_err();
        assert!(matches!(&error, FusionError::NotFinite(what) if what == "score map `memory`"), "{error}");
        assert!(Calibration::fit(&[], 0.995).is_err());
        for quantile in [0.3, 0.5, 1.1, f64::NAN] {
            let error = Calibration::fit(&[&map(&[1.0, 2.0])], quantile).unwrap_err();
            assert!(error.to_string().contains("upper_quantile"), "{error}");
        }
    }
}
