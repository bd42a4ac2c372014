//! Averages over neighbouring positions of the coarsest level, where they are asked for.
//!
//! Features of a deep level vary from position to position in ways that no context foretells; that part of the residual is as large on
//! normal images as on defects, and averages leave it out. Finer levels stay as they are: small defects live there.

use candle_core::{DType, Device, Tensor};
use masf_core::{FeatureLevel, FeaturePyramid, PyramidSource, vectorised};
use rayon::prelude::*;

use crate::grid::Grid;
use crate::ops::with_slice;

/// Pyramids whose coarsest level is averaged.
pub(crate) struct Smoothed<'a> {
    source: &'a dyn PyramidSource,
    side: usize,
}

impl<'a> Smoothed<'a> {
    pub(crate) fn new(source: &'a dyn PyramidSource, side: usize) -> Self {
        Self { source, side }
    }
}

impl PyramidSource for Smoothed<'_> {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn batch(&self, indices: &[usize]) -> masf_core::Result<FeaturePyramid> {
        smooth(self.source.batch(indices)?, self.side)
    }
}

/// Averages the coarsest level over squares of `side` positions, zeros beyond the border, where there are finer levels.
pub(crate) fn smooth(pyramid: FeaturePyramid, side: usize) -> masf_core::Result<FeaturePyramid> {
    if side == 1 {
        return Ok(pyramid);
    }
    let grid = Grid::of(&pyramid, 1);
    let coarsest = |index: usize| grid.levels[index].per_cell() == 1;
    if (0..grid.levels.len()).all(coarsest) {
        return Ok(pyramid);
    }
    let mut levels = Vec::with_capacity(grid.levels.len());
    for (index, level) in pyramid.levels().iter().enumerate() {
        let map = match coarsest(index) {
            true => average(&level.map, side)?,
            false => level.map.clone(),
        };
        levels.push(FeatureLevel { spec: level.spec, map });
    }
    FeaturePyramid::new(levels, pyramid.input_size())
}

/// Means of `map [B, C, h, w]` over squares of `side` positions around each.
fn average(map: &Tensor, side: usize) -> candle_core::Result<Tensor> {
    let (batch, channels, height, width) = map.dims4()?;
    let map = map.permute((0, 2, 3, 1))?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
    let (reach, share) = (side / 2, 1.0 / (side * side) as f32);
    let mut means = vec![0f32; batch * height * width * channels];
    with_slice(&map, |values| {
        means.par_chunks_mut(width * channels).enumerate().for_each(|(line, means)| {
            let (image, y) = (line / height, line % height);
            vectorised(
                #[inline(always)]
                || {
                    for (x, mean) in means.chunks_exact_mut(channels).enumerate() {
                        for y in y.saturating_sub(reach)..(y + reach + 1).min(height) {
                            for x in x.saturating_sub(reach)..(x + reach + 1).min(width) {
                                let position = (image * height + y) * width + x;
                                let features = &values[position * channels..][..channels];
                                mean.iter_mut().zip(features).for_each(|(mean, value)| *mean += value);
                            }
                        }
                        mean.iter_mut().for_each(|mean| *mean *= share);
                    }
                },
            );
        });
        Ok(())
    })?;
    Tensor::from_vec(means, (batch, height, width, channels), &Device::Cpu)?.permute((0, 3, 1, 2))
}

#[cfg(test)]
mod tests {
    use masf_core::LevelSpec;

    use super::*;

    fn level(stride: usize, map: Tensor) -> FeatureLevel {
        FeatureLevel { spec: LevelSpec { stride, channels: map.dims()[1] }, map }
    }

    #[test]
    fn the_coarsest_level_is_averaged_with_zeros_beyond_the_border() {
        let fine = Tensor::arange(0f32, 64.0, &Device::Cpu).unwrap().reshape((2, 1, 4, 8)).unwrap();
        let coarse = Tensor::arange(0f32, 32.0, &Device::Cpu).unwrap().reshape((2, 2, 2, 4)).unwrap();
        let pyramid = FeaturePyramid::new(vec![level(8, fine.clone()), level(16, coarse.clone())], (32, 64)).unwrap();
        let smoothed = smooth(pyramid, 3).unwrap();
        let values = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&smoothed.levels()[0].map), values(&fine));
        let (found, given) = (values(&smoothed.levels()[1].map), values(&coarse));
        for (index, found) in found.into_iter().enumerate() {
            let (plane, y, x) = (index / 8, index / 4 % 2, index % 4);
            let near = (0..8).filter(|other| (other % 4usize).abs_diff(x) <= 1 && (other / 4usize).abs_diff(y) <= 1);
            let mean = near.map(|other| given[plane * 8 + other]).sum::<f32>() / 9.0;
            assert!((found - mean).abs() < 1e-5, "{index}: {found} {mean}");
        }
    }

    #[test]
    fn levels_of_one_size_and_squares_of_one_position_stay() {
        let map = || Tensor::arange(0f32, 16.0, &Device::Cpu).unwrap().reshape((1, 1, 4, 4)).unwrap();
        let same = FeaturePyramid::new(vec![level(14, map()), level(14, map())], (56, 56)).unwrap();
        let small = map().narrow(2, 0, 2).unwrap().narrow(3, 0, 2).unwrap();
        let two = FeaturePyramid::new(vec![level(8, map()), level(16, small)], (32, 32)).unwrap();
        for (pyramid, side) in [(same, 3), (two, 1)] {
            let before: Vec<_> = pyramid.levels().iter().map(|level| level.map.clone()).collect();
            let after = smooth(pyramid, side).unwrap();
            for (before, after) in before.iter().zip(after.levels()) {
                let values = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(before), values(&after.map));
            }
        }
    }
}
