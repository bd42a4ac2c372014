//! Features as the student takes them: statistics of the channels, tokens of the input, and targets in the order of the heads.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use masf_core::{FeaturePyramid, Progress, PyramidSource, all_finite, with_values};
use rayon::prelude::*;

use crate::grid::{Grid, LevelGrid};
use crate::{DistillError, Result};

/// Least deviation of a channel, as a share of its level's root mean square deviation: channels that are hardly ever active
/// must not outweigh the others.
const LEAST_DEVIATION: f64 = 0.1;
/// Images that are read at once while statistics are taken.
const BATCH: usize = 8;
/// Tokens of one task.
const GROUP: usize = 32;

/// Mean and deviation of the channels of a level.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelStatistics {
    pub(crate) mean: Vec<f32>,
    pub(crate) deviation: Vec<f32>,
}

impl ChannelStatistics {
    /// Of every level, over all positions of all images, in double precision.
    pub(crate) fn learn(source: &dyn PyramidSource, grid: &Grid, progress: &dyn Progress) -> Result<Vec<Self>> {
        let mut sums: Vec<(Vec<f64>, Vec<f64>)> =
            grid.levels.iter().map(|level| (vec![0.0; level.spec.channels], vec![0.0; level.spec.channels])).collect();
        progress.start("feature statistics", source.len() as u64);
        let taken = (0..source.len()).step_by(BATCH).try_for_each(|start| {
            progress.check()?;
            let indices: Vec<usize> = (start..(start + BATCH).min(source.len())).collect();
            let pyramid = source.batch(&indices)?;
            grid.expect(&pyramid)?;
            for (index, (level, sums)) in grid.levels.iter().zip(&mut sums).enumerate() {
                with_map(&pyramid, index, |values| add_moments(values, level, sums))?;
            }
            progress.step(indices.len() as u64);
            Ok(())
        });
        progress.finish();
        taken.map(|()| {
            let count = |level: &LevelGrid| (source.len() * level.height * level.width) as f64;
            sums.iter().zip(&grid.levels).map(|(sums, level)| Self::of(sums, count(level))).collect()
        })
    }

    fn of((sum, squares): &(Vec<f64>, Vec<f64>), count: f64) -> Self {
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
        let variance: Vec<f64> =
            squares.iter().zip(&mean).map(|(square, mean)| masf_core::variance(square / count, mean * mean)).collect();
        let level = (variance.iter().sum::<f64>() / variance.len().max(1) as f64).sqrt();
        let deviation = |variance: &f64| {
            let deviation = variance.sqrt().max(LEAST_DEVIATION * level) as f32;
            // A level without any spread: its unit is all there is.
            if deviation > f32::MIN_POSITIVE { deviation } else { 1.0 }
        };
        Self {
            deviation: variance.iter().map(deviation).collect(),
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
        }
    }

    /// Features of one position with mean 0 and deviation 1 per channel.
    fn standardise(&self, features: &[f32], out: &mut [f32]) {
        let channels = self.mean.iter().zip(&self.deviation);
        for ((out, feature), (mean, deviation)) in out.iter_mut().zip(features).zip(channels) {
            *out = (feature - mean) / deviation;
        }
    }
}

/// Adds sums and sums of squares of every channel, image by image.
fn add_moments(values: &[f32], level: &LevelGrid, sums: &mut (Vec<f64>, Vec<f64>)) {
    let channels = level.spec.channels;
    let images: Vec<(Vec<f64>, Vec<f64>)> = values
        .par_chunks(channels * level.height * level.width)
        .map(|image| {
            let (mut sum, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
            for row in image.chunks_exact(channels) {
                for ((sum, square), value) in sum.iter_mut().zip(&mut squares).zip(row) {
                    let value = f64::from(*value);
                    *sum += value;
                    *square += value * value;
                }
            }
            (sum, squares)
        })
        .collect();
    for (sum, squares) in images {
        for ((total, squared), (sum, square)) in sums.0.iter_mut().zip(&mut sums.1).zip(sum.iter().zip(squares)) {
            *total += sum;
            *squared += square;
        }
    }
}

/// Calls `read` with the values `[B, h, w, C]` of a level.
pub(crate) fn with_map<R>(pyramid: &FeaturePyramid, level: usize, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let level = &pyramid.levels()[level];
    let map = level.map.permute((0, 2, 3, 1))?;
    with_values(&map, |values| values.par_chunks(1 << 14).all(all_finite).then(|| read(values)))?
        .ok_or(DistillError::NonFinite { stride: level.spec.stride })
}

/// A batch of pyramids as the student takes it. A token holds the features of all positions of its cell, level by level, position by position.
pub(crate) struct Batch {
    pub(crate) images: usize,
    /// Standardised features of all levels, `[B N, sum of positions C]`; zero, the mean, where a position does not exist.
    pub(crate) tokens: Tensor,
    /// Features of every level as they are, `[B N, positions C]`, zero where a position does not exist; none if not wanted.
    pub(crate) targets: Vec<Vec<f32>>,
}

impl Batch {
    /// Arranges a batch to learn from.
    pub(crate) fn new(pyramid: &FeaturePyramid, grid: &Grid, statistics: &[Arc<ChannelStatistics>]) -> Result<Self> {
        Self::arrange(pyramid, grid, statistics, true)
    }

    /// The tokens of a batch alone.
    pub(crate) fn tokens(
        pyramid: &FeaturePyramid,
        grid: &Grid,
        statistics: &[Arc<ChannelStatistics>],
    ) -> Result<Tensor> {
        Ok(Self::arrange(pyramid, grid, statistics, false)?.tokens)
    }

    fn arrange(
        pyramid: &FeaturePyramid,
        grid: &Grid,
        statistics: &[Arc<ChannelStatistics>],
        with_targets: bool,
    ) -> Result<Self> {
        grid.expect(pyramid)?;
        let (images, tokens, all) = (pyramid.batch_size(), grid.tokens(), grid.values());
        let mut inputs = vec![0f32; images * tokens * all];
        let mut targets = Vec::new();
        let mut offset = 0;
        for (index, (level, statistics)) in grid.levels.iter().zip(statistics).enumerate() {
            let (channels, width) = (level.spec.channels, level.values());
            let image = level.height * level.width * channels;
            let positions = grid.positions(level);
            // The features of a token's positions, where they exist.
            let cell = |values: &[f32], row: usize, take: &mut dyn FnMut(usize, &[f32])| {
                let values = &values[row / tokens * image..][..image];
                let positions = &positions[row % tokens * level.per_cell()..][..level.per_cell()];
                for (place, position) in positions.iter().enumerate() {
                    let Some(position) = position else { continue };
                    take(place * channels, &values[position * channels..(position + 1) * channels]);
                }
            };
            let cells = with_map(pyramid, index, |values| {
                inputs.par_chunks_mut(GROUP * all).enumerate().for_each(|(group, inputs)| {
                    for (row, input) in (group * GROUP..).zip(inputs.chunks_exact_mut(all)) {
                        cell(values, row, &mut |place, features: &[f32]| {
                            statistics.standardise(features, &mut input[offset + place..][..channels]);
                        });
                    }
                });
                let mut cells = Vec::new();
                if with_targets {
                    cells = vec![0f32; images * tokens * width];
                    cells.par_chunks_mut(GROUP * width).enumerate().for_each(|(group, cells)| {
                        for (row, target) in (group * GROUP..).zip(cells.chunks_exact_mut(width)) {
                            cell(values, row, &mut |place, features: &[f32]| {
                                target[place..][..channels].copy_from_slice(features);
                            });
                        }
                    });
                }
                cells
            })?;
            offset += width;
            targets.push(cells);
        }
        let tokens = Tensor::from_vec(inputs, (images * tokens, all), &Device::Cpu)?;
        Ok(Self { images, tokens, targets })
    }
}
