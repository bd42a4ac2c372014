//! The head of a level and its loss in one operation: the largest tensors of a step, the predictions, never enter Candle's
//! graph, and turn into their own gradient in place.
//!
//! A head gives standardised features `z`; `r = sigma z + mu` are the raw ones. With targets `t` and `q = (t - mu) / sigma`, the distances of a position are
//! `1 - cos(r, t)` and `1 - cos(z, q)`; the loss weighs their means over positions, hard positions more, adds the same
//! distances of whole maps (RD4AD, Deng and Li 2022) and a loss on the amplitudes of bands.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::linear::{Rows, affine, input_gradient, weight_gradient, with_rows};
use super::simd::{LANES, fold};
use super::{kept, tensor};
use crate::bands::BandLoss;
use crate::features::ChannelStatistics;

/// Keeps quotients finite where a vector is zero.
pub(crate) const EPSILON: f64 = 1e-8;

/// What a level's loss needs beside the predictions.
pub(crate) struct LevelTargets {
    /// Raw features, `[B N, P C]`, zero where a position does not exist.
    pub(crate) features: Vec<f32>,
    /// Whether each position of the cells of an image exists, `[N P]`.
    pub(crate) exists: Arc<Vec<bool>>,
    pub(crate) statistics: Arc<ChannelStatistics>,
    /// Weights of the raw and of the standardised distances.
    pub(crate) kinds: [f32; 2],
    /// Weight of the distances of whole maps.
    pub(crate) map_loss: f32,
    /// The weight of the easiest positions.
    pub(crate) easy_weight: f32,
    pub(crate) bands: Option<BandLoss>,
}

/// `t.t`, and for raw and standardised: products of prediction and target, and squares of the prediction; `q.q`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    /// Prediction times target: raw, standardised.
    pub(crate) cross: [f32; 2],
    /// Square of the prediction.
    pub(crate) own: [f32; 2],
    /// Square of the target.
    pub(crate) target: [f32; 2],
}

impl Sums {
    /// Of one position.
    #[inline(always)]
    pub(crate) fn of(z: &[f32], t: &[f32], statistics: &ChannelStatistics) -> Self {
        let mut lanes = [[0f32; LANES]; 6];
        let mut last = [0f32; 6];
        let terms = |z: f32, t: f32, mean: f32, deviation: f32| {
            let (r, q) = (deviation * z + mean, (t - mean) / deviation);
            [r * t, z * q, r * r, z * z, t * t, q * q]
        };
        let ((z, z_rest), (t, t_rest)) = (z.as_chunks::<LANES>(), t.as_chunks::<LANES>());
        let (mean, mean_rest) = statistics.mean.as_chunks::<LANES>();
        let (deviation, deviation_rest) = statistics.deviation.as_chunks::<LANES>();
        for ((z, t), (mean, deviation)) in z.iter().zip(t).zip(mean.iter().zip(deviation)) {
            for lane in 0..LANES {
                let terms = terms(z[lane], t[lane], mean[lane], deviation[lane]);
                for (lanes, term) in lanes.iter_mut().zip(terms) {
                    lanes[lane] += term;
                }
            }
        }
        for ((z, t), (mean, deviation)) in z_rest.iter().zip(t_rest).zip(mean_rest.iter().zip(deviation_rest)) {
            for (last, term) in last.iter_mut().zip(terms(*z, *t, *mean, *deviation)) {
                *last += term;
            }
        }
        let sum = |index: usize| fold(lanes[index]) + last[index];
        Self { cross: [sum(0), sum(1)], own: [sum(2), sum(3)], target: [sum(4), sum(5)] }
    }

    fn add(&mut self, other: &Self) {
        for kind in 0..2 {
            self.cross[kind] += other.cross[kind];
            self.own[kind] += other.own[kind];
            self.target[kind] += other.target[kind];
        }
    }

    /// `1 - cos`, in `[0, 2]`.
    pub(crate) fn distance(&self, kind: usize) -> f32 {
        (1.0 - self.cross[kind] / self.norms(kind)).clamp(0.0, 2.0)
    }

    /// The square root of the root mean square of the raw features. Where little is active, standardised features are noise, whose
    /// direction nobody can restore; as a factor it makes their distance count less.
    pub(crate) fn activity(&self, channels: usize) -> f32 {
        (self.target[0] / channels as f32).sqrt().sqrt()
    }

    fn norms(&self, kind: usize) -> f32 {
        (self.own[kind] * self.target[kind]).sqrt() + EPSILON as f32
    }

    /// The gradient of `1 - cos` along the target and along the prediction.
    fn slopes(&self, kind: usize) -> [f32; 2] {
        let norms = self.norms(kind);
        [-1.0 / norms, self.cross[kind] / norms / (self.own[kind] + EPSILON as f32)]
    }
}

/// The mean loss of a level for inputs `[B N, D]` and a head `[D + 1, P C]`.
pub(crate) struct HeadLoss {
    targets: LevelTargets,
    saved: Mutex<Option<Saved>>,
}

struct Saved {
    predictions: Vec<f32>,
    sums: Vec<Sums>,
    weights: [Vec<f32>; 2],
    maps: Vec<Sums>,
    bands: Option<Vec<f32>>,
}

impl HeadLoss {
    pub(crate) fn new(targets: LevelTargets) -> Self {
        Self { targets, saved: Mutex::new(None) }
    }

    /// The weight of every position in the mean distance of a kind; they sum to 1.
    fn weights(&self, sums: &[Sums], kind: usize) -> Vec<f32> {
        let exists = &self.targets.exists;
        let distances: Vec<f64> = sums.iter().map(|sums| f64::from(sums.distance(kind))).collect();
        let there = |index: usize| exists[index % exists.len()];
        let count = (0..sums.len()).filter(|index| there(*index)).count().max(1) as f64;
        let mean = (0..sums.len()).filter(|index| there(*index)).map(|index| distances[index]).sum::<f64>() / count;
        let easy = f64::from(self.targets.easy_weight);
        let weight = |index: usize| match there(index) {
            true if easy < 1.0 => (distances[index] / mean.max(1e-12)).clamp(easy, 1.0),
            true => 1.0,
            false => 0.0,
        };
        let weights: Vec<f64> = (0..sums.len()).map(weight).collect();
        let total: f64 = weights.iter().sum::<f64>().max(1e-12);
        weights.into_iter().map(|weight| (weight / total) as f32).collect()
    }
}

/// The sums of all positions.
pub(crate) fn position_sums(predictions: &[f32], features: &[f32], statistics: &ChannelStatistics) -> Vec<Sums> {
    const ROWS: usize = 64;
    let channels = statistics.mean.len();
    let mut sums = vec![Sums::default(); predictions.len() / channels];
    sums.par_chunks_mut(ROWS)
        .zip(predictions.par_chunks(ROWS * channels).zip(features.par_chunks(ROWS * channels)))
        .for_each(|(sums, (z, t))| {
            vectorised(
                #[inline(always)]
                || {
                    for (sums, (z, t)) in sums.iter_mut().zip(z.chunks_exact(channels).zip(t.chunks_exact(channels))) {
                        *sums = Sums::of(z, t, statistics);
                    }
                },
            );
        });
    sums
}

impl CustomOp2 for HeadLoss {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let targets = &self.targets;
        let predictions = affine(Rows::of(x, xl)?, Rows::of(w, wl)?)?;
        let mut sums = position_sums(&predictions, &targets.features, &targets.statistics);
        let per_image = targets.exists.len();
        for (index, sums) in sums.iter_mut().enumerate() {
            if !targets.exists[index % per_image] {
                *sums = Sums::default();
            }
        }
        let maps: Vec<Sums> = sums
            .chunks(per_image)
            .map(|image| {
                let mut total = Sums::default();
                image.iter().for_each(|sums| total.add(sums));
                total
            })
            .collect();
        let weights = [self.weights(&sums, 0), self.weights(&sums, 1)];
        let mut loss = 0f64;
        for (kind, weights) in weights.iter().enumerate() {
            let mean: f64 = sums
                .iter()
                .zip(weights)
                .map(|(sums, weight)| f64::from(sums.distance(kind)) * f64::from(*weight))
                .sum();
            let of_maps = maps.iter().map(|map| f64::from(map.distance(kind))).sum::<f64>() / maps.len() as f64;
            loss += f64::from(targets.kinds[kind]) * (mean + f64::from(targets.map_loss) * of_maps);
        }
        let mut bands = None;
        if let Some(loss_of_bands) = &targets.bands {
            let (value, gradient) = loss_of_bands.value_and_gradient(&predictions, targets)?;
            loss += f64::from(value);
            bands = Some(gradient);
        }
        *super::lock(&self.saved) = Some(Saved { predictions, sums, weights, maps, bands });
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, width), (_, values)) = (x.dims2()?, w.dims2()?);
        let upstream = grad.to_scalar::<f32>()?;
        let Saved { mut predictions, sums, weights, maps, bands } = kept(&self.saved, self.name())?;
        let targets = &self.targets;
        let (statistics, per_image) = (&targets.statistics, targets.exists.len());
        let channels = statistics.mean.len();
        predictions
            .par_chunks_mut(channels)
            .zip(targets.features.par_chunks(channels))
            .zip(sums.par_iter())
            .enumerate()
            .with_min_len(64)
            .for_each(|(index, ((z, t), sums))| {
                if !targets.exists[index % per_image] {
                    z.fill(0.0);
                    return;
                }
                let map = &maps[index / per_image];
                // Along the target and along the prediction, raw and standardised.
                let mut along = [[0f32; 2]; 2];
                for kind in 0..2 {
                    let (position, whole) = (sums.slopes(kind), map.slopes(kind));
                    let of_map = targets.map_loss / maps.len() as f32;
                    for side in 0..2 {
                        let slope = weights[kind][index] * position[side] + of_map * whole[side];
                        along[kind][side] = upstream * targets.kinds[kind] * slope;
                    }
                }
                let [[raw_target, raw_own], [target, own]] = along;
                vectorised(
                    #[inline(always)]
                    || {
                        let channels = statistics.mean.iter().zip(&statistics.deviation);
                        for ((z, t), (mean, deviation)) in z.iter_mut().zip(t).zip(channels) {
                            let raw = raw_target * t + raw_own * (deviation * *z + mean);
                            *z = deviation * raw + target * ((t - mean) / deviation) + own * *z;
                        }
                    },
                );
            });
        if let (Some(loss), Some(gradient)) = (&targets.bands, bands) {
            loss.add_gradient(&mut predictions, &gradient, upstream, channels);
        }
        let predictions = CpuStorage::F32(predictions);
        let gradient = Rows::whole(&predictions, rows, values);
        let gw = with_rows(x, |x| weight_gradient(x, gradient))?;
        let gx = with_rows(w, |w| input_gradient(gradient, w))?;
        Ok((Some(tensor(gx, (rows, width))?), Some(tensor(gw, (width + 1, values))?)))
    }
}

/// The same loss in plain operations, for predictions `[B N, P C]`.
pub(crate) fn plain_loss(predictions: &Tensor, targets: &LevelTargets) -> Result<Tensor> {
    let (device, dtype) = (predictions.device(), predictions.dtype());
    let channels = targets.statistics.mean.len();
    let row = |values: &[f32]| Tensor::from_slice(values, (1, 1, channels), device)?.to_dtype(dtype);
    let (mean, deviation) = (row(&targets.statistics.mean)?, row(&targets.statistics.deviation)?);
    let positions = targets.exists.len();
    let exists: Vec<f32> = targets.exists.iter().map(|exists| f32::from(*exists)).collect();
    let exists = Tensor::from_vec(exists, (1, positions), device)?.to_dtype(dtype)?;
    let z = predictions.reshape(((), positions, channels))?;
    let t = Tensor::from_slice(&targets.features, z.shape(), device)?.to_dtype(dtype)?;
    let pairs = [
        (z.broadcast_mul(&deviation)?.broadcast_add(&mean)?, t.clone()),
        (z.clone(), t.broadcast_sub(&mean)?.broadcast_div(&deviation)?),
    ];
    let mut loss = Tensor::zeros((), dtype, device)?;
    for ((prediction, target), kind) in pairs.iter().zip(targets.kinds) {
        let sum = |a: &Tensor, b: &Tensor| a.mul(b)?.sum(2)?.broadcast_mul(&exists);
        let (cross, own, other) = (sum(prediction, target)?, sum(prediction, prediction)?, sum(target, target)?);
        let distance = |cross: &Tensor, own: &Tensor, other: &Tensor| {
            cross.div(&(own.mul(other)?.sqrt()? + EPSILON)?)?.affine(-1.0, 1.0)
        };
        // A root has no slope at zero: positions that do not exist get norms of 1.
        let absent = exists.affine(-1.0, 1.0)?;
        let distances = distance(&cross, &own.broadcast_add(&absent)?, &other.broadcast_add(&absent)?)?;
        let there = exists.broadcast_as(distances.shape())?;
        let mut weights = there.contiguous()?;
        if targets.easy_weight < 1.0 {
            let fixed = distances.detach();
            let mean = (fixed.mul(&there)?.sum_all()?.to_dtype(dtype)? / there.sum_all()?)?;
            let easy = f64::from(targets.easy_weight);
            weights = fixed.broadcast_div(&mean)?.clamp(easy, 1.0)?.mul(&there)?;
        }
        let of_positions = (distances.mul(&weights)?.sum_all()? / weights.sum_all()?)?;
        let of_maps = distance(&cross.sum(1)?, &own.sum(1)?, &other.sum(1)?)?.mean_all()?;
        let both = (of_positions + (of_maps * f64::from(targets.map_loss))?)?;
        loss = (loss + (both * f64::from(kind))?)?;
    }
    if let Some(bands) = &targets.bands {
        loss = (loss + bands.plain(&pairs[1].0, &pairs[1].1)?)?;
    }
    Ok(loss)
}
