//! What the student does not see in training: tokens, and bands of frequencies.

use rand::seq::index::sample;
use rand::{Rng, RngCore};

use crate::grid::Grid;

/// Which tokens of every image are masked: exactly `round(share * tokens)` of each, chosen at random.
pub(crate) fn token_mask(images: usize, tokens: usize, share: f64, random: &mut impl Rng) -> Vec<bool> {
    let count = ((tokens as f64 * share).round() as usize).min(tokens);
    let mut masked = vec![false; images * tokens];
    for image in masked.chunks_exact_mut(tokens) {
        for index in sample(random, tokens, count) {
            image[index] = true;
        }
    }
    masked
}

/// Responses `[B, H, W / 2 + 1]` of the frequency masks: with `probability` a low-pass or a high-pass disc (as likely), else ones; `None`
/// if all are ones.
///
/// The radius of a disc is 1 at the Nyquist frequency of an axis. A low-pass keeps radii up to 0.25 to 0.75; a high-pass drops radii below 0.05 to
/// 0.35, so at least the mean of every channel.
pub(crate) fn frequency_mask(images: usize, grid: &Grid, probability: f64, random: &mut impl Rng) -> Option<Vec<f32>> {
    let (height, columns) = (grid.height, grid.columns());
    let mut responses = vec![1f32; images * height * columns];
    let mut any = false;
    for image in responses.chunks_exact_mut(height * columns) {
        // The same draws for every image, so that one image's luck does not shift the others' stream.
        let (chosen, low, position) =
            (random.random::<f64>() < probability, random.random::<bool>(), random.random::<f64>());
        if !chosen {
            continue;
        }
        any = true;
        let edge = if low { 0.25 + 0.5 * position } else { 0.05 + 0.3 * position };
        for (index, response) in image.iter_mut().enumerate() {
            let inside = radius(index / columns, index % columns, grid) <= edge;
            *response = f32::from(inside == low);
        }
    }
    any.then_some(responses)
}

/// The distance of a bin from the zero frequency, 1 at the Nyquist frequency of an axis.
pub(crate) fn radius(row: usize, column: usize, grid: &Grid) -> f64 {
    let vertical = 2.0 * row.min(grid.height - row) as f64 / grid.height as f64;
    let horizontal = 2.0 * column as f64 / grid.width as f64;
    vertical.hypot(horizontal)
}

/// Factors of dropout: 0 for a random `share` of the values, `1 / (1 - share)` for the others.
pub(crate) fn dropout(count: usize, share: f64, random: &mut impl RngCore) -> Vec<f32> {
    let mut bytes = vec![0u8; count * 2];
    random.fill_bytes(&mut bytes);
    let threshold = (share * 65536.0).round() as u32;
    let kept = (1.0 / (1.0 - f64::from(threshold.min(65535)) / 65536.0)) as f32;
    bytes
        .chunks_exact(2)
        .map(|pair| if u32::from(u16::from_le_bytes([pair[0], pair[1]])) < threshold { 0.0 } else { kept })
        .collect()
}

#[cfg(test)]
mod tests {
    use masf_core::{FeatureLevel, FeaturePyramid, LevelSpec, random_stream};

    use super::*;

    fn grid(height: usize, width: usize) -> Grid {
        let map = candle_core::Tensor::zeros((1, 1, height, width), candle_core::DType::F32, &candle_core::Device::Cpu);
        let level = FeatureLevel { spec: LevelSpec { stride: 8, channels: 1 }, map: map.unwrap() };
        Grid::of(&FeaturePyramid::new(vec![level], (8 * height, 8 * width)).unwrap(), 1)
    }

    #[test]
    fn every_image_loses_the_stated_share_of_tokens() {
        let mut random = random_stream(0, "test");
        for share in [0.0, 0.4, 0.9] {
            let masked = token_mask(5, 60, share, &mut random);
            for image in masked.chunks(60) {
                assert_eq!(image.iter().filter(|masked| **masked).count(), (60.0 * share) as usize);
            }
        }
        let masked = token_mask(2000, 10, 0.4, &mut random);
        for position in 0..10 {
            let count = masked.iter().skip(position).step_by(10).filter(|masked| **masked).count();
            assert!((700..900).contains(&count), "position {position}: {count} of 2000");
        }
    }

    #[test]
    fn frequency_masks_are_discs_as_often_as_stated() {
        let (mut low, mut high, mut none) = (0, 0, 0);
        let mut random = random_stream(1, "test");
        let grid = grid(12, 9);
        for _ in 0..100 {
            let Some(masks) = frequency_mask(10, &grid, 0.5, &mut random) else {
                none += 10;
                continue;
            };
            for mask in masks.chunks(12 * 5) {
                if mask.iter().all(|value| *value == 1.0) {
                    none += 1;
                    continue;
                }
                let low_pass = mask[0] == 1.0;
                if low_pass {
                    low += 1
                } else {
                    high += 1
                }
                // One radius separates ones from zeros.
                let edge = |value: f32, most: bool| {
                    let radii = (0..mask.len()).filter(|i| mask[*i] == value).map(|i| radius(i / 5, i % 5, &grid));
                    if most { radii.fold(0.0, f64::max) } else { radii.fold(9.0, f64::min) }
                };
                let (inner, outer) = if low_pass { (1.0, 0.0) } else { (0.0, 1.0) };
                assert!(edge(inner, true) < edge(outer, false));
            }
        }
        assert!(
            (430..570).contains(&none) && (200..300).contains(&low) && (200..300).contains(&high),
            "{low} {high} {none}"
        );
        assert!(frequency_mask(4, &grid, 0.0, &mut random).is_none());
    }

    #[test]
    fn dropout_keeps_the_mean() {
        let factors = dropout(100_000, 0.2, &mut random_stream(2, "test"));
        let dropped = factors.iter().filter(|factor| **factor == 0.0).count();
        assert!((19_500..20_500).contains(&dropped));
        let mean = factors.iter().sum::<f32>() / 1e5;
        assert!((mean - 1.0).abs() < 0.01);
    }
}
