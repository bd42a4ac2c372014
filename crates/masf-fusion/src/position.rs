//! Median and scale of normal scores, position by position.
//!
//! For aligned objects the scores of normal images depend on the place: edges score higher than plain parts. The median of each
//! position (with its neighbours, over all images) and the upper spread of what remains are smoothed over the map. The spread is taken relative
//! to that of all positions and bounded to a factor of two either way, so that places that never vary do not become over-sensitive.

use candle_core::{Device, Tensor};
use masf_core::all_finite;

use crate::FusionError;
use crate::calibration::quantile;
use crate::smoothing::Smoother;

/// Fewest normal images for medians of positions.
pub(crate) const LEAST_IMAGES: usize = 20;
/// Share of the spread of scores that positions must explain on other images for the calibration to follow them.
const LEAST_GAIN: f64 = 0.1;
/// Positions around one that count with it.
const RADIUS: usize = 1;
/// Standard deviation of the smoothing, in positions.
const SIGMA: f64 = 1.0;
/// The quantile whose distance from the median is the spread.
const SPREAD: f64 = 0.9;
/// Bounds of the spread of a position relative to that of all.
const FACTOR: (f64, f64) = (0.5, 2.0);

/// Centre and scale of every position of a map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PositionScales {
    pub(crate) size: (usize, usize),
    /// What becomes 0, `[h w]`.
    pub(crate) centre: Vec<f32>,
    /// Factor on the scale of the whole map, `[h w]`.
    pub(crate) factor: Vec<f32>,
}

impl PositionScales {
    /// Learns from the values of normal images, each `[h w]`.
    pub(crate) fn fit(images: &[&[f32]], size: (usize, usize)) -> Result<Self, FusionError> {
        let centre = smooth(around(images, size, |values| quantile(values, 0.5)), size)?;
        let residuals: Vec<Vec<f32>> = images
            .iter()
            .map(|image| image.iter().zip(&centre).map(|(value, centre)| value - centre).collect())
            .collect();
        let mut all = residuals.concat();
        all.sort_unstable_by(f32::total_cmp);
        let spread = |values: &[f32]| quantile(values, SPREAD) - quantile(values, 0.5);
        let of_all = spread(&all);
        let residuals: Vec<&[f32]> = residuals.iter().map(Vec::as_slice).collect();
        let factor = around(&residuals, size, |values| {
            if of_all > 0.0 { (spread(values) / of_all).clamp(FACTOR.0, FACTOR.1) } else { 1.0 }
        });
        Ok(Self { size, centre, factor: smooth(factor, size)? })
    }

    /// `(score - centre) / factor` of one image.
    pub(crate) fn apply(&self, values: &[f32]) -> Vec<f32> {
        let scales = self.centre.iter().zip(&self.factor);
        values.iter().zip(scales).map(|(value, (centre, factor))| (value - centre) / factor).collect()
    }

    /// Whether values that may come from a file make sense.
    pub(crate) fn is_sound(&self) -> bool {
        let length = self.size.0 * self.size.1;
        let bounds = FACTOR.0 as f32 * 0.99..=FACTOR.1 as f32 * 1.01;
        length > 0
            && self.centre.len() == length
            && self.factor.len() == length
            && all_finite(&self.centre)
            && self.factor.iter().all(|factor| bounds.contains(factor))
    }
}

/// Whether positions explain the scores of images that their medians were not learned from: medians of one half of the images,
/// distances of the other half.
pub(crate) fn positions_matter(images: &[&[f32]], size: (usize, usize)) -> Result<bool, FusionError> {
    if images.len() < LEAST_IMAGES {
        return Ok(false);
    }
    let half = |rest: usize| images.iter().copied().skip(rest).step_by(2).collect::<Vec<_>>();
    let halves = [half(0), half(1)];
    let (mut by_position, mut by_all) = (0.0, 0.0);
    for (learned, held_out) in [(&halves[0], &halves[1]), (&halves[1], &halves[0])] {
        let scales = PositionScales::fit(learned, size)?;
        let mut all: Vec<f32> = learned.iter().flat_map(|image| image.iter().copied()).collect();
        all.sort_unstable_by(f32::total_cmp);
        let median = quantile(&all, 0.5);
        for image in held_out {
            for (value, centre) in image.iter().zip(&scales.centre) {
                by_position += f64::from((value - centre).abs());
                by_all += (f64::from(*value) - median).abs();
            }
        }
    }
    Ok(by_position < (1.0 - LEAST_GAIN) * by_all)
}

/// A statistic of every position: of the sorted values of all images there and at the positions around.
fn around(images: &[&[f32]], (height, width): (usize, usize), statistic: impl Fn(&[f32]) -> f64) -> Vec<f32> {
    let mut found = Vec::with_capacity(height * width);
    let mut values = Vec::new();
    for row in 0..height {
        for column in 0..width {
            values.clear();
            for y in row.saturating_sub(RADIUS)..(row + RADIUS + 1).min(height) {
                for x in column.saturating_sub(RADIUS)..(column + RADIUS + 1).min(width) {
                    values.extend(images.iter().filter_map(|image| image.get(y * width + x)));
                }
            }
            values.sort_unstable_by(f32::total_cmp);
            found.push(statistic(&values) as f32);
        }
    }
    found
}

fn smooth(values: Vec<f32>, size: (usize, usize)) -> Result<Vec<f32>, FusionError> {
    let map = Tensor::from_vec(values, size, &Device::Cpu)?;
    let smoothed = Smoother::new(size, size, SIGMA)?.apply(&map)?;
    Ok(smoothed.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images whose scores are `1 + noise`, and `5 + 3 noise` in the right half if they are aligned (in a half that changes
    /// from image to image otherwise).
    fn images(count: usize, aligned: bool) -> Vec<Vec<f32>> {
        (0..count)
            .map(|image| {
                (0..64)
                    .map(|place| {
                        let noise = ((image * 7919 + place * 104_729) % 1009) as f32 / 1009.0;
                        let right = (place % 8 >= 4) != (!aligned && image % 4 < 2);
                        if right { 5.0 + 3.0 * noise } else { 1.0 + noise }
                    })
                    .collect()
            })
            .collect()
    }

    fn slices(images: &[Vec<f32>]) -> Vec<&[f32]> {
        images.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn aligned_images_are_told_from_others() -> Result<(), FusionError> {
        assert!(positions_matter(&slices(&images(40, true)), (8, 8))?);
        assert!(!positions_matter(&slices(&images(40, false)), (8, 8))?);
        assert!(!positions_matter(&slices(&images(10, true)), (8, 8))?, "too few to tell");
        Ok(())
    }

    #[test]
    fn positions_become_comparable() -> Result<(), FusionError> {
        let normal = images(40, true);
        let scales = PositionScales::fit(&slices(&normal), (8, 8))?;
        assert!(scales.is_sound());
        let mut halves = [Vec::new(), Vec::new()];
        for image in &normal {
            for (place, value) in scales.apply(image).into_iter().enumerate() {
                // Away from the border between the halves, where the smoothing mixes them.
                match place % 8 {
                    0 | 1 => halves[0].push(value),
                    6 | 7 => halves[1].push(value),
                    _ => {}
                }
            }
        }
        let [left, right] = halves.map(|mut values| {
            values.sort_unstable_by(f32::total_cmp);
            (quantile(&values, 0.5), quantile(&values, 0.9))
        });
        assert!(left.0.abs() < 0.1 && right.0.abs() < 0.2, "{left:?} {right:?}");
        let ratio = (right.1 - right.0) / (left.1 - left.0);
        assert!((0.5..2.0).contains(&ratio), "{ratio}: without scales it would be 3");
        Ok(())
    }

    #[test]
    fn damaged_scales_are_recognised() -> Result<(), FusionError> {
        let scales = PositionScales::fit(&slices(&images(20, true)), (8, 8))?;
        let mut wrong = scales.clone();
        wrong.factor[3] = 0.0;
        assert!(!wrong.is_sound());
        let mut wrong = scales.clone();
        wrong.centre.pop();
        assert!(!wrong.is_sound());
        let mut wrong = scales;
        wrong.centre[0] = f32::NAN;
        assert!(!wrong.is_sound());
        Ok(())
    }
}
