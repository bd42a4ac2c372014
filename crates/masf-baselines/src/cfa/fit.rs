//! Learning CFA: means of the patches, centres from them, then the descriptor and the radius.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use masf_core::{Fit, Progress, PyramidSource, random_stream};
use masf_memory::{ExactSearch, PatchEmbedding, PrototypeSearch, k_means};
use rand::seq::index::sample;

use super::loss::{SquaredDistances, soft_boundary};
use super::model::{Cfa, Patches};
use super::params::CfaParams;
use crate::BaselineError;
use crate::training::{self, AdamW, FrozenLinear, Parameters, Plan, Schedule, Start, values};

/// Rounds of k-means.
const ROUNDS: usize = 20;
/// Deviation of the features of a level after scaling: about that of a torchvision network's.
const DEVIATION: f64 = 0.25;

/// Learns a [`Cfa`]; made by [`CfaParams::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct CfaFit {
    params: CfaParams,
}

impl CfaFit {
    pub(super) fn new(params: CfaParams) -> Self {
        Self { params }
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &CfaParams {
        &self.params
    }

    /// The bank: the descriptors of the mean patches, or centres of them.
    fn centres(&self, means: &Tensor, weight: &Tensor) -> masf_core::Result<(Vec<f32>, usize)> {
        let descriptors = means.matmul(&weight.detach())?;
        let (count, dimensions) = descriptors.dims2()?;
        let points = values(&descriptors)?;
        let wanted = (count / self.params.centre_divisor).max(1);
        let centres = match wanted == count {
            true => points,
            false => centres_of(&points, dimensions, wanted, self.params.seed)?,
        };
        Ok((centres, dimensions))
    }
}

/// Whether a grid has patches for as many centres as every patch is compared with.
fn check_centres(params: &CfaParams, positions: usize) -> Result<(), BaselineError> {
    let needed = params.nearest + params.negatives;
    if positions < needed {
        let expected = format!("at most the {positions} positions of the grid");
        return Err(BaselineError::parameter("nearest + negatives", needed, expected));
    }
    let wanted = positions / params.centre_divisor;
    if wanted < needed {
        let expected = format!("a bank of {needed} centres or more; {positions} positions give {wanted}");
        return Err(BaselineError::parameter("centre_divisor", params.centre_divisor, expected));
    }
    Ok(())
}

/// The patches, and their means over all images `[positions, dimensions of a patch]`.
fn learn_means(
    params: &CfaParams,
    source: &dyn PyramidSource,
    progress: &dyn Progress,
) -> masf_core::Result<(Patches, Tensor)> {
    let levels = training::levels_of(source, &params.levels)?;
    let grid = training::grid(levels.first());
    check_centres(params, grid.0 * grid.1)?;
    let embedding = PatchEmbedding::new(levels.iter().map(|level| level.0).collect(), params.neighbourhood)?;
    let scales = vec![1.0; embedding.levels().len()];
    let mut patches = Patches { embedding, grid, scales };
    let (positions, dimensions) = (patches.positions(), patches.dimensions());
    let mut sums = vec![0f64; positions * dimensions];
    let mut squares = vec![0f64; dimensions];
    training::each_batch(source, "mean patches", progress, |pyramid| {
        for image in patches.rows(pyramid)?.chunks_exact(positions * dimensions) {
            for (sums, row) in sums.chunks_exact_mut(dimensions).zip(image.chunks_exact(dimensions)) {
                for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(row) {
                    *sum += f64::from(*value);
                    *square += f64::from(*value) * f64::from(*value);
                }
            }
        }
        Ok(())
    })?;
    let mut channel = 0;
    for (level, scale) in patches.embedding.levels().iter().zip(&mut patches.scales) {
        let count = (source.len() * positions) as f64;
        let variance = |channel: usize| {
            let mean = sums.iter().skip(channel).step_by(dimensions).sum::<f64>() / count;
            masf_core::variance(squares[channel] / count, mean * mean)
        };
        let deviation = ((channel..channel + level.channels).map(variance).sum::<f64>() / level.channels as f64).sqrt();
        // A level without any spread is left as it is.
        *scale = if deviation > 1e-12 { (DEVIATION / deviation) as f32 } else { 1.0 };
        channel += level.channels;
    }
    let mut means: Vec<f32> = sums.into_iter().map(|sum| (sum / source.len() as f64) as f32).collect();
    for (position, row) in means.chunks_exact_mut(dimensions).enumerate() {
        patches.complete(row, position);
    }
    Ok((patches, Tensor::from_vec(means, (positions, dimensions), &Device::Cpu)?))
}

/// Centres of points, from a random start.
fn centres_of(points: &[f32], dimensions: usize, count: usize, seed: u64) -> masf_core::Result<Vec<f32>> {
    let mut random = random_stream(seed, "cfa.centres");
    let chosen = sample(&mut random, points.len() / dimensions, count);
    let start = chosen.iter().flat_map(|index| &points[index * dimensions..][..dimensions]).copied().collect();
    Ok(k_means(points, dimensions, start, ROUNDS)?.prototypes().to_vec())
}

impl Fit for CfaFit {
    type Scorer = Cfa;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<Cfa> {
        let params = &self.params;
        let (patches, means) = learn_means(params, source, progress)?;
        let inputs = patches.dimensions();
        let channels = (patches.embedding.dimensions() / params.channel_divisor).max(1);
        let mut parameters = Parameters::random(params.seed, "cfa");
        // As PyTorch starts a convolution.
        let limit = 1.0 / (inputs as f64).sqrt();
        let weight = parameters.take("weight", &[inputs, channels], Start::Uniform(limit))?;
        let radius = parameters.take("radius", &[1], Start::Constant(params.radius as f32))?;
        let (centres, dimensions) = self.centres(&means, &weight)?;
        let bank = ExactSearch::new(centres.clone(), dimensions)?;
        let centres = Arc::new(centres);

        let steps = training::steps(source.len(), params.epochs, params.passes, params.batch_size);
        let (seed, batch_size) = (params.seed, params.batch_size);
        let plan = Plan { method: "cfa", seed, steps, batch_size, schedule: Schedule::Constant };
        let adam = AdamW {
            rate: params.learning_rate,
            betas: (0.9, 0.999),
            weight_decay: params.weight_decay,
            amsgrad: true,
            clip: None,
        };
        let count = params.nearest + params.negatives;
        training::train(&plan, source, &parameters, &adam, progress, |_, pyramid, _| {
            let rows = patches.rows(pyramid)?;
            let rows = Tensor::from_vec(rows, (pyramid.batch_size() * patches.positions(), inputs), &Device::Cpu)?;
            let descriptors = FrozenLinear::apply(&rows, &weight)?;
            let chosen = bank.nearest(&values(&descriptors)?, count)?.indices;
            let distances = descriptors.apply_op1(SquaredDistances { centres: centres.clone(), chosen, count })?;
            Ok(soft_boundary(&distances, &radius, params.nearest, params.margin, params.penalty)?)
        })?;
        let weight = weight.copy()?.detach();
        Ok(Cfa::new(params.clone(), patches, weight, bank))
    }

    fn is_expensive(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_means_finds_the_clusters() {
        // Three clusters on a line.
        let points: Vec<f32> = (0..30).map(|index| (index % 3) as f32 * 10.0 + (index / 3) as f32 * 0.1).collect();
        let mut centres = (0..20)
            .map(|seed| centres_of(&points, 1, 3, seed).unwrap())
            .map(|mut centres| {
                centres.sort_unstable_by(f32::total_cmp);
                centres
            })
            .filter(|centres| centres.iter().zip([0.45, 10.45, 20.45]).all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(centres.next().is_some(), "no random start finds them");
    }
}
