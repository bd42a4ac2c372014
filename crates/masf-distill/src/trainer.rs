//! One training: variables, optimiser, and the steps.
//!
//! Everything random is drawn from a stream of the seed and the step (or epoch), so that a training has no hidden state beside weights,
//! moments and the number of the step: what a checkpoint holds.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use masf_core::training::{AdamStep, Moments, ShuffledEpochs, clip_factor, gradient_norm};
use masf_core::{PyramidSource, random_stream};
use rand::Rng;

use crate::bands::{BandLoss, Bands, CHANNELS};
use crate::features::{Batch, ChannelStatistics};
use crate::grid::Grid;
use crate::mask::{dropout, frequency_mask, token_mask};
use crate::network::{Masks, Network, parameters};
use crate::ops::{self, LevelTargets, Mode};
use crate::schedule::one_cycle;
use crate::{DistillError, Result, StudentParams, Targets};

/// Decays of the mean of gradients and of the mean of their squares.
const BETAS: (f64, f64) = (0.9, 0.99);
/// The share of steps before easy positions lose weight.
const WARM_UP: f64 = 0.1;

/// A training in progress.
pub(crate) struct Trainer<'a> {
    pub(crate) params: StudentParams,
    source: &'a dyn PyramidSource,
    pub(crate) grid: Grid,
    pub(crate) statistics: Vec<Arc<ChannelStatistics>>,
    exists: Vec<Arc<Vec<bool>>>,
    bands: Vec<Bands>,
    pub(crate) state: State,
    network: Network,
    pub(crate) steps: usize,
    order: ShuffledEpochs,
}

/// What a checkpoint holds.
pub(crate) struct State {
    pub(crate) variables: Vec<Var>,
    pub(crate) moments: Vec<Moments>,
    /// The moving average of the weights.
    pub(crate) average: Option<Vec<Vec<f32>>>,
    /// Steps done.
    pub(crate) step: usize,
}

impl<'a> Trainer<'a> {
    /// A training at its start.
    pub(crate) fn new(
        params: StudentParams,
        source: &'a dyn PyramidSource,
        grid: Grid,
        statistics: Vec<Arc<ChannelStatistics>>,
    ) -> Result<Self> {
        let mut variables = Vec::new();
        for spec in parameters(&params, &grid) {
            variables.push(Var::from_tensor(&spec.initial(&grid, params.seed)?)?);
        }
        let moments = variables.iter().map(|variable| Moments::zero(variable.elem_count(), false)).collect();
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let network = Network::new(&params, &grid, &tensors)?;
        let average = match params.average_decay > 0.0 {
            true => Some(values(&variables)?),
            false => None,
        };
        let there = |level| Arc::new(grid.positions(level).iter().map(Option::is_some).collect());
        Ok(Self {
            exists: grid.levels.iter().map(there).collect(),
            bands: grid.levels.iter().map(|level| Bands::new(&grid, level)).collect::<Result<_>>()?,
            statistics,
            steps: params.steps(source.len()),
            state: State { variables, moments, average, step: 0 },
            order: ShuffledEpochs::new(params.seed, "distill", source.len(), params.batch_size),
            params,
            source,
            grid,
            network,
        })
    }

    /// What the body gives for tokens, without a gradient.
    pub(crate) fn body(&self, tokens: &Tensor, masks: Masks) -> Result<Tensor> {
        self.network.body(&self.network.embed(tokens)?, Some(masks), Mode::Inference)
    }

    fn index_of(&self, name: &str) -> Result<usize> {
        let index = parameters(&self.params, &self.grid).iter().position(|spec| spec.name == name);
        Ok(index.ok_or_else(|| candle_core::Error::Msg(format!("there is no parameter {name}")))?)
    }

    /// The value of a parameter.
    pub(crate) fn value(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.state.variables[self.index_of(name)?].flatten_all()?.to_vec1::<f32>()?)
    }

    /// Sets the first value of a parameter.
    pub(crate) fn set(&mut self, name: &str, values: Vec<f32>) -> Result<()> {
        let index = self.index_of(name)?;
        let variable = &self.state.variables[index];
        if let Some(average) = &mut self.state.average {
            average[index].clone_from(&values);
        }
        Ok(variable.set(&Tensor::from_vec(values, variable.shape(), &Device::Cpu)?)?)
    }

    /// Images to learn from.
    pub(crate) fn image_count(&self) -> usize {
        self.source.len()
    }

    /// Whole passes over the images so far.
    pub(crate) fn epoch(&self) -> usize {
        self.state.step * self.params.batch_size / self.source.len().max(1)
    }

    /// Passes over the images in all.
    pub(crate) fn epochs(&self) -> usize {
        (self.steps * self.params.batch_size).div_ceil(self.source.len().max(1))
    }

    /// One step; returns the loss, the mean of the levels.
    pub(crate) fn step(&mut self) -> Result<f32> {
        let step = self.state.step;
        let images = self.order.batch(step);
        let batch = Batch::new(&self.source.batch(&images)?, &self.grid, &self.statistics)?;
        let mut random = random_stream(self.params.seed, &format!("distill.step.{step}"));
        let masks = self.masks(batch.images, &mut random);
        let x = self.network.body(&self.network.embed(&batch.tokens)?, Some(masks), Mode::Training)?;
        let mut total: Option<Tensor> = None;
        for (index, features) in batch.targets.into_iter().enumerate() {
            let targets = self.targets(index, features, &mut random);
            let loss = ops::head_loss(&x, &self.network.levels[index], targets)?;
            total = Some(match total {
                Some(total) => (total + loss)?,
                None => loss,
            });
        }
        let Some(total) = total else { return Err(DistillError::NoImages) };
        let loss = (total / self.grid.levels.len() as f64)?;
        let gradients = loss.backward()?;
        let norm = gradient_norm(&gradients, &self.state.variables)?;
        let loss = loss.to_scalar::<f32>()?;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(DistillError::Diverged { loss, norm, step, steps: self.steps });
        }
        let adam = AdamStep {
            rate: one_cycle(step, self.steps, self.params.learning_rate),
            betas: BETAS,
            weight_decay: self.params.weight_decay,
            scale: clip_factor(norm, self.params.clip_norm),
            count: step + 1,
        };
        for (variable, moments) in self.state.variables.iter().zip(&mut self.state.moments) {
            // Without a gradient (the mask token, if nothing is masked) there is nothing to do.
            if let Some(gradient) = gradients.get(variable) {
                adam.apply(variable, gradient, moments)?;
            }
        }
        self.average()?;
        self.state.step += 1;
        Ok(loss)
    }

    /// What a step with so many images hides.
    pub(crate) fn masks(&self, images: usize, random: &mut impl Rng) -> Masks {
        let (params, tokens) = (&self.params, self.grid.tokens());
        let strength = mask_strength(self.state.step, self.steps, params.mask_fade);
        let masked = token_mask(images, tokens, strength * params.token_mask, random);
        let frequencies = frequency_mask(images, &self.grid, strength * params.frequency_mask, random).map(Arc::new);
        let share = params.dropout.unwrap_or(0.0);
        let mut factors = |width: usize| Arc::new(dropout(images * tokens * width, share, random));
        let dropout = (share > 0.0).then(|| [factors(params.width), factors(params.bottleneck)]);
        Masks { tokens: masked, frequencies, dropout }
    }

    fn targets(&self, index: usize, features: Vec<f32>, random: &mut impl Rng) -> LevelTargets {
        let params = &self.params;
        let channels = self.grid.levels[index].spec.channels;
        let count = CHANNELS.min(channels);
        let first = random.random_range(0..=(channels - count) as u64) as usize;
        let bands = (params.band_loss > 0.0).then(|| BandLoss {
            bands: self.bands[index].clone(),
            weight: params.band_loss as f32,
            first,
            count,
        });
        let warm = self.state.step as f64 >= WARM_UP * self.steps as f64;
        LevelTargets {
            features,
            exists: self.exists[index].clone(),
            statistics: self.statistics[index].clone(),
            kinds: match params.targets {
                Targets::Raw => [1.0, 0.0],
                Targets::Standardised => [0.0, 1.0],
                Targets::Both => [0.5, 0.5],
            },
            map_loss: params.map_loss as f32,
            easy_weight: if warm { params.easy_weight as f32 } else { 1.0 },
            bands,
        }
    }

    /// Moves the average of the weights towards them; its decay rises to the one wanted.
    fn average(&mut self) -> Result<()> {
        let Some(average) = &mut self.state.average else { return Ok(()) };
        let step = self.state.step as f64;
        let new = (1.0 - self.params.average_decay.min((1.0 + step) / (10.0 + step))) as f32;
        for (average, variable) in average.iter_mut().zip(&self.state.variables) {
            ops::with_slice(variable.as_tensor(), |values| {
                ops::zip_with(
                    average,
                    values,
                    #[inline(always)]
                    |average, value| average + new * (value - average),
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The weights of the student: the average if there is one.
    pub(crate) fn result(&self) -> Result<Vec<Tensor>> {
        let weights = match &self.state.average {
            Some(average) => average.clone(),
            None => values(&self.state.variables)?,
        };
        let shaped = weights.into_iter().zip(&self.state.variables);
        Ok(shaped
            .map(|(values, variable)| Tensor::from_vec(values, variable.shape(), &Device::Cpu))
            .collect::<Result<_, _>>()?)
    }
}

/// The share of both masks that is left at a step: all of it until the last `fade` of the training, then less and less.
fn mask_strength(step: usize, steps: usize, fade: f64) -> f64 {
    let left = steps.saturating_sub(step) as f64 / steps.max(1) as f64;
    if left < fade { left / fade } else { 1.0 }
}

/// The values of variables.
pub(crate) fn values(variables: &[Var]) -> Result<Vec<Vec<f32>>> {
    Ok(variables.iter().map(|variable| variable.flatten_all()?.to_vec1::<f32>()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_fade_over_the_stated_share_of_the_training() {
        let strengths = |fade| [0, 25, 50, 75, 99].map(|step| mask_strength(step, 100, fade));
        assert_eq!(strengths(0.0), [1.0; 5]);
        assert_eq!(strengths(0.5), [1.0, 1.0, 1.0, 0.5, 0.02]);
        assert_eq!(strengths(1.0), [1.0, 0.75, 0.5, 0.25, 0.01]);
        assert_eq!(mask_strength(0, 0, 1.0), 0.0);
    }
}
