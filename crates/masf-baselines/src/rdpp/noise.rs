//! Pseudo-abnormal features: smooth noise in a random region.
//!
//! The paper adds simplex noise to a region of the image; here features are cached and images are not at hand, so the noise goes to
//! the features, in the same region of all levels.

use candle_core::{Device, Tensor};
use masf_core::Result;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::training::{Level, values};

/// Least and largest side of a region, as shares of the map's.
const SIDES: std::ops::RangeInclusive<f64> = 0.06..=0.3;

/// A region of every image of a batch, in shares of height and width: top, left, bottom, right.
pub(super) fn regions(images: usize, random: &mut impl Rng) -> Vec<[f64; 4]> {
    let region = |_| {
        let (height, width): (f64, f64) = (random.random_range(SIDES), random.random_range(SIDES));
        let (top, left) = (random.random_range(0.0..=1.0 - height), random.random_range(0.0..=1.0 - width));
        [top, left, top + height, left + width]
    };
    (0..images).map(region).collect()
}

/// The features `[B, P, C]` of a level, with noise of a deviation (for each image that of its features times `strength`) in the regions.
///
/// Every image has one direction in channel space, times a factor that changes from position to position.
pub(super) fn disturb(
    features: &Tensor,
    level: &Level,
    regions: &[[f64; 4]],
    strength: f64,
    random: &mut impl Rng,
) -> Result<Tensor> {
    let (_, height, width) = *level;
    let (_, positions, channels) = features.dims3()?;
    let mut disturbed = values(features)?;
    for (image, [top, left, bottom, right]) in disturbed.chunks_exact_mut(positions * channels).zip(regions) {
        let mean = image.iter().map(|value| f64::from(*value)).sum::<f64>() / image.len() as f64;
        let variance = image.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / image.len() as f64;
        let scale = strength * variance.sqrt();
        let mut normal = || Distribution::<f64>::sample(&StandardNormal, random);
        let direction: Vec<f64> = (0..channels).map(|_| normal() * scale).collect();
        // At least one row and one column.
        let range = |from: f64, to: f64, count: usize| {
            let start = ((from * count as f64) as usize).min(count - 1);
            start..((to * count as f64).ceil() as usize).clamp(start + 1, count)
        };
        for row in range(*top, *bottom, height) {
            for column in range(*left, *right, width) {
                let factor = 0.75 + 0.25 * normal();
                let token = &mut image[(row * width + column) * channels..][..channels];
                for (value, direction) in token.iter_mut().zip(&direction) {
                    *value += (direction * factor) as f32;
                }
            }
        }
    }
    Ok(Tensor::from_vec(disturbed, features.shape(), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use masf_core::{LevelSpec, random_stream};

    use super::*;

    #[test]
    fn noise_stays_in_its_region() -> Result<()> {
        let level = (LevelSpec { stride: 8, channels: 3 }, 8, 10);
        let features = Tensor::randn(0f32, 1f32, (2, 80, 3), &Device::Cpu)?;
        let regions = [[0.0, 0.0, 0.25, 0.2], [0.5, 0.5, 0.51, 0.51]];
        let disturbed = disturb(&features, &level, &regions, 1.0, &mut random_stream(0, "test.noise"))?;
        let (before, after) = (values(&features)?, values(&disturbed)?);
        for (index, (before, after)) in before.iter().zip(after).enumerate() {
            let (image, position) = (index / 240, index % 240 / 3);
            let (row, column) = (position / 10, position % 10);
            let within = if image == 0 { row < 2 && column < 2 } else { (row, column) == (4, 5) };
            assert_eq!(*before != after, within, "image {image}, row {row}, column {column}");
        }
        Ok(())
    }

    #[test]
    fn regions_lie_in_the_map() {
        for [top, left, bottom, right] in regions(200, &mut random_stream(0, "test.regions")) {
            assert!(top >= 0.0 && left >= 0.0 && top < bottom && left < right && bottom <= 1.0 && right <= 1.0);
        }
    }
}
